//! What an X.509 certificate says (RFC 5280), as far as variables, names and checks need it.

use std::fmt::Write;
use std::net::IpAddr;

use rustls::pki_types::CertificateDer;

use super::der::{BIT_STRING, BOOLEAN, Der, INTEGER, OCTET_STRING, OID, SEQUENCE, SET, bits, time, unsigned};

/// A certificate taken apart. It borrows from its DER form.
#[derive(Debug)]
pub struct Certificate<'a> {
    /// Whether it is of version 1, which knows no extensions.
    pub is_of_version_1: bool,
    /// The number, without the DER's leading zero.
    pub serial: &'a [u8],
    /// Who signed it.
    pub issuer: Name<'a>,
    /// Whose it is.
    pub subject: Name<'a>,
    /// The same as it stands there.
    pub(super) subject_der: &'a [u8],
    /// Unix seconds.
    pub not_before: i64,
    /// Unix seconds.
    pub not_after: i64,
    /// The kind of its key, as an `AlgorithmIdentifier` without its head.
    pub key_kind: &'a [u8],
    /// Its key.
    pub key: &'a [u8],
    /// What its issuer has signed.
    pub signed: &'a [u8],
    /// The kind of the signature, as an `AlgorithmIdentifier` without its head.
    pub signature_kind: &'a [u8],
    /// The signature.
    pub signature: &'a [u8],
    dns_names: Vec<&'a str>,
    addresses: Vec<&'a [u8]>,
    extensions: &'a [u8],
}

/// A distinguished name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name<'a>(&'a [u8]);

/// `subjectAltName`.
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];
/// `extKeyUsage`.
const KEY_USES: &[u8] = &[0x55, 0x1d, 0x25];
/// `id-kp-OCSPSigning` (RFC 6960 section 4.2.2.2).
const OCSP_SIGNING: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 9];
/// `authorityInfoAccess`.
const AUTHORITY_ACCESS: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 1];
/// `id-ad-ocsp`.
const ACCESS_BY_OCSP: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1];

impl<'a> Certificate<'a> {
    /// Takes a certificate apart; `None` for what is none.
    pub fn parse(der: &'a CertificateDer<'_>) -> Option<Certificate<'a>> {
        let mut outer = Der(Der(der).expect(SEQUENCE)?);
        let (_, tbs, signed) = outer.next().filter(|(tag, ..)| *tag == SEQUENCE)?;
        let (signature_kind, signature) = (outer.expect(SEQUENCE)?, bits(outer.expect(BIT_STRING)?)?);
        let mut tbs = Der(tbs);
        let (tag, mut serial, _) = tbs.next()?;
        let is_of_version_1 = tag != 0xa0;
        if !is_of_version_1 {
            serial = tbs.expect(INTEGER)?;
        }
        tbs.expect(SEQUENCE)?;
        let issuer = Name(tbs.expect(SEQUENCE)?);
        let mut validity = Der(tbs.expect(SEQUENCE)?);
        let (not_before, not_after) = (time(&mut validity)?, time(&mut validity)?);
        let (_, subject, subject_der) = tbs.next().filter(|(tag, ..)| *tag == SEQUENCE)?;
        let subject = Name(subject);
        let mut key = Der(tbs.expect(SEQUENCE)?);
        let mut certificate = Certificate {
            is_of_version_1,
            serial: unsigned(serial),
            issuer,
            subject,
            subject_der,
            not_before,
            not_after,
            key_kind: key.expect(SEQUENCE)?,
            key: bits(key.expect(BIT_STRING)?)?,
            signed,
            signature_kind,
            signature,
            dns_names: Vec::new(),
            addresses: Vec::new(),
            extensions: &[],
        };
        while let Some((tag, content, _)) = tbs.next() {
            if tag == 0xa3 {
                certificate.extensions = Der(content).expect(SEQUENCE).unwrap_or_default();
                certificate.read_alternative_names();
            }
        }
        Some(certificate)
    }

    /// The content of an extension.
    fn extension(&self, kind: &[u8]) -> Option<&'a [u8]> {
        let mut all = Der(self.extensions);
        while let Some(extension) = all.expect(SEQUENCE) {
            let mut extension = Der(extension);
            if extension.expect(OID)? == kind {
                // Whether it is critical.
                extension.optional(BOOLEAN);
                return extension.expect(OCTET_STRING);
            }
        }
        None
    }

    fn read_alternative_names(&mut self) -> Option<()> {
        let mut names = Der(Der(self.extension(ALTERNATIVE_NAMES)?).expect(SEQUENCE)?);
        while let Some((tag, name, _)) = names.next() {
            match tag {
                0x82 => self.dns_names.extend(std::str::from_utf8(name)),
                0x87 => self.addresses.push(name),
                _ => {}
            }
        }
        Some(())
    }

    /// Where its authority answers by OCSP (RFC 5280 section 4.2.2.1).
    pub(super) fn ocsp_responder(&self) -> Option<&'a [u8]> {
        let mut all = Der(Der(self.extension(AUTHORITY_ACCESS)?).expect(SEQUENCE)?);
        while let Some(description) = all.expect(SEQUENCE) {
            let mut description = Der(description);
            let is_ocsp = description.expect(OID)? == ACCESS_BY_OCSP;
            if let Some((0x86, uri, _)) = description.next().filter(|_| is_ocsp) {
                return Some(uri);
            }
        }
        None
    }

    /// Whether its issuer lets it sign answers by OCSP.
    pub(super) fn signs_ocsp(&self) -> bool {
        let uses = self.extension(KEY_USES).and_then(|e| Der(e).expect(SEQUENCE));
        let mut uses = Der(uses.unwrap_or_default());
        std::iter::from_fn(|| uses.expect(OID)).any(|oid| oid == OCSP_SIGNING)
    }

    /// Whether it is a host's: by its alternative names or, where it has none of DNS, its common name (RFC 6125).
    pub fn is_for(&self, host: &str) -> bool {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return self.addresses.iter().any(|a| match ip {
                IpAddr::V4(ip) => *a == ip.octets(),
                IpAddr::V6(ip) => *a == ip.octets(),
            });
        }
        let host = host.trim_end_matches('.');
        if self.dns_names.is_empty() {
            return self.subject.common_name().is_some_and(|name| matches(&name, host));
        }
        self.dns_names.iter().any(|name| matches(name, host))
    }

    /// The number in capital hexadecimal digits, as OpenSSL prints it.
    pub fn serial_hex(&self) -> String {
        hex_upper(self.serial)
    }

    /// Whether it names itself as its issuer.
    pub fn is_self_issued(&self) -> bool {
        self.issuer == self.subject
    }
}

