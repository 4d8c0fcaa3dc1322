//! `ssl_certificate` with variables: files that are named, and read, per handshake.

use std::path::PathBuf;
use std::rc::Rc;

use terrace_base::log::Level;
use terrace_http::tls::{Handshake, HandshakeHook, files};
use terrace_http::{LocalFuture, Request, Value};

/// Certificates and keys whose names have variables.
pub(super) struct ByHandshake {
    /// Where names are relative to.
    pub(super) dir: PathBuf,
    /// What decrypts the keys.
    pub(super) passphrases: Vec<Vec<u8>>,
    /// The names of certificates and of their keys.
    pub(super) pairs: Vec<(Value, Value)>,
}

impl HandshakeHook for ByHandshake {
    fn run(&self, r: &Rc<Request>, handshake: &Rc<Handshake>) -> LocalFuture<bool> {
        let text = |v: &Value| String::from_utf8_lossy(&v.eval_bytes(r)).into_owned();
        let read =
            |(c, k): &(Value, Value)| files::identity(&self.dir, &text(c), &text(k), &self.passphrases);
        let all: Result<Vec<_>, String> = self.pairs.iter().map(read).collect();
        let is_good = match all {
            Ok(all) => {
                handshake.identities.replace(Some(all));
                true
            }
            Err(e) => {
                r.log(Level::Error, format_args!("{e}"));
                false
            }
        };
        Box::pin(std::future::ready(is_good))
    }
}
