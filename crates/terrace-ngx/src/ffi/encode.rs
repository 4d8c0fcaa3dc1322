//! Encodings and checksums of strings: `ngx.escape_uri`, `ngx.encode_base64`, `ngx.md5`, `ngx.crc32_short` and
//! their kin.

use std::ffi::{c_int, c_uint};

use base64::Engine;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use digest::Digest;
use terrace_modules::set_misc;

use super::pairs::{PairList, Pairs, give_pairs};
use super::{DONE, FAILED, NO_REQUEST, NOT_FOUND, Text, bytes, functions, give};
use crate::escape::{self, Escape};
use crate::host::current;

functions! {
    "int (*escape_uri)(const char *, size_t, int, terrace_text *)" => escape_uri,
    "int (*unescape_uri)(const char *, size_t, terrace_text *)" => unescape_uri,
    "int (*decode_args)(const char *, size_t, int, terrace_pairs *)" => decode_args,
    "int (*encode_base64)(const char *, size_t, int, terrace_text *)" => encode_base64,
    "int (*decode_base64)(const char *, size_t, int, terrace_text *)" => decode_base64,
    "int (*md5)(const char *, size_t, unsigned char *)" => md5_bin,
    "int (*md5_hex)(const char *, size_t, unsigned char *)" => md5_hex,
    "int (*sha1)(const char *, size_t, unsigned char *)" => sha1_bin,
    "int (*hmac_sha1)(const char *, size_t, const char *, size_t, unsigned char *)" => hmac_sha1,
    "unsigned (*crc32)(const char *, size_t)" => crc32,
    "int (*quote_sql)(const char *, size_t, terrace_text *)" => quote_sql,
    "int (*set_var)(const char *, size_t, const char *, size_t, terrace_text *)" => set_var,
}

/// The text needs no escaping; nothing was given.
const SAME: c_int = 1;

extern "C" fn escape_uri(text: *const u8, len: usize, kind: c_int, out: *mut Text) -> c_int {
    // SAFETY: a Lua string.
    let text = unsafe { bytes(text, len) };
    let Some(kind) = Escape::from_number(kind) else { return NOT_FOUND };
    if kind.is_clean(text) {
        return SAME;
    }
    // SAFETY: Lua passes a text of its own.
    unsafe { give(out, |b| kind.append(text, b)) };
    DONE
}

extern "C" fn unescape_uri(text: *const u8, len: usize, out: *mut Text) -> c_int {
    // SAFETY: a Lua string.
    let text = unsafe { bytes(text, len) };
    if memchr::memchr2(b'%', b'+', text).is_none() {
        return SAME;
    }
    // SAFETY: Lua passes a text of its own.
    unsafe { give(out, |b| escape::unescape(text, b)) };
    DONE
}

extern "C" fn decode_args(text: *const u8, len: usize, max: c_int, out: *mut Pairs) -> c_int {
    // SAFETY: a Lua string, and a list of Lua's own.
    unsafe {
        let text = bytes(text, len);
        give_pairs(out, |list| add_args(text, max, list));
    }
    DONE
}

/// Adds the arguments of a query string, at most `max` (0: all). True when that left some out.
pub fn add_args(query: &[u8], max: c_int, list: &mut PairList) -> bool {
    let max = usize::try_from(max).ok().filter(|m| *m > 0).unwrap_or(usize::MAX);
    list.truncated = max != usize::MAX && escape::count_args(query) > max;
    for (name, value) in escape::args(query).take(max) {
        list.add(
            |b| escape::unescape(name, b),
            |b| {
                escape::unescape(value.unwrap_or_default(), b);
                value.is_some()
            },
        );
    }
    list.truncated
}

/// Padding is not asked for and stray bits at the end are let pass, as nginx does.
const fn engine(alphabet: &Alphabet, padding: bool) -> GeneralPurpose {
    let config = GeneralPurposeConfig::new()
        .with_encode_padding(padding)
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(alphabet, config)
}

const PADDED: GeneralPurpose = engine(&STANDARD, true);
const UNPADDED: GeneralPurpose = engine(&STANDARD, false);
const URL: GeneralPurpose = engine(&URL_SAFE, false);

/// Kinds: 0 padded, 1 without padding, 2 for URLs (without padding).
extern "C" fn encode_base64(text: *const u8, len: usize, kind: c_int, out: *mut Text) -> c_int {
    // SAFETY: a Lua string.
    let text = unsafe { bytes(text, len) };
    let engine = match kind {
        0 => &PADDED,
        1 => &UNPADDED,
        _ => &URL,
    };
    let fill = |b: &mut Vec<u8>| {
        b.resize(base64::encoded_len(text.len(), kind == 0).unwrap_or(0), 0);
        engine.encode_slice(text, b).is_ok()
    };
    // SAFETY: Lua passes a text of its own.
    if unsafe { give(out, fill) } { DONE } else { NOT_FOUND }
}

/// Kinds: 0 plain, 2 for URLs, 3 plain with foreign bytes skipped (MIME).
extern "C" fn decode_base64(text: *const u8, len: usize, kind: c_int, out: *mut Text) -> c_int {
    // SAFETY: a Lua string.
    let text = unsafe { bytes(text, len) };
    // What follows the first padding is not looked at.
    let end = memchr::memchr(b'=', text).unwrap_or(text.len());
    let text = &text[..end];
    let fill = |b: &mut Vec<u8>| match kind {
        0 => PADDED.decode_vec(text, b).is_ok(),
        2 => URL.decode_vec(text, b).is_ok(),
        _ => {
            let known = |c: &u8| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/');
            let text: Vec<u8> = text.iter().copied().filter(known).collect();
            PADDED.decode_vec(text, b).is_ok()
        }
    };
    // SAFETY: Lua passes a text of its own.
    if unsafe { give(out, fill) } { DONE } else { NOT_FOUND }
}

