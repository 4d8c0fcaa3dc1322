//! `ngx.proxyssl`, `ngx.ssl.proxysslcert` and `ngx.ssl.proxysslverify`: the handshake with a server that a request makes.

use std::ffi::c_int;
use std::rc::Rc;

use terrace_http::Request;
use terrace_proxy::UpstreamHandshake;

use super::ssl::{Certificates, Halves, Key};
use super::{DONE, NO_REQUEST, Text, fail, functions};
use crate::host::current;
use crate::phase::LuaPhase;

functions! {
    "int (*upstream_clear)(terrace_text *)" => clear,
    "int (*upstream_set_certs)(struct terrace_certs *, terrace_text *)" => set_certs,
    "int (*upstream_set_key)(struct terrace_key *, terrace_text *)" => set_key,
    "int (*upstream_version)(terrace_text *)" => version,
    "int (*upstream_set_verdict)(unsigned, terrace_text *)" => set_verdict,
    "int (*upstream_verdict)(unsigned *, terrace_text *)" => verdict,
    "struct terrace_certs *(*upstream_certs)(terrace_text *)" => certs,
}

const BAD_REQUEST: &str = "bad request";

/// Leaves the error of `f`, which gets the running code's request and its handshake.
fn with(
    out: *mut Text,
    phases: u32,
    f: impl FnOnce(&Rc<Request>, &UpstreamHandshake) -> Result<c_int, String>,
) -> c_int {
    let made = current(|h| {
        let handshake = h.request.state::<UpstreamHandshake>().filter(|_| h.is_in(phases));
        handshake.map_or_else(|| Err(BAD_REQUEST.to_owned()), |handshake| f(&h.request, &handshake))
    });
    match made {
        None => NO_REQUEST,
        Some(Ok(code)) => code,
        // SAFETY: Lua passes a text of its own.
        Some(Err(text)) => unsafe { fail(out, &text) },
    }
}

const CERTIFICATE: u32 = LuaPhase::ProxySslCertificate as u32;
const VERIFY: u32 = LuaPhase::ProxySslVerify as u32;

/// Takes the certificate away, the configured one too.
extern "C" fn clear(out: *mut Text) -> c_int {
    with(out, CERTIFICATE, |r, handshake| {
        handshake.identity.replace(Some(None));
        Halves::of(r).clear();
        Ok(DONE)
    })
}

/// Shows a certificate once its chain and its key are there.
fn complete(halves: &Halves, handshake: &UpstreamHandshake) -> Result<c_int, String> {
    if let Some(identity) = halves.join()? {
        handshake.identity.replace(Some(Some(identity)));
    }
    Ok(DONE)
}

extern "C" fn set_certs(certificates: *const Certificates, out: *mut Text) -> c_int {
    with(out, CERTIFICATE, |r, handshake| {
        // SAFETY: null, or an object of `ssl_certs` that Lua keeps during the call.
        let certificates = unsafe { certificates.as_ref() }.ok_or("invalid certificate chain")?;
        let halves = Halves::of(r);
        halves.put_chain(certificates);
        complete(&halves, handshake)
    })
}

extern "C" fn set_key(key: *const Key, out: *mut Text) -> c_int {
    with(out, CERTIFICATE, |r, handshake| {
        // SAFETY: null, or an object of `ssl_key` that Lua keeps during the call.
        let key = unsafe { key.as_ref() }.ok_or("invalid private key")?;
        let halves = Halves::of(r);
        halves.put_key(key);
        complete(&halves, handshake)
    })
}

/// The version's number, once it is known.
extern "C" fn version(out: *mut Text) -> c_int {
    with(out, u32::MAX, |_, handshake| match handshake.protocol.get() {
        Some("TLSv1.3") => Ok(0x0304),
        Some(_) => Ok(0x0303),
        None => Err("bad ssl conn".to_owned()),
    })
}

extern "C" fn set_verdict(code: u32, out: *mut Text) -> c_int {
    with(out, VERIFY, |_, handshake| {
        handshake.verdict.set(code);
        Ok(DONE)
    })
}

extern "C" fn verdict(code: *mut u32, out: *mut Text) -> c_int {
    with(out, VERIFY, |_, handshake| {
        // SAFETY: Lua passes a number of its own.
        unsafe { code.write(handshake.verdict.get()) };
        Ok(DONE)
    })
}

/// What the server has shown, as a chain that `ssl_certs_free` frees; null and a text where there is none.
extern "C" fn certs(out: *mut Text) -> *const Certificates {
    let mut found = std::ptr::null();
    with(out, VERIFY, |_, handshake| {
        let chain = handshake.chain.borrow().clone().ok_or("get verify result failed")?;
        found = Box::into_raw(Box::new(Certificates(chain)));
        Ok(DONE)
    });
    found
}
