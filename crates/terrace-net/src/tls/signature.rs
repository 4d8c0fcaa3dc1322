//! Signatures of certificates and of handshakes, by what [`Certificate`] says of keys.
//!
//! webpki takes no certificate of version 1 apart, which `openssl x509 -req` makes where no extension is asked for; OpenSSL
//! takes them, and so does this.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::CertificateDer;
use rustls::{CertificateError, DigitallySignedStruct, Error};

use super::certificate::Certificate;
use super::default_provider;

/// Whether `issuer` has signed `certificate`.
pub(super) fn is_signed_by(certificate: &Certificate<'_>, issuer: &Certificate<'_>) -> bool {
    has_signed(issuer, certificate.signed, certificate.signature_kind, certificate.signature)
}

/// Whether a signature of a kind (an `AlgorithmIdentifier` without its head) is by the key of `signer`.
pub(super) fn has_signed(signer: &Certificate<'_>, message: &[u8], kind: &[u8], signature: &[u8]) -> bool {
    let known = default_provider().signature_verification_algorithms.all;
    known.iter().any(|a| {
        a.signature_alg_id().as_ref() == kind
            && a.public_key_alg_id().as_ref() == signer.key_kind
            && a.verify_signature(signer.key, message, signature).is_ok()
    })
}

/// Checks a signature of a handshake.
///
/// # Errors
/// When it is not by the key of `certificate`.
pub(super) fn check_handshake(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    known: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let bad = |e| Error::InvalidCertificate(e);
    let certificate = Certificate::parse(certificate).ok_or_else(|| bad(CertificateError::BadEncoding))?;
    let of_scheme = known.mapping.iter().find(|(scheme, _)| *scheme == signature.scheme);
    let is_good = of_scheme.is_some_and(|(_, all)| {
        all.iter().any(|a| {
            a.public_key_alg_id().as_ref() == certificate.key_kind
                && a.verify_signature(certificate.key, message, signature.signature()).is_ok()
        })
    });
    if is_good { Ok(HandshakeSignatureValid::assertion()) } else { Err(bad(CertificateError::BadSignature)) }
}
