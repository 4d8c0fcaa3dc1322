//! `ssl_client_hello_by_lua*`, `ssl_certificate_by_lua*`, `ssl_session_fetch_by_lua*`, `ssl_session_store_by_lua*`: Lua code
//! that takes part in handshakes with clients.

use std::rc::Rc;
use std::sync::Arc;

use terrace_http::tls::{Handshake, HandshakeHook, SslConf};
use terrace_http::{LocalFuture, LocationBuilder, Request};
use terrace_lua::Finish;

use crate::chunks::Code;
use crate::handlers;
use crate::host::{Args, log_error};
use crate::phase::LuaPhase;
use crate::settings::LuaCodes;

struct LuaHook {
    code: Arc<Code>,
    phase: LuaPhase,
    /// What the log calls it.
    name: &'static str,
}

impl HandshakeHook for LuaHook {
    fn run(&self, r: &Rc<Request>, handshake: &Rc<Handshake>) -> LocalFuture<bool> {
        handshake.context.set(self.name);
        let step = handlers::run(r, &self.code, self.phase, Args::None);
        let (r, handshake, phase) = (Rc::clone(r), Rc::clone(handshake), self.phase);
        Box::pin(async move {
            let goes_on = match &step.get().await {
                Err(_) => false,
                Ok(ended) => match &ended.finish {
                    Finish::Returned => true,
                    Finish::Exit(code) => (0..300).contains(code),
                    Finish::Error(e) => {
                        match phase {
                            LuaPhase::SslSessionStore => {
                                handlers::log_run_error(&r, "failed to run session_store_by_lua*", e);
                            }
                            _ => log_error(&r, "lua entry thread aborted", e),
                        }
                        false
                    }
                },
            };
            handshake.context.set("");
            goes_on
        })
    }
}

/// Adds the code of a server to the handshakes of its clients.
pub(super) fn prepare(l: &mut LocationBuilder) {
    if !l.is_server || !l.settings.of::<SslConf>().listens {
        return;
    }
    let codes = l.settings.of::<LuaCodes>();
    let hook = |code: &Option<Arc<Code>>, phase, name| {
        code.clone().map(|code| -> Arc<dyn HandshakeHook> { Arc::new(LuaHook { code, phase, name }) })
    };
    let hello = hook(&codes.ssl_client_hello, LuaPhase::SslClientHello, "ssl_client_hello_by_lua*");
    let certificate = hook(&codes.ssl_certificate, LuaPhase::SslCertificate, "ssl_certificate_by_lua*");
    let fetch = hook(&codes.ssl_session_fetch, LuaPhase::SslSessionFetch, "ssl_session_fetch_by_lua*");
    let store = hook(&codes.ssl_session_store, LuaPhase::SslSessionStore, "ssl_session_store_by_lua*");
    let conf = l.settings.of::<SslConf>();
    conf.hello_hook = hello;
    if certificate.is_some() {
        conf.certificate_hook = certificate;
    }
    conf.fetch_hook = fetch;
    conf.store_hook = store;
}
