//! Byte ranges: `Range`, `If-Range`, `max_ranges`; 206 with one part or `multipart/byteranges`, 416.
//!
//! A source that can seek (a file) calls [`offer`] before the header and [`plan`] after it, and sends just the
//! segments of the plan. For all other sources that allow ranges a body filter cuts them out of the stream; since it
//! cannot go back, it serves only ranges that ascend.

use std::cell::{Cell, RefCell};
use std::ops::Range as Span;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;
use terrace_base::http_date;
use terrace_conf::ConfError;
use terrace_http::{BodyFilter, Builder, Chunk, HeaderFilter, LocationBuilder, Module, Request, Step};
use terrace_http1::KnownHeader;

use crate::not_modified::last_modified;

/// The module that decides about ranges; its header filter comes after all that may change the length.
pub struct Range;

impl Module for Range {
    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        location.add_header_filter(Decide);
        Ok(())
    }
}

/// The module that cuts ranges out of streams; its body filter comes before all others.
pub struct RangeBody;

impl Module for RangeBody {
    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        location.add_body_filter(Cut);
        Ok(())
    }
}

/// A part of a response: text between the ranges, or bytes of the whole body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Sent as it is.
    Text(Bytes),
    /// These bytes of the body.
    Body(Span<u64>),
}

impl Segment {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Segment::Text(t) => t.len() as u64,
            Segment::Body(r) => r.end - r.start,
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The segments of a response, in the order they are sent.
pub type Plan = Rc<[Segment]>;

type Spans = SmallVec<[Span<u64>; 2]>;

/// What a source that can seek offered.
struct Offer {
    total: u64,
    plan: RefCell<Option<Plan>>,
}

/// Lets the response, of `total` bytes, be served in ranges by a source that can seek. To be called when the header
/// is set but not ready. The error is 416 (with its `Content-Range` set), to be answered in place of the body.
pub fn offer(r: &Request, total: u64) -> Result<(), u16> {
    r.headers_out.allow_ranges.set(true);
    if !r.headers_in.has(KnownHeader::Range) {
        return Ok(());
    }
    if may_cut(r) && matches!(wanted(r, total), Wanted::Unsatisfiable) {
        set_content_range(r, format!("bytes */{total}"));
        return Err(416);
    }
    r.put_state(Rc::new(Offer { total, plan: RefCell::new(None) }));
    Ok(())
}

/// What a source that has called [`offer`] is to send, once the header is ready; `None` for everything.
pub fn plan(r: &Request) -> Option<Plan> {
    r.state::<Offer>()?.plan.borrow().clone()
}

/// Whether the response is one that may be cut: not a page that is served for an error.
fn may_cut(r: &Request) -> bool {
    r.is_plain_ok() && matches!(r.forced_status(), 0 | 200) && r.location().core.max_ranges > 0
}

/// What the client asked for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// The whole response.
    All,
    /// Nothing that there is.
    Unsatisfiable,
    /// These bytes.
    Spans(Spans),
}

/// Reads `Range` in the light of `If-Range` and `max_ranges`.
fn wanted(r: &Request, total: u64) -> Wanted {
    let parsed = r.headers_in.with(KnownHeader::Range, |v| {
        let (unit, set) = v.split_at_checked("bytes=".len()).filter(|(_, set)| !set.is_empty())?;
        unit.eq_ignore_ascii_case(b"bytes=").then(|| parse(set, total, r.location().core.max_ranges))
    });
    match parsed.flatten() {
        Some(w) if if_range_holds(r) => w,
        _ => Wanted::All,
    }
}

fn if_range_holds(r: &Request) -> bool {
    let holds = r.headers_in.with(KnownHeader::IfRange, |v| {
        if v.len() >= 2 && v.ends_with(b"\"") {
            return r.headers_out.with(KnownHeader::ETag.name().as_bytes(), |etag| etag == v) == Some(true);
        }
        last_modified(r).is_some_and(|t| http_date::parse(v) == Some(t))
    });
    holds != Some(false)
}

/// Parses the set of ranges behind `bytes=` (RFC 9110 14.1.2), with nginx's leniency about spaces.
fn parse(set: &[u8], total: u64, ranges_max: u32) -> Wanted {
    let mut spans = Spans::new();
    let mut size = 0u64;
    for spec in set.split(|b| *b == b',') {
        let Some((start, end)) = parse_one(spec, total) else {
            return Wanted::Unsatisfiable;
        };
        if start < end {
            size = size.saturating_add(end - start);
            if spans.len() == ranges_max as usize {
                return Wanted::All;
            }
            spans.push(start..end);
        } else if start == 0 {
            return Wanted::All;
        }
    }
    if spans.is_empty() {
        return Wanted::Unsatisfiable;
    }
    // Overlapping ranges that together exceed the body are no saving.
    if size > total { Wanted::All } else { Wanted::Spans(spans) }
}

