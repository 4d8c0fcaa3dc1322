//! The functions of one argument, by the names of their directives, and the HMACs.

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use digest::Digest;
use terrace_http::Request;

use super::{Conf, pick, quote, time};
use crate::rewrite::VarFunction;

/// Appends what it makes of a text. False, the cause being logged, where it fails.
pub(super) type Function = fn(&Request, &[u8], &mut Vec<u8>) -> bool;

/// A function that neither fails nor looks at the request.
macro_rules! plain {
    ($function:expr) => {
        |_, text, out| {
            $function(text, out);
            true
        }
    };
}

static FUNCTIONS: &[(&str, Function)] = &[
    ("set_quote_sql_str", plain!(quote::sql)),
    ("set_quote_pgsql_str", plain!(quote::pgsql)),
    ("set_quote_json_str", plain!(quote::json)),
    ("set_unescape_uri", plain!(unescape)),
    ("set_escape_uri", plain!(escape)),
    ("set_encode_base32", encode_base32),
    ("set_decode_base32", decode_base32),
    ("set_encode_base64", plain!(|text, out| encode_base64(&PADDED, text, out))),
    ("set_decode_base64", plain!(|text, out| decode_base64(&PADDED, text, out))),
    ("set_encode_base64url", plain!(|text, out| encode_base64(&URL, text, out))),
    ("set_decode_base64url", plain!(|text, out| decode_base64(&URL, text, out))),
    ("set_encode_hex", plain!(encode_hex)),
    ("set_decode_hex", plain!(decode_hex)),
    ("set_sha1", plain!(|text, out| encode_hex(&sha1::Sha1::digest(text), out))),
    ("set_md5", plain!(|text, out| encode_hex(&md5::Md5::digest(text), out))),
    ("set_secure_random_alphanum", pick::random_alphanum),
    ("set_secure_random_lcalpha", pick::random_lcalpha),
    ("set_local_today", time::local_today),
    ("set_formatted_gmt_time", time::formatted_gmt),
    ("set_formatted_local_time", time::formatted_local),
];

/// The function of a directive.
pub(super) fn find(name: &[u8]) -> Option<Function> {
    FUNCTIONS.iter().find(|(n, _)| n.as_bytes() == name).map(|(_, f)| *f)
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn encode_hex(text: &[u8], out: &mut Vec<u8>) {
    out.extend(text.iter().flat_map(|b| [HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]));
}

fn hex_digit(digit: u8) -> Option<u8> {
    // A digit's value is below 16.
    char::from(digit).to_digit(16).map(|value| value as u8)
}

/// Nothing for a text that is not in hexadecimal.
fn decode_hex(text: &[u8], out: &mut Vec<u8>) {
    let (pairs, odd) = text.as_chunks::<2>();
    let decoded = pairs.iter().map(|[high, low]| Some(hex_digit(*high)? << 4 | hex_digit(*low)?));
    if let Some(bytes) = decoded.collect::<Option<Vec<u8>>>().filter(|_| odd.is_empty()) {
        out.extend_from_slice(&bytes);
    }
}

/// Decodes `%XX` and `+`. Of a `%` without its digits, that and the digit it has are left out.
fn unescape(text: &[u8], out: &mut Vec<u8>) {
    let digit = |at: usize| text.get(at).copied().and_then(hex_digit);
    let mut at = 0;
    while let Some(&b) = text.get(at) {
        at += 1;
        match b {
            b'+' => out.push(b' '),
            b'%' => match (digit(at), digit(at + 1)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    at += 2;
                }
                (Some(_), None) => at += 2,
                (None, _) => {}
            },
            _ => out.push(b),
        }
    }
}

/// Escapes all but letters, digits and the marks that have no meaning in a component of a URI.
fn escape(text: &[u8], out: &mut Vec<u8>) {
    const UPPER_HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &b in text {
        if b.is_ascii_alphanumeric() || b"!$'()*,-.@_`|~".contains(&b) {
            out.push(b);
        } else {
            out.extend_from_slice(&[b'%', UPPER_HEX[usize::from(b >> 4)], UPPER_HEX[usize::from(b & 15)]]);
        }
    }
}

