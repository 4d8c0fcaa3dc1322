//! The URL of a `proxy_pass`, taken apart by nginx's rules.

use std::path::PathBuf;

/// Where a URL points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// A name or literal address; IPv6 with its brackets.
    Name(String),
    /// A Unix socket.
    Unix(PathBuf),
}

/// A URL without its scheme.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// The host.
    pub host: Host,
    /// The port, where one is written.
    pub port: Option<u16>,
    /// The port that is meant where none is written.
    pub usual_port: u16,
    /// The URI part as written; empty when there is none.
    pub uri: Vec<u8>,
}

/// What `http://` stands for.
pub(crate) const HTTP_PORT: u16 = 80;
/// What `https://` stands for.
pub(crate) const HTTPS_PORT: u16 = 443;

impl Url {
    /// Takes apart what follows `http://`. The error is nginx's text for it.
    pub(crate) fn parse(text: &[u8]) -> Result<Url, &'static str> {
        Url::parse_for(text, HTTP_PORT)
    }

    /// Takes apart what follows a scheme with this port.
    pub(crate) fn parse_for(text: &[u8], usual_port: u16) -> Result<Url, &'static str> {
        if let Some(rest) = text.strip_prefix(b"unix:") {
            let end = memchr::memchr(b':', rest);
            let (path, uri) = end.map_or((rest, &b""[..]), |i| (&rest[..i], &rest[i + 1..]));
            if path.is_empty() {
                return Err("no path in the unix domain socket");
            }
            let path = std::str::from_utf8(path).map_err(|_| "invalid path in the unix domain socket")?;
            return Ok(Url { host: Host::Unix(path.into()), port: None, usual_port, uri: uri.to_vec() });
        }
        let end = text.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(text.len());
        let (authority, uri) = text.split_at(end);
        let mut uri = uri.to_vec();
        if uri.first() == Some(&b'?') {
            uri.insert(0, b'/');
        }
        let (host, port) = split_port(authority)?;
        Ok(Url { host: Host::Name(host), port, usual_port, uri })
    }

    /// `$proxy_host`: the host, with the port where it is not the scheme's.
    pub(crate) fn host_header(&self) -> Vec<u8> {
        match (&self.host, self.port) {
            (Host::Unix(_), _) => b"localhost".to_vec(),
            (Host::Name(h), Some(p)) if p != self.usual_port => format!("{h}:{p}").into(),
            (Host::Name(h), _) => h.clone().into(),
        }
    }

    /// `$proxy_port`.
    pub(crate) fn port_text(&self) -> Vec<u8> {
        match self.host {
            Host::Unix(_) => Vec::new(),
            Host::Name(_) => self.port().to_string().into(),
        }
    }

    /// Whether its scheme is `https`.
    pub(crate) fn is_https(&self) -> bool {
        self.usual_port == HTTPS_PORT
    }

    /// The port.
    pub(crate) fn port(&self) -> u16 {
        self.port.unwrap_or(self.usual_port)
    }
}

/// Splits `host[:port]`, with the brackets of an IPv6 address.
fn split_port(authority: &[u8]) -> Result<(String, Option<u16>), &'static str> {
    let text = std::str::from_utf8(authority).map_err(|_| "invalid host")?;
    let (host, rest) = terrace_net::split_host(text)?;
    if rest.is_empty() {
        return Ok((host.to_owned(), None));
    }
    let port = rest.strip_prefix(':').and_then(|p| p.parse().ok()).filter(|p| *p > 0);
    Ok((host.to_owned(), Some(port.ok_or("invalid port")?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(String, Option<u16>, String), &'static str> {
        let u = Url::parse(text.as_bytes())?;
        let Host::Name(host) = u.host else { return Err("unix") };
        Ok((host, u.port, String::from_utf8_lossy(&u.uri).into_owned()))
    }

    #[test]
    fn urls_are_taken_apart() {
        let want = |h: &str, p, u: &str| Ok((h.to_owned(), p, u.to_owned()));
        assert_eq!(parse("backend"), want("backend", None, ""));
        assert_eq!(parse("backend/"), want("backend", None, "/"));
        assert_eq!(parse("10.0.0.1:8080/a/b?c"), want("10.0.0.1", Some(8080), "/a/b?c"));
        assert_eq!(parse("h?x=1"), want("h", None, "/?x=1"));
        assert_eq!(parse("[::1]:90/x"), want("[::1]", Some(90), "/x"));
        assert_eq!(parse("h:0"), Err("invalid port"));
        assert_eq!(parse("h:99999"), Err("invalid port"));
        assert_eq!(parse(":80"), Err("no host"));
        assert_eq!(parse("[::1"), Err("invalid host"));
    }

    #[test]
    fn unix_sockets_have_their_own_form() {
        let u = Url::parse(b"unix:/run/a.sock:/v1/").unwrap();
        assert_eq!((u.host.clone(), &u.uri[..]), (Host::Unix("/run/a.sock".into()), &b"/v1/"[..]));
        assert_eq!(u.host_header(), b"localhost");
        assert_eq!(Url::parse(b"unix:/run/a.sock").unwrap().uri, b"");
        assert_eq!(Url::parse(b"unix::/x"), Err("no path in the unix domain socket"));
    }

    #[test]
    fn the_host_header_names_an_unusual_port_only() {
        let header = |t: &str| String::from_utf8(Url::parse(t.as_bytes()).unwrap().host_header()).unwrap();
        assert_eq!(header("h"), "h");
        assert_eq!(header("h:80/"), "h");
        assert_eq!(header("h:81/"), "h:81");
        assert_eq!(Url::parse_for(b"h:443/", HTTPS_PORT).unwrap().host_header(), b"h");
        assert_eq!(Url::parse_for(b"h:80/", HTTPS_PORT).unwrap().host_header(), b"h:80");
        assert_eq!(Url::parse_for(b"h", HTTPS_PORT).unwrap().port_text(), b"443");
    }
}