/// One `first-last`, `first-` or `-suffix` as start and exclusive end. `None` when it is malformed.
fn parse_one(spec: &[u8], total: u64) -> Option<(u64, u64)> {
    let dash = memchr::memchr(b'-', spec)?;
    let first = trim_spaces(&spec[..dash]);
    let last = trim_spaces(&spec[dash + 1..]);
    match (first, last) {
        (b"", b"") => None,
        (b"", suffix) => Some((total.saturating_sub(number(suffix)?), total)),
        (first, b"") => Some((number(first)?, total)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            Some((first, last.saturating_add(1).min(total)))
        }
    }
}

fn number(text: &[u8]) -> Option<u64> {
    terrace_base::units::parse_number(text)
}

fn trim_spaces(mut text: &[u8]) -> &[u8] {
    while let [b' ', rest @ ..] | [rest @ .., b' '] = text {
        text = rest;
    }
    text
}

fn set_content_range(r: &Request, value: String) {
    r.headers_out.set(Bytes::from_static(KnownHeader::ContentRange.name().as_bytes()), value);
}

struct Decide;

impl HeaderFilter for Decide {
    fn filter(&self, r: &Rc<Request>) -> Step<()> {
        let h = &r.headers_out;
        if h.allow_ranges.get() {
            decide(r);
        }
        Step::Ready(())
    }

    fn may_wait(&self) -> bool {
        false
    }
}

fn decide(r: &Request) {
    let h = &r.headers_out;
    let total = match h.content_length.get() {
        Some(n) if may_cut(r) => n,
        _ => return h.allow_ranges.set(false),
    };
    if !r.headers_in.has(KnownHeader::Range) {
        return;
    }
    // A filter that changed the length has made the offer void: the source must send everything.
    let offer = r.state::<Offer>();
    let can_seek = match &offer {
        Some(o) if o.total != total => return h.allow_ranges.set(false),
        found => found.is_some(),
    };
    let spans = match wanted(r, total) {
        Wanted::All => return,
        Wanted::Unsatisfiable => {
            h.clear_body_fields();
            h.status.set(416);
            h.content_length.set(Some(0));
            r.header_only.set(true);
            return set_content_range(r, format!("bytes */{total}"));
        }
        Wanted::Spans(s) => s,
    };
    if !can_seek && !spans.windows(2).all(|w| w[0].end <= w[1].start) {
        return;
    }
    h.status.set(206);
    h.status_line.take();
    let plan: Plan = match &spans[..] {
        [one] => {
            set_content_range(r, format!("bytes {}-{}/{total}", one.start, one.end - 1));
            Rc::from([Segment::Body(one.clone())])
        }
        many => multipart(r, many, total),
    };
    h.content_length.set(Some(plan.iter().map(Segment::len).sum()));
    match offer {
        Some(o) => _ = o.plan.replace(Some(plan)),
        None => r.put_state(Rc::new(Cutting { plan, next: Cell::new(0), position: Cell::new(0) })),
    }
}

/// Numbers of boundaries; unique in the process, as nginx's are.
static BOUNDARIES: AtomicU64 = AtomicU64::new(0);

/// Lays out `multipart/byteranges` (RFC 9110 14.6) and sets its type.
fn multipart(r: &Request, spans: &[Span<u64>], total: u64) -> Plan {
    let boundary = BOUNDARIES.fetch_add(1, Ordering::Relaxed) + 1;
    let whole = format!("multipart/byteranges; boundary={boundary:020}");
    let part_type = r.headers_out.content_type.replace(Some(whole.into()));
    let mut plan = Vec::with_capacity(2 * spans.len() + 1);
    for span in spans {
        let mut head = format!("\r\n--{boundary:020}\r\n").into_bytes();
        if let Some(t) = &part_type {
            head.extend_from_slice(b"Content-Type: ");
            head.extend_from_slice(t);
            head.extend_from_slice(b"\r\n");
        }
        let range = format!("Content-Range: bytes {}-{}/{total}\r\n\r\n", span.start, span.end - 1);
        head.extend_from_slice(range.as_bytes());
        plan.push(Segment::Text(head.into()));
        plan.push(Segment::Body(span.clone()));
    }
    plan.push(Segment::Text(format!("\r\n--{boundary:020}--\r\n").into()));
    plan.into()
}

