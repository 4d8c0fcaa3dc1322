//! Asking authorities by OCSP whether a certificate is still good, and checking what they answer (RFC 6960).
//!
//! The texts of errors are OpenResty's. Unlike there a proof counts only if the issuer has signed it, or one whom the
//! issuer has named for it in a certificate that is still good.

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use rustls::pki_types::CertificateDer;
use thiserror::Error;

use super::certificate::Certificate;
use super::der::{
    BIT_STRING, Der, ENUMERATED, GENERALIZED_TIME, INTEGER, OCTET_STRING, OID, SEQUENCE, bits, time,
    unsigned, write,
};
use super::signature::{has_signed, is_signed_by};

/// Why there is no request, or no trust in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OcspError {
    /// A certificate of the chain cannot be read.
    #[error("d2i_X509_bio() failed")]
    BadCertificate,
    /// The chain ends with the first certificate.
    #[error("no issuer certificate in chain")]
    NoIssuer,
    /// The second certificate of the chain has not issued the first.
    #[error("issuer certificate not next to leaf")]
    WrongIssuer,
    /// The answer cannot be read.
    #[error("d2i_OCSP_RESPONSE() failed")]
    BadResponse,
    /// The authority does not answer the question.
    #[error("OCSP response not successful ({0}: {1})")]
    NotSuccessful(u8, &'static str),
    /// The answer is of an unknown kind.
    #[error("OCSP_response_get1_basic() failed")]
    NotBasic,
    /// Nobody who may do so has signed it.
    #[error("OCSP_basic_verify() failed")]
    BadSignature,
    /// It is about other certificates.
    #[error("certificate status not found in the OCSP response")]
    NotFound,
    /// The certificate is not good.
    #[error("certificate status \"{0}\" in the OCSP response")]
    Status(&'static str),
    /// It is too old, or of the future.
    #[error("OCSP_check_validity() failed")]
    NotValid,
}

/// `AlgorithmIdentifier` of SHA-1, which questions are asked with: every authority knows it.
const SHA1: &[u8] = &[0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00];
/// The OID in it.
const SHA1_OID: &[u8] = &[0x2b, 0x0e, 0x03, 0x02, 0x1a];
const SHA256_OID: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
/// `id-pkix-ocsp-basic`.
const BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];
/// How far clocks may be apart, seconds.
const CLOCK_SKEW_SECS: i64 = 300;
/// The longest answer that is sent to clients, bytes; messages of TLS hold 64 KiB.
pub const OCSP_RESPONSE_BYTES_MAX: usize = 32 * 1024;
/// How many certificates of an answer are looked at.
const SIGNERS_MAX: usize = 8;

/// The place where a chain's first certificate says that its authority answers. The chain is DER, one certificate after
/// the other.
///
/// # Errors
/// When one of the first two certificates cannot be read, or they do not belong together.
pub fn ocsp_responder(chain: &[u8]) -> Result<Option<Vec<u8>>, OcspError> {
    let (leaf, rest) = first(chain)?;
    let leaf = Certificate::parse(&leaf).ok_or(OcspError::BadCertificate)?;
    let Some(place) = leaf.ocsp_responder() else { return Ok(None) };
    if rest.is_empty() {
        return Err(OcspError::NoIssuer);
    }
    let (issuer, _) = first(rest)?;
    let issuer = Certificate::parse(&issuer).ok_or(OcspError::BadCertificate)?;
    if leaf.issuer != issuer.subject {
        return Err(OcspError::WrongIssuer);
    }
    Ok(Some(place.to_vec()))
}

/// The question to the authority of a chain's first certificate, an `OCSPRequest`.
///
/// # Errors
/// When one of the first two certificates cannot be read.
pub fn ocsp_request(chain: &[u8]) -> Result<Vec<u8>, OcspError> {
    let (leaf, issuer) = pair(chain)?;
    let leaf = Certificate::parse(&leaf).ok_or(OcspError::BadCertificate)?;
    let issuer = Certificate::parse(&issuer).ok_or(OcspError::BadCertificate)?;
    let name = digest(&SHA1_FOR_LEGACY_USE_ONLY, issuer.subject_der);
    let key = digest(&SHA1_FOR_LEGACY_USE_ONLY, issuer.key);
    let sign: &[u8] = if leaf.serial.first().is_some_and(|b| *b >= 0x80) { &[0] } else { &[] };
    let id = [
        SHA1.to_vec(),
        write(OCTET_STRING, &[name.as_ref()]),
        write(OCTET_STRING, &[key.as_ref()]),
        write(INTEGER, &[sign, leaf.serial]),
    ];
    let id = write(SEQUENCE, &[&id.concat()]);
    // Request, requestList, TBSRequest, OCSPRequest.
    Ok((0..4).fold(id, |inner, _| write(SEQUENCE, &[&inner])))
}

