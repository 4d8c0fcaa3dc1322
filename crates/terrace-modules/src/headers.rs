//! `add_header` and `expires`: fields that the configuration adds to responses.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use terrace_base::{clock, http_date, units};
use terrace_conf::{Arg, Arity, ConfError, Directive, Node};
use terrace_http::conf::table::{HSLI, simple};
use terrace_http::{
    Builder, HeaderFilter, LocationBuilder, Merge, MergeContext, Module, Request, Step, Value,
};
use terrace_http1::KnownHeader;

use crate::not_modified::last_modified;

/// The module.
pub struct Headers;

impl Module for Headers {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        let conf = location.settings.of::<Conf>();
        let expires = conf.expires.clone().filter(|e| !matches!(e.when, When::Fixed(Expiry::Off)));
        if !conf.fields.is_empty() || expires.is_some() {
            let fields = Arc::clone(&conf.fields);
            location.add_header_filter(Add { fields, expires });
        }
        Ok(())
    }
}

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    simple("add_header", HSLI, Arity::Between(2, 3), "", "Adds a field to responses.", add_header),
    simple("expires", HSLI, Arity::Between(1, 2), "off", "Sets Expires and Cache-Control.", expires),
];

/// What a block configures. The fields of a block without any are those of the enclosing one.
#[derive(Debug, Default)]
struct Conf {
    fields: Arc<Vec<Added>>,
    expires: Option<Expires>,
}

impl Merge for Conf {
    fn merge(&mut self, parent: &Self, _: MergeContext) {
        if self.fields.is_empty() {
            self.fields = Arc::clone(&parent.fields);
        }
        if self.expires.is_none() {
            self.expires.clone_from(&parent.expires);
        }
    }
}

/// One `add_header`.
#[derive(Debug, Clone)]
struct Added {
    name: Bytes,
    kind: Kind,
    value: Value,
    always: bool,
}

/// How a field goes with one that is there already.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Both stay.
    Append,
    /// The new one takes its place; an empty one only removes it.
    Replace,
    /// As `Replace`, and the response's time of last change is the new one's.
    LastModified,
}

fn add_header(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let name = node.bytes(0)?.clone();
    let kind = match KnownHeader::from_name(&name) {
        Some(KnownHeader::LastModified) => Kind::LastModified,
        Some(KnownHeader::ETag) => Kind::Replace,
        _ => Kind::Append,
    };
    let value = Value::compile(b, node.arg(1)?)?;
    let always = match node.args.get(2) {
        None => false,
        Some(arg) if &arg.value[..] == b"always" => true,
        Some(arg) => return Err(node.invalid_parameter(arg)),
    };
    Arc::make_mut(&mut b.conf::<Conf>().fields).push(Added { name, kind, value, always });
    Ok(())
}

/// The `expires` directive.
#[derive(Debug, Clone)]
struct Expires {
    /// Whether times count from the response's last change.
    modified: bool,
    when: When,
}

#[derive(Debug, Clone)]
enum When {
    Fixed(Expiry),
    /// Decided by variables, for each response.
    Computed(Value),
}

/// When a response expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiry {
    Off,
    Epoch,
    Max,
    /// At this second of the (local) day.
    Daily(u64),
    /// This many seconds from now or from the last change.
    After(i64),
}

/// The length of a day, seconds.
const DAY_SECS: u64 = 24 * 60 * 60;

fn expires(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let modified = node.args.len() == 2;
    if modified && &node.bytes(0)?[..] != b"modified" {
        return Err(node.directive_error("invalid value"));
    }
    let arg: &Arg = node.arg(usize::from(modified))?;
    let value = Value::compile(b, arg)?;
    let when = match value.as_literal() {
        None => When::Computed(value),
        Some(text) => When::Fixed(parse_expiry(text, modified).map_err(|e| node.directive_error(e))?),
    };
    node.set_once(&mut b.conf::<Conf>().expires, Expires { modified, when })
}

fn parse_expiry(text: &[u8], modified: bool) -> Result<Expiry, &'static str> {
    if !modified {
        match text {
            b"epoch" => return Ok(Expiry::Epoch),
            b"max" => return Ok(Expiry::Max),
            b"off" => return Ok(Expiry::Off),
            _ => {}
        }
    }
    let (sign, digits) = match text {
        [s @ (b'@' | b'+' | b'-'), rest @ ..] => (*s, rest),
        all => (b'+', all),
    };
    if sign == b'@' && modified {
        return Err("daily time cannot be used with \"modified\" parameter");
    }
    let secs = units::parse_time_secs(digits).ok_or("invalid value")?;
    match sign {
        b'@' if secs > DAY_SECS => Err("daily time value must be less than 24 hours"),
        b'@' => Ok(Expiry::Daily(secs)),
        b'-' => Ok(Expiry::After(-(secs as i64))),
        _ => Ok(Expiry::After(secs as i64)),
    }
}

