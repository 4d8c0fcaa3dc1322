//! `proxy_pass` and its directives: what they are, how they merge, and what a location makes of them.

mod attempts;
mod body;
pub(crate) mod exchange;
mod handshake;
mod headers;
pub(crate) mod next;
mod request;
mod response;
mod rewrite;
mod settings;
mod target;
pub(crate) mod tls;
mod tunnel;
pub(crate) mod wait;

use std::sync::Arc;

use bytes::Bytes;
use terrace_conf::{Arity, ConfError, Contexts, Directive, Node};
use terrace_http::conf::table::{HSL, flag, simple, size, time_ms};
use terrace_http::{Builder, LocationBuilder, Merge, MergeContext, Module, Size, Value, setting, settings};
use terrace_http1::Version;

pub(crate) use attempts::{to_net, to_upstream, unbound};
pub use handshake::{UpstreamHandshake, UpstreamHook, UpstreamHooks};
use next::NextUpstream;
use rewrite::{CookieFlags, CookieRewrite, RedirectRule};
use settings::{ProxyHandler, Settings};
use target::PassConf;
pub use tls::ProxySsl;

use crate::bind::Bind;

/// The module.
pub struct Proxy;

settings! {
    /// Plain settings of `proxy_*` directives.
    pub(crate) struct ProxyConf {
        /// `proxy_http_version`.
        http_version: Version = Version::Http10,
        /// `proxy_method`.
        method: Option<Value> = None,
        /// `proxy_pass_request_headers`.
        pass_request_headers: bool = true,
        /// `proxy_pass_request_body`.
        pass_request_body: bool = true,
        /// `proxy_set_body`.
        set_body: Option<Value> = None,
        /// `proxy_bind`.
        bind: Bind = Bind::Off,
        /// `proxy_connect_timeout`, ms.
        connect_timeout_ms: u64 = 60_000,
        /// `proxy_send_timeout`, ms.
        send_timeout_ms: u64 = 60_000,
        /// `proxy_read_timeout`, ms.
        read_timeout_ms: u64 = 60_000,
        /// `proxy_next_upstream`.
        next_upstream: NextUpstream = NextUpstream::ERROR.union(NextUpstream::TIMEOUT),
        /// `proxy_next_upstream_tries`; 0 is no bound.
        next_upstream_tries: usize = 0,
        /// `proxy_next_upstream_timeout`, ms; 0 is no bound.
        next_upstream_timeout_ms: u64 = 0,
        /// `proxy_intercept_errors`.
        intercept_errors: bool = false,
        /// `proxy_buffering`.
        buffering: bool = true,
        /// `proxy_request_buffering`.
        request_buffering: bool = true,
        /// `proxy_limit_rate`.
        limit_rate: Option<Size> = None,
        /// `proxy_buffer_size`, bytes.
        buffer_size: u64 = 4096,
        /// `proxy_buffers`: number and size.
        buffers: (u64, u64) = (8, 4096),
        /// `proxy_busy_buffers_size`, bytes.
        busy_buffers_size: u64 = 8192,
        /// `proxy_ignore_client_abort`.
        ignore_client_abort: bool = false,
        /// `proxy_force_ranges`.
        force_ranges: bool = false,
        /// `proxy_ignore_headers`.
        ignore_headers: headers::Ignored = headers::Ignored::empty(),
    }
}

/// Lists and what does not merge field by field.
#[derive(Default)]
pub(crate) struct ProxyLists {
    pub(crate) pass: Option<Arc<PassConf>>,
    /// Whether an `if` block has the pass of the location around it.
    pass_is_inherited: bool,
    set_headers: Vec<(Bytes, Value)>,
    hide: Vec<Bytes>,
    pass_headers: Vec<Bytes>,
    redirects: Option<Arc<Vec<RedirectRule>>>,
    cookie_domains: Option<Arc<Vec<CookieRewrite>>>,
    cookie_paths: Option<Arc<Vec<CookieRewrite>>>,
    cookie_flags: Option<Arc<Vec<CookieFlags>>>,
}

