//! `proxy_ssl_*`: TLS with the servers of a `proxy_pass https://`.

use std::rc::Rc;
use std::sync::Arc;

use terrace_conf::{Arity, ConfError, Directive, Node};
use terrace_http::conf::table::{HSL, flag, simple};
use terrace_http::tls::client::ClientSettings;
use terrace_http::tls::values::{Pem, ciphers, file, protocols};
use terrace_http::{Builder, LocationBuilder, Module, Request, Value, setting, settings};
use terrace_net::Stream;
use terrace_net::tls::{Certificate, ClientTls, HandshakeError, Protocols, TlsStream, Verdict};

use super::handshake::{UpstreamHandshake, UpstreamHook, UpstreamHooks};

/// The module.
pub struct ProxySsl;

impl Module for ProxySsl {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }
}

settings! {
    /// Settings of `proxy_ssl_*` directives.
    struct Conf {
        /// `proxy_ssl_protocols`.
        protocols: Protocols = Protocols::default(),
        /// `proxy_ssl_ciphers`.
        ciphers: String = "DEFAULT".to_owned(),
        /// `proxy_ssl_name`.
        name: Option<Value> = None,
        /// `proxy_ssl_server_name`.
        server_name: bool = false,
        /// `proxy_ssl_verify`.
        verify: bool = false,
        /// `proxy_ssl_verify_depth`.
        verify_depth: usize = 1,
        /// `proxy_ssl_trusted_certificate`.
        trusted_certificate: Option<Pem> = None,
        /// `proxy_ssl_crl`.
        crl: Option<Pem> = None,
        /// `proxy_ssl_certificate`.
        certificate: Option<Pem> = None,
        /// `proxy_ssl_certificate_key`.
        certificate_key: Option<Pem> = None,
        /// `proxy_ssl_password_file`.
        password_file: Option<Pem> = None,
        /// `proxy_ssl_conf_command VerifyMode Peer`.
        verify_peer: bool = false,
        /// `proxy_ssl_session_reuse`.
        session_reuse: bool = true,
    }
}

const ONE: Arity = Arity::Exactly(1);

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    simple("proxy_ssl_protocols", HSL, Arity::AtLeast(1), "TLSv1.2 TLSv1.3", "The versions that are spoken to the server: TLSv1.2, TLSv1.3.", |b, n| { let v = protocols(b, n)?; n.set_once(&mut b.conf::<Conf>().protocols, v) }),
    simple("proxy_ssl_ciphers", HSL, ONE, "DEFAULT", "OpenSSL's list of ciphers for TLS 1.2.", |b, n| { let v = ciphers(b, n)?; n.set_once(&mut b.conf::<Conf>().ciphers, v) }),
    simple("proxy_ssl_name", HSL, ONE, "$proxy_host", "The name that the server's certificate must have, and that it is told.", |b, n| { let v = Some(Value::compile(b, n.arg(0)?)?); n.set_once(&mut b.conf::<Conf>().name, v) }),
    simple("proxy_ssl_server_name", HSL, Arity::Flag, "off", "Whether the server is told the name (SNI).", setting!(Conf, server_name, flag)),
    simple("proxy_ssl_verify", HSL, Arity::Flag, "off", "Whether the server's certificate is checked.", setting!(Conf, verify, flag)),
    simple("proxy_ssl_verify_depth", HSL, ONE, "1", "How many certificates may lie between a server's and its authority's.", setting!(Conf, verify_depth, |n: &Node| n.number(0))),
    simple("proxy_ssl_trusted_certificate", HSL, ONE, "", "The file of the authorities of servers.", setting!(Conf, trusted_certificate, |n: &Node| file(n).map(Some))),
    simple("proxy_ssl_crl", HSL, ONE, "", "The file of lists of revoked certificates of servers.", setting!(Conf, crl, |n: &Node| file(n).map(Some))),
    simple("proxy_ssl_certificate", HSL, ONE, "", "The file of the certificate that servers are shown.", setting!(Conf, certificate, |n: &Node| file(n).map(Some))),
    simple("proxy_ssl_certificate_key", HSL, ONE, "", "The file of its key.", setting!(Conf, certificate_key, |n: &Node| file(n).map(Some))),
    simple("proxy_ssl_password_file", HSL, ONE, "", "The file of passphrases of the key, one a line, each of which is tried.", setting!(Conf, password_file, |n: &Node| file(n).map(Some))),
    simple("proxy_ssl_conf_command", HSL, Arity::Exactly(2), "", "Only VerifyMode Peer: the server's certificate is checked as by proxy_ssl_verify.", set_command),
    simple("proxy_ssl_session_reuse", HSL, Arity::Flag, "on", "Whether sessions with servers are taken up again.", setting!(Conf, session_reuse, flag)),
];