/// Ranges being cut out of a stream.
struct Cutting {
    plan: Plan,
    next: Cell<usize>,
    position: Cell<u64>,
}

struct Cut;

impl BodyFilter for Cut {
    fn filter(&self, r: &Rc<Request>, mut chunk: Chunk) -> Step<Chunk> {
        // Every response without ranges leaves here.
        if r.headers_out.status.get() == 206
            && let Some(cutting) = r.state::<Cutting>()
        {
            chunk.data = cutting.cut(&chunk.data);
        }
        Step::Ready(chunk)
    }

    fn applies(&self, r: &Request) -> bool {
        r.headers_out.status.get() == 206 && r.state::<Cutting>().is_some()
    }
}

impl Cutting {
    /// What of the next piece of the body, and of the text around it, is to be sent.
    fn cut(&self, data: &Bytes) -> Bytes {
        let start = self.position.get();
        let end = start + data.len() as u64;
        self.position.set(end);
        let mut pieces: SmallVec<[Bytes; 4]> = SmallVec::new();
        while let Some(segment) = self.plan.get(self.next.get()) {
            match segment {
                Segment::Text(t) => pieces.push(t.clone()),
                Segment::Body(span) => {
                    let (from, to) = (span.start.max(start), span.end.min(end));
                    if from < to {
                        pieces.push(data.slice((from - start) as usize..(to - start) as usize));
                    }
                    if span.end > end {
                        break;
                    }
                }
            }
            self.next.set(self.next.get() + 1);
        }
        match &pieces[..] {
            [] => Bytes::new(),
            [one] => one.clone(),
            many => {
                let mut all = BytesMut::with_capacity(many.iter().map(Bytes::len).sum());
                many.iter().for_each(|p| all.extend_from_slice(p));
                all.freeze()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(list: &[(u64, u64)]) -> Wanted {
        Wanted::Spans(list.iter().map(|(s, e)| *s..*e).collect())
    }

    #[test]
    fn sets_of_ranges() {
        for (set, total, expected) in [
            ("0-9", 100, spans(&[(0, 10)])),
            ("90-", 100, spans(&[(90, 100)])),
            ("-10", 100, spans(&[(90, 100)])),
            ("-200", 100, spans(&[(0, 100)])),
            ("95-200", 100, spans(&[(95, 100)])),
            (" 1 - 2 , 5-6 ", 100, spans(&[(1, 3), (5, 7)])),
            ("50-59,0-9", 100, spans(&[(50, 60), (0, 10)])),
            ("100-", 100, Wanted::Unsatisfiable),
            ("100-,0-0", 100, spans(&[(0, 1)])),
            ("-0", 100, Wanted::Unsatisfiable),
            ("5-2", 100, Wanted::Unsatisfiable),
            ("x", 100, Wanted::Unsatisfiable),
            ("-", 100, Wanted::Unsatisfiable),
            ("0-9x", 100, Wanted::Unsatisfiable),
            ("99999999999999999999-", 100, Wanted::Unsatisfiable),
            ("0-", 0, Wanted::All),
            ("-5", 0, Wanted::All),
            ("0-99,0-0", 100, Wanted::All),
            ("0-0,2-2,4-4,6-6", 100, Wanted::All),
        ] {
            assert_eq!(parse(set.as_bytes(), total, 3), expected, "{set}");
        }
    }

    #[test]
    fn cuts_the_same_bytes_however_the_stream_is_split() {
        let body = Bytes::from_static(b"0123456789abcdefghij");
        let text = |t: &'static str| Segment::Text(Bytes::from_static(t.as_bytes()));
        let plan: Plan =
            Rc::from([text("<"), Segment::Body(2..5), text("|"), Segment::Body(5..12), text(">")]);
        for piece in 1..=body.len() {
            let cutting = Cutting { plan: Rc::clone(&plan), next: Cell::new(0), position: Cell::new(0) };
            let mut out = Vec::new();
            for start in (0..body.len()).step_by(piece) {
                let end = (start + piece).min(body.len());
                out.extend_from_slice(&cutting.cut(&body.slice(start..end)));
            }
            assert_eq!(out, b"<234|56789ab>", "pieces of {piece}");
        }
    }
}