impl Merge for ProxyLists {
    fn merge(&mut self, parent: &Self, context: MergeContext) {
        if context.is_if && self.pass.is_none() {
            self.pass.clone_from(&parent.pass);
            self.pass_is_inherited = true;
        }
        inherit(&mut self.set_headers, &parent.set_headers);
        inherit(&mut self.hide, &parent.hide);
        inherit(&mut self.pass_headers, &parent.pass_headers);
        for (mine, theirs) in [
            (&mut self.cookie_domains, &parent.cookie_domains),
            (&mut self.cookie_paths, &parent.cookie_paths),
        ] {
            if mine.is_none() {
                mine.clone_from(theirs);
            }
        }
        if self.redirects.is_none() {
            self.redirects.clone_from(&parent.redirects);
        }
        if self.cookie_flags.is_none() {
            self.cookie_flags.clone_from(&parent.cookie_flags);
        }
    }
}

fn inherit<T: Clone>(mine: &mut Vec<T>, theirs: &[T]) {
    if mine.is_empty() {
        mine.extend_from_slice(theirs);
    }
}

impl Module for Proxy {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn location(&self, b: &mut Builder, l: &mut LocationBuilder) -> Result<(), ConfError> {
        let lists = l.settings.of::<ProxyLists>();
        let is_inherited = lists.pass_is_inherited;
        let Some(pass) = lists.pass.clone() else { return Ok(()) };
        let settings = Settings::resolve(b, l, &pass)?;
        l.core.auto_redirect = l.name.last() == Some(&b'/');
        let handler = ProxyHandler(Arc::new(settings));
        if l.is_if && !is_inherited {
            l.set_own_content(handler);
        } else {
            l.set_content(handler);
        }
        Ok(())
    }
}

