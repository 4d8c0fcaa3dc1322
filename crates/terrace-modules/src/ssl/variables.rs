//! `$ssl_*`.

use std::fmt::Write;

use base64::Engine;
use sha1::{Digest, Sha1};
use terrace_base::clock;
use terrace_http::Request;
use terrace_http::tls::ClientVerdict;
use terrace_http::vars::VarTable;
use terrace_net::tls::{Certificate, CertificateDer, TlsStream};

pub(super) fn define(t: &mut VarTable) {
    fn tls(r: &Request, out: &mut Vec<u8>, f: impl FnOnce(&TlsStream) -> Option<Vec<u8>>) -> bool {
        match r.tls().and_then(f) {
            Some(text) => {
                out.extend_from_slice(&text);
                true
            }
            None => false,
        }
    }
    // What the client has offered is known before the handshake is over.
    fn offered(r: &Request, out: &mut Vec<u8>, f: impl FnOnce(&TlsStream) -> Option<String>) -> bool {
        let tls = r.client.as_ref().and_then(|c| c.stream.tls());
        tls.and_then(f).is_some_and(|text| put(out, &text))
    }
    t.define("ssl_protocol", |r, o| tls(r, o, |t| Some(t.protocol()?.into())));
    t.define("ssl_cipher", |r, o| tls(r, o, |t| Some(t.cipher()?.into())));
    t.define("ssl_ciphers", |r, o| offered(r, o, TlsStream::offered_ciphers));
    t.define("ssl_curve", |r, o| tls(r, o, |t| Some(t.curve()?.into())));
    t.define("ssl_curves", |r, o| offered(r, o, TlsStream::offered_curves));
    t.define("ssl_server_name", |r, o| offered(r, o, TlsStream::server_name));
    t.define("ssl_alpn_protocol", |r, o| tls(r, o, TlsStream::alpn));
    t.define("ssl_session_reused", |r, o| tls(r, o, |t| Some(if t.is_resumed() { "r" } else { "." }.into())));
    // Sessions have no number here, and early data is not taken.
    t.define("ssl_session_id", |_, _| false);
    t.define("ssl_early_data", |_, _| false);
    define_client(t);
}

fn define_client(t: &mut VarTable) {
    t.define("ssl_client_verify", |r, o| {
        let text = match r.client_verdict() {
            None => return false,
            Some(ClientVerdict::None) => "NONE".to_owned(),
            Some(ClientVerdict::Good) => "SUCCESS".to_owned(),
            Some(ClientVerdict::Bad(v)) => format!("FAILED:{}", v.text),
        };
        put(o, &text)
    });
    t.define("ssl_client_s_dn", |r, o| of(r, o, |c| c.subject.rfc2253()));
    t.define("ssl_client_i_dn", |r, o| of(r, o, |c| c.issuer.rfc2253()));
    t.define("ssl_client_s_dn_legacy", |r, o| of(r, o, |c| c.subject.legacy()));
    t.define("ssl_client_i_dn_legacy", |r, o| of(r, o, |c| c.issuer.legacy()));
    t.define("ssl_client_serial", |r, o| of(r, o, |c| c.serial_hex()));
    t.define("ssl_client_v_start", |r, o| of(r, o, |c| openssl_time(c.not_before)));
    t.define("ssl_client_v_end", |r, o| of(r, o, |c| openssl_time(c.not_after)));
    t.define("ssl_client_v_remain", |r, o| {
        let now = i64::try_from(clock::now_secs()).unwrap_or(i64::MAX);
        of(r, o, |c| ((c.not_after - now).max(0) / 86_400).to_string())
    });
    t.define("ssl_client_fingerprint", |r, o| {
        leaf(r).is_some_and(|der| {
            let digest = Sha1::digest(&der);
            digest.iter().all(|b| put(o, &format!("{b:02x}")))
        })
    });
    t.define("ssl_client_raw_cert", |r, o| leaf(r).is_some_and(|der| put(o, pem(&der).trim_end())));
    t.define("ssl_client_cert", |r, o| {
        leaf(r).is_some_and(|der| put(o, &pem(&der).trim_end().replace('\n', "\n\t")))
    });
    t.define("ssl_client_escaped_cert", |r, o| {
        leaf(r).is_some_and(|der| {
            pem(&der).bytes().all(|b| match b {
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' => {
                    put(o, &char::from(b).to_string())
                }
                _ => put(o, &format!("%{b:02X}")),
            })
        })
    });
}

fn put(out: &mut Vec<u8>, text: &str) -> bool {
    out.extend_from_slice(text.as_bytes());
    true
}

fn leaf(r: &Request) -> Option<CertificateDer<'static>> {
    r.tls()?.peer_certificates()?.into_iter().next()
}

fn of(r: &Request, out: &mut Vec<u8>, f: impl FnOnce(&Certificate<'_>) -> String) -> bool {
    leaf(r).is_some_and(|der| Certificate::parse(&der).is_some_and(|c| put(out, &f(&c))))
}

/// The certificate as PEM, with a line break at its end.
fn pem(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        let _ = writeln!(out, "{}", String::from_utf8_lossy(line));
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

/// `Jan  1 00:00:00 2024 GMT`.
fn openssl_time(seconds: i64) -> String {
    let text = terrace_base::http_date::format(u64::try_from(seconds).unwrap_or(0));
    // `Mon, 01 Jan 2024 00:00:00 GMT`
    let text = String::from_utf8_lossy(&text).into_owned();
    let (day, month) = (text.get(5..7).unwrap_or_default(), text.get(8..11).unwrap_or_default());
    let (year, time) = (text.get(12..16).unwrap_or_default(), text.get(17..25).unwrap_or_default());
    let day = day.trim_start_matches('0');
    format!("{month} {day:>2} {time} {year} GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_openssls() {
        assert_eq!(openssl_time(1_709_164_800), "Feb 29 00:00:00 2024 GMT");
        assert_eq!(openssl_time(1_704_067_199 + 1), "Jan  1 00:00:00 2024 GMT");
    }
}
