//! Log lines to a syslog server, as datagrams in the form of RFC 3164.
//!
//! A line that cannot be sent at once is lost, as syslog's lines may be; nothing waits.

use std::io::{self, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use super::Level;
use crate::clock;

/// The longest datagram, in bytes; what is longer is cut.
const DATAGRAM_BYTES_MAX: usize = 2048;
/// The names of facilities, by their numbers.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "intern", "lpr", "news", "uucp", "clock", "authpriv", "ftp",
    "ntp", "audit", "alert", "cron", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];
/// The names of severities, by their numbers.
const SEVERITIES: [&str; 8] = ["emerg", "alert", "crit", "error", "warn", "notice", "info", "debug"];
/// `local7`
const FACILITY: usize = 23;
/// `info`
const SEVERITY: usize = 6;
/// The longest tag, in bytes.
const TAG_BYTES_MAX: usize = 32;
/// syslog's port.
const PORT: u16 = 514;

/// A server that lines are sent to.
#[derive(Debug)]
pub struct Syslog {
    socket: Socket,
    facility: usize,
    severity: usize,
    tag: String,
    hostname: Option<String>,
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Unix { socket: UnixDatagram, path: PathBuf },
}

impl Syslog {
    /// By the text of a directive: `syslog:server=address[,facility=…][,severity=…][,tag=…][,nohostname]`.
    ///
    /// # Errors
    /// What is wrong with the text, in nginx's words.
    pub fn parse(text: &str) -> Result<Syslog, String> {
        let params = text.strip_prefix("syslog:").unwrap_or(text);
        let (mut server, mut facility, mut severity) = (None, FACILITY, SEVERITY);
        let (mut tag, mut shows_host) = (String::from("nginx"), true);
        for param in params.split(',') {
            let number = |names: &[&str], name: &str| names.iter().position(|n| *n == name);
            match param.split_once('=') {
                Some(("server", _)) if server.is_some() => {
                    return Err("duplicate syslog \"server\"".to_owned());
                }
                Some(("server", address)) => server = Some(connect(address)?),
                Some(("facility", name)) => {
                    facility = number(&FACILITIES, name)
                        .ok_or_else(|| format!("unknown syslog facility \"{name}\""))?;
                }
                Some(("severity", name)) => {
                    severity = number(&SEVERITIES, name)
                        .ok_or_else(|| format!("unknown syslog severity \"{name}\""))?;
                }
                Some(("tag", name)) => tag = check_tag(name)?,
                None if param == "nohostname" => shows_host = false,
                _ => return Err(format!("unknown syslog parameter \"{param}\"")),
            }
        }
        let socket = server.ok_or_else(|| "no syslog server specified".to_owned())?;
        let hostname = shows_host.then(|| {
            nix::unistd::gethostname()
                .map_or_else(|_| "localhost".into(), |n| n.to_string_lossy().into_owned())
        });
        Ok(Syslog { socket, facility, severity, tag, hostname })
    }

    /// Sends a line of this level, or where none is given of the severity that was configured.
    ///
    /// # Errors
    /// Of the system, the line being lost.
    pub fn send(&self, level: Option<Level>, line: &[u8]) -> io::Result<()> {
        let severity = level.map_or(self.severity, |level| (level as usize).saturating_sub(1));
        let mut datagram = Vec::with_capacity(DATAGRAM_BYTES_MAX.min(line.len() + 128));
        write!(datagram, "<{}>", self.facility * 8 + severity)?;
        datagram.extend_from_slice(&clock::syslog_time());
        if let Some(hostname) = &self.hostname {
            write!(datagram, " {hostname}")?;
        }
        write!(datagram, " {}: ", self.tag)?;
        datagram.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(line));
        datagram.truncate(DATAGRAM_BYTES_MAX);
        match &self.socket {
            Socket::Udp(socket) => socket.send(&datagram),
            Socket::Unix { socket, path } => socket.send_to(&datagram, path),
        }
        .map(|_| ())
    }
}

fn connect(address: &str) -> Result<Socket, String> {
    let failed = |e: io::Error| format!("syslog server \"{address}\": {e}");
    if let Some(path) = address.strip_prefix("unix:") {
        let socket = UnixDatagram::unbound().map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        return Ok(Socket::Unix { socket, path: path.into() });
    }
    let resolve = || {
        let with_port = address.rsplit_once(':').is_some_and(|(host, port)| {
            port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']'))
        });
        let host = address.trim_start_matches('[').trim_end_matches(']');
        if with_port { first(address) } else { first((host, PORT)) }
    };
    let server = resolve().ok_or_else(|| format!("host not found in syslog server \"{address}\""))?;
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).map_err(failed)?;
    socket.connect(server).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    Ok(Socket::Udp(socket))
}

fn first(address: impl std::net::ToSocketAddrs) -> Option<SocketAddr> {
    address.to_socket_addrs().ok()?.next()
}

fn check_tag(name: &str) -> Result<String, String> {
    if name.len() > TAG_BYTES_MAX {
        return Err("syslog tag length exceeds 32".to_owned());
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err("syslog \"tag\" only allows alphanumeric characters and underscore".to_owned());
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(params: &str, level: Option<Level>, line: &str) -> String {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let syslog = Syslog::parse(&format!("syslog:server={address}{params}")).unwrap();
        syslog.send(level, line.as_bytes()).unwrap();
        let mut buf = [0; DATAGRAM_BYTES_MAX + 1];
        let len = server.recv(&mut buf).unwrap();
        String::from_utf8_lossy(&buf[..len]).into_owned()
    }

    #[test]
    fn lines_arrive_with_priority_time_and_tag() {
        let text = received(",nohostname,tag=web", Some(Level::Error), "a line\n");
        assert!(text.starts_with("<187>") && text.ends_with(" web: a line"), "{text}");
        assert_eq!(text.len(), "<187>Jan  1 00:00:00 web: a line".len(), "{text}");
        let text = received(",facility=user,severity=notice,nohostname", None, "x");
        assert!(text.starts_with("<13>") && text.ends_with(" nginx: x"), "{text}");
        assert_eq!(received("", Some(Level::Info), &"y".repeat(5000)).len(), DATAGRAM_BYTES_MAX);
    }

    #[test]
    fn lines_arrive_at_a_unix_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let server = UnixDatagram::bind(&path).unwrap();
        let syslog = Syslog::parse(&format!("syslog:server=unix:{},nohostname", path.display())).unwrap();
        syslog.send(None, b"line").unwrap();
        let mut buf = [0; 256];
        let len = server.recv(&mut buf).unwrap();
        assert!(buf[..len].ends_with(b" nginx: line"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, error) in [
            ("syslog:facility=user", "no syslog server specified"),
            ("syslog:server=127.0.0.1,facility=none", "unknown syslog facility \"none\""),
            ("syslog:server=127.0.0.1,severity=none", "unknown syslog severity \"none\""),
            (
                "syslog:server=127.0.0.1,tag=a-b",
                "syslog \"tag\" only allows alphanumeric characters and underscore",
            ),
            ("syslog:server=127.0.0.1,none", "unknown syslog parameter \"none\""),
            ("syslog:server=127.0.0.1,server=127.0.0.1", "duplicate syslog \"server\""),
        ] {
            assert_eq!(Syslog::parse(text).err().as_deref(), Some(error), "{text}");
        }
    }
}