const PASS_CONTEXTS: Contexts = Contexts::LOCATION.union(Contexts::LOCATION_IF).union(Contexts::LIMIT_EXCEPT);
const ONE: Arity = Arity::Exactly(1);

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    simple("proxy_pass", PASS_CONTEXTS, ONE, "", "The server that requests are passed to.", target::set_pass),
    simple("proxy_set_header", HSL, Arity::Exactly(2), "", "Sets or removes a header field of the request to the server.", set_header),
    simple("proxy_hide_header", HSL, ONE, "", "A response header field that is not passed on.", |b, n| { let v = n.bytes(0)?.clone(); b.conf::<ProxyLists>().hide.push(v); Ok(()) }),
    simple("proxy_pass_header", HSL, ONE, "", "A response header field that is passed on although it is hidden by default.", |b, n| { let v = n.bytes(0)?.clone(); b.conf::<ProxyLists>().pass_headers.push(v); Ok(()) }),
    simple("proxy_ignore_headers", HSL, Arity::AtLeast(1), "", "Response header fields that have no effect here.", |b, n| { let v = headers::Ignored::read(n)?; n.set_once(&mut b.conf::<ProxyConf>().ignore_headers, v) }),
    simple("proxy_redirect", HSL, Arity::Between(1, 2), "default", "Rewrites Location and Refresh of responses.", rewrite::set_redirect),
    simple("proxy_cookie_domain", HSL, Arity::Between(1, 2), "off", "Rewrites the domain of cookies.", rewrite::set_cookie_domain),
    simple("proxy_cookie_path", HSL, Arity::Between(1, 2), "off", "Rewrites the path of cookies.", rewrite::set_cookie_path),
    simple("proxy_cookie_flags", HSL, Arity::AtLeast(1), "off", "Adds flags to cookies or removes them.", rewrite::set_cookie_flags),
    simple("proxy_method", HSL, ONE, "", "The method of the request to the server.", |b, n| { let v = Some(Value::compile(b, n.arg(0)?)?); n.set_once(&mut b.conf::<ProxyConf>().method, v) }),
    simple("proxy_set_body", HSL, ONE, "", "The body of the request to the server.", |b, n| { let v = Some(Value::compile(b, n.arg(0)?)?); n.set_once(&mut b.conf::<ProxyConf>().set_body, v) }),
    simple("proxy_pass_request_headers", HSL, Arity::Flag, "on", "Whether the client's header fields are passed.", setting!(ProxyConf, pass_request_headers, flag)),
    simple("proxy_pass_request_body", HSL, Arity::Flag, "on", "Whether the client's body is passed.", setting!(ProxyConf, pass_request_body, flag)),
    simple("proxy_http_version", HSL, ONE, "1.0", "The HTTP version spoken to the server.", setting!(ProxyConf, http_version, |n: &Node| n.one_of(0, &[("1.0", Version::Http10), ("1.1", Version::Http11)]))),
    simple("proxy_bind", HSL, Arity::Between(1, 2), "off", "The local address that connections to the server come from.", |b, n| { let v = Bind::read(b, n)?; n.set_once(&mut b.conf::<ProxyConf>().bind, v) }),
    simple("proxy_connect_timeout", HSL, ONE, "60s", "How long connecting may take.", setting!(ProxyConf, connect_timeout_ms, time_ms)),
    simple("proxy_send_timeout", HSL, ONE, "60s", "How long a write to the server may take.", setting!(ProxyConf, send_timeout_ms, time_ms)),
    simple("proxy_read_timeout", HSL, ONE, "60s", "How long a read from the server may take.", setting!(ProxyConf, read_timeout_ms, time_ms)),
    simple("proxy_next_upstream", HSL, Arity::AtLeast(1), "error timeout", "In which cases the next server is tried.", |b, n| { let v = NextUpstream::read(n)?; n.set_once(&mut b.conf::<ProxyConf>().next_upstream, v) }),
    simple("proxy_next_upstream_tries", HSL, ONE, "0", "How many servers are tried; 0 is no limit.", setting!(ProxyConf, next_upstream_tries, |n: &Node| n.number(0))),
    simple("proxy_next_upstream_timeout", HSL, ONE, "0", "How long servers are tried; 0 is no limit.", setting!(ProxyConf, next_upstream_timeout_ms, time_ms)),
    simple("proxy_intercept_errors", HSL, Arity::Flag, "off", "Whether error_page applies to responses of the server.", setting!(ProxyConf, intercept_errors, flag)),
    simple("proxy_buffering", HSL, Arity::Flag, "on", "Whether pieces of a response may wait to be sent together.", setting!(ProxyConf, buffering, flag)),
    simple("proxy_request_buffering", HSL, Arity::Flag, "on", "Whether the request's body is read whole first.", set_request_buffering),
    simple("proxy_limit_rate", HSL, ONE, "0", "How many bytes of a response are read in a second; 0 is no limit.", |b, n| { let v = Some(Size::read(b, n)?); n.set_once(&mut b.conf::<ProxyConf>().limit_rate, v) }),
    simple("proxy_buffer_size", HSL, ONE, "4k", "The longest head of a response.", setting!(ProxyConf, buffer_size, size)),
    simple("proxy_buffers", HSL, Arity::Exactly(2), "8 4k", "Together, how much of a response may wait for the client.", setting!(ProxyConf, buffers, |n: &Node| Ok((n.number(0)?, n.size(1)?)))),
    simple("proxy_busy_buffers_size", HSL, ONE, "8k", "Accepted; see proxy_buffers.", setting!(ProxyConf, busy_buffers_size, size)),
    simple("proxy_ignore_client_abort", HSL, Arity::Flag, "off", "Whether the exchange goes on when the client leaves.", setting!(ProxyConf, ignore_client_abort, flag)),
    simple("proxy_force_ranges", HSL, Arity::Flag, "off", "Whether ranges are served whatever the server says.", setting!(ProxyConf, force_ranges, flag)),
];

fn set_header(b: &mut Builder, n: &Node) -> Result<(), ConfError> {
    let name = n.bytes(0)?.clone();
    let value = Value::compile(b, n.arg(1)?)?;
    b.conf::<ProxyLists>().set_headers.push((name, value));
    Ok(())
}

fn set_request_buffering(b: &mut Builder, n: &Node) -> Result<(), ConfError> {
    let on = n.flag(0)?;
    if !on {
        b.warn(&n.at, "\"proxy_request_buffering off\" is treated as \"on\": bodies are read whole first");
    }
    n.set_once(&mut b.conf::<ProxyConf>().request_buffering, on)
}
