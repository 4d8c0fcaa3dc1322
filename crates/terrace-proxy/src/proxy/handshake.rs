//! Handshakes with the servers of a `proxy_pass https://` in which a module takes part: it gives the certificate to show,
//! and judges the one that is shown.
//!
//! rustls asks for neither while it could wait, so the one hook runs when the server has answered the first message and
//! the other after the handshake, before anything else is sent. Both run for every fresh connection.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use terrace_http::{LocalFuture, Merge, MergeContext, Request};
use terrace_net::tls::{CertificateDer, Identity};

/// Takes part in handshakes with servers.
pub trait UpstreamHook: Send + Sync {
    /// Looks at the handshake and changes it; false ends it.
    fn run(&self, r: &Rc<Request>, handshake: &Rc<UpstreamHandshake>) -> LocalFuture<bool>;
}

/// Who takes part in the handshakes of a location, as directives of modules say.
#[derive(Default)]
pub struct UpstreamHooks {
    /// Gives the certificate to show.
    pub certificate: Option<Arc<dyn UpstreamHook>>,
    /// Judges the server's certificate.
    pub verify: Option<Arc<dyn UpstreamHook>>,
    /// Whether only `verify` judges it, and not `proxy_ssl_trusted_certificate`.
    pub skips_default: Option<bool>,
}

impl Merge for UpstreamHooks {
    fn merge(&mut self, parent: &Self, _: MergeContext) {
        if self.certificate.is_none() {
            self.certificate.clone_from(&parent.certificate);
        }
        if self.verify.is_none() {
            self.verify.clone_from(&parent.verify);
        }
        self.skips_default = self.skips_default.or(parent.skips_default);
    }
}

/// A handshake with a server, as hooks see it.
#[derive(Default)]
pub struct UpstreamHandshake {
    /// The certificate to show instead of the configured one; inner `None` shows none.
    pub identity: RefCell<Option<Option<Identity>>>,
    /// What the server has shown.
    pub chain: RefCell<Option<Vec<CertificateDer<'static>>>>,
    /// OpenSSL's `X509_V_…` about it; 0 is good.
    pub verdict: Cell<u32>,
    /// The version that is spoken, once it is known.
    pub protocol: Cell<Option<&'static str>>,
}