fn hex_upper(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut s, b| {
        let _ = write!(s, "{b:02X}");
        s
    })
}

/// Whether a name of a certificate covers a host; an asterisk stands for one whole label, the first.
fn matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(rest) => host.split_once('.').is_some_and(|(first, tail)| {
            !first.is_empty() && tail.contains('.') && tail.eq_ignore_ascii_case(rest)
        }),
        None => pattern.eq_ignore_ascii_case(host),
    }
}

/// OIDs of attribute types with OpenSSL's short names.
const ATTRIBUTES: &[(&[u8], &str)] = &[
    (&[0x55, 4, 3], "CN"),
    (&[0x55, 4, 4], "SN"),
    (&[0x55, 4, 5], "serialNumber"),
    (&[0x55, 4, 6], "C"),
    (&[0x55, 4, 7], "L"),
    (&[0x55, 4, 8], "ST"),
    (&[0x55, 4, 9], "street"),
    (&[0x55, 4, 10], "O"),
    (&[0x55, 4, 11], "OU"),
    (&[0x55, 4, 12], "title"),
    (&[0x55, 4, 42], "GN"),
    (&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], "emailAddress"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 1], "UID"),
    (&[0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25], "DC"),
];

impl<'a> Name<'a> {
    /// Calls `f` with each attribute: its type, its text, and whether it belongs to the same RDN as the one before.
    fn each(&self, mut f: impl FnMut(&'a [u8], String, bool)) {
        let mut sets = Der(self.0);
        while let Some(set) = sets.expect(SET) {
            let mut set = Der(set);
            let mut joined = false;
            while let Some(pair) = set.expect(SEQUENCE) {
                let mut pair = Der(pair);
                let (Some(oid), Some((tag, value, _))) = (pair.expect(OID), pair.next()) else { return };
                f(oid, text_of(tag, value), std::mem::replace(&mut joined, true));
            }
        }
    }

    /// The last common name.
    pub fn common_name(&self) -> Option<String> {
        let mut found = None;
        self.each(|oid, text, _| {
            if oid == [0x55, 4, 3] {
                found = Some(text);
            }
        });
        found
    }

    /// As RFC 2253 has it, the last attribute first: `CN=a,O=b`.
    pub fn rfc2253(&self) -> String {
        let mut parts: Vec<(String, bool)> = Vec::new();
        self.each(|oid, text, joined| {
            let mut part = short_name(oid);
            part.push('=');
            escape(&text, &mut part);
            parts.push((part, joined));
        });
        let mut out = String::new();
        let mut plus = false;
        for (part, joined) in parts.iter().rev() {
            if !out.is_empty() {
                out.push(if plus { '+' } else { ',' });
            }
            out.push_str(part);
            plus = *joined;
        }
        out
    }

    /// As OpenSSL's old form has it: `/O=b/CN=a`.
    pub fn legacy(&self) -> String {
        let mut out = String::new();
        self.each(|oid, text, _| {
            let _ = write!(out, "/{}={text}", short_name(oid));
        });
        out
    }
}

fn short_name(oid: &[u8]) -> String {
    if let Some((_, name)) = ATTRIBUTES.iter().find(|(o, _)| *o == oid) {
        return (*name).to_owned();
    }
    let mut out = String::new();
    let mut n: u64 = 0;
    for (i, b) in oid.iter().enumerate() {
        n = n << 7 | u64::from(b & 0x7f);
        if b & 0x80 == 0 {
            if out.is_empty() {
                let first = (n / 40).min(2);
                let _ = write!(out, "{first}.{}", n - first * 40);
            } else {
                let _ = write!(out, ".{n}");
            }
            n = 0;
        }
        if i > 32 {
            break;
        }
    }
    out
}

fn text_of(tag: u8, value: &[u8]) -> String {
    match tag {
        // BMPString
        0x1e => {
            let units: Vec<u16> = value.chunks_exact(2).map(|c| u16::from_be_bytes([c[0], c[1]])).collect();
            String::from_utf16_lossy(&units)
        }
        _ => String::from_utf8_lossy(value).into_owned(),
    }
}

fn escape(text: &str, out: &mut String) {
    let last = text.len().saturating_sub(1);
    for (i, c) in text.char_indices() {
        let special = matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';')
            || (c == '#' && i == 0)
            || (c == ' ' && (i == 0 || i == last));
        if special {
            out.push('\\');
        }
        if c.is_ascii_control() || !c.is_ascii() {
            let mut bytes = [0; 4];
            for b in c.encode_utf8(&mut bytes).bytes() {
                let _ = write!(out, "\\{b:02X}");
            }
        } else {
            out.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(names: &[&str], common: &str) -> CertificateDer<'static> {
        let mut params =
            rcgen::CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "A, B");
        params.distinguished_name.push(rcgen::DnType::CommonName, common);
        params.serial_number = Some(rcgen::SerialNumber::from(vec![0x12, 0xab]));
        params.not_before = rcgen::date_time_ymd(2024, 2, 29);
        params.not_after = rcgen::date_time_ymd(2055, 12, 31);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn fields_are_read() {
        let der = certificate(&["a.example", "10.0.0.1"], "host");
        let c = Certificate::parse(&der).unwrap();
        assert_eq!(c.serial_hex(), "12AB");
        assert_eq!(c.subject.rfc2253(), "CN=host,O=A\\, B");
        assert_eq!(c.subject.legacy(), "/O=A, B/CN=host");
        assert!(c.is_self_issued());
        assert_eq!(c.not_before, 1_709_164_800);
        assert_eq!(c.not_after, 2_713_824_000);
        assert!(super::super::signature::is_signed_by(&c, &c));
        assert!(Certificate::parse(&CertificateDer::from(&der[..der.len() / 2])).is_none());
    }

    #[test]
    fn hosts_match_alternative_names_and_else_the_common_name() {
        let der = certificate(&["a.example", "*.b.example", "10.0.0.1"], "host");
        let c = Certificate::parse(&der).unwrap();
        for (host, is_for) in [
            ("a.example", true),
            ("A.Example", true),
            ("x.b.example", true),
            ("x.y.b.example", false),
            ("b.example", false),
            ("host", false),
            ("10.0.0.1", true),
            ("10.0.0.2", false),
        ] {
            assert_eq!(c.is_for(host), is_for, "{host}");
        }
        let der = certificate(&[], "host");
        assert!(Certificate::parse(&der).unwrap().is_for("host"));
    }

    #[test]
    fn broken_certificates_do_no_harm() {
        let whole = certificate(&["a.example", "10.0.0.1"], "host");
        for at in 0..whole.len() {
            for change in [0, 1, 0x7f, 0x80, 0xff] {
                let mut der = whole.to_vec();
                der[at] ^= change;
                if change == 0 {
                    der.truncate(at);
                }
                let der = CertificateDer::from(der);
                if let Some(c) = Certificate::parse(&der) {
                    let _ = (c.subject.rfc2253(), c.issuer.legacy(), c.serial_hex(), c.is_for("a.example"));
                }
            }
        }
    }
}
