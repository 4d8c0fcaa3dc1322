//! What is kept of a proxied request: the target, the request as sent, the head of the last response.
//!
//! It outlives redirects within the server, so that an error page sees the `$upstream_http_*` of the response that led
//! to it.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use terrace_http::Request;
use terrace_http1::{ResponseHead, Span};

use super::target::Target;
use crate::local::Local;

/// One proxied request.
pub(crate) struct Exchange {
    pub(crate) target: Target,
    /// Whether TLS is spoken in the present attempt.
    pub(crate) is_https: Cell<bool>,
    /// The head as sent, and the body where it is small.
    pub(crate) request: RefCell<Vec<u8>>,
    pub(crate) uri: Cell<Span>,
    pub(crate) response: RefCell<ResponseHead>,
    /// The bytes that the response's head points into; empty before there is one.
    pub(crate) response_head: RefCell<Bytes>,
    local: Rc<Local>,
}

impl Exchange {
    /// Begins, and keeps it with the request.
    pub(crate) fn begin(r: &Request, target: Target, local: Rc<Local>) -> Rc<Exchange> {
        let x = Rc::new(Exchange {
            is_https: Cell::new(target.is_https),
            target,
            request: RefCell::new(local.take_scratch()),
            uri: Cell::default(),
            response: RefCell::default(),
            response_head: RefCell::default(),
            local,
        });
        let mut upstream = r.upstream.borrow_mut();
        if !upstream.attempts.is_empty() {
            // Between the attempts of two targets stands an entry without address (" : " in variables).
            upstream.attempts.push(Default::default());
        }
        upstream.exchange = Some(Rc::clone(&x) as Rc<dyn terrace_http::request::Exchange>);
        x
    }

    /// Calls `f` with the exchange of a request, if it has one.
    pub(crate) fn with<R>(r: &Request, f: impl FnOnce(&Exchange) -> R) -> Option<R> {
        let x = r.upstream.borrow().exchange.clone()?;
        let any: &dyn Any = &*x;
        any.downcast_ref::<Exchange>().map(f)
    }
}

impl terrace_http::request::Exchange for Exchange {
    fn scheme(&self) -> &'static str {
        if self.is_https.get() { "https" } else { "http" }
    }

    fn append_uri(&self, out: &mut String) {
        // The log may be written while the request is still being put together.
        if let Ok(request) = self.request.try_borrow() {
            out.push_str(&String::from_utf8_lossy(self.uri.get().of(&request)));
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.local.give_scratch(self.request.take());
    }
}
