//! Private keys under a passphrase: PKCS #8 (RFC 5958, encrypted by RFC 8018), and OpenSSL's older form, which names its
//! cipher in a `DEK-Info` line.

use aes::{Aes128, Aes192, Aes256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cbc::Decryptor;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, KeyIvInit};
use des::TdesEde3;
use md5::{Digest, Md5};
use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::credentials::CredentialsError;
use super::der;

const PKCS8: &str = "ENCRYPTED PRIVATE KEY";

/// Whether a PEM text has an encrypted key.
pub(super) fn is_encrypted(pem: &[u8]) -> bool {
    let contains = |what: &[u8]| pem.windows(what.len()).any(|w| w == what);
    contains(b"BEGIN ENCRYPTED PRIVATE KEY") || contains(b"Proc-Type: 4,ENCRYPTED")
}

/// The first private key of a PEM text whose key is encrypted, by the first passphrase that fits.
///
/// # Errors
/// When none fits, or the key cannot be read.
pub(super) fn key(pem: &[u8], passphrases: &[Vec<u8>]) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    if passphrases.is_empty() {
        return Err(CredentialsError::Encrypted);
    }
    let text = std::str::from_utf8(pem).map_err(|_| CredentialsError::NoKey)?;
    let section = Section::of_key(text).ok_or(CredentialsError::NoKey)?;
    let data = STANDARD.decode(&section.data).map_err(|_| CredentialsError::NoKey)?;
    let found = match section.cipher {
        None => {
            let encrypted = EncryptedPrivateKeyInfoRef::try_from(&data[..]);
            let encrypted = encrypted.map_err(|_| CredentialsError::NoKey)?;
            passphrases.iter().find_map(|p| {
                let plain = encrypted.decrypt(p).ok()?;
                Some(PrivatePkcs8KeyDer::from(plain.as_bytes().to_vec()).into())
            })
        }
        Some((cipher, iv)) => passphrases.iter().find_map(|p| {
            let plain = decrypt(cipher, &iv, p, &data)?;
            // A wrong passphrase may leave what looks padded.
            let is_whole = der::element(&plain).is_some_and(|e| e.len() == plain.len());
            PrivateKeyDer::try_from(plain).ok().filter(|_| is_whole)
        }),
    };
    found.ok_or(CredentialsError::WrongPassphrase)
}

/// A part of a PEM text.
struct Section<'a> {
    /// The cipher and its start, where they are named.
    cipher: Option<(&'a str, Vec<u8>)>,
    /// Base64 without line breaks.
    data: String,
}

impl<'a> Section<'a> {
    /// The first that is an encrypted key.
    fn of_key(text: &'a str) -> Option<Section<'a>> {
        let mut lines = text.lines().map(str::trim);
        loop {
            let label = lines.find_map(|l| l.strip_prefix("-----BEGIN ")?.strip_suffix("-----"))?;
            let mut section = Section { cipher: None, data: String::new() };
            for line in lines.by_ref().take_while(|l| !l.starts_with("-----END ")) {
                if let Some(info) = line.strip_prefix("DEK-Info:") {
                    let (cipher, iv) = info.trim().split_once(',')?;
                    section.cipher = Some((cipher, unhex(iv)?));
                } else if !line.contains(':') {
                    section.data.push_str(line);
                }
            }
            if label == PKCS8 || (label.ends_with("PRIVATE KEY") && section.cipher.is_some()) {
                return Some(section);
            }
        }
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|p| Some(digit(p.first()?)? << 4 | digit(p.get(1)?)?)).collect()
}

/// OpenSSL's older form: the key of the cipher is made by MD5 from the passphrase and the start's first bytes.
fn decrypt(cipher: &str, iv: &[u8], passphrase: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let salt = iv.get(..8)?;
    let mut key: Vec<u8> = Vec::new();
    while key.len() < 32 {
        let last = key.len().saturating_sub(16);
        let digest =
            Md5::new().chain_update(&key[last..]).chain_update(passphrase).chain_update(salt).finalize();
        key.extend_from_slice(&digest);
    }
    match cipher {
        "AES-128-CBC" => by::<Decryptor<Aes128>>(&key[..16], iv, data),
        "AES-192-CBC" => by::<Decryptor<Aes192>>(&key[..24], iv, data),
        "AES-256-CBC" => by::<Decryptor<Aes256>>(&key[..32], iv, data),
        "DES-EDE3-CBC" => by::<Decryptor<TdesEde3>>(&key[..24], iv, data),
        _ => None,
    }
}

fn by<C: BlockModeDecrypt + KeyIvInit>(key: &[u8], iv: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    C::new_from_slices(key, iv).ok()?.decrypt_padded_vec::<Pkcs7>(data).ok()
}
