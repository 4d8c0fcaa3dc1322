//! `proxy_ssl_certificate_by_lua*` and `proxy_ssl_verify_by_lua*`: Lua code that takes part in handshakes with servers.

use std::rc::Rc;
use std::sync::Arc;

use terrace_http::{LocalFuture, Request};
use terrace_lua::Finish;
use terrace_proxy::{UpstreamHandshake, UpstreamHook};

use crate::chunks::Code;
use crate::handlers;
use crate::host::{Args, log_error};
use crate::phase::LuaPhase;

struct LuaUpstreamHook {
    code: Code,
    phase: LuaPhase,
}

impl UpstreamHook for LuaUpstreamHook {
    fn run(&self, r: &Rc<Request>, handshake: &Rc<UpstreamHandshake>) -> LocalFuture<bool> {
        r.put_state(Rc::clone(handshake));
        let step = handlers::run(r, &self.code, self.phase, Args::None);
        let r = Rc::clone(r);
        Box::pin(async move {
            match &step.get().await {
                Err(_) => false,
                Ok(ended) => match &ended.finish {
                    Finish::Returned => true,
                    Finish::Exit(code) => (0..300).contains(code),
                    Finish::Error(e) => {
                        log_error(&r, "lua entry thread aborted", e);
                        false
                    }
                },
            }
        })
    }
}

/// The code of `proxy_ssl_certificate_by_lua*` as a hook.
pub(super) fn certificate(code: Code) -> Arc<dyn UpstreamHook> {
    Arc::new(LuaUpstreamHook { code, phase: LuaPhase::ProxySslCertificate })
}

/// The code of `proxy_ssl_verify_by_lua*` as a hook.
pub(super) fn verify(code: Code) -> Arc<dyn UpstreamHook> {
    Arc::new(LuaUpstreamHook { code, phase: LuaPhase::ProxySslVerify })
}
