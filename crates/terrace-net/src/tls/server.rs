//! What a server offers to its clients: certificates, versions, ciphers, and whether it asks for their certificates.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, StoresServerSessions,
};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureAlgorithm, SignatureScheme};

use super::external::{ExternalSessions, MadeSession};
use super::sessions::{self, Sessions};
use super::signature::check_handshake;
use super::tickets::{FileTickets, TicketKey};
use super::{Identity, KeyLogFile, Protocols, Trust, provider};

/// nginx's `ssl_*` settings of a server, as far as the handshake goes.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// Certificates of different kinds.
    pub identities: Vec<Identity>,
    /// Versions.
    pub protocols: Protocols,
    /// OpenSSL's list for TLS 1.2; empty is all.
    pub ciphers: String,
    /// OpenSSL's list of curves; empty is all.
    pub curves: String,
    /// Whether the server's order of ciphers counts.
    pub prefers_own_ciphers: bool,
    /// How many sessions are kept for clients without tickets; 0 is none.
    pub sessions_max: usize,
    /// How long a session may be taken up again, ms.
    pub session_timeout_ms: u64,
    /// Whether clients get tickets.
    pub tickets: bool,
    /// Keys of tickets that other servers have too; none makes keys that only this process has.
    pub ticket_keys: Option<Arc<[TicketKey]>>,
    /// Where the secrets of connections go.
    pub key_log: Option<Arc<KeyLogFile>>,
    /// Whether clients are asked for a certificate.
    pub asks_client: bool,
    /// Whose names are told to clients that are asked.
    pub client_authorities: Option<Arc<Trust>>,
    /// The largest record, bytes; none is the protocol's bound.
    pub record_bytes_max: Option<usize>,
}

/// A server's side, ready for handshakes.
#[derive(Debug, Clone)]
pub struct ServerTls {
    options: Arc<ServerOptions>,
    pub(super) config: Arc<ServerConfig>,
}

/// What HTTP/1 calls itself in ALPN.
const ALPN: [&[u8]; 3] = [b"http/1.1", b"http/1.0", b"http/0.9"];
/// How many sessions a client of TLS 1.3 gets at once, as with OpenSSL.
const TLS13_TICKETS: usize = 2;
/// The least that rustls takes for a record.
const RECORD_BYTES_MIN: usize = 32;

impl ServerTls {
    /// From settings.
    ///
    /// # Errors
    /// Settings that leave nothing to speak.
    pub fn new(options: ServerOptions) -> Result<ServerTls, rustls::Error> {
        let config = Arc::new(build(&options)?);
        Ok(ServerTls { options: Arc::new(options), config })
    }

    /// Whether clients that take tickets get them.
    pub fn has_tickets(&self) -> bool {
        self.config.ticketer.enabled()
    }

    /// Whether it has a certificate.
    pub fn has_identity(&self) -> bool {
        !self.options.identities.is_empty()
    }

    /// Its certificates.
    pub fn identities(&self) -> &[Identity] {
        &self.options.identities
    }

    /// The same server for one handshake, whose sessions are also kept elsewhere: one that was `found` there, and new
    /// ones if it `records` them.
    pub fn with_sessions(
        &self,
        found: Option<MadeSession>,
        records: bool,
    ) -> (ServerTls, Arc<ExternalSessions>) {
        let own = Arc::clone(&self.config.session_storage);
        let sessions = ExternalSessions::new(own, found, records, self.options.session_timeout_ms);
        let sessions = Arc::new(sessions);
        let mut config = ServerConfig::clone(&self.config);
        config.session_storage = Arc::clone(&sessions) as Arc<dyn StoresServerSessions>;
        if records {
            config.send_tls13_tickets = TLS13_TICKETS;
        }
        (ServerTls { options: Arc::clone(&self.options), config: Arc::new(config) }, sessions)
    }

    /// The versions that it speaks.
    pub fn protocols(&self) -> Protocols {
        self.options.protocols
    }

