//! Certificates and keys as scripts hold them (`ngx.ssl`): chains and private keys behind pointers that Lua's collector
//! frees.

use std::cell::RefCell;
use std::ffi::c_int;
use std::rc::Rc;
use std::sync::Arc;

use terrace_http::Request;
use terrace_net::tls::{
    CertificateDer, CredentialsError, Identity, PrivateKeyDer, SigningKey, certificates_of_der,
    certificates_of_pem, key_of_pem, private_key,
};

use super::{DONE, Text, bytes, fail, functions, give};

functions! {
    "struct terrace_certs *(*ssl_certs)(const char *, size_t, int, terrace_text *)" => ssl_certs,
    "void (*ssl_certs_free)(struct terrace_certs *)" => ssl_certs_free,
    "struct terrace_key *(*ssl_key)(const char *, size_t, int, terrace_text *)" => ssl_key,
    "void (*ssl_key_free)(struct terrace_key *)" => ssl_key_free,
    "int (*ssl_certs_der)(const char *, size_t, terrace_text *)" => ssl_certs_der,
    "int (*ssl_key_der)(const char *, size_t, const char *, size_t, terrace_text *)" => ssl_key_der,
}

/// OpenResty's words for what cannot be read; the reason follows.
const BAD_CERTIFICATE: &str = "PEM_read_bio_X509_AUX() failed";
const BAD_DER_CERTIFICATE: &str = "d2i_X509_bio() failed";
const BAD_KEY: &str = "PEM_read_bio_PrivateKey() failed";
const BAD_DER_KEY: &str = "d2i_PrivateKey_bio() failed";

/// A chain, the first certificate first.
pub struct Certificates(pub Vec<CertificateDer<'static>>);

/// A private key.
pub struct Key(pub Arc<dyn SigningKey>);

/// A certificate or a key that waits for its counterpart, of the handshake that a request stands for or makes.
#[derive(Default)]
pub struct Halves {
    chain: RefCell<Option<Vec<CertificateDer<'static>>>>,
    key: RefCell<Option<Arc<dyn SigningKey>>>,
}

impl Halves {
    /// Those of a request.
    pub fn of(r: &Request) -> Rc<Halves> {
        r.state().unwrap_or_else(|| {
            let made = Rc::new(Halves::default());
            r.put_state(Rc::clone(&made));
            made
        })
    }

    /// Takes a chain.
    pub fn put_chain(&self, chain: &Certificates) {
        self.chain.replace(Some(chain.0.clone()));
    }

    /// Takes a key.
    pub fn put_key(&self, key: &Key) {
        self.key.replace(Some(Arc::clone(&key.0)));
    }

    /// Forgets what waits.
    pub fn clear(&self) {
        self.chain.take();
        self.key.take();
    }

    /// Both together, once both are there; nothing waits then.
    ///
    /// # Errors
    /// They do not belong together.
    pub fn join(&self) -> Result<Option<Identity>, String> {
        let (chain, key) = (self.chain.borrow().clone(), self.key.borrow().clone());
        let (Some(chain), Some(key)) = (chain, key) else { return Ok(None) };
        let identity = Identity::new(chain, key).map_err(|e| e.to_string())?;
        self.clear();
        Ok(Some(identity))
    }
}

/// The certificates of a PEM text, or (`is_der`) of DER ones in a row; null and a text where there are none.
extern "C" fn ssl_certs(data: *const u8, len: usize, is_der: c_int, out: *mut Text) -> *const Certificates {
    // SAFETY: a Lua string.
    let data = unsafe { bytes(data, len) };
    let parsed = if is_der != 0 { certificates_of_der(data) } else { certificates_of_pem(data) };
    boxed(parsed.map(Certificates), if is_der != 0 { BAD_DER_CERTIFICATE } else { BAD_CERTIFICATE }, out)
}

fn boxed<T>(parsed: Result<T, CredentialsError>, what: &str, out: *mut Text) -> *const T {
    match parsed {
        Ok(parsed) => Box::into_raw(Box::new(parsed)),
        Err(e) => {
            // SAFETY: Lua passes a text of its own.
            unsafe { fail(out, &format!("{what}: {e}")) };
            std::ptr::null()
        }
    }
}

extern "C" fn ssl_certs_free(certificates: *mut Certificates) {
    if !certificates.is_null() {
        // SAFETY: a pointer that `ssl_certs` gave; Lua's collector passes it here once.
        drop(unsafe { Box::from_raw(certificates) });
    }
}

/// The key of a PEM text, or (`is_der`) of DER; null and a text where there is none.
extern "C" fn ssl_key(data: *const u8, len: usize, is_der: c_int, out: *mut Text) -> *const Key {
    // SAFETY: a Lua string.
    let data = unsafe { bytes(data, len) };
    let parsed = if is_der != 0 {
        PrivateKeyDer::try_from(data).map(|k| k.clone_key()).map_err(|_| CredentialsError::NoKey)
    } else {
        key_of_pem(data, &[])
    };
    boxed(parsed.and_then(private_key).map(Key), if is_der != 0 { BAD_DER_KEY } else { BAD_KEY }, out)
}

extern "C" fn ssl_key_free(key: *mut Key) {
    if !key.is_null() {
        // SAFETY: as for certificates.
        drop(unsafe { Box::from_raw(key) });
    }
}

/// The DER forms of a PEM text's certificates in a row.
extern "C" fn ssl_certs_der(data: *const u8, len: usize, out: *mut Text) -> c_int {
    // SAFETY: a Lua string; Lua passes a text of its own.
    unsafe {
        match certificates_of_pem(bytes(data, len)) {
            Ok(all) => {
                give(out, |b| all.iter().for_each(|c| b.extend_from_slice(c)));
                DONE
            }
            Err(e) => fail(out, &format!("{BAD_CERTIFICATE}: {e}")),
        }
    }
}

/// The DER form of a PEM text's key, which a passphrase decrypts, unless that is null.
extern "C" fn ssl_key_der(
    data: *const u8,
    len: usize,
    passphrase: *const u8,
    passphrase_len: usize,
    out: *mut Text,
) -> c_int {
    // SAFETY: two Lua strings, the second perhaps null; Lua passes a text of its own.
    unsafe {
        let passphrase = (!passphrase.is_null()).then(|| bytes(passphrase, passphrase_len).to_vec());
        match key_of_pem(bytes(data, len), passphrase.as_slice()) {
            Ok(key) => {
                give(out, |b| b.extend_from_slice(key.secret_der()));
                DONE
            }
            Err(e) => fail(out, &format!("{BAD_KEY}: {e}")),
        }
    }
}