/// Whether bytes are an `OCSPResponse` by their form.
pub fn is_ocsp_response(der: &[u8]) -> bool {
    let mut outer = Der(der);
    let mut inner = Der(outer.expect(SEQUENCE).unwrap_or_default());
    outer.is_empty() && inner.expect(ENUMERATED).is_some_and(|status| status.len() == 1)
}

/// Checks an answer: that it says that a chain's first certificate is good, is signed by its issuer or by whom the
/// issuer lets sign, and is of now (`now` in Unix seconds). Gives the time of the next answer, where it is told.
///
/// # Errors
/// Why it is not to be trusted.
pub fn check_ocsp_response(response: &[u8], chain: &[u8], now: i64) -> Result<Option<i64>, OcspError> {
    let basic = basic_of(response)?;
    let basic = Basic::parse(basic).ok_or(OcspError::NotBasic)?;
    let (leaf, issuer) = pair(chain)?;
    let leaf = Certificate::parse(&leaf).ok_or(OcspError::BadCertificate)?;
    let issuer = Certificate::parse(&issuer).ok_or(OcspError::BadCertificate)?;
    if !basic.is_signed(&issuer, now) {
        return Err(OcspError::BadSignature);
    }
    let single = basic.of(&leaf, &issuer).filter(|_| leaf.issuer == issuer.subject);
    let single = single.ok_or(OcspError::NotFound)?;
    match single.status {
        0x80 => {}
        0xa1 => return Err(OcspError::Status("revoked")),
        _ => return Err(OcspError::Status("unknown")),
    }
    let is_late =
        single.next_update.is_some_and(|next| next < now - CLOCK_SKEW_SECS || next < single.this_update);
    if single.this_update > now + CLOCK_SKEW_SECS || is_late {
        return Err(OcspError::NotValid);
    }
    Ok(single.next_update)
}

/// The first certificate of a chain, and what comes after it.
fn first(chain: &[u8]) -> Result<(CertificateDer<'_>, &[u8]), OcspError> {
    let mut rest = Der(chain);
    let (_, _, whole) = rest.next().ok_or(OcspError::BadCertificate)?;
    Ok((CertificateDer::from(whole), rest.0))
}

/// The first certificate of a chain and its issuer.
fn pair(chain: &[u8]) -> Result<(CertificateDer<'_>, CertificateDer<'_>), OcspError> {
    let (leaf, rest) = first(chain)?;
    if rest.is_empty() {
        return Err(OcspError::NoIssuer);
    }
    Ok((leaf, first(rest)?.0))
}

/// The `BasicOCSPResponse` of a successful answer.
fn basic_of(response: &[u8]) -> Result<&[u8], OcspError> {
    if !is_ocsp_response(response) {
        return Err(OcspError::BadResponse);
    }
    let mut outer = Der(Der(response).expect(SEQUENCE).unwrap_or_default());
    match outer.expect(ENUMERATED).and_then(|s| s.first()) {
        Some(0) => {}
        Some(1) => return Err(OcspError::NotSuccessful(1, "malformedrequest")),
        Some(2) => return Err(OcspError::NotSuccessful(2, "internalerror")),
        Some(3) => return Err(OcspError::NotSuccessful(3, "trylater")),
        Some(5) => return Err(OcspError::NotSuccessful(5, "sigrequired")),
        Some(6) => return Err(OcspError::NotSuccessful(6, "unauthorized")),
        Some(n) => return Err(OcspError::NotSuccessful(*n, "(UNKNOWN)")),
        None => return Err(OcspError::BadResponse),
    }
    bytes_of(&mut outer).ok_or(OcspError::NotBasic)
}

/// The content of `responseBytes`, if they are of the kind that everybody sends.
fn bytes_of<'a>(outer: &mut Der<'a>) -> Option<&'a [u8]> {
    let mut bytes = Der(Der(outer.expect(0xa0)?).expect(SEQUENCE)?);
    let kind = bytes.expect(OID)?;
    bytes.expect(OCTET_STRING).filter(|_| kind == BASIC)
}

