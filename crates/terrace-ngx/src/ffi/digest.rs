//! Digests and randomness, for `ngx.md5` and its kin and for the `resty.*` digest modules.

use std::ffi::c_int;

use digest::DynDigest;

use super::{bytes, functions};

functions! {
    "void *(*digest_new)(int)" => digest_new,
    "int (*digest_update)(void *, const char *, size_t)" => digest_update,
    "int (*digest_final)(void *, unsigned char *)" => digest_final,
    "void (*digest_reset)(void *)" => digest_reset,
    "void (*digest_free)(void *)" => digest_free,
    "int (*random_bytes)(unsigned char *, size_t)" => random_bytes,
}

/// The room that Lua gives for a digest.
const DIGEST_BYTES_MAX: usize = 64;

struct Digest(Box<dyn DynDigest>);

/// A digest in progress; null for an unknown algorithm.
extern "C" fn digest_new(algorithm: c_int) -> *mut Digest {
    let state: Box<dyn DynDigest> = match algorithm {
        1 => Box::new(md5::Md5::default()),
        2 => Box::new(sha1::Sha1::default()),
        3 => Box::new(sha2::Sha224::default()),
        4 => Box::new(sha2::Sha256::default()),
        5 => Box::new(sha2::Sha384::default()),
        6 => Box::new(sha2::Sha512::default()),
        _ => return std::ptr::null_mut(),
    };
    Box::into_raw(Box::new(Digest(state)))
}

extern "C" fn digest_update(digest: *mut Digest, data: *const u8, len: usize) -> c_int {
    // SAFETY: a pointer that `digest_new` gave and `digest_free` has not taken back (Lua frees it last), or null.
    let Some(digest) = (unsafe { digest.as_mut() }) else { return 0 };
    // SAFETY: a Lua string.
    digest.0.update(unsafe { bytes(data, len) });
    1
}

/// Writes the digest; `out` has room for 64 bytes. The object starts anew.
extern "C" fn digest_final(digest: *mut Digest, out: *mut u8) -> c_int {
    // SAFETY: as in `digest_update`.
    let Some(digest) = (unsafe { digest.as_mut() }) else { return 0 };
    let made = digest.0.finalize_reset();
    let len = made.len().min(DIGEST_BYTES_MAX);
    // SAFETY: the caller's 64 bytes.
    unsafe { out.copy_from_nonoverlapping(made.as_ptr(), len) };
    len as c_int
}

extern "C" fn digest_reset(digest: *mut Digest) {
    // SAFETY: as in `digest_update`.
    if let Some(digest) = unsafe { digest.as_mut() } {
        digest.0.reset();
    }
}

extern "C" fn digest_free(digest: *mut Digest) {
    if !digest.is_null() {
        // SAFETY: from `digest_new`, given back once, by Lua's collector.
        drop(unsafe { Box::from_raw(digest) });
    }
}

extern "C" fn random_bytes(out: *mut u8, len: usize) -> c_int {
    if out.is_null() {
        return 0;
    }
    // SAFETY: the caller's buffer of this length.
    let out = unsafe { std::slice::from_raw_parts_mut(out, len) };
    c_int::from(getrandom::fill(out).is_ok())
}
