//! `ssl_*`: what a server shows its clients and asks of them.
//!
//! Files are read when the configuration is: a reload takes new certificates. Certificates of clients are judged per
//! request by the rules of the request's server, as in nginx; see `terrace_http::tls`.

mod by_handshake;
mod variables;

use std::path::Path;
use std::sync::Arc;

use terrace_conf::{Arity, ConfError, Directive, Node, Position};
use terrace_http::conf::table::{HS, flag, simple, size, time_ms};
use terrace_http::tls::values::{Pem, ciphers, file, protocols};
use terrace_http::tls::{ServerSsl, SslConf, VerifyClient, files};
use terrace_http::{Builder, LocationBuilder, Merge, MergeContext, Module, Value, setting, settings};
use terrace_net::tls::{Identity, Protocols, ServerOptions, ServerTls, Trust};

use by_handshake::ByHandshake;

/// The module.
pub struct Ssl;

settings! {
    /// Settings of `ssl_*` directives.
    struct Conf {
        /// `ssl_protocols`.
        protocols: Protocols = Protocols::default(),
        /// `ssl_ciphers`.
        ciphers: String = "HIGH:!aNULL:!MD5".to_owned(),
        /// `ssl_ecdh_curve`.
        curves: String = String::new(),
        /// `ssl_prefer_server_ciphers`.
        prefer_server_ciphers: bool = false,
        /// `ssl_session_cache`: how many sessions.
        session_cache: usize = 0,
        /// `ssl_session_tickets`.
        session_tickets: bool = true,
        /// `ssl_session_timeout`, ms.
        session_timeout: u64 = 300_000,
        /// `ssl_buffer_size`, bytes.
        buffer_size: u64 = 16 * 1024,
        /// `ssl_verify_client`.
        verify_client: VerifyClient = VerifyClient::Off,
        /// `ssl_verify_depth`.
        verify_depth: usize = 1,
        /// `ssl_client_certificate`.
        client_certificate: Option<Pem> = None,
        /// `ssl_trusted_certificate`.
        trusted_certificate: Option<Pem> = None,
        /// `ssl_crl`.
        crl: Option<Pem> = None,
        /// `ssl_reject_handshake`.
        reject_handshake: bool = false,
    }
}

/// A file's name, perhaps with variables, as written, and where.
#[derive(Clone)]
struct Named {
    name: Value,
    text: String,
    at: Position,
}

/// `ssl_certificate` and `ssl_certificate_key`, in order.
#[derive(Default)]
struct Pairs {
    certificates: Vec<Named>,
    keys: Vec<Named>,
}

impl Merge for Pairs {
    fn merge(&mut self, parent: &Self, _: MergeContext) {
        if self.certificates.is_empty() {
            self.certificates.clone_from(&parent.certificates);
        }
        if self.keys.is_empty() {
            self.keys.clone_from(&parent.keys);
        }
    }
}

impl Module for Ssl {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn variables(&self, b: &mut Builder) {
        variables::define(&mut b.vars);
    }

    fn location(&self, b: &mut Builder, l: &mut LocationBuilder) -> Result<(), ConfError> {
        if !l.is_server || !l.settings.of::<SslConf>().listens {
            return Ok(());
        }
        let ssl = resolve(b, l)?;
        l.settings.of::<SslConf>().server = Some(Arc::new(ssl));
        Ok(())
    }
}

