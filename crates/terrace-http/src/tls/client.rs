//! How connections to other servers speak TLS: settings that are alike share one client, with its trust and its sessions.

use terrace_conf::{ConfError, Position};
use terrace_net::tls::{ClientOptions, ClientTls, Protocols, Trust};

use super::files;
use super::values::Pem;
use crate::Builder;

/// Settings of connections to servers, as directives say them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// Versions.
    pub protocols: Protocols,
    /// OpenSSL's list for TLS 1.2.
    pub ciphers: String,
    /// Whether the server's certificate must be trusted.
    pub verifies: bool,
    /// Whether the server must prove that its certificate is its own, even where that need not be trusted.
    pub checks_signatures: bool,
    /// How many certificates may lie between a server's and its authority's.
    pub depth: usize,
    /// The file of the authorities.
    pub trusted: Option<Pem>,
    /// The file of lists of revoked certificates.
    pub crl: Option<Pem>,
    /// The client's own certificate and its key.
    pub identity: Option<(Pem, Pem)>,
    /// Whether sessions are kept for later connections.
    pub reuses_sessions: bool,
    /// Whether servers are usually told the name that is wanted.
    pub sends_name: bool,
    /// The file of passphrases of the key.
    pub passphrases: Option<Pem>,
    /// The file that the secrets of connections go to.
    pub key_log: Option<Pem>,
}

/// Clients by their settings.
#[derive(Default)]
struct Clients(Vec<(ClientSettings, ClientTls)>);

impl ClientSettings {
    /// The client of these settings.
    ///
    /// # Errors
    /// A file that cannot be read, or settings that leave nothing to speak.
    pub fn client(self, b: &mut Builder, at: &Position) -> Result<ClientTls, ConfError> {
        let known = b.state::<Clients>().0.iter().find(|(s, _)| *s == self);
        if let Some((_, client)) = known {
            return Ok(client.clone());
        }
        let dir = b.paths.conf_dir.clone();
        let mut trusted = Vec::new();
        if let Some((name, at)) = self.trusted.as_ref().filter(|_| self.verifies) {
            trusted = files::certificates(&dir, name).map_err(|e| ConfError::at(at, e))?;
        }
        let mut crls = Vec::new();
        if let Some((name, at)) = self.crl.as_ref().filter(|_| self.verifies) {
            crls = files::crls(&dir, name).map_err(|e| ConfError::at(at, e))?;
        }
        let trust = match self.verifies {
            true => Some(Trust::new(&trusted, &crls, self.depth).map_err(|e| ConfError::at(at, e))?),
            false => None,
        };
        let identity = match &self.identity {
            Some((certificate, key)) => {
                let passphrases = match &self.passphrases {
                    Some((name, at)) => files::passphrases(&dir, name).map_err(|e| ConfError::at(at, e))?,
                    None => Vec::new(),
                };
                let read = files::identity(&dir, &certificate.0, &key.0, &passphrases);
                Some(read.map_err(|e| ConfError::at(&certificate.1, e))?)
            }
            None => None,
        };
        let key_log = match &self.key_log {
            Some((name, at)) => Some(files::key_log(&dir, name).map_err(|e| ConfError::at(at, e))?),
            None => None,
        };
        let options = ClientOptions {
            protocols: self.protocols,
            ciphers: self.ciphers.clone(),
            checks_signatures: self.checks_signatures,
            trust: trust.map(Into::into),
            identity,
            reuses_sessions: self.reuses_sessions,
            sends_name: self.sends_name,
            key_log,
        };
        let client =
            ClientTls::new(options).map_err(|e| ConfError::at(at, format!("TLS cannot be set up: {e}")))?;
        b.state::<Clients>().0.push((self, client.clone()));
        Ok(client)
    }
}
