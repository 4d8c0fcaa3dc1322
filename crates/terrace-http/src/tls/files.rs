//! Certificates, keys and what else TLS needs from files, or from the configuration itself (`data:`).
//!
//! Names are relative to the folder of the configuration. Errors are texts that name the file.

use std::path::Path;
use std::sync::Arc;

use terrace_net::tls::{
    CertificateDer, CertificateRevocationListDer, CredentialsError, Identity, KeyLogFile,
    OCSP_RESPONSE_BYTES_MAX, TicketKey, certificates_of_pem, is_ocsp_response, key_of_pem, private_key,
};

fn read(dir: &Path, what: &str, name: &str) -> Result<Vec<u8>, String> {
    if let Some(data) = name.strip_prefix("data:") {
        return Ok(data.as_bytes().to_vec());
    }
    let path = dir.join(name);
    std::fs::read(&path).map_err(|e| {
        let e = terrace_base::OsError(&e);
        format!("cannot load {what} \"{}\": open() failed {e}", path.display())
    })
}

fn failed(dir: &Path, what: &str, name: &str, e: &CredentialsError) -> String {
    let shown = if name.starts_with("data:") { "data:".into() } else { dir.join(name) };
    format!("cannot load {what} \"{}\": {e}", shown.display())
}

/// The certificates of a file.
///
/// # Errors
/// When it cannot be read, or has none.
pub fn certificates(dir: &Path, name: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(dir, "certificate", name)?;
    certificates_of_pem(&pem).map_err(|e| failed(dir, "certificate", name, &e))
}

/// A certificate with its chain and key, which one of the passphrases decrypts if it is encrypted.
///
/// # Errors
/// When a file cannot be read, or the two do not belong together.
pub fn identity(
    dir: &Path,
    certificate: &str,
    key: &str,
    passphrases: &[Vec<u8>],
) -> Result<Identity, String> {
    let chain = certificates(dir, certificate)?;
    let pem = read(dir, "certificate key", key)?;
    let key_error = |e| failed(dir, "certificate key", key, &e);
    let key = private_key(key_of_pem(&pem, passphrases).map_err(key_error)?).map_err(key_error)?;
    Identity::new(chain, key).map_err(|e| failed(dir, "certificate", certificate, &e))
}

/// The lists of a file.
///
/// # Errors
/// When it cannot be read, or has none.
pub fn crls(dir: &Path, name: &str) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let pem = read(dir, "CRL", name)?;
    terrace_net::tls::crls_of_pem(&pem).map_err(|e| failed(dir, "CRL", name, &e))
}

/// An authority's answer by OCSP, in DER.
///
/// # Errors
/// When it cannot be read, is none by its form, or too long.
pub fn ocsp_response(dir: &Path, name: &str) -> Result<Vec<u8>, String> {
    let der = read(dir, "OCSP response", name)?;
    if der.len() <= OCSP_RESPONSE_BYTES_MAX && is_ocsp_response(&der) {
        return Ok(der);
    }
    Err(format!("cannot load OCSP response \"{}\": d2i_OCSP_RESPONSE_bio() failed", dir.join(name).display()))
}

/// The passphrases of a file, one a line. A file without any has the empty one.
///
/// # Errors
/// When it cannot be read.
pub fn passphrases(dir: &Path, name: &str) -> Result<Vec<Vec<u8>>, String> {
    let text = read(dir, "passphrases", name)?;
    let lines = text.split(|b| *b == b'\n').map(|l| l.strip_suffix(b"\r").unwrap_or(l));
    let mut all: Vec<_> = lines.filter(|l| !l.is_empty()).map(<[u8]>::to_vec).collect();
    if all.is_empty() {
        all.push(Vec::new());
    }
    Ok(all)
}

/// A key of tickets.
///
/// # Errors
/// When it cannot be read, or is of another size than 48 or 80 bytes.
pub fn ticket_key(dir: &Path, name: &str) -> Result<TicketKey, String> {
    let file = read(dir, "session ticket key", name)?;
    TicketKey::new(&file).ok_or_else(|| format!("\"{}\" must be 48 or 80 bytes", dir.join(name).display()))
}

/// A file for the secrets of connections.
///
/// # Errors
/// When it cannot be opened.
pub fn key_log(dir: &Path, name: &str) -> Result<Arc<KeyLogFile>, String> {
    let path = dir.join(name);
    KeyLogFile::open(&path).map(Arc::new).map_err(|e| {
        let e = terrace_base::OsError(&e);
        format!("cannot log keys to \"{}\": open() failed {e}", path.display())
    })
}
