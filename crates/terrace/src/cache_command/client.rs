//! Asks a `tiered_cache_api` over HTTP.
//!
//! HTTP/1.0, so that an answer ends where its connection does; one connection a call.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value as Json;

/// How long the connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// More of an answer is not read.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Where the API is.
#[derive(Debug, PartialEq, Eq)]
pub struct Client {
    /// For the field `Host`.
    host: String,
    /// With a port.
    address: String,
    /// Without a slash at its end.
    path: String,
    timeout: Duration,
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Json,
}

impl Client {
    /// An API at a URL; `timeout` bounds each silence of the server.
    ///
    /// # Errors
    /// What is no URL of HTTP.
    pub fn new(url: &str, timeout: Duration) -> Result<Client> {
        let Some(rest) = url.strip_prefix("http://") else {
            bail!("\"{url}\" is no URL that begins with http://");
        };
        let (host, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if host.is_empty() || host.contains(char::is_whitespace) || path.contains(char::is_whitespace) {
            bail!("\"{url}\" is no URL");
        }
        let port_at = host.rfind(':').filter(|at| !host[*at..].contains(']'));
        let address = if port_at.is_some() { host.to_owned() } else { format!("{host}:80") };
        Ok(Client { host: host.to_owned(), address, path: path.trim_end_matches('/').to_owned(), timeout })
    }

    /// Calls the API. `path` begins with a slash and is escaped already.
    ///
    /// # Errors
    /// The server cannot be reached, or what it answers is not from a `tiered_cache_api`.
    pub fn call(&self, method: &str, path: &str, body: &str) -> Result<Reply> {
        let answer = self.exchange(method, path, body);
        let answer = answer.with_context(|| format!("no answer from {}", self.address))?;
        parse(&answer).with_context(|| format!("http://{}{} is no tiered_cache_api", self.host, self.path))
    }

    fn exchange(&self, method: &str, path: &str, body: &str) -> Result<Vec<u8>> {
        let mut last = None;
        for address in self.address.to_socket_addrs()? {
            let stream = match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(stream) => stream,
                Err(error) => {
                    last = Some(error);
                    continue;
                }
            };
            return self.talk(stream, method, path, body);
        }
        Err(last.map_or_else(|| anyhow::anyhow!("the name has no address"), Into::into))
    }

    fn talk(&self, mut stream: TcpStream, method: &str, path: &str, body: &str) -> Result<Vec<u8>> {
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        let (host, prefix) = (&self.host, &self.path);
        let mut text = format!("{method} {prefix}{path} HTTP/1.0\r\nHost: {host}\r\n");
        if matches!(method, "POST" | "DELETE") {
            write!(text, "Content-Type: application/json\r\nContent-Length: {}\r\n", body.len())?;
        }
        text.push_str("\r\n");
        text.push_str(body);
        stream.write_all(text.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
        Ok(answer)
    }
}

fn parse(answer: &[u8]) -> Result<Reply> {
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").context("the answer is not HTTP")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let line = head.lines().next().unwrap_or_default();
    let status = line.split(' ').nth(1).and_then(|it| it.parse().ok()).context("the answer is not HTTP")?;
    let body =
        serde_json::from_slice(&answer[end + 4..]).with_context(|| format!("it answers \"{line}\""))?;
    Ok(Reply { status, body })
}

/// A text as a part of a path or the value of an argument.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Result<Client> {
        Client::new(url, Duration::from_secs(1))
    }

    #[test]
    fn urls() {
        let plain = client("http://127.0.0.1:8090/cache/").unwrap();
        assert_eq!((&*plain.address, &*plain.path), ("127.0.0.1:8090", "/cache"));
        let bare = client("http://[::1]").unwrap();
        assert_eq!((&*bare.address, &*bare.host, &*bare.path), ("[::1]:80", "[::1]", ""));
        for bad in ["", "127.0.0.1:80", "https://a/", "http:///x", "http://a b/"] {
            assert!(client(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn answers() {
        let reply = parse(b"HTTP/1.1 404 Not Found\r\nA: b\r\n\r\n{\"state\":\"none\"}\n").unwrap();
        assert_eq!((reply.status, &reply.body["state"]), (404, &Json::from("none")));
        assert!(parse(b"SSH-2.0\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n<html>").is_err());
    }

    #[test]
    fn all_but_plain_characters_are_escaped() {
        assert_eq!(escaped("a/b c+ü%"), "a%2Fb%20c%2B%C3%BC%25");
    }
}
