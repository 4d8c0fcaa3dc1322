//! TLS with clients: the handshake of a connection that was accepted where `listen` says `ssl`, and what a request over
//! it must satisfy.
//!
//! Modules say per server how ([`SslConf`]). The name in the client's first message chooses the server whose
//! certificate is shown; the `Host` field then chooses the server of each request.

pub mod client;
pub mod files;
pub mod values;

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt::{self, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use terrace_base::log::Level;
use terrace_net::tls::{
    HandshakeError, Hello, Identity, MadeSession, Protocols, Refusal, ServerTls, TlsStream, Trust, Verdict,
};

use crate::connection::Client;
use crate::generation::ServerIndex;
use crate::phase::LocalFuture;
use crate::{Merge, MergeContext, Request};

/// `ssl_verify_client`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VerifyClient {
    /// Clients are not asked for a certificate.
    #[default]
    Off,
    /// They must have a good one.
    On,
    /// If they have one it must be good.
    Optional,
    /// If they have one it must be good but for its authority, which need not be known.
    OptionalNoCa,
}

/// A server's side of TLS.
pub struct ServerSsl {
    /// Its part of handshakes.
    pub tls: ServerTls,
    /// What is asked of clients.
    pub verify: VerifyClient,
    /// Whose certificates of clients are good.
    pub trust: Arc<Trust>,
    /// `ssl_reject_handshake`.
    pub rejects: bool,
}

/// What modules say of a server's TLS; set while its settings as a location are built.
#[derive(Default)]
pub struct SslConf {
    /// Whether the server listens with TLS anywhere.
    pub listens: bool,
    /// Its certificates and rules.
    pub server: Option<Arc<ServerSsl>>,
    /// Runs when the client's first message is there, if the server is the address's default.
    pub hello_hook: Option<Arc<dyn HandshakeHook>>,
    /// Runs before a certificate is shown.
    pub certificate_hook: Option<Arc<dyn HandshakeHook>>,
    /// Looks for the session that the client names; whether it ends well is of no account.
    pub fetch_hook: Option<Arc<dyn HandshakeHook>>,
    /// Takes a session that the handshake has made, after it; likewise.
    pub store_hook: Option<Arc<dyn HandshakeHook>>,
}

impl Merge for SslConf {
    fn merge(&mut self, _: &Self, _: MergeContext) {}
}

/// Takes part in handshakes.
pub trait HandshakeHook: Send + Sync {
    /// Looks at the handshake and changes it; false ends it. `r` is no client's: it stands for the handshake, and is the
    /// same for all that take part.
    fn run(&self, r: &Rc<Request>, handshake: &Rc<Handshake>) -> LocalFuture<bool>;
}

/// A handshake that waits for the server's answer.
pub struct Handshake {
    /// The connection.
    pub client: Rc<Client>,
    /// The client's first message, until it is answered.
    pub hello: RefCell<Option<Hello>>,
    /// The server that the client's name for it means.
    pub server: Cell<ServerIndex>,
    /// The server's own part.
    pub ssl: Arc<ServerSsl>,
    /// What runs just now, for the log.
    pub context: Cell<&'static str>,
    /// The certificates to show instead of the configured ones.
    pub identities: RefCell<Option<Vec<Identity>>>,
    /// A proof by OCSP to send with them.
    pub ocsp: RefCell<Option<Vec<u8>>>,
    /// The versions to speak instead of the configured ones.
    pub protocols: Cell<Option<Protocols>>,
    /// Asks the client for a certificate of these authorities.
    pub verify: RefCell<Option<Option<Arc<Trust>>>>,
    /// The session that a hook looks for, whose form is empty, or takes.
    pub session: RefCell<Option<MadeSession>>,
}

/// What is known of a connection since its handshake.
pub struct TlsSession {
    /// The server that answered.
    server: ServerIndex,
    has_name: bool,
    /// The authorities that a script has named for this connection.
    trust: Option<Arc<Trust>>,
    verdict: RefCell<Option<(ServerIndex, Result<(), Verdict>)>>,
}

