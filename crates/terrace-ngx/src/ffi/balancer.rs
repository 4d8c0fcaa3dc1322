//! What `balancer_by_lua*` says of an attempt at an upstream: module `ngx.balancer`.

use std::ffi::c_int;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use terrace_net::Address;
use terrace_proxy::{Attempt, FailureKind};

use super::{BAD_CONTEXT, DONE, NO_REQUEST, Text, bytes, fail, functions};
use crate::host::current;
use crate::phase::LuaPhase;

/// Fewer tries are allowed than were asked for.
const REDUCED: c_int = 1;

functions! {
    "int (*balancer_set_peer)(const char *, size_t, int, terrace_text *)" => set_peer,
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
            return None;
        }
        h.request.state::<Attempt>()
    });
    match found {
        None => NO_REQUEST,
        Some(None) => BAD_CONTEXT,
        Some(Some(attempt)) => f(&attempt),
    }
}

extern "C" fn set_peer(address: *const u8, len: usize, port: c_int, out: *mut Text) -> c_int {
    // SAFETY: a Lua string.
    let text = unsafe { bytes(address, len) };
    attempt(|a| match parse(text, port) {
        Ok(address) => {
            a.set_peer(address);
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
