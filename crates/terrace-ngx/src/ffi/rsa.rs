//! Encryption for the holder of an RSA key (RFC 8017, RSAES-OAEP with SHA-1), by which MySQL takes passwords over
//! connections without TLS.

use std::ffi::c_int;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use num_bigint::BigUint;
use sha1::{Digest, Sha1};

use super::{DONE, Text, bytes, fail, functions, give};

functions! {
    "int (*rsa_oaep)(const char *, size_t, const char *, size_t, terrace_text *)" => encrypt,
}

const HASH_BYTES: usize = 20;
/// Larger keys take too long.
const MODULUS_BYTES_MAX: usize = 1024;

/// The value of a DER element with this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&short, rest) = rest.split_first()?;
    let (len, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(short - 0x80))?;
            (digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    (found == tag).then_some(())?;
    rest.split_at_checked(len)
}

/// Modulus and exponent of a `SubjectPublicKeyInfo` in PEM.
fn key(pem: &[u8]) -> Option<(BigUint, BigUint)> {
    const SEQUENCE: u8 = 0x30;
    const BIT_STRING: u8 = 0x03;
    const INTEGER: u8 = 0x02;
    let text = std::str::from_utf8(pem).ok()?;
    let body = text.split("-----BEGIN PUBLIC KEY-----").nth(1)?.split("-----END").next()?;
    let packed: String = body.split_whitespace().collect();
    let der = STANDARD.decode(packed).ok()?;
    let (info, _) = element(&der, SEQUENCE)?;
    let (_algorithm, rest) = element(info, SEQUENCE)?;
    let (bits, _) = element(rest, BIT_STRING)?;
    let (numbers, _) = element(bits.get(1..)?, SEQUENCE)?;
    let (modulus, rest) = element(numbers, INTEGER)?;
    let (exponent, _) = element(rest, INTEGER)?;
    Some((BigUint::from_bytes_be(modulus), BigUint::from_bytes_be(exponent)))
}

/// Exclusive-or with MGF1 of the seed.
fn mask(data: &mut [u8], seed: &[u8]) {
    for (counter, chunk) in (0_u32..).zip(data.chunks_mut(HASH_BYTES)) {
        let stream = Sha1::new().chain_update(seed).chain_update(counter.to_be_bytes()).finalize();
        chunk.iter_mut().zip(stream).for_each(|(d, s)| *d ^= s);
    }
}

fn seal(pem: &[u8], message: &[u8]) -> Result<Vec<u8>, &'static str> {
    let (modulus, exponent) = key(pem).ok_or("bad public key")?;
    let size = usize::try_from(modulus.bits().div_ceil(8)).unwrap_or(usize::MAX);
    if size > MODULUS_BYTES_MAX || message.len() + 2 * HASH_BYTES + 2 > size {
        return Err("the public key does not fit");
    }
    let mut seed = [0; HASH_BYTES];
    getrandom::fill(&mut seed).map_err(|_| "no randomness")?;
    let mut data = Sha1::digest(b"").to_vec();
    data.resize(size - HASH_BYTES - 2 - message.len(), 0);
    data.push(1);
    data.extend_from_slice(message);
    mask(&mut data, &seed);
    mask(&mut seed, &data);
    let encoded = [&seed[..], &data[..]].concat();
    let sealed = BigUint::from_bytes_be(&encoded).modpow(&exponent, &modulus).to_bytes_be();
    let mut out = vec![0; size.saturating_sub(sealed.len())];
    out.extend_from_slice(&sealed);
    Ok(out)
}

extern "C" fn encrypt(pem: *const u8, pem_len: usize, data: *const u8, len: usize, out: *mut Text) -> c_int {
    // SAFETY: Lua strings.
    let sealed = unsafe { seal(bytes(pem, pem_len), bytes(data, len)) };
    match sealed {
        Ok(sealed) => {
            // SAFETY: a text of Lua's.
            unsafe { give(out, |made| made.extend_from_slice(&sealed)) };
            DONE
        }
        // SAFETY: as above.
        Err(text) => unsafe { fail(out, text) },
    }
}