/// A connection's [`TlsSession`], once there is one.
pub type SessionCell = OnceCell<Box<TlsSession>>;

/// What is known of a client's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientVerdict {
    /// It showed none.
    None,
    /// It is good.
    Good,
    /// It is not.
    Bad(Verdict),
}

/// Makes the handshake. False when the connection is to be closed.
pub(crate) async fn handshake(client: &Rc<Client>) -> bool {
    let Some(tls) = client.stream.tls() else { return true };
    let server = client.worker.generation.server(client.listen().names.default_server());
    let timeout = Duration::from_millis(server.core.client_header_timeout_ms);
    let ended = match terrace_event::timeout(timeout, shake(client, tls)).await {
        Ok(ended) => ended,
        Err(_) => Err(Failure::Quiet("client timed out (110: Connection timed out)".to_owned())),
    };
    match ended {
        Ok(goes_on) => goes_on,
        Err(Failure::Quiet(text)) => {
            log(client, Level::Info, &text);
            false
        }
        Err(Failure::Server(text)) => {
            log(client, Level::Error, &text);
            false
        }
    }
}

/// Why there is no connection.
enum Failure {
    /// The client's fault.
    Quiet(String),
    /// The server's fault.
    Server(String),
}

impl From<HandshakeError> for Failure {
    fn from(e: HandshakeError) -> Failure {
        Failure::Quiet(match e {
            HandshakeError::Closed => "peer closed connection in SSL handshake".to_owned(),
            HandshakeError::Io(e) => format!("SSL_do_handshake() failed {}", terrace_base::OsError(&e)),
            e => format!("SSL_do_handshake() failed (SSL: {e})"),
        })
    }
}

async fn shake(client: &Rc<Client>, tls: &TlsStream) -> Result<bool, Failure> {
    match tls.begins_handshake().await {
        Ok(Some(true)) => {}
        Ok(Some(false)) => {
            tls.stay_plain();
            return Ok(true);
        }
        Ok(None) => return Ok(false),
        Err(e) => return Err(HandshakeError::Io(e).into()),
    }
    let hello = tls.hello().await?;
    let generation = &client.worker.generation;
    let names = &client.listen().names;
    let name = hello.server_name();
    let server = match &name {
        Some(name) => names.find(name.as_bytes()).0,
        None => names.default_server(),
    };
    let conf_of = |index| generation.location(generation.server(index).root).settings.find::<SslConf>();
    let hello_hook = conf_of(names.default_server()).and_then(|c| c.hello_hook.as_ref());
    let conf = conf_of(server);
    let Some((conf, ssl)) = conf.and_then(|c| Some((c, c.server.as_ref()?))) else {
        return Err(no_certificate(tls));
    };
    let hooks = (hello_hook, conf.certificate_hook.as_ref());
    if hooks.0.is_none() && hooks.1.is_none() && conf.fetch_hook.is_none() && conf.store_hook.is_none() {
        check(ssl, tls, ssl.tls.has_identity())?;
        tls.accept(hello, &ssl.tls).await?;
        remember(client, server, name.is_some(), None);
        return Ok(true);
    }
    let handshake = Rc::new(Handshake {
        client: Rc::clone(client),
        hello: RefCell::new(Some(hello)),
        server: Cell::new(server),
        ssl: Arc::clone(ssl),
        context: Cell::new(""),
        identities: RefCell::default(),
        ocsp: RefCell::default(),
        protocols: Cell::new(None),
        verify: RefCell::default(),
        session: RefCell::default(),
    });
    let r = Request::of_handshake(&handshake);
    run(hooks.0, "callback failed", &r, &handshake).await?;
    let found = fetch_session(conf, &r, &handshake).await;
    run(hooks.1, "cert cb error", &r, &handshake).await?;
    let own = handshake.answer(tls)?;
    let Some(hello) = handshake.hello.take() else { return Ok(false) };
    let verify = handshake.verify.take().flatten();
    if conf.fetch_hook.is_none() && conf.store_hook.is_none() {
        tls.accept(hello, &own).await?;
    } else {
        let records = conf.store_hook.is_some() && !(own.has_tickets() && hello.takes_tickets());
        let (own, sessions) = own.with_sessions(found, records);
        tls.accept(hello, &own).await?;
        store_sessions(conf, &r, &handshake, sessions.take_made()).await;
    }
    remember(client, server, name.is_some(), verify);
    Ok(true)
}

