//! `$echo_*`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use terrace_base::clock;
use terrace_http::body::Stored;
use terrace_http::{Builder, Request};

/// What the module keeps of a request.
#[derive(Default)]
pub(super) struct State {
    /// When the timer was reset, monotonic ms.
    pub(super) timer_ms: Cell<Option<u64>>,
    /// The part that the loop is at.
    pub(super) it: RefCell<Option<Bytes>>,
    /// How often `$echo_incr` was read.
    reads: Cell<u64>,
}

/// The request's state, made where it has none.
pub(super) fn state(r: &Request) -> Rc<State> {
    r.state::<State>().unwrap_or_else(|| {
        let state = Rc::new(State::default());
        r.put_state(Rc::clone(&state));
        state
    })
}

/// The time, for which the clock is read anew.
pub(super) fn now_ms() -> u64 {
    clock::update();
    clock::monotonic_ms()
}

fn put(out: &mut Vec<u8>, text: &[u8]) -> bool {
    out.extend_from_slice(text);
    true
}

/// Calls `f` with the client's request.
fn with_main(r: &Request, f: impl FnOnce(&Request) -> bool) -> bool {
    match r.main() {
        Some(main) => f(&main),
        None => f(r),
    }
}

pub(super) fn define(b: &mut Builder) {
    let t = &mut b.vars;
    t.define("echo_it", |r, o| {
        r.state::<State>().is_some_and(|s| s.it.borrow().as_ref().is_some_and(|it| put(o, it)))
    });
    t.define("echo_timer_elapsed", |r, o| {
        let begun = r.state::<State>().and_then(|s| s.timer_ms.get()).unwrap_or(r.started_ms);
        let elapsed = now_ms().saturating_sub(begun);
        put(o, format!("{}.{:03}", elapsed / 1000, elapsed % 1000).as_bytes())
    });
    t.define("echo_request_body", |r, o| match &*r.body.stored().borrow() {
        Stored::Memory(body) => put(o, body),
        Stored::Empty | Stored::File(_) => false,
    });
    t.define("echo_request_method", |r, o| put(o, &r.method()));
    t.define("echo_client_request_method", |r, o| with_main(r, |main| put(o, &main.method())));
    t.define("echo_client_request_headers", |r, o| with_main(r, |main| client_head(main, o)));
    t.define("echo_cacheable_request_uri", |r, o| put(o, &r.uri()));
    t.define("echo_request_uri", |r, o| put(o, &r.uri()));
    t.define("echo_incr", |r, o| {
        with_main(r, |main| {
            let state = state(main);
            state.reads.set(state.reads.get() + 1);
            put(o, state.reads.get().to_string().as_bytes())
        })
    });
    t.define("echo_response_status", |r, o| match r.headers_out.status.get() {
        0 => false,
        status => put(o, status.to_string().as_bytes()),
    });
}

/// The head as sent, with the empty line that ends it.
fn client_head(r: &Request, out: &mut Vec<u8>) -> bool {
    let buf = r.headers_in.buffer();
    let head = buf.get(..r.headers_in.head_bytes()).unwrap_or(buf);
    // Line ends before the request line belong to no request.
    let blank = head.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    !head.is_empty() && put(out, &head[blank..])
}