const ONE: Arity = Arity::Exactly(1);

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    simple("ssl_certificate", HS, ONE, "", "The file of the server's certificate and its chain; several may be of different kinds. A name with variables is read at each handshake.", |b, n| { let v = named(b, n)?; b.conf::<Pairs>().certificates.push(v); Ok(()) }),
    simple("ssl_certificate_key", HS, ONE, "", "The file of the certificate's key.", |b, n| { let v = named(b, n)?; b.conf::<Pairs>().keys.push(v); Ok(()) }),
    simple("ssl_protocols", HS, Arity::AtLeast(1), "TLSv1.2 TLSv1.3", "The versions that are spoken: TLSv1.2, TLSv1.3.", |b, n| { let v = protocols(b, n)?; n.set_once(&mut b.conf::<Conf>().protocols, v) }),
    simple("ssl_ciphers", HS, ONE, "HIGH:!aNULL:!MD5", "OpenSSL's list of ciphers for TLS 1.2.", |b, n| { let v = ciphers(b, n)?; n.set_once(&mut b.conf::<Conf>().ciphers, v) }),
    simple("ssl_ecdh_curve", HS, ONE, "auto", "The curves of key exchanges.", setting!(Conf, curves, text)),
    simple("ssl_prefer_server_ciphers", HS, Arity::Flag, "off", "Whether the server's order of ciphers counts.", setting!(Conf, prefer_server_ciphers, flag)),
    simple("ssl_session_cache", HS, Arity::Between(1, 2), "none", "Keeps sessions for clients that take no tickets; each server has a cache of its own.", set_session_cache),
    simple("ssl_session_tickets", HS, Arity::Flag, "on", "Whether clients get tickets. Their keys change by themselves and outlive reloads.", setting!(Conf, session_tickets, flag)),
    simple("ssl_session_timeout", HS, ONE, "5m", "How long a session may be taken up again; a ticket may be for up to twice that.", setting!(Conf, session_timeout, time_ms)),
    simple("ssl_buffer_size", HS, ONE, "16k", "The largest record that is sent.", setting!(Conf, buffer_size, size)),
    simple("ssl_verify_client", HS, ONE, "off", "Whether clients must have a certificate: on, off, optional, optional_no_ca.", setting!(Conf, verify_client, |n: &Node| n.one_of(0, &[("off", VerifyClient::Off), ("on", VerifyClient::On), ("optional", VerifyClient::Optional), ("optional_no_ca", VerifyClient::OptionalNoCa)]))),
    simple("ssl_verify_depth", HS, ONE, "1", "How many certificates may lie between a client's and its authority's.", setting!(Conf, verify_depth, |n: &Node| n.number(0))),
    simple("ssl_client_certificate", HS, ONE, "", "The file of the authorities of clients, whose names are sent to clients.", setting!(Conf, client_certificate, |n: &Node| file(n).map(Some))),
    simple("ssl_trusted_certificate", HS, ONE, "", "The file of further authorities of clients, whose names are not sent.", setting!(Conf, trusted_certificate, |n: &Node| file(n).map(Some))),
    simple("ssl_crl", HS, ONE, "", "The file of lists of revoked certificates of clients.", setting!(Conf, crl, |n: &Node| file(n).map(Some))),
    simple("ssl_reject_handshake", HS, Arity::Flag, "off", "Whether handshakes for this server are refused.", setting!(Conf, reject_handshake, flag)),
];

fn text(n: &Node) -> Result<String, ConfError> {
    n.text(0).map(str::to_owned)
}

fn named(b: &mut Builder, n: &Node) -> Result<Named, ConfError> {
    let arg = n.arg(0)?;
    let text = n.text(0)?.to_owned();
    Ok(Named { name: Value::compile(b, arg)?, text, at: n.at.clone() })
}

/// About how many sessions a megabyte holds, by nginx's documentation.
const SESSIONS_PER_MB: usize = 4000;
/// OpenSSL's own cache, where no size is given.
const BUILTIN_SESSIONS: usize = 20_480;

