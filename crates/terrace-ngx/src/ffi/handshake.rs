//! `ngx.ssl`, `ngx.ssl.clienthello` and `ngx.ssl.session`: the handshake that a client waits for, and what is known of it
//! later.

use std::ffi::{c_int, c_uint};
use std::rc::Rc;
use std::sync::Arc;

use terrace_http::Request;
use terrace_http::tls::Handshake;
use terrace_net::Address;
use terrace_net::tls::{
    Hello, MadeSession, OCSP_RESPONSE_BYTES_MAX, Protocols, SESSION_BYTES_MAX, TlsStream, Trust, is_session,
};

use super::ssl::{Certificates, Halves, Key};
use super::{DONE, NO_REQUEST, NOT_FOUND, Text, bytes, fail, functions, give};
use crate::host::current;

functions! {
    "int (*tls_clear)(terrace_text *)" => tls_clear,
    "int (*tls_set_certs)(struct terrace_certs *, terrace_text *)" => tls_set_certs,
    "int (*tls_set_key)(struct terrace_key *, terrace_text *)" => tls_set_key,
    "int (*tls_set_ocsp)(const char *, size_t, terrace_text *)" => tls_set_ocsp,
    "int (*tls_verify_client)(struct terrace_certs *, struct terrace_certs *, int, terrace_text *)" => tls_verify_client,
    "int (*tls_server_name)(terrace_text *)" => tls_server_name,
    "int (*tls_address)(int, int *, int *, terrace_text *)" => tls_address,
    "int (*tls_version)(terrace_text *)" => tls_version,
    "int (*tls_client_random)(terrace_text *)" => tls_client_random,
    "int (*tls_export)(int, const char *, size_t, const char *, size_t, int, terrace_text *)" => tls_export,
    "int (*hello_extension)(unsigned, terrace_text *)" => hello_extension,
    "int (*hello_numbers)(int, terrace_text *)" => hello_numbers,
    "int (*session_id)(terrace_text *)" => session_id,
    "int (*session_get)(terrace_text *)" => session_get,
    "int (*session_set)(const char *, size_t, terrace_text *)" => session_set,
    "int (*hello_protocols)(int, int, terrace_text *)" => hello_protocols,
}

/// How deep chains of clients may be where a script does not say.
const DEPTH_MAX: usize = 100;

type Answer<T> = Result<T, String>;

fn bad_request<T>() -> Answer<T> {
    Err("bad request".to_owned())
}

/// Leaves the error of `f`, which gets the running code's request.
fn with(out: *mut Text, f: impl FnOnce(&Rc<Request>) -> Answer<c_int>) -> c_int {
    match current(|h| f(&h.request)) {
        None => NO_REQUEST,
        Some(Ok(code)) => code,
        // SAFETY: Lua passes a text of its own.
        Some(Err(text)) => unsafe { fail(out, &text) },
    }
}

fn handshake(r: &Request) -> Answer<Rc<Handshake>> {
    r.state::<Handshake>().map_or_else(bad_request, Ok)
}

/// The stream of the client, where it is to speak TLS.
fn stream(r: &Request) -> Answer<&TlsStream> {
    r.client.as_ref().and_then(|c| c.stream.tls()).map_or_else(bad_request, Ok)
}

fn hello<T>(r: &Request, f: impl FnOnce(&Hello) -> T) -> Answer<T> {
    let handshake = handshake(r)?;
    let hello = handshake.hello.borrow();
    hello.as_ref().map(f).map_or_else(bad_request, Ok)
}

/// Takes all certificates away, the configured ones too.
extern "C" fn tls_clear(out: *mut Text) -> c_int {
    with(out, |r| {
        handshake(r)?.identities.replace(Some(Vec::new()));
        Halves::of(r).clear();
        Ok(DONE)
    })
}

/// Shows a certificate once its chain and its key are there, in the place of one of the same kind.
fn complete(r: &Request, halves: &Halves) -> Answer<c_int> {
    let Some(identity) = halves.join()? else { return Ok(DONE) };
    let handshake = handshake(r)?;
    let mut all = handshake.identities.take().unwrap_or_else(|| handshake.ssl.tls.identities().to_vec());
    all.retain(|i| !i.is_like(&identity));
    all.push(identity);
    handshake.identities.replace(Some(all));
    Ok(DONE)
}

