//! Certificates made for a test, and the programs that speak TLS to the server: `curl` and `openssl`.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// An authority of a test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate with its key, as PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// One with this common name.
    pub fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    /// Its own certificate, as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its key, as PEM.
    pub fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for a host, which is also its common name.
    pub fn issue(&self, host: &str) -> Pair {
        self.issue_with(host, |_| {})
    }

    /// As [`Authority::issue`], with changes.
    pub fn issue_with(&self, host: &str, change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, host);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate").pem();
        Pair { certificate, key: key.serialize_pem() }
    }
}

/// Runs `curl` in a folder against a host that is at a port of this machine. The answer is what it wrote, errors
/// included.
pub fn curl(dir: &Path, host: &str, port: u16, path: &str, args: &[&str]) -> String {
    let out = Command::new("curl")
        .current_dir(dir)
        .args(["-sS", "--max-time", "60", "--noproxy", "*"])
        .args(["--resolve", &format!("{host}:{port}:127.0.0.1")])
        .args(args)
        .arg(if path.contains("://") { path.to_owned() } else { format!("https://{host}:{port}{path}") })
        .stdin(Stdio::null())
        .output()
        .expect("curl runs");
    String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
}

/// Runs `openssl s_client` in a folder, which ends after the handshake. The answer is what it wrote.
pub fn s_client(dir: &Path, port: u16, args: &[&str]) -> String {
    s_client_sends(dir, port, args, "")
}

/// As [`s_client`], sending something over the connection. With `-ign_eof` it ends when the server does.
pub fn s_client_sends(dir: &Path, port: u16, args: &[&str], sends: &str) -> String {
    let mut child = Command::new("openssl")
        .current_dir(dir)
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}")])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl runs");
    if let Some(mut stdin) = child.stdin.take() {
        // One that has ended already reads nothing.
        let _ = stdin.write_all(sends.as_bytes());
    }
    let out = child.wait_with_output().expect("openssl ends");
    String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
}

/// Runs an `openssl` command in a folder, whose words are parted by single spaces. The answer is its standard output.
///
/// # Panics
/// When it fails.
pub fn openssl(dir: &Path, words: &str) -> String {
    let out = Command::new("openssl").current_dir(dir).args(words.split(' ')).stdin(Stdio::null()).output();
    let out = out.expect("openssl runs");
    assert!(out.status.success(), "{words}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}
