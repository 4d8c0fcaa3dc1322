//! Certificates and private keys from PEM and DER.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use thiserror::Error;

use super::certificate::Certificate;
use super::{der, passphrase};

/// Why there are no credentials.
#[derive(Debug, Error)]
pub enum CredentialsError {
    /// There is no certificate in the text.
    #[error("no certificate found")]
    NoCertificate,
    /// A certificate cannot be read.
    #[error("bad certificate")]
    BadCertificate,
    /// The key is encrypted.
    #[error("private key is encrypted, and there is no passphrase for it")]
    Encrypted,
    /// No passphrase is the key's, or its cipher is not supported.
    #[error("no passphrase decrypts the private key")]
    WrongPassphrase,
    /// There is no key, or none of a supported kind.
    #[error("no supported private key found")]
    NoKey,
    /// There is no list of revoked certificates in the text.
    #[error("no CRL found")]
    NoCrl,
    /// The key is another certificate's.
    #[error("key values mismatch")]
    Mismatch,
}

/// A certificate with its chain and its key.
#[derive(Debug, Clone)]
pub struct Identity(pub(super) Arc<CertifiedKey>);

impl Identity {
    /// Puts a chain and a key together.
    ///
    /// # Errors
    /// When they do not belong together, or the chain is empty.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: Arc<dyn SigningKey>,
    ) -> Result<Identity, CredentialsError> {
        if chain.is_empty() {
            return Err(CredentialsError::NoCertificate);
        }
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => {
                Err(CredentialsError::Mismatch)
            }
            // A certificate that webpki cannot take apart (of version 1) may still be shown.
            _ => Ok(Identity(Arc::new(key))),
        }
    }

    /// The same with a proof by OCSP that the certificate is good, which clients that ask are sent.
    pub fn with_ocsp(&self, response: &[u8]) -> Identity {
        let mut key = CertifiedKey::clone(&self.0);
        key.ocsp = Some(response.to_vec());
        Identity(Arc::new(key))
    }

    /// Whether its key is of the same kind as another's.
    pub fn is_like(&self, other: &Identity) -> bool {
        self.0.key.algorithm() == other.0.key.algorithm()
    }

    /// From the texts of a certificate file and a key file.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn of_pem(certificates: &[u8], key: &[u8]) -> Result<Identity, CredentialsError> {
        Identity::new(certificates_of_pem(certificates)?, private_key(key_of_pem(key, &[])?)?)
    }
}

/// The certificates of a PEM text, in order.
///
/// # Errors
/// When there is none, or one is broken.
pub fn certificates_of_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let mut all = all.map_err(|_| CredentialsError::BadCertificate)?;
    if all.is_empty() {
        all = trusted_of_pem(pem);
    }
    if all.is_empty() { Err(CredentialsError::NoCertificate) } else { Ok(all) }
}

/// Certificates in DER, one after the other.
///
/// # Errors
/// When there is none, or one is broken.
pub fn certificates_of_der(mut rest: &[u8]) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let mut all = Vec::new();
    while !rest.is_empty() {
        let one = der::element(rest).ok_or(CredentialsError::BadCertificate)?;
        let certificate = CertificateDer::from(one.to_vec());
        Certificate::parse(&certificate).ok_or(CredentialsError::BadCertificate)?;
        all.push(certificate);
        rest = &rest[one.len()..];
    }
    if all.is_empty() { Err(CredentialsError::NoCertificate) } else { Ok(all) }
}

/// `X509 CERTIFICATE` and `TRUSTED CERTIFICATE`, which OpenSSL reads too.
fn trusted_of_pem(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    let Ok(text) = std::str::from_utf8(pem) else { return Vec::new() };
    let text = text.replace("X509 CERTIFICATE", "CERTIFICATE");
    CertificateDer::pem_slice_iter(text.as_bytes()).filter_map(Result::ok).collect()
}

/// The first private key of a PEM text: PKCS #8, PKCS #1 or SEC1. One that is encrypted is by the first of the
/// passphrases that fits.
///
/// # Errors
/// When there is none, or none fits.
pub fn key_of_pem(pem: &[u8], passphrases: &[Vec<u8>]) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    if passphrase::is_encrypted(pem) {
        return passphrase::key(pem, passphrases);
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| CredentialsError::NoKey)
}

/// A key ready to sign.
///
/// # Errors
/// When it is of a kind that is not supported.
pub fn private_key(der: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, CredentialsError> {
    super::default_provider().key_provider.load_private_key(der).map_err(|_| CredentialsError::NoKey)
}

/// The lists of revoked certificates of a PEM text.
///
/// # Errors
/// When there is none, or one is broken.
pub fn crls_of_pem(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, CredentialsError> {
    let all: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or(CredentialsError::NoCrl)
}