/// Lets a hook take part; the handshake ends with `failure` where it says so.
async fn run(
    hook: Option<&Arc<dyn HandshakeHook>>,
    failure: &str,
    r: &Rc<Request>,
    handshake: &Rc<Handshake>,
) -> Result<(), Failure> {
    let Some(hook) = hook else { return Ok(()) };
    if hook.run(r, handshake).await {
        return Ok(());
    }
    if let Some(tls) = handshake.client.stream.tls() {
        tls.refuse(Refusal::InternalError);
    }
    Err(Failure::Quiet(format!("SSL_do_handshake() failed (SSL: {failure})")))
}

/// What a script has found of the session that the client names.
async fn fetch_session(conf: &SslConf, r: &Rc<Request>, handshake: &Rc<Handshake>) -> Option<MadeSession> {
    let hook = conf.fetch_hook.as_ref()?;
    let spoken = handshake.protocols.get().unwrap_or(handshake.ssl.tls.protocols());
    let id = handshake.hello.borrow().as_ref()?.session_id(spoken)?;
    handshake.session.replace(Some(MadeSession { id, serialized: Vec::new() }));
    hook.run(r, handshake).await;
    handshake.session.take().filter(|s| !s.serialized.is_empty())
}

/// Hands new sessions to a script, one after the other.
async fn store_sessions(conf: &SslConf, r: &Rc<Request>, handshake: &Rc<Handshake>, made: Vec<MadeSession>) {
    let Some(hook) = &conf.store_hook else { return };
    for session in made {
        handshake.session.replace(Some(session));
        hook.run(r, handshake).await;
    }
    handshake.session.take();
}

fn no_certificate(tls: &TlsStream) -> Failure {
    tls.refuse(Refusal::HandshakeFailure);
    Failure::Server("no \"ssl_certificate\" is defined in server listening on SSL port".to_owned())
}

fn check(ssl: &ServerSsl, tls: &TlsStream, has_identity: bool) -> Result<(), Failure> {
    if ssl.rejects {
        tls.refuse(Refusal::UnrecognizedName);
        return Err(Failure::Quiet("SSL_do_handshake() failed (SSL: handshake rejected)".to_owned()));
    }
    if has_identity { Ok(()) } else { Err(no_certificate(tls)) }
}

fn remember(client: &Client, server: ServerIndex, has_name: bool, trust: Option<Arc<Trust>>) {
    let session = TlsSession { server, has_name, trust, verdict: RefCell::default() };
    // A connection has one handshake.
    let _ = client.tls.set(Box::new(session));
}

fn log(client: &Client, level: Level, text: &str) {
    let generation = &client.worker.generation;
    let root = generation.server(client.listen().names.default_server()).root;
    let log = &generation.location(root).core.error_log;
    let mut text = format!("{text} while SSL handshaking");
    append_peers(client, &mut text);
    log.print(level, Some(client.number), format_args!("{text}"));
}

fn append_peers(client: &Client, text: &mut String) {
    let peer: &dyn fmt::Display = match &client.peer {
        terrace_net::Address::Ip(a) => &a.ip(),
        terrace_net::Address::Unix(_) => &"unix:",
    };
    // Writing to a string does not fail.
    let _ = write!(text, ", client: {peer}, server: {}", client.listen().address);
}

