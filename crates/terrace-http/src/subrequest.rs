//! Subrequests: requests within the server whose response is collected for their parent.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;

use crate::body::{RequestBody, Stored};
use crate::headers_in::HeadersIn;
use crate::{Request, engine};

/// How deep subrequests may nest (nginx's `NGX_HTTP_MAX_SUBREQUESTS` bounds their number; we bound the depth).
pub const DEPTH_MAX: u8 = 50;

/// Which values of a parent's variables a subrequest sees.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Inherit {
    /// None: it begins with unset variables.
    #[default]
    Nothing,
    /// A copy of those at its start.
    Copy,
    /// The same ones: changes show in both.
    Share,
}

/// What a subrequest is to be.
#[derive(Debug, Default)]
pub struct Subrequest {
    /// The path.
    pub uri: Bytes,
    /// The query.
    pub args: Bytes,
    /// The method.
    pub method: Bytes,
    /// Its body; `None`: it has none.
    pub body: Option<Stored>,
    /// Which of the parent's variables it sees.
    pub vars: Inherit,
    /// Whether an error is its status alone: no `error_page`, no page of the server's own.
    pub bare_errors: bool,
}

/// Makes a subrequest without running it.
pub fn make(parent: &Rc<Request>, sub: Subrequest) -> Option<Rc<Request>> {
    if parent.depth >= DEPTH_MAX {
        return None;
    }
    let mut r =
        Request::blank(Rc::clone(&parent.worker), parent.server_index(), terrace_base::clock::monotonic_ms());
    r.client.clone_from(&parent.client);
    r.parent = Some(Rc::downgrade(parent));
    r.depth = parent.depth + 1;
    r.headers_in = HeadersIn::from_fields(parent.headers_in.to_fields());
    r.version = Cell::new(parent.version.get());
    r.internal = Cell::new(true);
    r.body = RequestBody::empty();
    r.output = crate::output::Output::default();
    r.upstream = RefCell::default();
    let r = Rc::new(r);
    r.set_method(sub.method);
    r.set_uri(sub.uri);
    r.set_args(sub.args);
    r.set_host(&parent.host());
    if let Some(body) = sub.body {
        r.body.replace(body);
        r.headers_in.set(b"Content-Length", r.body.len().to_string().as_bytes());
        r.headers_in.remove(b"Transfer-Encoding");
    } else {
        r.headers_in.remove(b"Content-Length");
        r.headers_in.remove(b"Transfer-Encoding");
    }
    r.bare_errors.set(sub.bare_errors);
    match sub.vars {
        Inherit::Nothing => {}
        Inherit::Copy => r.copy_slots_from(parent),
        Inherit::Share => r.shares_slots.set(true),
    }
    Some(r)
}

/// Runs a subrequest to its end. Its response is then in `headers_out` and `output.take_captured()`.
pub async fn run(r: &Rc<Request>) {
    engine::run(r).await;
    if r.location().core.log_subrequest {
        engine::end(r).await;
    }
}

/// Path, decoded, and query of the URI of a subrequest or an internal redirect; `None` for one that leaves the root or
/// has a zero byte (nginx's rule).
pub fn parse_uri(uri: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let (path, query) = match memchr::memchr(b'?', uri) {
        Some(at) => (uri.get(..at)?, uri.get(at + 1..)?),
        None => (uri, &[][..]),
    };
    if path.is_empty() || !is_inside(path) {
        return None;
    }
    let path = decode(path);
    is_inside(&path).then_some((path, query))
}

fn is_inside(path: &[u8]) -> bool {
    !path.contains(&0) && path.split(|b| *b == b'/').all(|part| part != b"..")
}

/// Decodes `%XX`; a `%` that begins no escape is left out.
fn decode(path: &[u8]) -> Vec<u8> {
    let hex = |at: usize| (*path.get(at)? as char).to_digit(16);
    let mut out = Vec::with_capacity(path.len());
    let mut i = 0;
    while let Some(b) = path.get(i) {
        if *b != b'%' {
            out.push(*b);
        } else if let Some((high, low)) = hex(i + 1).zip(hex(i + 2)) {
            out.push((high << 4 | low) as u8);
            i += 2;
        }
        i += 1;
    }
    out
}
