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
        /// `ssl_password_file`.
        password_file: Option<Pem> = None,
        /// `ssl_session_ticket_key`: all of them.
        ticket_keys: Vec<Pem> = Vec::new(),
        /// `ssl_key_log`.
        key_log: Option<Pem> = None,
        /// `ssl_stapling`: where it is on.
        stapling: Option<Position> = None,
        /// `ssl_stapling_file`.
        stapling_file: Option<Pem> = None,
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
    simple("ssl_password_file", HS, ONE, "", "The file of passphrases of keys, one a line, each of which is tried.", setting!(Conf, password_file, |n: &Node| file(n).map(Some))),
    simple("ssl_session_ticket_key", HS, ONE, "", "The file of a key of tickets, of 48 or 80 bytes, that the servers of a fleet have in common; of several the first makes tickets and all take them.", |b, n| { let v = file(n)?; b.conf::<Conf>().ticket_keys.get_or_insert_default().push(v); Ok(()) }),
    simple("ssl_key_log", HS, ONE, "", "The file that the secrets of connections are appended to, for Wireshark and its like. Whoever reads it reads the connections.", setting!(Conf, key_log, |n: &Node| file(n).map(Some))),
    simple("ssl_stapling", HS, Arity::Flag, "off", "Whether clients that ask are sent the proof of ssl_stapling_file; authorities are not asked for one.", setting!(Conf, stapling, |n: &Node| Ok(n.flag(0)?.then(|| n.at.clone())))),
    simple("ssl_stapling_file", HS, ONE, "", "The file of an answer of the authority by OCSP, in DER, that the certificate is good.", setting!(Conf, stapling_file, |n: &Node| file(n).map(Some))),
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
    let mut identities = identities(&dir, l)?;
    let c = l.settings.of::<Conf>();
    staple(b, &dir, c, &mut identities)?;
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
    let ticket_keys = c
        .ticket_keys()
        .iter()
        .map(|(name, at)| files::ticket_key(&dir, name).map_err(|e| ConfError::at(at, e)))
        .collect::<Result<Vec<_>, _>>()?;
    let key_log = match c.key_log() {
        Some((name, at)) => Some(files::key_log(&dir, &name).map_err(|e| ConfError::at(&at, e))?),
        None => None,
    };
    let options = ServerOptions {
        identities,
        protocols: c.protocols(),
        ciphers: c.ciphers(),
        curves: c.curves(),
        prefers_own_ciphers: c.prefer_server_ciphers(),
        sessions_max: c.session_cache(),
        session_timeout_ms: c.session_timeout(),
        tickets: c.session_tickets(),
        ticket_keys: Some(ticket_keys).filter(|k| !k.is_empty()).map(Into::into),
        key_log,
        asks_client: verify != VerifyClient::Off,
        client_authorities: told,
        record_bytes_max: c.buffer_size.and_then(|n| usize::try_from(n).ok()).filter(|n| *n < 16 * 1024),
    };
    let tls =
        ServerTls::new(options).map_err(|e| ConfError::at(&l.at, format!("TLS cannot be set up: {e}")))?;
    Ok(ServerSsl { tls, verify, trust: Arc::new(trust), rejects: c.reject_handshake() })
}

/// Servers without `ssl_stapling_file` that were told so.
#[derive(Default)]
struct NotStapled(Vec<Position>);

/// Puts the proof of `ssl_stapling_file` to the certificates. The file is checked by its form only, as in nginx.
fn staple(b: &mut Builder, dir: &Path, c: &Conf, identities: &mut [Identity]) -> Result<(), ConfError> {
    let Some(on) = c.stapling() else { return Ok(()) };
    if let Some((name, at)) = c.stapling_file() {
        let response = files::ocsp_response(dir, &name).map_err(|e| ConfError::at(&at, e))?;
        identities.iter_mut().for_each(|i| *i = i.with_ocsp(&response));
    } else if !b.state::<NotStapled>().0.contains(&on) {
        b.warn(
            &on,
            "\"ssl_stapling\" without \"ssl_stapling_file\" is ignored: authorities are not asked for proofs",
        );
        b.state::<NotStapled>().0.push(on);
    }
    Ok(())
}

/// The certificates and keys of files. Where a name has variables, all are read at each handshake.
fn identities(dir: &Path, l: &mut LocationBuilder) -> Result<Vec<Identity>, ConfError> {
    let passphrases = match l.settings.of::<Conf>().password_file() {
        Some((name, at)) => files::passphrases(dir, &name).map_err(|e| ConfError::at(&at, e))?,
        None => Vec::new(),
    };
    let pairs = l.settings.of::<Pairs>();
    if let Some(alone) = pairs.certificates.get(pairs.keys.len()) {
        let text = format!("no \"ssl_certificate_key\" is defined for certificate \"{}\"", alone.text);
        return Err(ConfError::at(&alone.at, text));
    }
    let all = pairs.certificates.iter().zip(&pairs.keys);
    if all.clone().any(|(c, k)| c.name.as_literal().is_none() || k.name.as_literal().is_none()) {
        let pairs = all.map(|(c, k)| (c.name.clone(), k.name.clone())).collect();
        let hook = ByHandshake { dir: dir.to_owned(), passphrases, pairs };
        l.settings.of::<SslConf>().certificate_hook.get_or_insert_with(|| Arc::new(hook));
        return Ok(Vec::new());
    }
    let read = |(c, k): (&Named, &Named)| {
        files::identity(dir, &c.text, &k.text, &passphrases).map_err(|e| ConfError::at(&c.at, e))
    };
    all.map(read).collect()
}