/// Of OpenSSL's commands the one that scripts which judge certificates need with OpenSSL.
fn set_command(b: &mut Builder, n: &Node) -> Result<(), ConfError> {
    let (name, value) = (n.text(0)?, n.text(1)?);
    if !name.eq_ignore_ascii_case("VerifyMode") || value != "Peer" {
        return Err(n.error(format!("\"{name} {value}\" in \"{}\" is known but not carried out", n.name)));
    }
    b.conf::<Conf>().verify_peer = Some(true);
    Ok(())
}

/// How a location speaks TLS.
pub(super) struct ProxyTls {
    client: ClientTls,
    name: Option<Value>,
    sends_name: bool,
    hooks: Option<Arc<Hooks>>,
}

/// Who takes part in handshakes.
struct Hooks {
    certificate: Option<Arc<dyn UpstreamHook>>,
    verify: Option<Arc<dyn UpstreamHook>>,
    /// Whether the name in the certificate is still to be checked: `verify` is the only judge of the rest.
    checks_name: bool,
}

/// Whom a connection was made to: only requests that want the same may use it again.
pub(crate) struct Secured {
    client: ClientTls,
    sends_name: bool,
    name: String,
    hooks: Option<Arc<Hooks>>,
}

impl Secured {
    /// Whether a connection to one does for the other.
    pub(crate) fn is_same(&self, other: &Secured) -> bool {
        let has_same_hooks = match (&self.hooks, &other.hooks) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        has_same_hooks
            && self.client.is(&other.client)
            && self.name == other.name
            && self.sends_name == other.sends_name
    }

    /// Makes the handshake over a fresh connection.
    pub(super) async fn shake(&self, r: &Rc<Request>, stream: Stream) -> Result<Stream, HandshakeError> {
        let stream = stream.with_tls();
        if let Some(tls) = stream.tls() {
            let host = Some(&self.name[..]).filter(|n| !n.is_empty());
            let handshake = Rc::new(UpstreamHandshake::default());
            r.put_state(Rc::clone(&handshake));
            match &self.hooks {
                None => TlsStream::connect(tls, &self.client, host, self.sends_name, None).await?,
                Some(hooks) => self.shake_with(r, tls, &handshake, hooks).await?,
            }
            handshake.protocol.set(tls.protocol());
        }
        Ok(stream)
    }

    async fn shake_with(
        &self,
        r: &Rc<Request>,
        tls: &TlsStream,
        handshake: &Rc<UpstreamHandshake>,
        hooks: &Hooks,
    ) -> Result<(), HandshakeError> {
        let host = Some(&self.name[..]).filter(|n| !n.is_empty());
        match &hooks.certificate {
            None => TlsStream::connect(tls, &self.client, host, self.sends_name, None).await?,
            Some(hook) => {
                let begun = tls.begin(&self.client, host, self.sends_name).await?;
                handshake.protocol.set(begun.version());
                if !hook.run(r, handshake).await {
                    return Err(HandshakeError::Refused("callback failed"));
                }
                tls.finish(begun, handshake.identity.take()).await?;
            }
        }
        let chain = tls.peer_certificates().unwrap_or_default();
        if let Some(host) = host.filter(|_| hooks.checks_name) {
            let leaf = chain.first().and_then(Certificate::parse);
            if !leaf.is_some_and(|c| c.is_for(host)) {
                return Err(HandshakeError::Certificate(Verdict::HOST_MISMATCH));
            }
        }
        let Some(hook) = &hooks.verify else { return Ok(()) };
        handshake.protocol.set(tls.protocol());
        handshake.chain.replace(Some(chain).filter(|c| !c.is_empty()));
        if !hook.run(r, handshake).await {
            return Err(HandshakeError::Refused("certificate verify failed"));
        }
        match handshake.verdict.get() {
            0 => Ok(()),
            code => Err(HandshakeError::Certificate(Verdict::of_code(code))),
        }
    }

