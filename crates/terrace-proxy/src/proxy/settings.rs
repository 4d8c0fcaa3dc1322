//! A location's proxy settings as the request path reads them, and the handler.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use terrace_conf::ConfError;
use terrace_http::{Builder, Handler, LocationBuilder, Request, Size, Step, Value, intern};
use terrace_http1::{ResponseLimits, Version};

use super::headers::{Ignored, NameSet};
use super::next::NextUpstream;
use super::rewrite::{CookieFlags, CookieRewrite, RedirectRule};
use super::target::{Pass, PassConf};
use super::tls::ProxyTls;
use super::{ProxyConf, ProxyLists, attempts, rewrite};
use crate::bind::Bind;

/// What a location does.
pub(super) struct Settings {
    pub(super) pass: Pass,
    /// TLS, where the pass may need it.
    pub(super) tls: Option<ProxyTls>,
    /// The local address of connections.
    pub(super) bind: Bind,
    pub(super) version: Version,
    pub(super) method: Option<Value>,
    pub(super) set_headers: Vec<(Bytes, HeaderValue)>,
    /// Fields of the client's request that are not passed.
    pub(super) dropped: NameSet,
    pub(super) passes_headers: bool,
    pub(super) passes_body: bool,
    pub(super) set_body: Option<Value>,
    pub(super) connect_timeout_ms: u64,
    pub(super) send_timeout_ms: u64,
    pub(super) read_timeout_ms: u64,
    pub(super) next: NextUpstream,
    pub(super) tries_max: usize,
    pub(super) tries_timeout_ms: u64,
    pub(super) intercepts_errors: bool,
    pub(super) buffers: bool,
    /// How fast responses are read.
    pub(super) limit_rate: Option<Size>,
    pub(super) limits: ResponseLimits,
    /// How much of a response may wait for the client, bytes.
    pub(super) unsent_bytes_max: usize,
    pub(super) ignores_client_abort: bool,
    pub(super) forces_ranges: bool,
    pub(super) ignored: Ignored,
    /// Fields of the response that are not passed on.
    pub(super) hidden: NameSet,
    pub(super) redirects: Vec<RedirectRule>,
    pub(super) cookie_domains: Option<Arc<Vec<CookieRewrite>>>,
    pub(super) cookie_paths: Option<Arc<Vec<CookieRewrite>>>,
    pub(super) cookie_flags: Option<Arc<Vec<CookieFlags>>>,
}

/// The value of a field that is set in the request to the server.
pub(super) enum HeaderValue {
    /// As configured.
    Text(Value),
    /// `$proxy_host`
    ProxyHost,
    /// The length of the body, if there is one.
    ContentLength,
}

/// nginx's fields of the request to the server, where the configuration does not set them.
const DEFAULTS: &[(&str, Default)] = &[
    ("Host", Default::ProxyHost),
    ("Connection", Default::Close),
    ("Content-Length", Default::ContentLength),
    ("Transfer-Encoding", Default::None),
    ("TE", Default::None),
    ("Keep-Alive", Default::None),
    ("Expect", Default::None),
    ("Upgrade", Default::None),
];

#[derive(Clone, Copy)]
enum Default {
    ProxyHost,
    Close,
    ContentLength,
    None,
}

/// Fields of responses that nginx keeps to itself.
const HIDDEN: &[&str] = &[
    "Date",
    "Server",
    "X-Pad",
    "X-Accel-Expires",
    "X-Accel-Redirect",
    "X-Accel-Limit-Rate",
    "X-Accel-Buffering",
    "X-Accel-Charset",
];

impl Settings {
    pub(super) fn resolve(
        b: &mut Builder,
        l: &mut LocationBuilder,
        pass: &PassConf,
    ) -> Result<Settings, ConfError> {
        let lists = l.settings.of::<ProxyLists>();
        let (set_headers, dropped) = request_fields(&lists.set_headers);
        let mut hidden = NameSet::default();
        HIDDEN.iter().for_each(|h| hidden.insert(h.as_bytes()));
        lists.hide.iter().for_each(|h| hidden.insert(h));
        lists.pass_headers.iter().for_each(|h| hidden.remove(h));
        let redirects = rewrite::resolve_redirects(lists.redirects.as_deref().map(|v| &v[..]), pass);
        let (cookie_domains, cookie_paths, cookie_flags) =
            (lists.cookie_domains.clone(), lists.cookie_paths.clone(), lists.cookie_flags.clone());
        let may_be_https = pass.may_be_https();
        let pass = Pass::resolve(b, pass)?;
        let tls = if may_be_https {
            Some(ProxyTls::resolve(b, l)?)
        } else if pass.has_balancer() {
            // Without TLS in the URL, what is wrong with its settings matters only where the balancer asks for it.
            ProxyTls::resolve(b, l).ok()
        } else {
            None
        };
        let c = l.settings.of::<ProxyConf>();
        let (number, size) = c.buffers();
        let limits = ResponseLimits {
            head_bytes_max: u32::try_from(c.buffer_size()).unwrap_or(u32::MAX),
            ..ResponseLimits::default()
        };
        Ok(Settings {
            pass,
            tls,
            bind: c.bind(),
            version: c.http_version(),
            method: c.method(),
            set_headers,
            dropped,
            passes_headers: c.pass_request_headers(),
            passes_body: c.pass_request_body(),
            set_body: c.set_body(),
            connect_timeout_ms: c.connect_timeout_ms(),
            send_timeout_ms: c.send_timeout_ms(),
            read_timeout_ms: c.read_timeout_ms(),
            next: c.next_upstream(),
            tries_max: c.next_upstream_tries(),
            tries_timeout_ms: c.next_upstream_timeout_ms(),
            intercepts_errors: c.intercept_errors(),
            buffers: c.buffering(),
            limit_rate: c.limit_rate(),
            limits,
            unsent_bytes_max: usize::try_from(number.saturating_mul(size)).unwrap_or(usize::MAX),
            ignores_client_abort: c.ignore_client_abort(),
            forces_ranges: c.force_ranges(),
            ignored: c.ignore_headers(),
            hidden,
            redirects,
            cookie_domains,
            cookie_paths,
            cookie_flags,
        })
    }
}

fn request_fields(configured: &[(Bytes, Value)]) -> (Vec<(Bytes, HeaderValue)>, NameSet) {
    let mut fields = Vec::new();
    let mut dropped = NameSet::default();
    for (name, value) in configured {
        dropped.insert(name);
        if !value.is_empty() && value.as_literal() != Some(b"") {
            fields.push((intern::text(name), HeaderValue::Text(value.clone())));
        }
    }
    for (name, default) in DEFAULTS {
        let is_set = configured.iter().any(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes()));
        dropped.insert(name.as_bytes());
        let value = match default {
            _ if is_set => continue,
            Default::None => continue,
            Default::ProxyHost => HeaderValue::ProxyHost,
            Default::ContentLength => HeaderValue::ContentLength,
            Default::Close => HeaderValue::Text(Value::literal(Bytes::from_static(b"close"))),
        };
        fields.push((Bytes::from_static(name.as_bytes()), value));
    }
    (fields, dropped)
}

/// The content handler.
pub(super) struct ProxyHandler(pub(super) Arc<Settings>);

impl Handler for ProxyHandler {
    fn handle(&self, r: &Rc<Request>) -> Step {
        Step::wait(attempts::serve(Arc::clone(&self.0), Rc::clone(r)))
    }
}
