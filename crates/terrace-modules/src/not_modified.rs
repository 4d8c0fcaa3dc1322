//! Conditional requests: 304 and 412 for `If-Modified-Since`, `If-Unmodified-Since`, `If-None-Match` and `If-Match`.
//!
//! The rules and their order are nginx's: the two that may fail come first, and of the two that may say "not
//! modified" each one that is sent must agree.

use std::rc::Rc;

use terrace_base::http_date;
use terrace_conf::ConfError;
use terrace_http::core::location_conf::IfModifiedSince;
use terrace_http::{Builder, HeaderFilter, LocationBuilder, Module, Request, Step};
use terrace_http1::{KnownHeader, NameSet};

/// The module.
pub struct NotModified;

impl Module for NotModified {
    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        location.add_header_filter(Filter);
        Ok(())
    }
}

struct Filter;

impl HeaderFilter for Filter {
    fn filter(&self, r: &Rc<Request>) -> Step<()> {
        let h = &r.headers_out;
        match check(r) {
            Verdict::Send => {}
            Verdict::NotModified => {
                h.status.set(304);
                h.status_line.take();
                h.content_type.take();
                h.content_length.set(None);
                h.allow_ranges.set(false);
                h.remove(KnownHeader::ContentEncoding.name().as_bytes());
                r.header_only.set(true);
            }
            Verdict::Failed => {
                r.replace_response(412);
            }
        }
        Step::Ready(())
    }

    fn may_wait(&self) -> bool {
        false
    }
}

/// What the request's conditions say about the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Send it.
    Send,
    /// The client has it: 304.
    NotModified,
    /// A precondition does not hold: 412.
    Failed,
}

/// Compares the request's conditions with the response's `Last-Modified` and `ETag`.
#[inline]
pub fn check(r: &Request) -> Verdict {
    use KnownHeader::{IfMatch, IfModifiedSince, IfNoneMatch, IfUnmodifiedSince};
    const CONDITIONS: NameSet = NameSet::of(&[IfMatch, IfModifiedSince, IfNoneMatch, IfUnmodifiedSince]);
    if r.headers_in.has_any(CONDITIONS) { compare(r) } else { Verdict::Send }
}

fn compare(r: &Request) -> Verdict {
    use KnownHeader::{IfMatch, IfModifiedSince, IfNoneMatch, IfUnmodifiedSince};
    // A page that is served for an error is not what the conditions are about.
    if r.bypasses_conditions.get() {
        return Verdict::Send;
    }
    if r.headers_out.status.get() != 200 || !matches!(r.forced_status(), 0 | 200) || r.is_subrequest() {
        return Verdict::Send;
    }
    let h = &r.headers_in;
    if h.with(IfUnmodifiedSince, |v| is_unmodified(r, v)) == Some(false)
        || h.with(IfMatch, |v| etag_matches(r, v, false)) == Some(false)
    {
        return Verdict::Failed;
    }
    let since = h.with(IfModifiedSince, |v| is_modified(r, v));
    let none_match = h.with(IfNoneMatch, |v| !etag_matches(r, v, true));
    match (since, none_match) {
        (None, None) | (Some(true), _) | (_, Some(true)) => Verdict::Send,
        _ => Verdict::NotModified,
    }
}

/// The response's time of last change, also where a script or an upstream set the field as text.
pub fn last_modified(r: &Request) -> Option<u64> {
    let h = &r.headers_out;
    h.last_modified.get().or_else(|| h.with(KnownHeader::LastModified.name().as_bytes(), http_date::parse)?)
}

fn is_unmodified(r: &Request, since: &[u8]) -> bool {
    match (last_modified(r), http_date::parse(since)) {
        (Some(modified), Some(since)) => modified <= since,
        _ => false,
    }
}

fn is_modified(r: &Request, since: &[u8]) -> bool {
    let rule = r.location().core.if_modified_since;
    let (Some(modified), true) = (last_modified(r), rule != IfModifiedSince::Off) else {
        return true;
    };
    match http_date::parse(since) {
        Some(since) if rule == IfModifiedSince::Before => since < modified,
        Some(since) => since != modified,
        None => true,
    }
}

fn etag_matches(r: &Request, list: &[u8], weak: bool) -> bool {
    if list == b"*" {
        return true;
    }
    let found = r.headers_out.with(KnownHeader::ETag.name().as_bytes(), |etag| list_has(list, etag, weak));
    found == Some(true)
}

/// Whether a list of entity tags has `etag`; `weak` ignores the mark `W/` on both sides (RFC 9110 8.8.3.2).
fn list_has(mut list: &[u8], etag: &[u8], weak: bool) -> bool {
    let etag = if weak { unmarked(etag) } else { etag };
    while !list.is_empty() {
        list = if weak { unmarked(list) } else { list };
        if let Some(rest) = list.strip_prefix(etag) {
            let rest = skip(rest, b" \t");
            if rest.is_empty() || rest[0] == b',' {
                return true;
            }
        }
        // A comma inside of a tag splits it, which can only make it not match.
        let comma = memchr::memchr(b',', list).unwrap_or(list.len());
        list = skip(&list[comma..], b" \t,");
    }
    false
}

fn unmarked(tag: &[u8]) -> &[u8] {
    match tag.strip_prefix(b"W/") {
        Some(rest) if !rest.is_empty() => rest,
        _ => tag,
    }
}

fn skip<'a>(text: &'a [u8], bytes: &[u8]) -> &'a [u8] {
    let n = text.iter().take_while(|b| bytes.contains(b)).count();
    &text[n..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_tags() {
        for (list, etag, strong, weak) in [
            (r#""a""#, r#""a""#, true, true),
            (r#""b", "a""#, r#""a""#, true, true),
            (r#""b","a" , "c""#, r#""a""#, true, true),
            (r#"W/"a""#, r#""a""#, false, true),
            (r#""a""#, r#"W/"a""#, false, true),
            (r#"W/"a""#, r#"W/"a""#, true, true),
            (r#""a"x"#, r#""a""#, false, false),
            (r#""ab""#, r#""a""#, false, false),
            (r#""a"#, r#""a""#, false, false),
            (r#","#, r#""a""#, false, false),
            ("", r#""a""#, false, false),
            ("W/", r#""a""#, false, false),
        ] {
            assert_eq!(list_has(list.as_bytes(), etag.as_bytes(), false), strong, "{list} {etag}");
            assert_eq!(list_has(list.as_bytes(), etag.as_bytes(), true), weak, "weak {list} {etag}");
        }
    }
}
