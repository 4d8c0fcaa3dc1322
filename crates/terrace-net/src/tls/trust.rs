//! Whom to trust: certificates of authorities, lists of what they revoked, and the check of a chain.
//!
//! A verdict has OpenSSL's number and words. A certificate that is itself among the trusted ones is trusted whatever
//! webpki would say about it (that it is an authority's, or of version 1), as OpenSSL does.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{CertificateError, DistinguishedName, RootCertStore};

use super::certificate::Certificate;
use super::default_provider;
use super::signature::is_signed_by;

/// Why a certificate is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// OpenSSL's `X509_V_ERR_…`.
    pub code: u32,
    /// Its words.
    pub text: &'static str,
}

impl Verdict {
    /// The certificate is another host's.
    pub const HOST_MISMATCH: Verdict = Verdict { code: 62, text: "hostname mismatch" };
    const NO_ISSUER: Verdict = Verdict { code: 20, text: "unable to get local issuer certificate" };
    const SELF_SIGNED: Verdict = Verdict { code: 18, text: "self-signed certificate" };
    const SELF_SIGNED_IN_CHAIN: Verdict =
        Verdict { code: 19, text: "self-signed certificate in certificate chain" };
    const EXPIRED: Verdict = Verdict { code: 10, text: "certificate has expired" };
    const NOT_YET: Verdict = Verdict { code: 9, text: "certificate is not yet valid" };
    const REVOKED: Verdict = Verdict { code: 23, text: "certificate revoked" };
    const NO_CRL: Verdict = Verdict { code: 3, text: "unable to get certificate CRL" };
    const CRL_EXPIRED: Verdict = Verdict { code: 12, text: "CRL has expired" };
    const BAD_SIGNATURE: Verdict = Verdict { code: 7, text: "certificate signature failure" };
    const PURPOSE: Verdict = Verdict { code: 26, text: "unsuitable certificate purpose" };
    const TOO_LONG: Verdict = Verdict { code: 22, text: "certificate chain too long" };
    const REJECTED: Verdict = Verdict { code: 28, text: "certificate rejected" };
    const ALL: [Verdict; 16] = [
        Verdict::HOST_MISMATCH,
        Verdict::NO_ISSUER,
        Verdict::SELF_SIGNED,
        Verdict::SELF_SIGNED_IN_CHAIN,
        Verdict::EXPIRED,
        Verdict::NOT_YET,
        Verdict::REVOKED,
        Verdict::NO_CRL,
        Verdict::CRL_EXPIRED,
        Verdict::BAD_SIGNATURE,
        Verdict::PURPOSE,
        Verdict::TOO_LONG,
        Verdict::REJECTED,
        Verdict { code: 21, text: "unable to verify the first certificate" },
        Verdict { code: 27, text: "certificate not trusted" },
        Verdict { code: 50, text: "application verification failure" },
    ];

    /// One of OpenSSL's numbers with its words.
    pub fn of_code(code: u32) -> Verdict {
        let known = Verdict::ALL.iter().find(|v| v.code == code);
        Verdict { code, text: known.map_or("unknown certificate verification error", |v| v.text) }
    }

    /// Whether `optional_no_ca` lets it pass: the chain ends in no known authority.
    pub fn is_about_authority(&self) -> bool {
        matches!(self.code, 2 | 18 | 19 | 20 | 21)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.text)
    }
}

impl std::error::Error for Verdict {}

/// Authorities and what is checked with them.
#[derive(Debug)]
pub struct Trust {
    certificates: HashSet<Vec<u8>>,
    roots: Arc<RootCertStore>,
    servers: Option<Arc<WebPkiServerVerifier>>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    depth: usize,
    has_crls: bool,
}

impl Trust {
    /// Trusts `certificates`, of which chains may be `depth` intermediate ones away.
    ///
    /// # Errors
    /// When a list of revoked certificates cannot be read.
    pub fn new(
        certificates: &[CertificateDer<'static>],
        crls: &[CertificateRevocationListDer<'static>],
        depth: usize,
    ) -> Result<Trust, String> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        let roots = Arc::new(roots);
        let (mut servers, mut clients) = (None, None);
        if !roots.is_empty() {
            let provider = Arc::clone(default_provider());
            let builder =
                WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
            servers = Some(builder.with_crls(crls.to_vec()).build().map_err(|e| e.to_string())?);
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider);
            clients = Some(builder.with_crls(crls.to_vec()).build().map_err(|e| e.to_string())?);
        }
        let certificates = certificates.iter().map(|c| c.to_vec()).collect();
        Ok(Trust { certificates, roots, servers, clients, depth, has_crls: !crls.is_empty() })
    }

    /// The names of the authorities, for what a server asks of its clients.
    pub(super) fn names(&self) -> Vec<DistinguishedName> {
        self.roots.subjects()
    }

