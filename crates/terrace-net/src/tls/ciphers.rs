//! OpenSSL's names of cipher suites and curves, and its lists of ciphers.

use rustls::{CipherSuite, NamedGroup, SupportedCipherSuite};

/// The suites of TLS 1.2 with their names and the words of a list that mean them.
const SUITES: &[(CipherSuite, &str, &[&str])] = &[
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        &["ECDSA", "aECDSA", "AES", "AES256", "AESGCM", "SHA384"],
    ),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        &["ECDSA", "aECDSA", "AES", "AES128", "AESGCM", "SHA256"],
    ),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        &["ECDSA", "aECDSA", "CHACHA20", "SHA256"],
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-RSA-AES256-GCM-SHA384",
        &["aRSA", "AES", "AES256", "AESGCM", "SHA384"],
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-RSA-AES128-GCM-SHA256",
        &["aRSA", "AES", "AES128", "AESGCM", "SHA256"],
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-RSA-CHACHA20-POLY1305",
        &["aRSA", "CHACHA20", "SHA256"],
    ),
];

/// Words that mean every suite there is: all have forward secrecy and authenticated encryption.
const EVERY: &[&str] = &[
    "ALL",
    "DEFAULT",
    "COMPLEMENTOFDEFAULT",
    "HIGH",
    "FIPS",
    "TLSv1.2",
    "ECDHE",
    "EECDH",
    "kEECDH",
    "kECDHE",
    "EDH+ECDHE",
];

/// OpenSSL's name of a suite; empty for one that is not known.
pub fn cipher_name(suite: CipherSuite) -> String {
    if let Some((_, name, _)) = SUITES.iter().find(|(s, ..)| *s == suite) {
        return (*name).to_owned();
    }
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256".to_owned(),
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384".to_owned(),
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256".to_owned(),
        other => format!("0x{:04x}", u16::from(other)),
    }
}

/// OpenSSL's name of a curve.
pub fn curve_name(group: NamedGroup) -> String {
    match group {
        NamedGroup::X25519 => "X25519".to_owned(),
        NamedGroup::X448 => "X448".to_owned(),
        NamedGroup::secp256r1 => "prime256v1".to_owned(),
        NamedGroup::secp384r1 => "secp384r1".to_owned(),
        NamedGroup::secp521r1 => "secp521r1".to_owned(),
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768".to_owned(),
        other => format!("0x{:04x}", u16::from(other)),
    }
}

pub(super) fn curve_of(name: &str) -> Option<NamedGroup> {
    Some(match name.trim() {
        "X25519" | "x25519" => NamedGroup::X25519,
        "prime256v1" | "P-256" | "secp256r1" => NamedGroup::secp256r1,
        "secp384r1" | "P-384" => NamedGroup::secp384r1,
        _ => return None,
    })
}

/// The suites that a list of OpenSSL's means, in its order. As in OpenSSL the list says nothing about TLS 1.3.
pub(super) fn select(list: &str, all: &[SupportedCipherSuite]) -> Vec<SupportedCipherSuite> {
    let mut chosen: Vec<CipherSuite> = Vec::new();
    let mut banned: Vec<CipherSuite> = Vec::new();
    for token in list.split([':', ',', ' ']).filter(|t| !t.is_empty()) {
        let (action, words) = match token.as_bytes()[0] {
            c @ (b'!' | b'-' | b'+') => (c, &token[1..]),
            _ => (b'=', token),
        };
        let found = SUITES.iter().filter(|(_, name, tags)| means(words, name, tags)).map(|(s, ..)| *s);
        match action {
            b'=' => {
                let new: Vec<_> = found.filter(|s| !chosen.contains(s) && !banned.contains(s)).collect();
                chosen.extend(new);
            }
            b'+' => {
                // To the end of the list.
                for suite in found {
                    if let Some(at) = chosen.iter().position(|s| *s == suite) {
                        let suite = chosen.remove(at);
                        chosen.push(suite);
                    }
                }
            }
            _ => {
                for suite in found {
                    chosen.retain(|s| *s != suite);
                    if action == b'!' {
                        banned.push(suite);
                    }
                }
            }
        }
    }
    let tls13 = all.iter().filter(|s| s.tls13().is_some()).copied();
    let tls12 = chosen.iter().filter_map(|suite| all.iter().find(|s| s.suite() == *suite).copied());
    tls13.chain(tls12).collect()
}

/// The words of a list that would add ciphers and add none: what OpenSSL has and rustls leaves out, or nobody has.
pub fn unknown_ciphers(list: &str) -> Vec<&str> {
    let adds = |t: &&str| !t.is_empty() && !t.starts_with(['!', '-', '+', '@']);
    let is_known =
        |t: &str| t.starts_with("TLS_") || SUITES.iter().any(|(_, name, tags)| means(t, name, tags));
    list.split([':', ',', ' ']).filter(adds).filter(|t| !is_known(t)).collect()
}

/// Whether a word of a list means a suite.
fn means(words: &str, name: &str, tags: &[&str]) -> bool {
    words == name || words.split('+').all(|w| EVERY.contains(&w) || tags.contains(&w))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> Vec<String> {
        let all = rustls::crypto::ring::ALL_CIPHER_SUITES;
        select(list, all).iter().skip(3).map(|s| cipher_name(s.suite())).collect()
    }

    #[test]
    fn lists_are_openssls() {
        assert_eq!(names("HIGH:!aNULL:!MD5").len(), 6);
        assert_eq!(names("ECDHE-RSA-AES128-GCM-SHA256"), ["ECDHE-RSA-AES128-GCM-SHA256"]);
        assert_eq!(
            names("EECDH+CHACHA20:!ECDSA"),
            ["ECDHE-RSA-CHACHA20-POLY1305"],
            "the words of one token must all hold"
        );
        assert_eq!(names("RC4-SHA:AES256-SHA"), [""; 0]);
        assert_eq!(unknown_ciphers("HIGH:RC4-SHA:!aNULL:ECDHE+AESGCM,AES256-SHA"), ["RC4-SHA", "AES256-SHA"]);
        assert_eq!(
            names("ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256:+ECDHE-RSA-AES256-GCM-SHA384"),
            ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"]
        );
    }
}
