//! What `balancer_by_lua*` says of an attempt at an upstream: module `ngx.balancer`.

use std::ffi::c_int;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use terrace_net::Address;
use terrace_proxy::{Attempt, FailureKind, parse_local};

use super::{BAD_CONTEXT, DONE, NO_REQUEST, Text, bytes, fail, functions};
use crate::host::current;
use crate::phase::LuaPhase;

/// The request is on no way to an upstream.
const NO_UPSTREAM: c_int = -2;
/// Fewer tries are allowed than were asked for.
const REDUCED: c_int = 1;

functions! {
    "int (*balancer_set_peer)(const char *, size_t, int, const char *, size_t, terrace_text *)" => set_peer,
    "int (*balancer_set_keepalive)(double, double, terrace_text *)" => set_keepalive,
    "int (*balancer_set_tls)(int)" => set_tls,
    "int (*balancer_bind)(const char *, size_t, terrace_text *)" => bind,
    "int (*balancer_set_more_tries)(int)" => set_more_tries,
    "int (*balancer_recreate)(void)" => recreate,
    "int (*balancer_set_timeouts)(double, double, double)" => set_timeouts,
    "int (*balancer_last_failure)(int *)" => last_failure,
}

/// The attempt before got an answer that means to try another peer (nginx's `NGX_PEER_NEXT`).
const NEXT: c_int = 2;
/// The attempt before failed (`NGX_PEER_FAILED`).
const FAILED_PEER: c_int = 4;

/// Calls `f` with the attempt whose peer the running code chooses.
fn attempt(f: impl FnOnce(&Attempt) -> c_int) -> c_int {
    let found = current(|h| {
        if !h.is_in(LuaPhase::Balancer as u32) {
            let is_after = !h.request.upstream.borrow().attempts.is_empty();
            return Err(if is_after { BAD_CONTEXT } else { NO_UPSTREAM });
        }
        h.request.state::<Attempt>().ok_or(BAD_CONTEXT)
    });
    match found {
        None => NO_REQUEST,
        Some(Err(code)) => code,
        Some(Ok(attempt)) => f(&attempt),
    }
}

extern "C" fn set_peer(
    address: *const u8,
    len: usize,
    port: c_int,
    host: *const u8,
    host_len: usize,
    out: *mut Text,
) -> c_int {
    // SAFETY: a Lua string.
    let text = unsafe { bytes(address, len) };
    // SAFETY: a Lua string, or NULL with no length.
    let host = if host_len == 0 { &[] } else { unsafe { bytes(host, host_len) } };
    attempt(|a| match parse(text, port) {
        Ok(address) => {
            let host = String::from_utf8_lossy(host);
            a.set_peer(address, Some(&*host).filter(|host| !host.is_empty()));
            DONE
        }
        // SAFETY: Lua passes a text of its own.
        Err(text) => unsafe { fail(out, text) },
    })
}

/// An address: `unix:` and a path, or an IP address that may have a port of its own. Names are not resolved.
fn parse(text: &[u8], port: c_int) -> Result<Address, &'static str> {
    let text = std::str::from_utf8(text).map_err(|_| "no host allowed")?;
    if let Some(path) = text.strip_prefix("unix:") {
        return if path.is_empty() {
            Err("no path in the unix domain socket")
        } else {
            Ok(Address::Unix(PathBuf::from(path)))
        };
    }
    if text.is_empty() {
        return Err("no host");
    }
    if let Ok(whole) = text.parse::<SocketAddr>() {
        return Ok(Address::Ip(whole));
    }
    let port = u16::try_from(port).map_err(|_| "invalid port")?;
    let host = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    let ip: IpAddr = host.parse().map_err(|_| "no host allowed")?;
    Ok(Address::Ip(SocketAddr::new(ip, port)))
}

/// Keeps the connection for so many ms and requests; 0 is no limit.
extern "C" fn set_keepalive(idle_ms: f64, requests: f64, out: *mut Text) -> c_int {
    let whole = |n: f64| if n > 0.0 { (n as u64).max(1) } else { 0 };
    let requests = u32::try_from(whole(requests)).unwrap_or(0);
    attempt(|a| match a.set_keepalive(whole(idle_ms), requests) {
        true => DONE,
        // SAFETY: Lua passes a text of its own.
        false => unsafe { fail(out, "no current peer set") },
    })
}

extern "C" fn set_tls(on: c_int) -> c_int {
    attempt(|a| {
        a.set_tls(on != 0);
        DONE
    })
}

extern "C" fn bind(address: *const u8, len: usize, out: *mut Text) -> c_int {
    // SAFETY: a Lua string.
    let text = unsafe { bytes(address, len) };
    attempt(|a| match parse_local(text) {
        Some(local) => {
            a.bind(local);
            DONE
        }
        None => {
            let message = format!("invalid addr {}", String::from_utf8_lossy(text));
            // SAFETY: Lua passes a text of its own.
            unsafe { fail(out, &message) }
        }
    })
}

extern "C" fn set_more_tries(count: c_int) -> c_int {
    attempt(|a| if a.set_more_tries(u32::try_from(count).unwrap_or(0)) { DONE } else { REDUCED })
}

extern "C" fn recreate() -> c_int {
    attempt(|a| {
        a.recreate_request();
        DONE
    })
}

/// In ms; 0 leaves a timeout as it is.
extern "C" fn set_timeouts(connect_ms: f64, send_ms: f64, read_ms: f64) -> c_int {
    let given = |ms: f64| (ms > 0.0).then(|| (ms as u64).max(1));
    attempt(|a| {
        a.set_timeouts(given(connect_ms), given(send_ms), given(read_ms));
        DONE
    })
}

/// How the attempt before ended; `DONE` when there was none.
extern "C" fn last_failure(status: *mut c_int) -> c_int {
    attempt(|a| {
        let Some(failure) = a.last_failure() else { return DONE };
        // SAFETY: Lua passes a pointer to an int of its own.
        unsafe { status.write(c_int::from(failure.status)) };
        match failure.kind {
            FailureKind::Next => NEXT,
            FailureKind::Failed => FAILED_PEER,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn addresses_of_peers() {
        let shown = |text: &str, port| parse(text.as_bytes(), port).map(|a| a.to_string());
        assert_eq!(shown("127.0.0.1", 80).as_deref(), Ok("127.0.0.1:80"));
        assert_eq!(shown("127.0.0.1:81", 80).as_deref(), Ok("127.0.0.1:81"));
        assert_eq!(shown("[::1]", 80).as_deref(), Ok("[::1]:80"));
        assert_eq!(shown("::1", 80).as_deref(), Ok("[::1]:80"));
        assert_eq!(shown("unix:/run/x.sock", 0).as_deref(), Ok("unix:/run/x.sock"));
        assert_eq!(shown("example.com", 80), Err("no host allowed"));
        assert_eq!(shown("127.0.0.1", 65536), Err("invalid port"));
        assert_eq!(shown("", 1), Err("no host"));
        assert_eq!(shown("unix:", 1), Err("no path in the unix domain socket"));
    }
}
