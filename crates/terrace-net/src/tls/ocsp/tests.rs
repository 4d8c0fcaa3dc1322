//! Answers as authorities make them, and such as nobody should trust.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SigningKey,
};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls::pki_types::CertificateDer;

use super::*;

/// `ecdsa-with-SHA256`.
const ECDSA_SHA256: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
/// 2024-02-29 00:00:00.
const NOW: i64 = 1_709_164_800;

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

struct Signer {
    key: KeyPair,
    der: CertificateDer<'static>,
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let der = params.self_signed(&key).unwrap().der().clone();
        Authority { issuer: Issuer::new(params, key), der }
    }

    fn issue(&self, params: CertificateParams) -> Signer {
        let key = KeyPair::generate().unwrap();
        let der = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Signer { key, der }
    }

    fn leaf(&self) -> CertificateDer<'static> {
        let mut params = named("leaf");
        params.serial_number = Some(rcgen::SerialNumber::from(vec![0x80, 0xab]));
        self.issue(params).der
    }

    fn responder(&self, uses: &[ExtendedKeyUsagePurpose], year_end: i32) -> Signer {
        let mut params = named("responder");
        params.extended_key_usages = uses.to_vec();
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(year_end, 1, 1);
        self.issue(params)
    }
}

/// What an answer says.
struct Answer<'a> {
    leaf: &'a CertificateDer<'static>,
    issuer: &'a CertificateDer<'static>,
    status: &'a [u8],
    this_update: &'a str,
    next_update: Option<&'a str>,
}

impl Answer<'_> {
    fn data(&self, signer: &CertificateDer<'static>, by_name: bool) -> Vec<u8> {
        let (leaf, issuer) =
            (Certificate::parse(self.leaf).unwrap(), Certificate::parse(self.issuer).unwrap());
        let signer = Certificate::parse(signer).unwrap();
        let hash = |bytes: &[u8]| write(OCTET_STRING, &[digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref()]);
        let serial = write(INTEGER, &[&[0], leaf.serial]);
        let id = write(SEQUENCE, &[SHA1, &hash(issuer.subject_der), &hash(issuer.key), &serial]);
        let time = |text: &str| write(GENERALIZED_TIME, &[text.as_bytes()]);
        let next = self.next_update.map(|t| write(0xa0, &[&time(t)])).unwrap_or_default();
        let single = write(SEQUENCE, &[&id, self.status, &time(self.this_update), &next]);
        let mark =
            if by_name { write(0xa1, &[signer.subject_der]) } else { write(0xa2, &[&hash(signer.key)]) };
        write(SEQUENCE, &[&mark, &time("20240228000000Z"), &write(SEQUENCE, &[&single])])
    }

    fn signed(
        &self,
        key: &KeyPair,
        signer: &CertificateDer<'static>,
        shown: &[&CertificateDer<'static>],
    ) -> Vec<u8> {
        let data = self.data(signer, shown.is_empty());
        let signature = write(BIT_STRING, &[&[0], &key.sign(&data).unwrap()]);
        let shown: Vec<&[u8]> = shown.iter().map(|c| &c[..]).collect();
        let shown = if shown.is_empty() { Vec::new() } else { write(0xa0, &[&write(SEQUENCE, &shown)]) };
        successful(&write(SEQUENCE, &[&data, ECDSA_SHA256, &signature, &shown]))
    }
}

fn successful(basic: &[u8]) -> Vec<u8> {
    let bytes = write(SEQUENCE, &[&write(OID, &[BASIC]), &write(OCTET_STRING, &[basic])]);
    write(SEQUENCE, &[&[ENUMERATED, 1, 0], &write(0xa0, &[&bytes])])
}

fn good<'a>(leaf: &'a CertificateDer<'static>, ca: &'a Authority) -> Answer<'a> {
    Answer {
        leaf,
        issuer: &ca.der,
        status: &[0x80, 0],
        this_update: "20240228000000Z",
        next_update: Some("20240301000000Z"),
    }
}

#[test]
fn answers_of_the_issuer_and_of_whom_it_names_are_trusted() {
    let ca = Authority::new("CA");
    let leaf = ca.leaf();
    let chain = [&leaf[..], &ca.der[..]].concat();
    let key = ca.issuer.key();
    let next = NOW + 86_400;
    let answer = good(&leaf, &ca).signed(key, &ca.der, &[]);
    assert!(is_ocsp_response(&answer));
    assert_eq!(check_ocsp_response(&answer, &chain, NOW), Ok(Some(next)));
    let named = ca.responder(&[ExtendedKeyUsagePurpose::OcspSigning], 2030);
    let answer = good(&leaf, &ca).signed(&named.key, &named.der, &[&named.der]);
    assert_eq!(check_ocsp_response(&answer, &chain, NOW), Ok(Some(next)));
    let forever = Answer { next_update: None, ..good(&leaf, &ca) }.signed(key, &ca.der, &[]);
    assert_eq!(check_ocsp_response(&forever, &chain, NOW * 2), Ok(None));
}

