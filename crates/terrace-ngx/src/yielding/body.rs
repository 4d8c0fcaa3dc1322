//! `ngx.req.read_body`.

use std::ffi::c_int;

use smallvec::smallvec;
use terrace_http::Step;
use terrace_lua::{Value, pending};

use crate::ffi::body::Discarded;
use crate::ffi::req::request;
use crate::ffi::{AWAIT, DONE, functions};

functions! {
    "int (*read_body)(void)" => read_body,
}

/// Answers, at once or after the wait, `DONE` or the status with which the request ends.
extern "C" fn read_body() -> c_int {
    request(|r| {
        if r.state::<Discarded>().is_some() {
            return DONE;
        }
        match r.read_body() {
            Step::Ready(Ok(())) => DONE,
            Step::Ready(Err(status)) => c_int::from(status),
            Step::Wait(body) => {
                pending::set(Box::pin(async move {
                    let status = body.await.err().unwrap_or(0);
                    smallvec![Value::Integer(i64::from(status))]
                }));
                AWAIT
            }
        }
    })
}