    /// What the log says of a failed handshake.
    pub(super) fn failure(&self, e: &HandshakeError) -> String {
        match e {
            HandshakeError::Certificate(v) if *v == Verdict::HOST_MISMATCH => {
                format!("upstream SSL certificate does not match \"{}\"", self.name)
            }
            HandshakeError::Certificate(v) => {
                format!("upstream SSL certificate verify error: ({}:{})", v.code, v.text)
            }
            HandshakeError::Closed => "peer closed connection in SSL handshake".to_owned(),
            HandshakeError::Io(e) => format!("SSL_do_handshake() failed {}", terrace_base::OsError(e)),
            HandshakeError::Tls(e) => format!("SSL_do_handshake() failed (SSL: {e})"),
            HandshakeError::Refused(why) => format!("SSL_do_handshake() failed (SSL: {why})"),
        }
    }
}

impl ProxyTls {
    /// What a location's directives say.
    pub(super) fn resolve(b: &mut Builder, l: &mut LocationBuilder) -> Result<ProxyTls, ConfError> {
        let at = l.at.clone();
        let hooks = l.settings.of::<UpstreamHooks>();
        let (certificate, verify) = (hooks.certificate.clone(), hooks.verify.clone());
        let skips_default = verify.is_some() && hooks.skips_default.unwrap_or(false);
        let c = l.settings.of::<Conf>();
        let identity = match (c.certificate(), c.certificate_key()) {
            (Some(certificate), Some(key)) => Some((certificate, key)).filter(|(c, _)| !c.0.is_empty()),
            (Some((name, at)), None) => {
                let text = format!("no \"proxy_ssl_certificate_key\" is defined for certificate \"{name}\"");
                return Err(ConfError::at(&at, text));
            }
            _ => None,
        };
        let settings = ClientSettings {
            protocols: c.protocols(),
            ciphers: c.ciphers(),
            verifies: if verify.is_some() { !skips_default } else { c.verify() || c.verify_peer() },
            checks_signatures: verify.is_some(),
            depth: c.verify_depth(),
            trusted: c.trusted_certificate(),
            crl: c.crl(),
            identity,
            reuses_sessions: c.session_reuse(),
            sends_name: c.server_name(),
            passphrases: c.password_file(),
            key_log: None,
        };
        if c.verify() && !skips_default && settings.trusted.is_none() {
            return Err(ConfError::at(
                &at,
                "no proxy_ssl_trusted_certificate for proxy_ssl_verify".to_owned(),
            ));
        }
        let (name, sends_name) = (c.name(), settings.sends_name);
        let checks_name = skips_default && c.verify();
        let hooks = (certificate.is_some() || verify.is_some())
            .then(|| Arc::new(Hooks { certificate, verify, checks_name }));
        Ok(ProxyTls { client: settings.client(b, &at)?, name, sends_name, hooks })
    }

    /// Whom a request wants to speak to, where the URL or a balancer names `host`.
    pub(super) fn wanted(&self, r: &Request, host: &[u8]) -> Secured {
        let name = match &self.name {
            Some(name) => name.eval_bytes(r),
            None => host.to_vec().into(),
        };
        let name = without_port(&String::from_utf8_lossy(&name)).to_owned();
        let hooks = self.hooks.clone();
        Secured { client: self.client.clone(), sends_name: self.sends_name, name, hooks }
    }
}

/// A host's name or address without a port and without brackets.
fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_port() {
        for (host, name) in [("a", "a"), ("a:443", "a"), ("[::1]:443", "::1"), ("[::1]", "::1"), ("", "")] {
            assert_eq!(without_port(host), name);
        }
    }
}