/// # Safety
/// `out` must have room for `data`.
unsafe fn put(out: *mut u8, data: &[u8]) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { out.copy_from_nonoverlapping(data.as_ptr(), data.len()) };
    DONE
}

/// Writes 16 bytes.
extern "C" fn md5_bin(text: *const u8, len: usize, out: *mut u8) -> c_int {
    // SAFETY: a Lua string; Lua's buffer has 40 bytes.
    unsafe { put(out, &md5::Md5::digest(bytes(text, len))) }
}

/// Writes 32 bytes.
extern "C" fn md5_hex(text: *const u8, len: usize, out: *mut u8) -> c_int {
    // SAFETY: a Lua string.
    let digest = md5::Md5::digest(unsafe { bytes(text, len) });
    let digit = |n: u8| if n < 10 { b'0' + n } else { b'a' + n - 10 };
    let mut hex = [0; 32];
    for (pair, b) in hex.as_chunks_mut::<2>().0.iter_mut().zip(digest.iter()) {
        *pair = [digit(b >> 4), digit(b & 15)];
    }
    // SAFETY: Lua's buffer has 40 bytes.
    unsafe { put(out, &hex) }
}

/// Writes 20 bytes.
extern "C" fn sha1_bin(text: *const u8, len: usize, out: *mut u8) -> c_int {
    // SAFETY: a Lua string; Lua's buffer has 40 bytes.
    unsafe { put(out, &sha1::Sha1::digest(bytes(text, len))) }
}

/// Writes 20 bytes.
extern "C" fn hmac_sha1(key: *const u8, key_len: usize, text: *const u8, len: usize, out: *mut u8) -> c_int {
    // SAFETY: Lua strings; Lua's buffer has 40 bytes.
    unsafe { put(out, &hmac(bytes(key, key_len), bytes(text, len))) }
}

/// HMAC-SHA1 (RFC 2104).
fn hmac(key: &[u8], text: &[u8]) -> [u8; 20] {
    let hashed: [u8; 20];
    let key = if key.len() > 64 {
        hashed = sha1::Sha1::digest(key).into();
        &hashed[..]
    } else {
        key
    };
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
        sha1::Sha1::new().chain_update(block)
    };
    let inner = pad(0x36).chain_update(text).finalize();
    pad(0x5c).chain_update(inner).finalize().into()
}

extern "C" fn crc32(text: *const u8, len: usize) -> c_uint {
    // SAFETY: a Lua string.
    crc32fast::hash(unsafe { bytes(text, len) })
}

/// A MySQL string literal.
extern "C" fn quote_sql(text: *const u8, len: usize, out: *mut Text) -> c_int {
    // SAFETY: a Lua string.
    let text = unsafe { bytes(text, len) };
    let fill = |b: &mut Vec<u8>| {
        b.push(b'\'');
        for c in text {
            let escaped = match c {
                0 => b'0',
                8 => b'b',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                26 => b'Z',
                b'\\' | b'\'' | b'"' => *c,
                _ => {
                    b.push(*c);
                    continue;
                }
            };
            b.extend_from_slice(&[b'\\', escaped]);
        }
        b.push(b'\'');
    };
    // SAFETY: Lua passes a text of its own.
    unsafe { give(out, fill) };
    DONE
}

/// The function of a directive such as `set_md5`, by the directive's name, which must be one of them if `text` is null.
extern "C" fn set_var(
    name: *const u8,
    name_len: usize,
    text: *const u8,
    len: usize,
    out: *mut Text,
) -> c_int {
    // SAFETY: Lua strings; the text may be null.
    let (name, argument) = unsafe { (bytes(name, name_len), bytes(text, len)) };
    if text.is_null() {
        return if set_misc::is_function(name) { DONE } else { NOT_FOUND };
    }
    current(|h| {
        // SAFETY: Lua passes a text of its own.
        let called = unsafe { give(out, |b| set_misc::call(name, &h.request, argument, b)) };
        match called {
            Some(true) => DONE,
            Some(false) => FAILED,
            None => NOT_FOUND,
        }
    })
    .unwrap_or(NO_REQUEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// RFC 2202, cases 2 and 6.
    #[test]
    fn hmac_of_the_rfc() {
        let short = hmac(b"Jefe", b"what do ya want for nothing?");
        assert_eq!(hex(&short), "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
        let long = hmac(&[0xaa; 80], b"Test Using Larger Than Block-Size Key - Hash Key First");
        assert_eq!(hex(&long), "aa4ae5e15272d00e95705637ce8a3b55ed402112");
    }

    #[test]
    fn base64_without_padding_and_with_stray_bits() {
        let decode = |text: &[u8]| {
            let mut out = Vec::new();
            PADDED.decode_vec(text, &mut out).ok().map(|()| out)
        };
        assert_eq!(decode(b"aGVsbG8").as_deref(), Some(&b"hello"[..]));
        assert_eq!(decode(b"aGVsbG9").as_deref(), Some(&b"hello"[..]));
        assert_eq!(decode(b"aGVsb"), None);
        assert_eq!(decode(b"a!Vs"), None);
    }
}