struct Add {
    fields: Arc<Vec<Added>>,
    expires: Option<Expires>,
}

impl HeaderFilter for Add {
    fn filter(&self, r: &Rc<Request>) -> Step<()> {
        if r.is_subrequest() {
            return Step::Ready(());
        }
        let status = r.headers_out.status.get();
        let is_safe = matches!(status, 200 | 201 | 204 | 206 | 301 | 302 | 303 | 304 | 307 | 308);
        if let Some(e) = self.expires.as_ref().filter(|_| is_safe) {
            e.set(r);
        }
        for field in self.fields.iter().filter(|f| is_safe || f.always) {
            field.add(r);
        }
        Step::Ready(())
    }

    fn may_wait(&self) -> bool {
        false
    }
}

impl Added {
    fn add(&self, r: &Request) {
        let h = &r.headers_out;
        let value = self.value.eval_bytes(r);
        if let Kind::LastModified = self.kind {
            // The field is sent as it was written.
            h.last_modified.set(None);
        }
        match self.kind {
            Kind::Append if value.is_empty() => {}
            Kind::Append => h.add(self.name.clone(), value),
            Kind::Replace | Kind::LastModified if value.is_empty() => h.remove(&self.name),
            Kind::Replace | Kind::LastModified => h.set(self.name.clone(), value),
        }
    }
}

impl Expires {
    fn set(&self, r: &Request) {
        let expiry = match &self.when {
            When::Fixed(e) => *e,
            // A value that is no time sets nothing.
            When::Computed(v) => parse_expiry(&v.eval_bytes(r), self.modified).unwrap_or(Expiry::Off),
        };
        let now = clock::now_secs() as i64;
        let modified = last_modified(r).filter(|_| self.modified);
        let (at, age) = match expiry {
            Expiry::Off => return,
            Expiry::Epoch => {
                return put(r, Bytes::from_static(b"Thu, 01 Jan 1970 00:00:01 GMT"), no_cache());
            }
            Expiry::Max => {
                let ten_years = Bytes::from_static(b"max-age=315360000");
                return put(r, Bytes::from_static(b"Thu, 31 Dec 2037 23:55:55 GMT"), ten_years);
            }
            Expiry::Daily(second) => {
                let at = next_daily(now, second as i64, seconds_of_day());
                (at, at - now)
            }
            Expiry::After(secs) => match modified {
                Some(m) => ((m as i64).saturating_add(secs), (m as i64).saturating_add(secs) - now),
                None => (now.saturating_add(secs), secs),
            },
        };
        let date = Bytes::copy_from_slice(&http_date::format(at.max(0) as u64));
        let is_past = age < 0 || matches!(expiry, Expiry::After(..0));
        put(r, date, if is_past { no_cache() } else { format!("max-age={age}").into() });
    }
}

fn no_cache() -> Bytes {
    Bytes::from_static(b"no-cache")
}

fn put(r: &Request, expires: Bytes, cache_control: Bytes) {
    let h = &r.headers_out;
    h.set(Bytes::from_static(KnownHeader::Expires.name().as_bytes()), expires);
    h.set(Bytes::from_static(KnownHeader::CacheControl.name().as_bytes()), cache_control);
}

/// The second of the local day.
fn seconds_of_day() -> i64 {
    let time = clock::iso8601();
    let two = |at: usize| i64::from(time[at] - b'0') * 10 + i64::from(time[at + 1] - b'0');
    two(11) * 3600 + two(14) * 60 + two(17)
}

/// The next time, after `now`, at which the local day's second is `second`; it is `today` now.
fn next_daily(now: i64, second: i64, today: i64) -> i64 {
    let at = now - today + second;
    if at > now { at } else { at + DAY_SECS as i64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, modified, expected) in [
            ("epoch", false, Ok(Expiry::Epoch)),
            ("max", false, Ok(Expiry::Max)),
            ("off", false, Ok(Expiry::Off)),
            ("max", true, Err("invalid value")),
            ("30d", false, Ok(Expiry::After(2_592_000))),
            ("+1h", true, Ok(Expiry::After(3600))),
            ("-1", false, Ok(Expiry::After(-1))),
            ("@15h30m", false, Ok(Expiry::Daily(55_800))),
            ("@25h", false, Err("daily time value must be less than 24 hours")),
            ("@1h", true, Err("daily time cannot be used with \"modified\" parameter")),
            ("soon", false, Err("invalid value")),
            ("", false, Err("invalid value")),
        ] {
            assert_eq!(parse_expiry(text.as_bytes(), modified), expected, "{text}");
        }
    }

    #[test]
    fn the_next_daily_time_is_always_ahead() {
        for (second, expected) in [(100, 1_000_100 - 50), (50, 1_000_000 + 86_400), (20, 999_970 + 86_400)] {
            assert_eq!(next_daily(1_000_000, second, 50), expected);
        }
    }
}
