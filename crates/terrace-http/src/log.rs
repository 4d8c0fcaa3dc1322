//! The error log of a request: nginx's line with client, server, request line, upstream and host.

use std::fmt::{self, Write};
use std::rc::Rc;

use terrace_base::log::Level;

use crate::Request;
use crate::tls::Handshake;

/// State of a request that no client made: what the error log says of the client whose request led to it.
#[derive(Debug, Clone)]
pub struct Origin(Rc<str>);

impl Origin {
    /// Of what runs for `r` later.
    pub fn of(r: &Request) -> Option<Origin> {
        if let Some(origin) = r.state::<Origin>() {
            return Some((*origin).clone());
        }
        let client = r.client.as_ref()?;
        let mut text = String::with_capacity(64);
        append_client(r, &mut text);
        let _ = write!(text, ", server: {}", client.listen().address);
        Some(Origin(text.into()))
    }
}

fn append_client(r: &Request, text: &mut String) {
    text.push_str(", client: ");
    match r.peer_ip() {
        Some(ip) => _ = write!(text, "{ip}"),
        None => text.push_str("unix:"),
    }
}

impl Request {
    /// Whether a message of this level would be written.
    pub fn logs(&self, level: Level) -> bool {
        self.location().core.error_log.enabled(level)
    }

    /// Writes a message with the request's context, as nginx does:
    /// `message, client: 127.0.0.1, server: localhost, request: "GET / HTTP/1.1", host: "localhost"`.
    pub fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        if !self.logs(level) {
            return;
        }
        let mut text = String::with_capacity(256);
        let _ = text.write_fmt(message);
        self.append_log_context(&mut text);
        let number = self.client.as_ref().map(|c| c.number);
        self.location().core.error_log.write(level, number, text.as_bytes());
        if let Some(tap) = self.worker.log_tap() {
            tap(level, number, text.as_bytes());
        }
    }

    fn append_log_context(&self, text: &mut String) {
        if let Some(client) = &self.client {
            let is_of_request = !self.line().is_empty();
            let handshake = if is_of_request { None } else { self.state::<Handshake>() };
            if let Some(handshake) = handshake {
                handshake.append_context(text);
                return;
            }
            append_client(self, text);
            let _ = write!(text, ", server: {}", self.server().core.name());
            let main = self.main();
            let line = main.as_deref().unwrap_or(self).line();
            if !line.is_empty() {
                let _ = write!(text, ", request: \"{}\"", String::from_utf8_lossy(line));
            }
            if self.is_subrequest() {
                let _ = write!(text, ", subrequest: \"{}\"", String::from_utf8_lossy(&self.uri()));
            }
            let upstream = self.upstream.borrow();
            if let Some(last) = upstream.attempts.last().filter(|a| a.response_ms.is_none()) {
                let scheme = upstream.exchange.as_ref().map_or("http", |x| x.scheme());
                let _ = write!(text, ", upstream: \"{scheme}://{}", last.address);
                if let Some(exchange) = &upstream.exchange {
                    exchange.append_uri(text);
                }
                text.push('"');
            }
            let host = self.headers_in.value(terrace_http1::KnownHeader::Host);
            if let Some(host) = host.filter(|h| !h.is_empty()) {
                let _ = write!(text, ", host: \"{}\"", String::from_utf8_lossy(&host));
            }
            let _ = client;
        } else {
            text.push_str(", context: ngx.timer");
            if let Some(origin) = self.state::<Origin>() {
                text.push_str(&origin.0);
            }
        }
    }
}
