//! The directives of OpenResty's headers-more module: fields of responses and requests set and cleared at will.
//!
//! As there, responses are changed before Lua's header filter and `add_header`, whatever their status, and requests
//! at the end of the rewrite phase, ahead of Lua's code. The rules of an enclosing block run first.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use terrace_base::log::Level;
use terrace_conf::{Arg, Arity, ConfError, Directive, Node};
use terrace_http::conf::table::{HSLI, simple};
use terrace_http::headers_out::{Field, clean};
use terrace_http::{
    Builder, Handler, HeaderFilter, LocationBuilder, Merge, MergeContext, Module, Outcome, Phase, Request,
    Step, Value,
};
use terrace_http1::KnownHeader;

/// The module.
pub struct HeadersMore;

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    simple("more_set_headers", HSLI, Arity::AtLeast(1), "", "Sets fields of responses, for certain statuses (-s) and types (-t).", |b, n| add(b, n, Form::SET)),
    simple("more_clear_headers", HSLI, Arity::AtLeast(1), "", "Removes fields of responses, for certain statuses (-s) and types (-t).", |b, n| add(b, n, Form::CLEAR)),
    simple("more_set_input_headers", HSLI, Arity::AtLeast(1), "", "Sets fields of requests, for certain types (-t).", |b, n| add(b, n, Form::SET_INPUT)),
    simple("more_clear_input_headers", HSLI, Arity::AtLeast(1), "", "Removes fields of requests, for certain types (-t).", |b, n| add(b, n, Form::CLEAR_INPUT)),
];

impl Module for HeadersMore {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        let rules = location.settings.of::<Rules>();
        let (output, input) = (rules.output.clone(), rules.input.clone());
        if !output.is_empty() {
            location.add_header_filter(Output(output));
        }
        if !input.is_empty() {
            location.add(Phase::Rewrite, Input(input));
        }
        Ok(())
    }
}

/// The rules of a block, those of the enclosing ones first.
#[derive(Default)]
struct Rules {
    output: Vec<Arc<Rule>>,
    input: Vec<Arc<Rule>>,
}

impl Merge for Rules {
    fn merge(&mut self, parent: &Self, _: MergeContext) {
        self.output.splice(0..0, parent.output.iter().cloned());
        self.input.splice(0..0, parent.input.iter().cloned());
    }
}

/// One directive.
#[derive(Default)]
struct Rule {
    /// The statuses it is for; none: all.
    statuses: Vec<u16>,
    /// The media types it is for, without parameters; none: all.
    types: Vec<Bytes>,
    changes: Vec<Change>,
    /// `-a`: the new field joins those of its name.
    appends: bool,
    /// `-r`: only a field that is there is set.
    replaces: bool,
}

/// What becomes of a field.
struct Change {
    /// Without the `*`, where `is_prefix`.
    name: Bytes,
    is_prefix: bool,
    /// Empty removes it.
    value: Value,
    target: Target,
}

/// Fields of a response that the server keeps apart from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    ContentType,
    ContentLength,
    LastModified,
    AcceptRanges,
    /// One that the server adds by itself.
    Added(KnownHeader),
    /// Of which a response has one at the most.
    Single,
    Other,
}

impl Target {
    fn of(name: &[u8]) -> Target {
        match KnownHeader::from_name(name) {
            Some(KnownHeader::ContentType) => Target::ContentType,
            Some(KnownHeader::ContentLength) => Target::ContentLength,
            Some(KnownHeader::LastModified) => Target::LastModified,
            Some(KnownHeader::AcceptRanges) => Target::AcceptRanges,
            Some(id @ (KnownHeader::Server | KnownHeader::Date)) => Target::Added(id),
            _ if SINGLE.iter().any(|single| name.eq_ignore_ascii_case(single)) => Target::Single,
            _ => Target::Other,
        }
    }
}

const SINGLE: &[&[u8]] = &[
    b"Content-Encoding",
    b"Location",
    b"Refresh",
    b"Content-Range",
    b"WWW-Authenticate",
    b"Expires",
    b"E-Tag",
    b"Cache-Control",
];

/// Which of the directives it is.
#[derive(Clone, Copy)]
struct Form {
    is_input: bool,
    clears: bool,
}