fn encode_base32(r: &Request, text: &[u8], out: &mut Vec<u8>) -> bool {
    let conf = r.settings::<Conf>();
    let padding = conf.and_then(|c| c.padding).unwrap_or(true);
    match conf.and_then(|c| c.alphabet.as_deref()) {
        Some(alphabet) => alphabet.encode(text, padding, out),
        None => super::Alphabet::default().encode(text, padding, out),
    }
    true
}

/// Nothing for a text that is not base32.
fn decode_base32(r: &Request, text: &[u8], out: &mut Vec<u8>) -> bool {
    match r.settings::<Conf>().and_then(|c| c.alphabet.as_deref()) {
        Some(alphabet) => alphabet.decode(text, out),
        None => super::Alphabet::default().decode(text, out),
    };
    true
}

/// Padding is not asked for and stray bits at the end are let pass, as nginx does.
const fn config(padding: bool) -> GeneralPurposeConfig {
    GeneralPurposeConfig::new()
        .with_encode_padding(padding)
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
}

const PADDED: GeneralPurpose = GeneralPurpose::new(&STANDARD, config(true));
const URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, config(false));

fn encode_base64(engine: &GeneralPurpose, text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(engine.encode(text).as_bytes());
}

/// Nothing for a text that is not base64. What follows the first padding is not looked at.
fn decode_base64(engine: &GeneralPurpose, text: &[u8], out: &mut Vec<u8>) {
    let end = memchr::memchr(b'=', text).unwrap_or(text.len());
    if let Ok(bytes) = engine.decode(&text[..end]) {
        out.extend_from_slice(&bytes);
    }
}

/// `set_hmac_sha1`
pub(super) struct HmacSha1;

impl VarFunction for HmacSha1 {
    fn call(&self, _: &Request, args: &[Vec<u8>], out: &mut Vec<u8>) -> bool {
        hmac::<sha1::Sha1>(args, out)
    }
}

/// `set_hmac_sha256`
pub(super) struct HmacSha256;

impl VarFunction for HmacSha256 {
    fn call(&self, _: &Request, args: &[Vec<u8>], out: &mut Vec<u8>) -> bool {
        hmac::<sha2::Sha256>(args, out)
    }
}

/// HMAC (RFC 2104) of a key and a text, with a digest whose blocks have 64 bytes.
fn hmac<D: Digest>(args: &[Vec<u8>], out: &mut Vec<u8>) -> bool {
    const BLOCK_BYTES: usize = 64;
    let [key, text] = args else { return false };
    let hashed;
    let key = if key.len() > BLOCK_BYTES {
        hashed = D::digest(key);
        &hashed[..]
    } else {
        key
    };
    let padded = |with: u8| {
        let mut block = [with; BLOCK_BYTES];
        block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
        D::new().chain_update(block)
    };
    let inner = padded(0x36).chain_update(text).finalize();
    out.extend_from_slice(&padded(0x5c).chain_update(inner).finalize());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(f: fn(&[u8], &mut Vec<u8>), text: &[u8]) -> String {
        let mut out = Vec::new();
        f(text, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn uris() {
        assert_eq!(made(escape, b"a b&c=d/?@$,|"), "a%20b%26c%3Dd%2F%3F@$,|");
        assert_eq!(made(unescape, b"hello+world%21"), "hello world!");
        assert_eq!(made(unescape, b"%zz%4z%"), "zz");
    }

    #[test]
    fn hexadecimal() {
        assert_eq!(made(decode_hex, b"6162"), "ab");
        for wrong in [&b"616"[..], b"6g", b"+1"] {
            assert_eq!(made(decode_hex, wrong), "");
        }
    }

    /// RFC 4231, case 2, and RFC 2202, case 6.
    #[test]
    fn hmacs_of_the_rfcs() {
        let hex = |out: &[u8]| made(encode_hex, out);
        let mut out = Vec::new();
        assert!(hmac::<sha2::Sha256>(
            &[b"Jefe".to_vec(), b"what do ya want for nothing?".to_vec()],
            &mut out
        ));
        assert_eq!(hex(&out), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        out.clear();
        let text = b"Test Using Larger Than Block-Size Key - Hash Key First".to_vec();
        assert!(hmac::<sha1::Sha1>(&[vec![0xaa; 80], text], &mut out));
        assert_eq!(hex(&out), "aa4ae5e15272d00e95705637ce8a3b55ed402112");
    }
}