/// A `BasicOCSPResponse` taken apart.
struct Basic<'a> {
    /// What is signed.
    signed: &'a [u8],
    /// The tag (name or hash of the key) and the content of the signer's mark.
    signer: (u8, &'a [u8]),
    singles: &'a [u8],
    signature_kind: &'a [u8],
    signature: &'a [u8],
    certificates: &'a [u8],
}

/// What is said of one certificate.
struct Single {
    /// The tag of its status.
    status: u8,
    /// Unix seconds.
    this_update: i64,
    next_update: Option<i64>,
}

impl<'a> Basic<'a> {
    fn parse(der: &'a [u8]) -> Option<Basic<'a>> {
        let mut outer = Der(Der(der).expect(SEQUENCE)?);
        let (_, data, signed) = outer.next().filter(|(tag, ..)| *tag == SEQUENCE)?;
        let (signature_kind, signature) = (outer.expect(SEQUENCE)?, bits(outer.expect(BIT_STRING)?)?);
        let certificates = match outer.optional(0xa0) {
            Some(list) => Der(list).expect(SEQUENCE)?,
            None => &[],
        };
        let mut data = Der(data);
        // The version.
        data.optional(0xa0);
        let (tag, mark, _) = data.next()?;
        let mark = match tag {
            0xa1 => Der(mark).expect(SEQUENCE)?,
            0xa2 => Der(mark).expect(OCTET_STRING)?,
            _ => return None,
        };
        data.expect(GENERALIZED_TIME)?;
        let singles = data.expect(SEQUENCE)?;
        Some(Basic { signed, signer: (tag, mark), singles, signature_kind, signature, certificates })
    }

    /// Whether the issuer, or a certificate in the answer that it has issued for that, has signed it.
    fn is_signed(&self, issuer: &Certificate<'_>, now: i64) -> bool {
        if self.is_by(issuer) {
            return true;
        }
        let mut all = Der(self.certificates);
        let certificates = std::iter::from_fn(|| all.next()).take(SIGNERS_MAX);
        certificates.map(|(_, _, whole)| CertificateDer::from(whole)).any(|der| {
            Certificate::parse(&der).is_some_and(|c| {
                c.issuer == issuer.subject
                    && c.signs_ocsp()
                    && (c.not_before..=c.not_after).contains(&now)
                    && self.is_by(&c)
                    && is_signed_by(&c, issuer)
            })
        })
    }

    fn is_by(&self, c: &Certificate<'_>) -> bool {
        let is_named = match self.signer {
            (0xa1, name) => Der(c.subject_der).expect(SEQUENCE) == Some(name),
            (_, hash) => digest(&SHA1_FOR_LEGACY_USE_ONLY, c.key).as_ref() == hash,
        };
        is_named && has_signed(c, self.signed, self.signature_kind, self.signature)
    }

    /// What is said of `leaf`.
    fn of(&self, leaf: &Certificate<'_>, issuer: &Certificate<'_>) -> Option<Single> {
        let mut all = Der(self.singles);
        while let Some(single) = all.expect(SEQUENCE) {
            let mut single = Der(single);
            if !is_about(single.expect(SEQUENCE)?, leaf, issuer)? {
                continue;
            }
            let (status, ..) = single.next()?;
            let this_update = time(&mut single)?;
            let next_update = match single.optional(0xa0) {
                Some(next) => Some(time(&mut Der(next))?),
                None => None,
            };
            return Some(Single { status, this_update, next_update });
        }
        None
    }
}

/// Whether a `CertID` is that of `leaf`.
fn is_about(id: &[u8], leaf: &Certificate<'_>, issuer: &Certificate<'_>) -> Option<bool> {
    let mut id = Der(id);
    let kind = match Der(id.expect(SEQUENCE)?).expect(OID)? {
        SHA1_OID => &SHA1_FOR_LEGACY_USE_ONLY,
        SHA256_OID => &SHA256,
        _ => return Some(false),
    };
    let (name, key, serial) = (id.expect(OCTET_STRING)?, id.expect(OCTET_STRING)?, id.expect(INTEGER)?);
    Some(
        digest(kind, issuer.subject_der).as_ref() == name
            && digest(kind, issuer.key).as_ref() == key
            && unsigned(serial) == leaf.serial,
    )
}

#[cfg(test)]
mod tests;
