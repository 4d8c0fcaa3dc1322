//! Where a request goes: the URL of `proxy_pass`, and nginx's rules for the URI that is sent there.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use terrace_base::log::Level;
use terrace_conf::{ConfError, Node, Position};
use terrace_http::{Builder, Request, Value, intern};
use terrace_http1::uri::escape_path;

use super::ProxyLists;
use crate::local::Local;
use crate::peers::Peers;
use crate::upstream::{Upstream, Upstreams, of_url};
use crate::url::{HTTP_PORT, HTTPS_PORT, Host, Url};

/// `proxy_pass` as read.
pub(crate) struct PassConf {
    value: Value,
    /// The URL, where it has no variables.
    url: Option<Url>,
    /// The URL as written, for `proxy_redirect default`.
    pub(super) text: Bytes,
    /// The prefix that the URI part replaces.
    pub(super) location: Bytes,
    at: Position,
}

impl PassConf {
    /// Whether requests may go to a server with TLS.
    pub(super) fn may_be_https(&self) -> bool {
        self.url.as_ref().is_none_or(Url::is_https)
    }

    /// The URL's URI part; `None` when the URL has variables.
    pub(super) fn uri(&self) -> Option<&[u8]> {
        self.url.as_ref().map(|u| &u.uri[..])
    }
}

/// `proxy_pass url;`
pub(super) fn set_pass(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let arg = node.arg(0)?;
    let value = Value::compile(b, arg)?;
    let (location, plain) = match b.location_name() {
        Some((name, is_regex)) => {
            let plain = !is_regex && name.first() != Some(&b'@') && !b.is_inner();
            (if plain { intern::text(name) } else { Bytes::new() }, plain)
        }
        None => (Bytes::new(), false),
    };
    let url = match value.as_literal() {
        None => None,
        Some(text) => {
            let (rest, port) = after_scheme(text).map_err(|e| node.error(e))?;
            let url =
                Url::parse_for(rest, port).map_err(|e| node.error(format!("{e} in upstream \"{arg}\"")))?;
            if !url.uri.is_empty() && !plain {
                return Err(node.error(
                    "\"proxy_pass\" cannot have URI part in location given by regular expression, or inside \
                     named location, or inside \"if\" statement, or inside \"limit_except\" block",
                ));
            }
            Some(url)
        }
    };
    let pass = PassConf { value, url, text: arg.value.clone(), location, at: node.at.clone() };
    node.set_once(&mut b.conf::<ProxyLists>().pass, Arc::new(pass))
}

/// What follows the scheme, and the scheme's port.
fn after_scheme(text: &[u8]) -> Result<(&[u8], u16), &'static str> {
    for (scheme, port) in [(&b"http://"[..], HTTP_PORT), (b"https://", HTTPS_PORT)] {
        if text.get(..scheme.len()).is_some_and(|s| s.eq_ignore_ascii_case(scheme)) {
            return Ok((&text[scheme.len()..], port));
        }
    }
    Err("invalid URL prefix")
}

/// A `proxy_pass` ready for requests.
pub(super) struct Pass {
    kind: Kind,
    location: Bytes,
}

enum Kind {
    Static { upstream: Arc<Upstream>, host: Bytes, port: Bytes, uri: Bytes, is_https: bool },
    Dynamic { value: Value, named: FxHashMap<String, Arc<Upstream>> },
}

/// Where one request goes.
pub(crate) struct Target {
    pub(crate) peers: Rc<Peers>,
    /// `$proxy_host`
    pub(crate) host: Bytes,
    /// `$proxy_port`
    pub(crate) port: Bytes,
    uri: Bytes,
    is_dynamic: bool,
    /// Whether TLS is spoken.
    pub(crate) is_https: bool,
}

impl Pass {
    /// Finds or makes the upstream; all blocks have been read.
    pub(super) fn resolve(b: &mut Builder, conf: &PassConf) -> Result<Pass, ConfError> {
        let kind = match &conf.url {
            Some(url) => Kind::Static {
                upstream: of_url(b, url, &conf.at)?,
                host: intern::text(&url.host_header()),
                port: intern::text(&url.port_text()),
                uri: intern::text(&url.uri),
                is_https: url.is_https(),
            },
            None => Kind::Dynamic { value: conf.value.clone(), named: b.state::<Upstreams>().named.clone() },
        };
        Ok(Pass { kind, location: conf.location.clone() })
    }

