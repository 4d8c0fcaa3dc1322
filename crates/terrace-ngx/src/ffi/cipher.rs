//! AES in its modes, for `resty.aes`. The block cipher and GHASH are RustCrypto's; a mode is a few lines around them.

use std::ffi::c_int;

use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes192, Aes256, Block};
use ghash::GHash;
use ghash::universal_hash::UniversalHash;

use super::{DONE, Text, bytes, fail, functions, give};

functions! {
    "int (*cipher_run)(int, int, int, const char *, const char *, size_t, const char *, size_t, const char *, size_t, const char *, terrace_text *)" => run,
}

const BLOCK_BYTES: usize = 16;
/// Flags of a run.
const ENCRYPT: c_int = 1;
const PADDING: c_int = 2;

enum Aes {
    Bits128(Aes128),
    Bits192(Aes192),
    Bits256(Aes256),
}

impl Aes {
    fn new(key: &[u8]) -> Option<Aes> {
        match key.len() {
            16 => Aes128::new_from_slice(key).ok().map(Aes::Bits128),
            24 => Aes192::new_from_slice(key).ok().map(Aes::Bits192),
            32 => Aes256::new_from_slice(key).ok().map(Aes::Bits256),
            _ => None,
        }
    }

    fn encrypt(&self, block: [u8; BLOCK_BYTES]) -> [u8; BLOCK_BYTES] {
        let mut block = Block::from(block);
        match self {
            Aes::Bits128(c) => c.encrypt_block(&mut block),
            Aes::Bits192(c) => c.encrypt_block(&mut block),
            Aes::Bits256(c) => c.encrypt_block(&mut block),
        }
        block.into()
    }

    fn decrypt(&self, block: [u8; BLOCK_BYTES]) -> [u8; BLOCK_BYTES] {
        let mut block = Block::from(block);
        match self {
            Aes::Bits128(c) => c.decrypt_block(&mut block),
            Aes::Bits192(c) => c.decrypt_block(&mut block),
            Aes::Bits256(c) => c.decrypt_block(&mut block),
        }
        block.into()
    }
}

fn block_of(data: &[u8]) -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let len = data.len().min(BLOCK_BYTES);
    block[..len].copy_from_slice(&data[..len]);
    block
}

fn xor(a: [u8; BLOCK_BYTES], b: [u8; BLOCK_BYTES]) -> [u8; BLOCK_BYTES] {
    std::array::from_fn(|i| a[i] ^ b[i])
}

/// One message on its way through.
struct Run<'a> {
    aes: Aes,
    is_encrypting: bool,
    has_padding: bool,
    iv: [u8; BLOCK_BYTES],
    data: &'a [u8],
}