    /// Checks a server's chain and, where a name is given, that it is that host's.
    ///
    /// # Errors
    /// Why it is not trusted.
    pub fn check_server(&self, chain: &[CertificateDer<'_>], host: Option<&str>) -> Result<(), Verdict> {
        let (leaf, rest) = chain.split_first().ok_or(Verdict::NO_ISSUER)?;
        if !self.is_trusted_itself(leaf)? {
            let inner = self.servers.as_ref().ok_or_else(|| untrusted(chain))?;
            // The name is checked below, where a certificate without alternative names has its common name.
            let name = ServerName::try_from(host.unwrap_or("invalid")).map_err(|_| Verdict::HOST_MISMATCH)?;
            match inner.verify_server_cert(leaf, rest, &name, &[], UnixTime::now()) {
                Ok(_) => {}
                Err(rustls::Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )) => {}
                Err(e) => self.check_plain(&e, chain)?,
            }
            self.check_depth(chain)?;
        }
        match (host, Certificate::parse(leaf)) {
            (Some(host), Some(c)) if !c.is_for(host) => Err(Verdict::HOST_MISMATCH),
            (Some(_), None) => Err(Verdict::REJECTED),
            _ => Ok(()),
        }
    }

    /// Checks a client's chain.
    ///
    /// # Errors
    /// Why it is not trusted.
    pub fn check_client(&self, chain: &[CertificateDer<'_>]) -> Result<(), Verdict> {
        let (leaf, rest) = chain.split_first().ok_or(Verdict::NO_ISSUER)?;
        if self.is_trusted_itself(leaf)? {
            return Ok(());
        }
        let inner = self.clients.as_ref().ok_or_else(|| untrusted(chain))?;
        if let Err(e) = inner.verify_client_cert(leaf, rest, UnixTime::now()) {
            self.check_plain(&e, chain)?;
        }
        self.check_depth(chain)
    }

    /// Checks a chain that webpki has refused with `e`: a certificate of version 1 is good if an authority itself has
    /// signed it.
    fn check_plain(&self, e: &rustls::Error, chain: &[CertificateDer<'_>]) -> Result<(), Verdict> {
        let leaf = chain.first().and_then(Certificate::parse).filter(|c| c.is_of_version_1);
        let Some(leaf) = leaf else { return Err(verdict(e, chain)) };
        if self.has_crls {
            return Err(Verdict::NO_CRL);
        }
        check_dates(&leaf)?;
        let is_signed = self.certificates.iter().any(|der| {
            let der = CertificateDer::from(&der[..]);
            Certificate::parse(&der).is_some_and(|c| c.subject == leaf.issuer && is_signed_by(&leaf, &c))
        });
        if is_signed { Ok(()) } else { Err(untrusted(chain)) }
    }

    fn is_trusted_itself(&self, leaf: &CertificateDer<'_>) -> Result<bool, Verdict> {
        if !self.certificates.contains(&leaf[..]) {
            return Ok(false);
        }
        let c = Certificate::parse(leaf).ok_or(Verdict::REJECTED)?;
        check_dates(&c).map(|()| true)
    }

    /// How many certificates lie between the first and an authority, by their names.
    fn check_depth(&self, chain: &[CertificateDer<'_>]) -> Result<(), Verdict> {
        let parsed: Vec<_> = chain.iter().map(Certificate::parse).collect();
        let Some(mut issuer) = parsed.first().and_then(Option::as_ref).map(|c| c.issuer) else {
            return Ok(());
        };
        let mut between = 0;
        for _ in 1..chain.len() {
            let next = (1..chain.len()).find_map(|i| {
                let c = parsed[i].as_ref().filter(|c| c.subject == issuer)?;
                (!self.certificates.contains(&chain[i][..])).then_some(c)
            });
            let Some(next) = next else { break };
            between += 1;
            issuer = next.issuer;
        }
        if between > self.depth { Err(Verdict::TOO_LONG) } else { Ok(()) }
    }
}

fn check_dates(c: &Certificate<'_>) -> Result<(), Verdict> {
    let now = i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX);
    match now {
        _ if now < c.not_before => Err(Verdict::NOT_YET),
        _ if now > c.not_after => Err(Verdict::EXPIRED),
        _ => Ok(()),
    }
}

/// What OpenSSL says of a chain that ends in nobody known.
fn untrusted(chain: &[CertificateDer<'_>]) -> Verdict {
    let is_self_signed = |c: &CertificateDer<'_>| Certificate::parse(c).is_some_and(|c| c.is_self_issued());
    match chain {
        [leaf, ..] if is_self_signed(leaf) => Verdict::SELF_SIGNED,
        [_, rest @ ..] if rest.iter().any(is_self_signed) => Verdict::SELF_SIGNED_IN_CHAIN,
        _ => Verdict::NO_ISSUER,
    }
}

fn verdict(e: &rustls::Error, chain: &[CertificateDer<'_>]) -> Verdict {
    let rustls::Error::InvalidCertificate(e) = e else { return Verdict::REJECTED };
    match e {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => Verdict::EXPIRED,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Verdict::NOT_YET,
        CertificateError::Revoked => Verdict::REVOKED,
        CertificateError::UnknownRevocationStatus => Verdict::NO_CRL,
        CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
            Verdict::CRL_EXPIRED
        }
        CertificateError::BadSignature => Verdict::BAD_SIGNATURE,
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => Verdict::PURPOSE,
        // An authority's certificate that is not trusted, shown as a server's, is one that signed itself.
        _ => untrusted(chain),
    }
}
