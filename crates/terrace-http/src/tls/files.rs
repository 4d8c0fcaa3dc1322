//! Certificates, keys and lists of revoked certificates from files, or from the configuration itself (`data:`).
//!
//! Names are relative to the folder of the configuration. Errors are texts that name the file.

use std::path::Path;

use terrace_net::tls::{
    CertificateDer, CertificateRevocationListDer, CredentialsError, Identity, certificates_of_pem,
    key_of_pem, private_key,
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

/// A certificate with its chain and key.
///
/// # Errors
/// When a file cannot be read, or the two do not belong together.
pub fn identity(dir: &Path, certificate: &str, key: &str) -> Result<Identity, String> {
    let chain = certificates(dir, certificate)?;
    let pem = read(dir, "certificate key", key)?;
    let key_error = |e| failed(dir, "certificate key", key, &e);
    let key = private_key(key_of_pem(&pem).map_err(key_error)?).map_err(key_error)?;
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
