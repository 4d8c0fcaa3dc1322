//! Options of a socket's connection: `setoption`, `getoption`, `getfd`.

use std::ffi::c_int;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use super::conn::reason;
use super::tcp::Tcp;
use super::{CLOSED, shared};
use crate::ffi::{DONE, Text, fail};

/// Sets an option (`value` of 0 or more), or reads it where `value` is -1. The numbers are the Lua side's:
/// 1 keepalive, 2 reuseaddr, 3 tcp-nodelay, 4 sndbuf, 5 rcvbuf, 6 keepintvl, 7 keepcnt.
pub extern "C" fn tcp_option(
    socket: *const Tcp,
    option: c_int,
    value: c_int,
    read: *mut c_int,
    out: *mut Text,
) -> c_int {
    let Some(conn) = shared(socket).and_then(|s| s.conn()) else { return CLOSED };
    let stream = match conn.stream.socket() {
        Ok(stream) => stream,
        // SAFETY: Lua passes a text of its own.
        Err(e) => return unsafe { fail(out, &reason(&e)) },
    };
    let ended = if value < 0 {
        option_of(&stream, option).map(|n| {
            // SAFETY: Lua passes a pointer to an int of its own.
            unsafe { read.write(n) }
        })
    } else {
        set_option(&stream, option, value)
    };
    match ended {
        Ok(()) => DONE,
        // SAFETY: Lua passes a text of its own.
        Err(e) => unsafe { fail(out, &reason(&e)) },
    }
}

fn set_option(s: &SockRef<'_>, option: c_int, value: c_int) -> io::Result<()> {
    let (on, size) = (value != 0, usize::try_from(value).unwrap_or(0));
    match option {
        1 => s.set_keepalive(on),
        2 => s.set_reuse_address(on),
        3 => s.set_tcp_nodelay(on),
        4 => s.set_send_buffer_size(size),
        5 => s.set_recv_buffer_size(size),
        6 => s.set_tcp_keepalive(&TcpKeepalive::new().with_interval(Duration::from_secs(size as u64))),
        7 => s.set_tcp_keepalive(&TcpKeepalive::new().with_retries(u32::try_from(value).unwrap_or(0))),
        _ => Err(io::Error::other("unsupported option")),
    }
}

fn option_of(s: &SockRef<'_>, option: c_int) -> io::Result<c_int> {
    let size = |n: usize| c_int::try_from(n).unwrap_or(c_int::MAX);
    Ok(match option {
        1 => c_int::from(s.keepalive()?),
        2 => c_int::from(s.reuse_address()?),
        3 => c_int::from(s.tcp_nodelay()?),
        4 => size(s.send_buffer_size()?),
        5 => size(s.recv_buffer_size()?),
        6 => size(usize::try_from(s.tcp_keepalive_interval()?.as_secs()).unwrap_or(usize::MAX)),
        7 => c_int::try_from(s.tcp_keepalive_retries()?).unwrap_or(c_int::MAX),
        _ => return Err(io::Error::other("unsupported option")),
    })
}

/// The connection's file descriptor.
pub extern "C" fn tcp_fd(socket: *const Tcp) -> c_int {
    let conn = shared(socket).and_then(|s| s.conn());
    conn.map_or(CLOSED, |c| c.stream.socket().map_or(CLOSED, |s| s.as_raw_fd()))
}
