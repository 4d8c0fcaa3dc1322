//! `ngx.ocsp`, as far as it needs no handshake: questions to authorities, and the check of what they answer.

use std::ffi::{c_double, c_int};

use terrace_base::clock;
use terrace_net::tls::{OcspError, check_ocsp_response, ocsp_request, ocsp_responder};

use super::{DONE, NOT_FOUND, Text, bytes, fail, functions, give};

functions! {
    "int (*ocsp_responder)(const char *, size_t, terrace_text *)" => responder,
    "int (*ocsp_request)(const char *, size_t, terrace_text *)" => request,
    "int (*ocsp_check)(const char *, size_t, const char *, size_t, double *, terrace_text *)" => check,
}

/// Leaves bytes; `NOT_FOUND` where there are none.
fn answer(out: *mut Text, made: Result<Option<Vec<u8>>, OcspError>) -> c_int {
    // SAFETY: Lua passes a text of its own.
    unsafe {
        match made {
            Ok(None) => NOT_FOUND,
            Ok(Some(made)) => {
                give(out, |b| b.extend_from_slice(&made));
                DONE
            }
            Err(e) => fail(out, &e.to_string()),
        }
    }
}

extern "C" fn responder(chain: *const u8, len: usize, out: *mut Text) -> c_int {
    // SAFETY: a Lua string.
    answer(out, ocsp_responder(unsafe { bytes(chain, len) }))
}

extern "C" fn request(chain: *const u8, len: usize, out: *mut Text) -> c_int {
    // SAFETY: a Lua string.
    answer(out, ocsp_request(unsafe { bytes(chain, len) }).map(Some))
}

/// Leaves the Unix time of the next answer, 0 where it is not told.
extern "C" fn check(
    response: *const u8,
    response_len: usize,
    chain: *const u8,
    chain_len: usize,
    next_update: *mut c_double,
    out: *mut Text,
) -> c_int {
    // SAFETY: two Lua strings.
    let (response, chain) = unsafe { (bytes(response, response_len), bytes(chain, chain_len)) };
    let now = i64::try_from(clock::now_secs()).unwrap_or(i64::MAX);
    match check_ocsp_response(response, chain, now) {
        Ok(next) => {
            // SAFETY: Lua passes a double of its own.
            unsafe { next_update.write(next.unwrap_or(0) as c_double) };
            DONE
        }
        // SAFETY: Lua passes a text of its own.
        Err(e) => unsafe { fail(out, &e.to_string()) },
    }
}