impl Handshake {
    /// The server's side as the hooks want it.
    fn answer(&self, tls: &TlsStream) -> Result<ServerTls, Failure> {
        let ssl = &self.ssl;
        let mut identities = self.identities.take();
        if let Some(response) = self.ocsp.take() {
            let all = identities.get_or_insert_with(|| ssl.tls.identities().to_vec());
            all.iter_mut().for_each(|i| *i = i.with_ocsp(&response));
        }
        let has_identity = identities.as_ref().map_or(ssl.tls.has_identity(), |i| !i.is_empty());
        check(ssl, tls, has_identity)?;
        let own = ssl.tls.with(identities, self.protocols.get(), self.verify.borrow().clone());
        own.map_err(|e| Failure::Server(format!("SSL_do_handshake() failed (SSL: {e})")))
    }

    /// What the log says of it.
    pub(crate) fn append_context(&self, text: &mut String) {
        match self.context.get() {
            "" => text.push_str(" while SSL handshaking"),
            context => {
                // As above.
                let _ = write!(text, ", context: {context}");
            }
        }
        append_peers(&self.client, text);
    }
}

/// What stands against a request on a connection that should have TLS: the status of the answer.
pub(crate) fn refusal(r: &Request) -> Option<u16> {
    let client = r.client.as_ref()?;
    client.stream.tls()?;
    if !client.stream.is_encrypted() {
        r.log(Level::Info, format_args!("client sent plain HTTP request to HTTPS port"));
        return Some(497);
    }
    let ssl = r.server_ssl()?;
    if ssl.verify == VerifyClient::Off {
        return None;
    }
    let session = client.tls.get()?;
    if session.has_name && session.server != r.server_index() {
        let text = "client attempted to request the server name different from the one that was negotiated";
        r.log(Level::Info, format_args!("{text}"));
        return Some(421);
    }
    match r.client_verdict()? {
        ClientVerdict::Bad(v) if ssl.verify != VerifyClient::OptionalNoCa || !v.is_about_authority() => {
            let (code, text) = (v.code, v.text);
            r.log(Level::Info, format_args!("client SSL certificate verify error: ({code}:{text})"));
            Some(495)
        }
        ClientVerdict::None if ssl.verify == VerifyClient::On => {
            r.log(Level::Info, format_args!("client sent no required SSL certificate"));
            Some(496)
        }
        _ => None,
    }
}

impl Request {
    /// The carrier of what a module does during a handshake.
    fn of_handshake(handshake: &Rc<Handshake>) -> Rc<Request> {
        let client = Rc::clone(&handshake.client);
        let mut r = Request::blank(
            Rc::clone(&client.worker),
            handshake.server.get(),
            terrace_base::clock::monotonic_ms(),
        );
        r.client = Some(client);
        let r = Rc::new(r);
        r.put_state(Rc::clone(handshake));
        r
    }

    /// The client's TLS, where it is spoken.
    pub fn tls(&self) -> Option<&TlsStream> {
        self.client.as_ref()?.stream.tls().filter(|t| t.is_open())
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.tls().is_some() { "https" } else { "http" }
    }

    fn server_ssl(&self) -> Option<&Arc<ServerSsl>> {
        let root = self.generation().location(self.server().root);
        root.settings.find::<SslConf>()?.server.as_ref()
    }

    /// What is known of the client's certificate by the rules of the request's server; `None` without TLS.
    pub fn client_verdict(&self) -> Option<ClientVerdict> {
        let session = self.client.as_ref()?.tls.get()?;
        let Some(chain) = self.tls()?.peer_certificates() else { return Some(ClientVerdict::None) };
        let server = self.server_index();
        let known = session.verdict.borrow().as_ref().filter(|(s, _)| *s == server).map(|(_, v)| v.clone());
        let verdict = match known {
            Some(known) => known,
            None => {
                let ssl = self.server_ssl()?;
                let verdict = session.trust.as_ref().unwrap_or(&ssl.trust).check_client(&chain);
                session.verdict.replace(Some((server, verdict.clone())));
                verdict
            }
        };
        Some(match verdict {
            Ok(()) => ClientVerdict::Good,
            Err(v) => ClientVerdict::Bad(v),
        })
    }
}