#[test]
fn nobody_else_may_sign() {
    let (ca, other) = (Authority::new("CA"), Authority::new("CA"));
    let leaf = ca.leaf();
    let chain = [&leaf[..], &ca.der[..]].concat();
    let refused =
        |answer: &[u8]| assert_eq!(check_ocsp_response(answer, &chain, NOW), Err(OcspError::BadSignature));
    refused(&good(&leaf, &ca).signed(other.issuer.key(), &ca.der, &[]));
    refused(&good(&leaf, &ca).signed(other.issuer.key(), &other.der, &[&other.der]));
    let signing = [ExtendedKeyUsagePurpose::OcspSigning];
    let strangers = [
        other.responder(&signing, 2030),
        ca.responder(&[ExtendedKeyUsagePurpose::ServerAuth], 2030),
        ca.responder(&[], 2030),
        ca.responder(&signing, 2023),
    ];
    for signer in strangers {
        refused(&good(&leaf, &ca).signed(&signer.key, &signer.der, &[&signer.der]));
    }
    let named = ca.responder(&signing, 2030);
    refused(&good(&leaf, &ca).signed(&named.key, &ca.der, &[&named.der]));
}

#[test]
fn what_is_not_good_or_not_of_now_is_told() {
    let (ca, other) = (Authority::new("CA"), Authority::new("Other"));
    let (leaf, another) = (ca.leaf(), ca.issue(named("another")).der);
    let chain = [&leaf[..], &ca.der[..]].concat();
    let key = ca.issuer.key();
    let revoked = write(0xa1, &[&write(GENERALIZED_TIME, &[b"20240101000000Z"])]);
    for (answer, want) in [
        (Answer { status: &revoked, ..good(&leaf, &ca) }, OcspError::Status("revoked")),
        (Answer { status: &[0x82, 0], ..good(&leaf, &ca) }, OcspError::Status("unknown")),
        (Answer { leaf: &another, ..good(&leaf, &ca) }, OcspError::NotFound),
        (Answer { issuer: &other.der, ..good(&leaf, &ca) }, OcspError::NotFound),
        (Answer { this_update: "20240229000501Z", ..good(&leaf, &ca) }, OcspError::NotValid),
        (Answer { next_update: Some("20240228235459Z"), ..good(&leaf, &ca) }, OcspError::NotValid),
        (Answer { next_update: Some("20240227000000Z"), ..good(&leaf, &ca) }, OcspError::NotValid),
    ] {
        assert_eq!(check_ocsp_response(&answer.signed(key, &ca.der, &[]), &chain, NOW), Err(want));
    }
    for (status, want) in [(1, "malformedrequest"), (3, "trylater"), (6, "unauthorized"), (9, "(UNKNOWN)")] {
        let answer = [0x30, 3, ENUMERATED, 1, status];
        assert_eq!(check_ocsp_response(&answer, &chain, NOW), Err(OcspError::NotSuccessful(status, want)));
    }
    let whole = good(&leaf, &ca).signed(key, &ca.der, &[]);
    let check = |chain: &[u8]| check_ocsp_response(&whole, chain, NOW);
    assert_eq!(check(&leaf), Err(OcspError::NoIssuer));
    assert_eq!(check(b"x"), Err(OcspError::BadCertificate));
    assert_eq!(check(&[&leaf[..], b"x"].concat()), Err(OcspError::BadCertificate));
    assert_eq!(check(&[&leaf[..], &other.der[..]].concat()), Err(OcspError::BadSignature));
}

#[test]
fn questions_name_the_certificate() {
    let ca = Authority::new("CA");
    let leaf = ca.leaf();
    let question = ocsp_request(&[&leaf[..], &ca.der[..]].concat()).unwrap();
    let mut id = Der(&question);
    for _ in 0..4 {
        id = Der(id.expect(SEQUENCE).unwrap());
    }
    let (parsed, issuer) = (Certificate::parse(&leaf).unwrap(), Certificate::parse(&ca.der).unwrap());
    assert_eq!(is_about(id.expect(SEQUENCE).unwrap(), &parsed, &issuer), Some(true));
    assert!(question.ends_with(&[INTEGER, 3, 0, 0x80, 0xab]));
    assert_eq!(ocsp_request(&leaf), Err(OcspError::NoIssuer));
    assert_eq!(ocsp_responder(&leaf), Ok(None));
}

#[test]
fn broken_answers_do_no_harm() {
    let ca = Authority::new("CA");
    let leaf = ca.leaf();
    let chain = [&leaf[..], &ca.der[..]].concat();
    let named = ca.responder(&[ExtendedKeyUsagePurpose::OcspSigning], 2030);
    let whole = good(&leaf, &ca).signed(&named.key, &named.der, &[&named.der]);
    for at in 0..whole.len() {
        assert!(check_ocsp_response(&whole[..at], &chain, NOW).is_err(), "cut at {at}");
        for change in [1, 0x7f, 0x80, 0xff] {
            let mut answer = whole.clone();
            answer[at] ^= change;
            // What is said is signed; the shown certificate may change where nobody looks.
            let _ = check_ocsp_response(&answer, &chain, NOW);
        }
    }
    assert!(check_ocsp_response(&[&whole[..], b"x"].concat(), &chain, NOW).is_err());
}