    /// The same server with another certificate, other versions, or asking clients for certificates, for one handshake.
    ///
    /// # Errors
    /// As [`ServerTls::new`].
    pub fn with(
        &self,
        identities: Option<Vec<Identity>>,
        protocols: Option<Protocols>,
        client_authorities: Option<Option<Arc<Trust>>>,
    ) -> Result<ServerTls, rustls::Error> {
        if protocols.is_none() && client_authorities.is_none() {
            let Some(identities) = identities else { return Ok(self.clone()) };
            let mut config = ServerConfig::clone(&self.config);
            config.cert_resolver = Arc::new(Identities(identities));
            return Ok(ServerTls { options: Arc::clone(&self.options), config: Arc::new(config) });
        }
        let mut options = ServerOptions::clone(&self.options);
        options.protocols = protocols.unwrap_or(options.protocols);
        options.identities = identities.unwrap_or(options.identities);
        if let Some(authorities) = client_authorities {
            options.asks_client = true;
            options.client_authorities = authorities;
        }
        let mut config = build(&options)?;
        config.session_storage = Arc::clone(&self.config.session_storage);
        Ok(ServerTls { options: Arc::new(options), config: Arc::new(config) })
    }
}

fn build(o: &ServerOptions) -> Result<ServerConfig, rustls::Error> {
    let provider = provider(&o.ciphers, &o.curves)?;
    let algorithms = provider.signature_verification_algorithms;
    let builder =
        ServerConfig::builder_with_provider(provider).with_protocol_versions(&o.protocols.versions())?;
    let builder = if o.asks_client {
        let names = o.client_authorities.as_ref().map(|t| t.names()).unwrap_or_default();
        builder.with_client_cert_verifier(Arc::new(AskClient { names, algorithms }))
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_cert_resolver(Arc::new(Identities(o.identities.clone())));
    config.ignore_client_order = o.prefers_own_ciphers;
    config.alpn_protocols = ALPN.iter().map(|p| p.to_vec()).collect();
    config.max_fragment_size = o.record_bytes_max.map(|n| n.max(RECORD_BYTES_MIN));
    if let Some(log) = &o.key_log {
        config.key_log = Arc::clone(log) as Arc<dyn rustls::KeyLog>;
    }
    config.session_storage = match o.sessions_max {
        0 => Arc::new(NoServerSessionStorage {}),
        n => Arc::new(Sessions::new(n, o.session_timeout_ms)),
    };
    let timeout_secs = u32::try_from(o.session_timeout_ms / 1000).unwrap_or(u32::MAX).max(1);
    let ticketer = match &o.ticket_keys {
        Some(keys) => {
            Some(Arc::new(FileTickets::new(Arc::clone(keys), timeout_secs)) as Arc<dyn ProducesTickets>)
        }
        None => sessions::ticketer(timeout_secs),
    };
    match ticketer.filter(|_| o.tickets) {
        Some(ticketer) => config.ticketer = ticketer,
        None if o.sessions_max == 0 => config.send_tls13_tickets = 0,
        None => config.send_tls13_tickets = TLS13_TICKETS,
    }
    Ok(config)
}

/// Chooses by the kinds of signature that the client knows: elliptic curves first, as OpenSSL does.
#[derive(Debug)]
struct Identities(Vec<Identity>);

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |i: &&Identity| i.0.key.choose_scheme(hello.signature_schemes()).is_some();
        let is_rsa = |i: &Identity| i.0.key.algorithm() == SignatureAlgorithm::RSA;
        let found = self.0.iter().filter(fits).min_by_key(|i| is_rsa(i));
        found.or(self.0.first()).map(|i| Arc::clone(&i.0))
    }
}

/// Asks for a certificate and takes any, or none: whether it is trusted is answered per request, as in nginx. The
/// client still proves that the key is its own.
#[derive(Debug)]
struct AskClient {
    names: Vec<DistinguishedName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for AskClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.names
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check_handshake(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        check_handshake(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