    /// Whether a balancer chooses the peers, which may also ask for TLS.
    pub(super) fn has_balancer(&self) -> bool {
        matches!(&self.kind, Kind::Static { upstream, .. } if upstream.balancer.is_some())
    }

    /// The target of a request. The error is a status; the log knows why.
    pub(super) async fn target(&self, r: &Request, local: &Local) -> Result<Target, u16> {
        match &self.kind {
            Kind::Static { upstream, host, port, uri, is_https } => Ok(Target {
                peers: local.peers(upstream).ok_or(500_u16)?,
                host: host.clone(),
                port: port.clone(),
                uri: uri.clone(),
                is_dynamic: false,
                is_https: *is_https,
            }),
            Kind::Dynamic { value, named } => {
                let text = value.eval_bytes(r);
                let shown = || String::from_utf8_lossy(&text).into_owned();
                let url =
                    after_scheme(&text).and_then(|(rest, port)| Url::parse_for(rest, port)).map_err(|e| {
                        r.log(Level::Error, format_args!("{e} in \"{}\"", shown()));
                        500_u16
                    })?;
                let block = match &url.host {
                    Host::Name(name) if url.port.is_none() => named.get(name),
                    _ => None,
                };
                let peers = match block {
                    Some(upstream) => local.peers(upstream).ok_or(500_u16)?,
                    None => {
                        let found = local.resolve(r, &url.host, url.port()).await;
                        found.map_err(|e| {
                            r.log(Level::Error, format_args!("{e}"));
                            502_u16
                        })?
                    }
                };
                let (host, port) = (url.host_header().into(), url.port_text().into());
                let is_https = url.is_https();
                Ok(Target { peers, host, port, uri: url.uri.into(), is_dynamic: true, is_https })
            }
        }
    }

    /// Appends the URI that is sent.
    pub(super) fn write_uri(&self, target: &Target, r: &Request, out: &mut Vec<u8>) {
        write_uri(&target.uri, target.is_dynamic, &self.location, r, out);
    }
}

fn write_uri(uri: &[u8], is_dynamic: bool, location: &[u8], r: &Request, out: &mut Vec<u8>) {
    if is_dynamic && !uri.is_empty() {
        out.extend_from_slice(uri);
        return;
    }
    if uri.is_empty() && r.is_uri_as_sent() {
        let start = out.len();
        r.target_as_sent(out);
        keep_path(out, start);
        return;
    }
    let path = r.uri();
    let replaces = !uri.is_empty() && r.is_uri_of_location();
    if replaces {
        out.extend_from_slice(uri);
    }
    let skipped = if replaces { location.len().min(path.len()) } else { 0 };
    escape_path(&path[skipped..], out);
    let args = r.args();
    if !args.is_empty() {
        out.push(b'?');
        out.extend_from_slice(&args);
    }
}

/// Cuts scheme and authority off a target in absolute form, and its fragment.
fn keep_path(out: &mut Vec<u8>, start: usize) {
    if let Some(hash) = memchr::memchr(b'#', &out[start..]) {
        out.truncate(start + hash);
    }
    if out.get(start) == Some(&b'/') {
        return;
    }
    let Some(scheme) = memchr::memmem::find(&out[start..], b"://") else { return };
    let authority = start + scheme + 3;
    let path = out[authority..].iter().position(|b| matches!(b, b'/' | b'?'));
    out.drain(start..path.map_or(out.len(), |p| authority + p));
    if out.get(start) != Some(&b'/') {
        out.insert(start, b'/');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_targets_lose_their_authority() {
        for (sent, want) in [
            ("/a?b", "/a?b"),
            ("/a#f", "/a"),
            ("http://h:1/a?b", "/a?b"),
            ("http://h", "/"),
            ("http://h?x", "/?x"),
        ] {
            let mut out = b"GET ".to_vec();
            out.extend_from_slice(sent.as_bytes());
            keep_path(&mut out, 4);
            assert_eq!(String::from_utf8_lossy(&out[4..]), want, "{sent}");
        }
    }

    #[test]
    fn schemes() {
        assert_eq!(after_scheme(b"HTTP://x/"), Ok((&b"x/"[..], 80)));
        assert_eq!(after_scheme(b"ftp://x/"), Err("invalid URL prefix"));
        assert_eq!(after_scheme(b"https://x"), Ok((&b"x"[..], 443)));
    }
}
