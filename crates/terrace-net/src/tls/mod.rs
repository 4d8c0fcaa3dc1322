//! TLS on rustls: streams, what a server offers, what a client asks for, and who is trusted.
//!
//! The texts and numbers of failed checks are OpenSSL's, which scripts and logs of nginx know.

mod certificate;
mod ciphers;
mod client;
mod credentials;
mod der;
mod external;
mod hello;
mod keylog;
mod ocsp;
mod passphrase;
mod server;
mod sessions;
mod signature;
mod stream;
mod tickets;
mod trust;

use std::io;
use std::sync::{Arc, OnceLock};

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use thiserror::Error;

pub use certificate::{Certificate, Name};
pub use ciphers::{cipher_name, curve_name, unknown_ciphers};
pub use client::{ClientOptions, ClientTls, Session};
pub use credentials::{
    CredentialsError, Identity, certificates_of_der, certificates_of_pem, crls_of_pem, key_of_pem,
    private_key,
};
pub use external::{ExternalSessions, MadeSession, SESSION_BYTES_MAX, is_session};
pub use hello::Hello;
pub use keylog::KeyLogFile;
pub use ocsp::{
    OCSP_RESPONSE_BYTES_MAX, OcspError, check_ocsp_response, is_ocsp_response, ocsp_request, ocsp_responder,
};
pub use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
pub use rustls::sign::SigningKey;
pub use server::{ServerOptions, ServerTls};
pub use stream::{Begun, Refusal, TlsStream};
pub use tickets::TicketKey;
pub use trust::{Trust, Verdict};

/// Why a handshake failed.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The peer closed the connection.
    #[error("peer closed connection in SSL handshake")]
    Closed,
    /// The peer's certificate was refused.
    #[error("{0}")]
    Certificate(Verdict),
    /// A module has ended it; OpenSSL's words for that.
    #[error("{0}")]
    Refused(&'static str),
    /// The protocol went wrong.
    #[error("{0}")]
    Tls(rustls::Error),
    /// The system says so.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<rustls::Error> for HandshakeError {
    fn from(e: rustls::Error) -> HandshakeError {
        if let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = &e
            && let Some(verdict) = other.0.downcast_ref::<Verdict>()
        {
            return HandshakeError::Certificate(verdict.clone());
        }
        HandshakeError::Tls(e)
    }
}

/// The versions of the protocol that may be spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Protocols {
    /// TLS 1.2.
    pub tls12: bool,
    /// TLS 1.3.
    pub tls13: bool,
}

impl Default for Protocols {
    fn default() -> Self {
        Protocols { tls12: true, tls13: true }
    }
}

impl Protocols {
    fn versions(self) -> Vec<&'static SupportedProtocolVersion> {
        let mut all = Vec::new();
        if self.tls13 {
            all.push(&rustls::version::TLS13);
        }
        if self.tls12 {
            all.push(&rustls::version::TLS12);
        }
        all
    }

    /// Whether none is left.
    pub fn is_empty(self) -> bool {
        !self.tls12 && !self.tls13
    }
}

fn default_provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider()))
}

/// The provider with the cipher suites and curves of nginx's lists; an empty list is all.
///
/// # Errors
/// The list that names nothing there is.
fn provider(ciphers: &str, curves: &str) -> Result<Arc<CryptoProvider>, rustls::Error> {
    let mut provider = CryptoProvider::clone(default_provider());
    if !ciphers.is_empty() {
        provider.cipher_suites = ciphers::select(ciphers, &provider.cipher_suites);
    }
    if !curves.is_empty() && curves != "auto" {
        let wanted: Vec<_> = curves.split(':').filter_map(ciphers::curve_of).collect();
        let mut groups = Vec::new();
        for name in wanted {
            groups.extend(provider.kx_groups.iter().find(|g| g.name() == name));
        }
        if groups.is_empty() {
            return Err(rustls::Error::General(format!("no supported curve in \"{curves}\"")));
        }
        provider.kx_groups = groups;
    }
    Ok(Arc::new(provider))
}
