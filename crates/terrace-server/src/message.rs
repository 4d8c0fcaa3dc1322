//! What the serving process and the master say to each other, as text.

use std::fmt;
use std::path::PathBuf;

use terrace_net::{Address, ListenOptions};

/// What the serving process says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// The socket number `index` of an address, bound if it is not there yet.
    Bind {
        /// From 0; beyond what is there by one at most.
        index: usize,
        /// Where.
        address: Address,
        /// How.
        options: ListenOptions,
    },
    /// Close the sockets of an address.
    Release(Address),
    /// The server serves.
    Ready,
}

/// What the master answers to a `bind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The socket comes with it.
    Ok,
    /// The system's error number.
    Error(i32),
}

impl Request {
    /// A request for a socket.
    pub fn bind(index: usize, address: &Address, options: &ListenOptions) -> Request {
        Request::Bind { index, address: address.clone(), options: options.clone() }
    }

    /// Reads one; `None` for what is none.
    pub fn parse(text: &str) -> Option<Request> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "ready" => Some(Request::Ready),
            "release" => Some(Request::Release(parse_address(rest)?)),
            "bind" => {
                let mut words = rest.splitn(7, ' ');
                let mut next = || words.next();
                let index = next()?.parse().ok()?;
                let options = ListenOptions {
                    backlog: next()?.parse().ok()?,
                    receive_buffer_bytes: parse_size(next()?)?,
                    send_buffer_bytes: parse_size(next()?)?,
                    ipv6_only: next()? == "1",
                    keepalive: next()? == "1",
                };
                Some(Request::Bind { index, address: parse_address(next()?)?, options })
            }
            _ => None,
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Request::Ready => f.write_str("ready"),
            Request::Release(address) => write!(f, "release {address}"),
            Request::Bind { index, address, options: o } => {
                let size = |bytes: Option<usize>| bytes.map_or("-".to_owned(), |n| n.to_string());
                let (received, sent) = (size(o.receive_buffer_bytes), size(o.send_buffer_bytes));
                let (ipv6_only, keepalive) = (u8::from(o.ipv6_only), u8::from(o.keepalive));
                write!(f, "bind {index} {} {received} {sent} {ipv6_only} {keepalive} {address}", o.backlog)
            }
        }
    }
}

impl Answer {
    /// Reads one; `None` for what is none.
    pub fn parse(text: &str) -> Option<Answer> {
        match text.split_once(' ') {
            None => (text == "ok").then_some(Answer::Ok),
            Some((word, number)) => (word == "error").then_some(Answer::Error(number.parse().ok()?)),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Ok => f.write_str("ok"),
            Answer::Error(number) => write!(f, "error {number}"),
        }
    }
}

fn parse_address(text: &str) -> Option<Address> {
    match text.strip_prefix("unix:") {
        Some(path) => Some(Address::Unix(PathBuf::from(path))),
        None => Some(Address::Ip(text.parse().ok()?)),
    }
}

fn parse_size(text: &str) -> Option<Option<usize>> {
    if text == "-" { Some(None) } else { text.parse().ok().map(Some) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let options =
            ListenOptions { receive_buffer_bytes: Some(4096), keepalive: true, ..Default::default() };
        let ip = Address::Ip("[::1]:8080".parse().unwrap());
        let unix = Address::Unix("/run/a b.sock".into());
        for request in [
            Request::bind(3, &ip, &options),
            Request::bind(0, &unix, &ListenOptions::default()),
            Request::Release(unix.clone()),
            Request::Ready,
        ] {
            assert_eq!(Request::parse(&request.to_string()), Some(request));
        }
        for answer in [Answer::Ok, Answer::Error(98)] {
            assert_eq!(Answer::parse(&answer.to_string()), Some(answer));
        }
    }

    #[test]
    fn nonsense_is_nothing() {
        for text in ["", "bind", "bind x", "bind 0 511 - - 1 0", "bind 0 511 - - 1 0 nowhere", "go"] {
            assert_eq!(Request::parse(text), None, "{text}");
        }
        assert_eq!(Answer::parse("error x"), None);
        assert_eq!(Answer::parse(""), None);
    }
}