fn set_session_cache(b: &mut Builder, n: &Node) -> Result<(), ConfError> {
    let mut sessions = 0;
    for arg in &n.args {
        let text = arg.text()?;
        let bad = || n.error(format!("invalid session cache \"{text}\""));
        sessions = match text.split_once(':') {
            None if matches!(text, "off" | "none") => 0,
            None if text == "builtin" => BUILTIN_SESSIONS,
            Some(("builtin", count)) => count.parse().map_err(|_| bad())?,
            Some(("shared", zone)) => {
                let (_, size) = zone.split_once(':').ok_or_else(bad)?;
                let bytes = terrace_base::units::parse_size(size.as_bytes()).ok_or_else(bad)?;
                usize::try_from(bytes >> 20).unwrap_or(0).max(1) * SESSIONS_PER_MB
            }
            _ => return Err(bad()),
        };
    }
    n.set_once(&mut b.conf::<Conf>().session_cache, sessions)
}

fn resolve(b: &mut Builder, l: &mut LocationBuilder) -> Result<ServerSsl, ConfError> {
    let dir = b.paths.conf_dir.clone();
    let identities = identities(&dir, l)?;
    let c = l.settings.of::<Conf>();
    let mut authorities = Vec::new();
    let mut told = None;
    if let Some((name, at)) = c.client_certificate() {
        authorities = files::certificates(&dir, &name).map_err(|e| ConfError::at(&at, e))?;
        told = Some(Arc::new(Trust::new(&authorities, &[], 0).map_err(|e| ConfError::at(&at, e))?));
    }
    if let Some((name, at)) = c.trusted_certificate() {
        authorities.extend(files::certificates(&dir, &name).map_err(|e| ConfError::at(&at, e))?);
    }
    let verify = c.verify_client();
    if authorities.is_empty() && !matches!(verify, VerifyClient::Off | VerifyClient::OptionalNoCa) {
        let text = "no ssl_client_certificate or ssl_trusted_certificate for ssl_verify_client";
        return Err(ConfError::at(&l.at, text.to_owned()));
    }
    let crls = match c.crl() {
        Some((name, at)) => files::crls(&dir, &name).map_err(|e| ConfError::at(&at, e))?,
        None => Vec::new(),
    };
    let trust = Trust::new(&authorities, &crls, c.verify_depth()).map_err(|e| ConfError::at(&l.at, e))?;
    let options = ServerOptions {
        identities,
        protocols: c.protocols(),
        ciphers: c.ciphers(),
        curves: c.curves(),
        prefers_own_ciphers: c.prefer_server_ciphers(),
        sessions_max: c.session_cache(),
        session_timeout_ms: c.session_timeout(),
        tickets: c.session_tickets(),
        asks_client: verify != VerifyClient::Off,
        client_authorities: told,
        record_bytes_max: c.buffer_size.and_then(|n| usize::try_from(n).ok()).filter(|n| *n < 16 * 1024),
    };
    let tls =
        ServerTls::new(options).map_err(|e| ConfError::at(&l.at, format!("TLS cannot be set up: {e}")))?;
    Ok(ServerSsl { tls, verify, trust: Arc::new(trust), rejects: c.reject_handshake() })
}

/// The certificates and keys of files. Where a name has variables, all are read at each handshake.
fn identities(dir: &Path, l: &mut LocationBuilder) -> Result<Vec<Identity>, ConfError> {
    let pairs = l.settings.of::<Pairs>();
    if let Some(alone) = pairs.certificates.get(pairs.keys.len()) {
        let text = format!("no \"ssl_certificate_key\" is defined for certificate \"{}\"", alone.text);
        return Err(ConfError::at(&alone.at, text));
    }
    let all = pairs.certificates.iter().zip(&pairs.keys);
    if all.clone().any(|(c, k)| c.name.as_literal().is_none() || k.name.as_literal().is_none()) {
        let pairs = all.map(|(c, k)| (c.name.clone(), k.name.clone())).collect();
        let hook = ByHandshake { dir: dir.to_owned(), pairs };
        l.settings.of::<SslConf>().certificate_hook.get_or_insert_with(|| Arc::new(hook));
        return Ok(Vec::new());
    }
    all.map(|(c, k)| files::identity(dir, &c.text, &k.text).map_err(|e| ConfError::at(&c.at, e))).collect()
}