impl Form {
    const SET: Form = Form { is_input: false, clears: false };
    const CLEAR: Form = Form { is_input: false, clears: true };
    const SET_INPUT: Form = Form { is_input: true, clears: false };
    const CLEAR_INPUT: Form = Form { is_input: true, clears: true };
}

fn add(b: &mut Builder, node: &Node, form: Form) -> Result<(), ConfError> {
    let mut rule = Rule::default();
    let mut args = node.args.iter();
    while let Some(arg) = args.next() {
        let mut list = || {
            let missing = || node.error(format!("{}: option {arg} takes an argument.", node.name));
            args.next().map(words).ok_or_else(missing)
        };
        match (&arg.value[..], form.is_input) {
            (b"-t", _) => rule.types.extend(list()?.map(Bytes::copy_from_slice)),
            (b"-s", false) => {
                for word in list()? {
                    let status = terrace_base::units::parse_number(word).and_then(|n| u16::try_from(n).ok());
                    let word = String::from_utf8_lossy(word);
                    let invalid = || node.error(format!("{}: invalid digit in \"{word}\"", node.name));
                    rule.statuses.push(status.ok_or_else(invalid)?);
                }
            }
            (b"-a", false) if !form.clears => rule.appends = true,
            (b"-r", true) => rule.replaces = true,
            ([b'-', ..], _) => {
                return Err(node.error(format!("{}: invalid option name: \"{arg}\"", node.name)));
            }
            ([], _) => {}
            _ => rule.changes.push(change(b, node, arg, form)?),
        }
    }
    if rule.appends
        && let Some(one) = rule.changes.iter().find(|c| c.target != Target::Other)
    {
        let name = String::from_utf8_lossy(&one.name);
        return Err(node.error(format!("{}: can not append builtin headers \"{name}\"", node.name)));
    }
    let rules = b.conf::<Rules>();
    if form.is_input { &mut rules.input } else { &mut rules.output }.push(Arc::new(rule));
    Ok(())
}

/// `Name`, `Name:` or `Name: value`.
fn change(b: &mut Builder, node: &Node, arg: &Arg, form: Form) -> Result<Change, ConfError> {
    let text = arg.value.slice(arg.value.iter().take_while(|c| c.is_ascii_whitespace()).count()..);
    let is_end = |c: &u8| *c == b':' || c.is_ascii_whitespace();
    let end = text.iter().position(is_end).unwrap_or(text.len());
    let mut name = text.slice(..end);
    if name.is_empty() {
        return Err(node.error(format!("{}: no key found in the header argument: {arg}", node.name)));
    }
    let is_prefix = name.ends_with(b"*");
    if is_prefix {
        name.truncate(name.len() - 1);
        if name.is_empty() {
            return Err(node.error(format!("{}: wildcard key too short: {arg}", node.name)));
        }
    }
    let start = text[end..].iter().position(|c| !is_end(c)).map_or(text.len(), |at| end + at);
    let value = match form.clears {
        true => Value::default(),
        false => {
            Value::compile(b, &Arg { value: text.slice(start..), quoted: arg.quoted, at: arg.at.clone() })?
        }
    };
    let target = if is_prefix { Target::Other } else { Target::of(&name) };
    Ok(Change { name, is_prefix, value, target })
}

/// The words of an option's list.
fn words(arg: &Arg) -> impl Iterator<Item = &[u8]> {
    arg.value.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty())
}

impl Change {
    fn is_for(&self, name: &[u8]) -> bool {
        match self.is_prefix {
            true => name.get(..self.name.len()).is_some_and(|start| start.eq_ignore_ascii_case(&self.name)),
            false => name.eq_ignore_ascii_case(&self.name),
        }
    }
}

/// The type of a body without its parameters.
fn essence(content_type: &[u8]) -> &[u8] {
    let end = memchr::memchr(b';', content_type).unwrap_or(content_type.len());
    content_type[..end].trim_ascii_end()
}

struct Output(Vec<Arc<Rule>>);

impl HeaderFilter for Output {
    fn filter(&self, r: &Rc<Request>) -> Step<()> {
        for rule in self.0.iter().filter(|rule| rule.is_for_response(r)) {
            for change in &rule.changes {
                change.change_response(r, rule.appends);
            }
        }
        Step::Ready(())
    }

