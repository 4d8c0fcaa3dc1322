//! What a client asks of servers: whom it trusts, which versions and ciphers it speaks, its own certificate.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionMemoryCache, ClientSessionStore, ResolvesClientCert, Resumption};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};

use super::signature::check_handshake;
use super::{HandshakeError, Identity, KeyLogFile, Protocols, Trust, provider};

/// How many servers' sessions are kept.
const SESSIONS_MAX: usize = 256;

/// Settings of connections to servers.
#[derive(Debug, Clone, Default)]
pub struct ClientOptions {
    /// Versions.
    pub protocols: Protocols,
    /// OpenSSL's list for TLS 1.2; empty is all.
    pub ciphers: String,
    /// Whom to trust; none trusts everybody.
    pub trust: Option<Arc<Trust>>,
    /// Whether the server must prove that its certificate is its own, even where everybody is trusted.
    pub checks_signatures: bool,
    /// The client's own certificate.
    pub identity: Option<Identity>,
    /// Whether sessions are kept for later connections.
    pub reuses_sessions: bool,
    /// Whether servers are usually told the name that is wanted.
    pub sends_name: bool,
    /// Where the secrets of connections go.
    pub key_log: Option<Arc<KeyLogFile>>,
}

/// A client's side, ready for handshakes.
#[derive(Debug, Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    verifies: bool,
    key_log: Option<Arc<KeyLogFile>>,
}

/// Sessions with one server, kept by a script.
#[derive(Debug, Clone)]
pub struct Session(Arc<dyn ClientSessionStore>);

impl Default for Session {
    fn default() -> Self {
        Session(Arc::new(ClientSessionMemoryCache::new(1)))
    }
}

impl ClientTls {
    /// From settings.
    ///
    /// # Errors
    /// Settings that leave nothing to speak.
    pub fn new(o: ClientOptions) -> Result<ClientTls, rustls::Error> {
        let provider = provider(&o.ciphers, "")?;
        let algorithms = provider.signature_verification_algorithms;
        let builder =
            ClientConfig::builder_with_provider(provider).with_protocol_versions(&o.protocols.versions())?;
        let verifies = o.trust.is_some();
        let checks_signatures = verifies || o.checks_signatures;
        let check = Arc::new(Check { trust: o.trust, checks_signatures, algorithms });
        let builder = builder.dangerous().with_custom_certificate_verifier(check);
        let mut config = match o.identity {
            Some(Identity(key)) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key))),
            None => builder.with_no_client_auth(),
        };
        config.resumption = if o.reuses_sessions {
            Resumption::in_memory_sessions(SESSIONS_MAX)
        } else {
            Resumption::disabled()
        };
        config.enable_sni = o.sends_name;
        if let Some(log) = &o.key_log {
            config.key_log = Arc::clone(log) as Arc<dyn rustls::KeyLog>;
        }
        Ok(ClientTls { config: Arc::new(config), verifies, key_log: o.key_log })
    }

    /// Whether it is the same client, and so has the same settings.
    pub fn is(&self, other: &ClientTls) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }

    /// Where the secrets of its connections go.
    pub fn key_log(&self) -> Option<Arc<KeyLogFile>> {
        self.key_log.clone()
    }

    /// The same client with another certificate of its own.
    pub fn with_identity(&self, identity: &Identity) -> ClientTls {
        let mut config = ClientConfig::clone(&self.config);
        config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(Arc::clone(&identity.0)));
        ClientTls { config: Arc::new(config), ..self.clone() }
    }

    /// The same client for one handshake whose certificate is chosen while it is under way. It takes no session up again,
    /// and keeps none: they would be of other certificates.
    pub(super) fn choosing(&self) -> (ClientTls, Arc<Choice>) {
        let mut config = ClientConfig::clone(&self.config);
        let configured = Arc::clone(&config.client_auth_cert_resolver);
        let choice = Arc::new(Choice { configured, chosen: OnceLock::new() });
        config.client_auth_cert_resolver = Arc::clone(&choice) as Arc<dyn ResolvesClientCert>;
        config.resumption = Resumption::disabled();
        (ClientTls { config: Arc::new(config), ..self.clone() }, choice)
    }

    /// A connection to a host. Without a name none is sent, and the certificate may be any host's. With a `session`,
    /// that is where sessions come from and go to.
    pub(super) fn connection(
        &self,
        host: Option<&str>,
        sends_name: bool,
        session: Option<&Session>,
    ) -> Result<rustls::ClientConnection, HandshakeError> {
        let name = match host {
            Some(host) => match ServerName::try_from(host.to_owned()) {
                Ok(name) => name,
                // Nobody asks whose certificate it is.
                Err(_) if !self.verifies => ServerName::from(NO_HOST),
                Err(_) => {
                    let text = format!("invalid server name \"{host}\"");
                    return Err(HandshakeError::Tls(rustls::Error::General(text)));
                }
            },
            None => ServerName::from(NO_HOST),
        };
        let mut config = Arc::clone(&self.config);
        if sends_name != config.enable_sni || session.is_some() {
            let own = Arc::make_mut(&mut config);
            own.enable_sni = sends_name;
            if let Some(Session(store)) = session {
                own.resumption = Resumption::store(Arc::clone(store));
            }
        }
        Ok(rustls::ClientConnection::new(config, name)?)
    }
}

/// The certificate that a client shows in a handshake under way.
#[derive(Debug)]
pub(super) struct Choice {
    configured: Arc<dyn ResolvesClientCert>,
    /// What to show instead; inner `None` is nothing.
    chosen: OnceLock<Option<Identity>>,
}

impl Choice {
    /// Shows this one. It is chosen once.
    pub(super) fn choose(&self, identity: Option<Identity>) {
        let _ = self.chosen.set(identity);
    }
}

impl ResolvesClientCert for Choice {
    fn resolve(&self, hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        match self.chosen.get() {
            Some(identity) => identity.as_ref().map(|i| Arc::clone(&i.0)),
            None => self.configured.resolve(hints, schemes),
        }
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Stands for "no host": an address is not sent, and a certificate for this one is not asked for.
const NO_HOST: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);

/// Checks a server's certificate. One who trusts everybody checks no signature either, unless somebody else looks at the
/// certificate later: whoever sits in between could show a certificate of its own.
#[derive(Debug)]
struct Check {
    trust: Option<Arc<Trust>>,
    checks_signatures: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Check {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(trust) = &self.trust {
            let mut chain = Vec::with_capacity(1 + intermediates.len());
            chain.push(leaf.clone());
            chain.extend_from_slice(intermediates);
            let host = Some(name.to_str()).filter(|_| *name != ServerName::from(NO_HOST));
            trust
                .check_server(&chain, host.as_deref())
                .map_err(|v| CertificateError::Other(OtherError(Arc::new(v))))?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if !self.checks_signatures {
            return Ok(HandshakeSignatureValid::assertion());
        }
        check_handshake(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        if !self.checks_signatures {
            return Ok(HandshakeSignatureValid::assertion());
        }
        check_handshake(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
