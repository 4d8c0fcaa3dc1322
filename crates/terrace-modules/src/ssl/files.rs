//! Certificates, keys and lists of revoked certificates from files, or from the configuration itself (`data:`).

use terrace_conf::{ConfError, Position};
use terrace_http::Builder;
use terrace_net::tls::{
    CertificateDer, CertificateRevocationListDer, CredentialsError, Identity, certificates_of_pem,
    key_of_pem, private_key,
};

fn read(b: &Builder, what: &str, name: &str, at: &Position) -> Result<Vec<u8>, ConfError> {
    if let Some(data) = name.strip_prefix("data:") {
        return Ok(data.as_bytes().to_vec());
    }
    let path = b.paths.conf_dir.join(name);
    std::fs::read(&path).map_err(|e| {
        let e = terrace_base::OsError(&e);
        ConfError::at(at, format!("cannot load {what} \"{}\": open() failed {e}", path.display()))
    })
}

fn failed(b: &Builder, what: &str, name: &str, at: &Position, e: &CredentialsError) -> ConfError {
    let shown = if name.starts_with("data:") { "data:".into() } else { b.paths.conf_dir.join(name) };
    ConfError::at(at, format!("cannot load {what} \"{}\": {e}", shown.display()))
}

/// The certificates of a file.
///
/// # Errors
/// When it cannot be read, or has none.
pub fn certificates(
    b: &Builder,
    name: &str,
    at: &Position,
) -> Result<Vec<CertificateDer<'static>>, ConfError> {
    let pem = read(b, "certificate", name, at)?;
    certificates_of_pem(&pem).map_err(|e| failed(b, "certificate", name, at, &e))
}

/// A certificate with its chain and key.
///
/// # Errors
/// When a file cannot be read, or the two do not belong together.
pub fn identity(b: &Builder, certificate: &str, key: &str, at: &Position) -> Result<Identity, ConfError> {
    let chain = certificates(b, certificate, at)?;
    let pem = read(b, "certificate key", key, at)?;
    let key_error = |e| failed(b, "certificate key", key, at, &e);
    let key = private_key(key_of_pem(&pem).map_err(key_error)?).map_err(key_error)?;
    Identity::new(chain, key).map_err(|e| failed(b, "certificate", certificate, at, &e))
}

/// The lists of a file.
///
/// # Errors
/// When it cannot be read, or has none.
pub fn crls(
    b: &Builder,
    name: &str,
    at: &Position,
) -> Result<Vec<CertificateRevocationListDer<'static>>, ConfError> {
    let pem = read(b, "CRL", name, at)?;
    let all = terrace_net::tls::crls_of_pem(&pem);
    all.map_err(|e| failed(b, "CRL", name, at, &e))
}