impl Run<'_> {
    /// ECB, or CBC where `is_chained`. False for data that is no whole number of blocks, or whose padding is bad.
    fn blocks(&self, is_chained: bool, out: &mut Vec<u8>) -> bool {
        let mut last = self.iv;
        if self.is_encrypting {
            let mut one = |plain: [u8; BLOCK_BYTES]| {
                last = self.aes.encrypt(if is_chained { xor(plain, last) } else { plain });
                out.extend_from_slice(&last);
            };
            let chunks = self.data.chunks_exact(BLOCK_BYTES);
            let rest = chunks.remainder();
            chunks.for_each(|c| one(block_of(c)));
            if self.has_padding {
                let mut padded = [(BLOCK_BYTES - rest.len()) as u8; BLOCK_BYTES];
                padded[..rest.len()].copy_from_slice(rest);
                one(padded);
            }
            return self.has_padding || rest.is_empty();
        }
        if !self.data.len().is_multiple_of(BLOCK_BYTES) {
            return false;
        }
        for chunk in self.data.chunks_exact(BLOCK_BYTES) {
            let block = block_of(chunk);
            let plain = self.aes.decrypt(block);
            out.extend_from_slice(&if is_chained { xor(plain, last) } else { plain });
            last = block;
        }
        if !self.has_padding {
            return true;
        }
        let count = usize::from(out.last().copied().unwrap_or(0));
        let is_good = (1..=BLOCK_BYTES).contains(&count)
            && out.len() >= count
            && out[out.len() - count..].iter().all(|b| usize::from(*b) == count);
        if is_good {
            out.truncate(out.len() - count);
        }
        is_good
    }

    /// CTR: the whole block counts.
    fn counter(&self, out: &mut Vec<u8>) {
        let mut counter = u128::from_be_bytes(self.iv);
        for chunk in self.data.chunks(BLOCK_BYTES) {
            let stream = self.aes.encrypt(counter.to_be_bytes());
            out.extend(chunk.iter().zip(stream).map(|(d, s)| d ^ s));
            counter = counter.wrapping_add(1);
        }
    }

    fn output_feedback(&self, out: &mut Vec<u8>) {
        let mut stream = self.iv;
        for chunk in self.data.chunks(BLOCK_BYTES) {
            stream = self.aes.encrypt(stream);
            out.extend(chunk.iter().zip(stream).map(|(d, s)| d ^ s));
        }
    }

    /// CFB with 128 bits.
    fn feedback(&self, out: &mut Vec<u8>) {
        let mut register = self.iv;
        for chunk in self.data.chunks(BLOCK_BYTES) {
            let stream = self.aes.encrypt(register);
            let from = out.len();
            out.extend(chunk.iter().zip(stream).map(|(d, s)| d ^ s));
            register = block_of(if self.is_encrypting { &out[from..] } else { chunk });
        }
    }

    /// CFB with 8 bits.
    fn feedback_bytes(&self, out: &mut Vec<u8>) {
        let mut register = u128::from_be_bytes(self.iv);
        for byte in self.data {
            let made = byte ^ self.aes.encrypt(register.to_be_bytes())[0];
            out.push(made);
            register = register << 8 | u128::from(if self.is_encrypting { made } else { *byte });
        }
    }

    /// CFB with one bit.
    fn feedback_bits(&self, out: &mut Vec<u8>) {
        let mut register = u128::from_be_bytes(self.iv);
        for byte in self.data {
            let mut made = 0;
            for shift in (0..8).rev() {
                let taken = byte >> shift & 1;
                let bit = taken ^ self.aes.encrypt(register.to_be_bytes())[0] >> 7;
                made |= bit << shift;
                register = register << 1 | u128::from(if self.is_encrypting { bit } else { taken });
            }
            out.push(made);
        }
    }

    /// GCM (NIST SP 800-38D); answers the tag.
    fn galois(&self, iv: &[u8], aad: &[u8], out: &mut Vec<u8>) -> [u8; BLOCK_BYTES] {
        let hash_key = self.aes.encrypt([0; BLOCK_BYTES]);
        let hashed = |first: &[u8], second: &[u8]| -> [u8; BLOCK_BYTES] {
            let mut hash = GHash::new(&hash_key.into());
            hash.update_padded(first);
            hash.update_padded(second);
            let lengths = (first.len() as u128 * 8) << 64 | (second.len() as u128 * 8);
            hash.update(&[lengths.to_be_bytes().into()]);
            hash.finalize().into()
        };
        let mut counter = if iv.len() == 12 {
            let mut block = block_of(iv);
            block[15] = 1;
            block
        } else {
            hashed(&[], iv)
        };
        let mask = self.aes.encrypt(counter);
        for chunk in self.data.chunks(BLOCK_BYTES) {
            let low = u32::from_be_bytes([counter[12], counter[13], counter[14], counter[15]]);
            counter[12..].copy_from_slice(&low.wrapping_add(1).to_be_bytes());
            let stream = self.aes.encrypt(counter);
            out.extend(chunk.iter().zip(stream).map(|(d, s)| d ^ s));
        }
        let sealed: &[u8] = if self.is_encrypting { out } else { self.data };
        xor(hashed(aad, sealed), mask)
    }
}

/// Compares without telling by its time where they differ.
fn is_same_tag(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// Encrypts or decrypts a string. `key` has `bits / 8` bytes; the tag of GCM, 16 bytes, follows what was encrypted, and is
/// `tag` (or null, which never fits) when decrypting.
#[allow(clippy::too_many_arguments, reason = "the arguments of a C function")]
extern "C" fn run(
    bits: c_int,
    mode: c_int,
    flags: c_int,
    key: *const u8,
    iv: *const u8,
    iv_len: usize,
    data: *const u8,
    len: usize,
    aad: *const u8,
    aad_len: usize,
    tag: *const u8,
    out: *mut Text,
) -> c_int {
    let is_encrypting = flags & ENCRYPT != 0;
    let name = if is_encrypting { "EVP_EncryptFinal_ex failed" } else { "EVP_DecryptFinal_ex failed" };
    // SAFETY: Lua strings of these lengths, which stay for the call.
    let (key, iv, data, aad) = unsafe {
        let key_len = usize::try_from(bits / 8).unwrap_or(0);
        (bytes(key, key_len), bytes(iv, iv_len), bytes(data, len), bytes(aad, aad_len))
    };
    // SAFETY: null, or sixteen bytes.
    let tag = unsafe { bytes(tag, BLOCK_BYTES) };
    let Some(aes) = Aes::new(key) else {
        // SAFETY: a text of Lua's.
        return unsafe { fail(out, "bad key length") };
    };
    let run = Run { aes, is_encrypting, has_padding: flags & PADDING != 0, iv: block_of(iv), data };
    let fill = |made: &mut Vec<u8>| {
        made.reserve(len + 2 * BLOCK_BYTES);
        match mode {
            0 => return run.blocks(true, made),
            1 => return run.blocks(false, made),
            2 => run.counter(made),
            3 => run.output_feedback(made),
            4 => run.feedback(made),
            5 => run.feedback_bytes(made),
            6 => run.feedback_bits(made),
            7 => {
                let computed = run.galois(iv, aad, made);
                if !is_encrypting {
                    return is_same_tag(&computed, tag);
                }
                made.extend_from_slice(&computed);
            }
            _ => return false,
        }
        true
    };
    // SAFETY: a text of Lua's.
    let is_good = unsafe { give(out, fill) };
    if is_good {
        return DONE;
    }
    // SAFETY: as above.
    unsafe { fail(out, name) }
}