    fn may_wait(&self) -> bool {
        false
    }
}

impl Rule {
    fn is_for_response(&self, r: &Request) -> bool {
        let h = &r.headers_out;
        let fits_type = || {
            let content_type = h.content_type.borrow();
            let content_type = content_type.as_deref().map_or(&[][..], essence);
            self.types.iter().any(|t| t == content_type)
        };
        (self.statuses.is_empty() || self.statuses.contains(&h.status.get()))
            && (self.types.is_empty() || fits_type())
    }

    fn is_for_request(&self, r: &Request) -> bool {
        let fits = |content_type: &[u8]| self.types.iter().any(|t| t == content_type);
        self.types.is_empty() || r.headers_in.with(KnownHeader::ContentType, fits).unwrap_or(false)
    }
}

impl Change {
    fn change_response(&self, r: &Request, appends: bool) {
        let h = &r.headers_out;
        let value = clean(self.value.eval_bytes(r));
        match self.target {
            Target::ContentType => {
                // An empty type keeps the default from coming back.
                h.content_type.replace(Some(value));
            }
            Target::ContentLength => match terrace_base::units::parse_number(&value) {
                Some(len) => h.content_length.set(Some(len)),
                None if value.is_empty() => h.content_length.set(None),
                None => {
                    let value = String::from_utf8_lossy(&value);
                    r.log(Level::Error, format_args!("invalid Content-Length \"{value}\" is not set"));
                }
            },
            Target::LastModified => {
                h.last_modified.set(None);
                self.put(r, value);
            }
            Target::AcceptRanges => {
                if value.is_empty() {
                    h.allow_ranges.set(false);
                }
                self.put(r, value);
            }
            Target::Added(id) => {
                if value.is_empty() {
                    h.omit(id);
                }
                self.put(r, value);
            }
            Target::Other if appends && !value.is_empty() => h.add(self.name.clone(), value),
            Target::Other if appends => {}
            Target::Single | Target::Other => self.put(r, value),
        }
    }

    /// Sets the first field that it is for and removes the others.
    fn put(&self, r: &Request, value: Bytes) {
        r.headers_out.edit(|fields| {
            let first = fields.iter().position(|f| self.is_for(&f.name)).filter(|_| !value.is_empty());
            let mut at = 0;
            fields.retain(|f| {
                at += 1;
                first == Some(at - 1) || !self.is_for(&f.name)
            });
            if let Some(field) = first.and_then(|at| fields.get_mut(at)) {
                let name = if self.is_prefix { field.name.clone() } else { self.name.clone() };
                *field = Field::new(name, value);
            } else if !value.is_empty() && !self.is_prefix {
                fields.push(Field::new(self.name.clone(), value));
            }
        });
    }
}

struct Input(Vec<Arc<Rule>>);

impl Handler for Input {
    fn handle(&self, r: &Rc<Request>) -> Step {
        for rule in self.0.iter().filter(|rule| rule.is_for_request(r)) {
            for change in &rule.changes {
                change.change_request(r, rule.replaces);
            }
        }
        Step::Ready(Outcome::Declined)
    }
}

impl Change {
    fn change_request(&self, r: &Request, replaces: bool) {
        let value = clean(self.value.eval_bytes(r));
        let mut there = Vec::new();
        r.headers_in.for_each(|name, _, _| {
            if self.is_for(name) {
                there.push(name.to_vec());
            }
        });
        if there.is_empty() && (replaces || self.is_prefix) {
            return;
        }
        if self.is_prefix {
            for name in there {
                set_request_field(r, &name, &value);
            }
        } else {
            set_request_field(r, &self.name, &value);
        }
    }
}

fn set_request_field(r: &Request, name: &[u8], value: &[u8]) {
    if value.is_empty() {
        r.headers_in.remove(name);
    } else {
        r.headers_in.set(name, value);
    }
    if name.eq_ignore_ascii_case(b"Host") {
        r.set_host(value);
    }
    if name.eq_ignore_ascii_case(b"Connection") && value.to_ascii_lowercase().starts_with(b"close") {
        r.keep_alive.set(false);
    }
}