extern "C" fn tls_set_certs(certificates: *const Certificates, out: *mut Text) -> c_int {
    with(out, |r| {
        handshake(r)?;
        // SAFETY: null, or an object of `ssl_certs` that Lua keeps during the call.
        let Some(c) = (unsafe { certificates.as_ref() }) else {
            return Err("invalid certificate chain".to_owned());
        };
        let halves = Halves::of(r);
        halves.put_chain(c);
        complete(r, &halves)
    })
}

extern "C" fn tls_set_key(key: *const Key, out: *mut Text) -> c_int {
    with(out, |r| {
        handshake(r)?;
        // SAFETY: null, or an object of `ssl_key` that Lua keeps during the call.
        let Some(k) = (unsafe { key.as_ref() }) else { return Err("invalid private key".to_owned()) };
        let halves = Halves::of(r);
        halves.put_key(k);
        complete(r, &halves)
    })
}

/// `status_request`: the client wants a proof (RFC 6066 section 8).
const STATUS_REQUEST: u16 = 5;

/// `NOT_FOUND` says that the client has not asked for it.
extern "C" fn tls_set_ocsp(data: *const u8, len: usize, out: *mut Text) -> c_int {
    with(out, |r| {
        // SAFETY: a Lua string.
        let response = unsafe { bytes(data, len) };
        let handshake = handshake(r)?;
        if hello(r, |h| h.extension(STATUS_REQUEST))?.is_none() {
            return Ok(NOT_FOUND);
        }
        if response.len() > OCSP_RESPONSE_BYTES_MAX {
            return Err("SSL_set_tlsext_status_ocsp_resp() failed".to_owned());
        }
        handshake.ocsp.replace(Some(response.to_vec()));
        Ok(DONE)
    })
}

/// Asks the client for a certificate: of `told` authorities, or of `others` that are not told to it.
extern "C" fn tls_verify_client(
    told: *const Certificates,
    others: *const Certificates,
    depth: c_int,
    out: *mut Text,
) -> c_int {
    with(out, |r| {
        let handshake = handshake(r)?;
        // SAFETY: null, or objects of `ssl_certs` that Lua keeps during the call.
        let (told, others) = unsafe { (told.as_ref(), others.as_ref()) };
        if told.is_none() && others.is_none() {
            handshake.verify.replace(Some(None));
            return Ok(DONE);
        }
        let mut all = told.map(|c| c.0.clone()).unwrap_or_default();
        all.extend(others.iter().flat_map(|c| c.0.iter().cloned()));
        let depth = usize::try_from(depth).unwrap_or(DEPTH_MAX);
        handshake.verify.replace(Some(Some(Arc::new(Trust::new(&all, &[], depth)?))));
        Ok(DONE)
    })
}

/// Leaves bytes; `NOT_FOUND` where there are none.
fn given(out: *mut Text, found: Option<&[u8]>) -> c_int {
    match found {
        None => NOT_FOUND,
        Some(found) => {
            // SAFETY: Lua passes a text of its own.
            unsafe { give(out, |b| b.extend_from_slice(found)) };
            DONE
        }
    }
}

extern "C" fn tls_server_name(out: *mut Text) -> c_int {
    with(out, |r| Ok(given(out, stream(r)?.server_name().as_deref().map(str::as_bytes))))
}

/// The near (0) or the far address: its bytes, its kind (0 Unix, 1 IPv4, 2 IPv6) and its port.
extern "C" fn tls_address(is_far: c_int, kind: *mut c_int, port: *mut c_int, out: *mut Text) -> c_int {
    with(out, |r| {
        stream(r)?;
        let Some(client) = &r.client else { return bad_request() };
        let near = if is_far == 0 { client.stream.local_address().ok() } else { None };
        let (number, at, raw) = match near.as_ref().unwrap_or(&client.peer) {
            Address::Ip(a) => match a.ip() {
                std::net::IpAddr::V4(ip) => (1, a.port(), ip.octets().to_vec()),
                std::net::IpAddr::V6(ip) => (2, a.port(), ip.octets().to_vec()),
            },
            Address::Unix(path) => (0, 0, path.as_os_str().as_encoded_bytes().to_vec()),
        };
        // SAFETY: Lua passes two ints of its own.
        unsafe {
            kind.write(number);
            port.write(c_int::from(at));
        }
        Ok(given(out, Some(&raw)))
    })
}

/// The version's number: what is spoken, or during a handshake what will be.
extern "C" fn tls_version(out: *mut Text) -> c_int {
    const TLS12: c_int = 0x0303;
    const TLS13: c_int = 0x0304;
    with(out, |r| match stream(r)?.protocol() {
        Some(name) => Ok(if name == "TLSv1.3" { TLS13 } else { TLS12 }),
        None => {
            let handshake = handshake(r)?;
            let spoken = handshake.protocols.get().unwrap_or(handshake.ssl.tls.protocols());
            let offers_13 = hello(r, |h| h.versions().contains(&0x0304))?;
            Ok(if offers_13 && spoken.tls13 { TLS13 } else { TLS12 })
        }
    })
}

extern "C" fn tls_client_random(out: *mut Text) -> c_int {
    with(out, |r| Ok(given(out, stream(r)?.client_random())))
}

extern "C" fn tls_export(
    size: c_int,
    label: *const u8,
    label_len: usize,
    context: *const u8,
    context_len: usize,
    has_context: c_int,
    out: *mut Text,
) -> c_int {
    with(out, |r| {
        // SAFETY: two Lua strings; the second may be null.
        let (label, context) = unsafe { (bytes(label, label_len), bytes(context, context_len)) };
        let context = (has_context != 0).then_some(context);
        let size = usize::try_from(size).unwrap_or(0);
        let made = stream(r)?.export_keying_material(size, label, context).map_err(|e| e.to_string())?;
        Ok(given(out, Some(&made)))
    })
}

extern "C" fn hello_extension(kind: c_uint, out: *mut Text) -> c_int {
    with(out, |r| {
        let found = hello(r, |h| u16::try_from(kind).ok().and_then(|kind| h.extension(kind)))?;
        Ok(given(out, found.as_deref()))
    })
}

/// Numbers of the client's ciphers (0) or extensions (1), two bytes each, without those that only test servers (RFC 8701).
extern "C" fn hello_numbers(which: c_int, out: *mut Text) -> c_int {
    let is_real = |n: &u16| n & 0x0f0f != 0x0a0a || n >> 8 != n & 0xff;
    with(out, |r| {
        let all = hello(r, |h| if which == 0 { h.cipher_numbers() } else { h.extension_numbers() })?;
        let all: Vec<u8> = all.into_iter().filter(is_real).flat_map(u16::to_be_bytes).collect();
        Ok(given(out, Some(&all)))
    })
}

extern "C" fn hello_protocols(tls12: c_int, tls13: c_int, out: *mut Text) -> c_int {
    with(out, |r| {
        let protocols = Protocols { tls12: tls12 != 0, tls13: tls13 != 0 };
        if protocols.is_empty() {
            return Err("neither TLSv1.2 nor TLSv1.3 is left".to_owned());
        }
        handshake(r)?.protocols.set(Some(protocols));
        Ok(DONE)
    })
}

/// Calls `f` with the session that the running code looks for or takes.
fn session<T>(r: &Request, what: &str, f: impl FnOnce(&mut MadeSession) -> Answer<T>) -> Answer<T> {
    match handshake(r)?.session.borrow_mut().as_mut() {
        Some(session) => f(session),
        None => Err(format!("{what} in lua context")),
    }
}

extern "C" fn session_id(out: *mut Text) -> c_int {
    with(out, |r| {
        let hex = session(r, "uninitialized session id", |s| {
            let digit = |n: u8| b"0123456789abcdef"[usize::from(n)];
            Ok(s.id.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect::<Vec<u8>>())
        })?;
        Ok(given(out, Some(&hex)))
    })
}

extern "C" fn session_get(out: *mut Text) -> c_int {
    with(out, |r| {
        let serialized = session(r, "bad session", |s| match s.serialized.len() {
            0 => Err("bad session in lua context".to_owned()),
            n if n > SESSION_BYTES_MAX => Err("session too big to serialize".to_owned()),
            _ => Ok(s.serialized.clone()),
        })?;
        Ok(given(out, Some(&serialized)))
    })
}

/// The session that was looked for is found. One that is too old, or another's, is not taken up.
extern "C" fn session_set(data: *const u8, len: usize, out: *mut Text) -> c_int {
    with(out, |r| {
        // SAFETY: a Lua string.
        let serialized = unsafe { bytes(data, len) };
        session(r, "bad session", |s| {
            if serialized.is_empty() {
                return Err("invalid session length".to_owned());
            }
            if !is_session(serialized) {
                return Err("failed to de-serialize session".to_owned());
            }
            s.serialized = serialized.to_vec();
            Ok(DONE)
        })
    })
}
