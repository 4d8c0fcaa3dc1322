//! `*_by_lua`, `*_by_lua_block` and `*_by_lua_file`, and what they add to locations and workers.

use std::rc::Rc;
use std::sync::Arc;

use terrace_conf::{Arity, ConfError, Contexts, Directive, Node, Shape};
use terrace_http::conf::table::{HS, HSL, HSLI, SetFn, simple};
use terrace_http::{Builder, LocalFuture, LocationBuilder, Module, Phase, Worker};
use terrace_proxy::UpstreamHooks;

use super::settings;
use crate::chunks::Code;
use crate::handlers::{self, BodyCode, HeaderCode, LogCode, PhaseCode};
use crate::phase::LuaPhase;
use crate::settings::{LuaCodes, LuaLocation, LuaMain, ResponseStart};
use crate::threads::ThreadPool;
use crate::vm::LuaVm;

/// The module.
pub struct Lua;

impl Module for Lua {
    fn directives(&self) -> &'static [Directive<Builder>] {
        static TABLE: std::sync::LazyLock<Vec<Directive<Builder>>> = std::sync::LazyLock::new(table);
        &TABLE
    }

    fn location(&self, b: &mut Builder, l: &mut LocationBuilder) -> Result<(), ConfError> {
        super::tls::prepare(b, l)?;
        super::handshake::prepare(l);
        let settings = l.settings.of::<LuaLocation>();
        let (need_body, start) = (settings.need_request_body(), ResponseStart::of(settings));
        let check_abort = settings.check_client_abort();
        let codes = l.settings.of::<LuaCodes>();
        let phase = |code: &Option<Arc<Code>>, phase| {
            code.clone().map(|code| PhaseCode { code, phase, need_body, start, check_abort })
        };
        let server_rewrite = phase(&codes.server_rewrite, LuaPhase::ServerRewrite);
        let rewrite = phase(&codes.rewrite, LuaPhase::Rewrite);
        let access = phase(&codes.access, LuaPhase::Access);
        let precontent = phase(&codes.precontent, LuaPhase::Precontent);
        let content = phase(&codes.content, LuaPhase::Content);
        let (header, body, log) = (codes.header_filter.clone(), codes.body_filter.clone(), codes.log.clone());
        let main = b.state::<LuaMain>();
        let at = [
            (Phase::ServerRewrite, server_rewrite, Some(true)),
            (Phase::Rewrite, rewrite, main.rewrite_first),
            (Phase::Access, access, main.access_first),
            (Phase::Precontent, precontent, main.precontent_first),
        ];
        for (phase, handler, first) in at {
            match handler {
                Some(h) if first == Some(true) => l.add_first(phase, h),
                Some(h) => l.add(phase, h),
                None => {}
            }
        }
        if let Some(h) = content {
            l.set_content(h);
        }
        if let Some(code) = header {
            l.add_header_filter(HeaderCode(code));
        }
        if let Some(code) = body {
            l.add_body_filter(BodyCode(code));
        }
        if let Some(code) = log {
            l.add(Phase::Log, LogCode(code));
        }
        Ok(())
    }

    fn finish(&self, b: &mut Builder) -> Result<(), ConfError> {
        let mut main = std::mem::take(b.state::<LuaMain>());
        main.prefix = b.paths.prefix.clone();
        let pools = main
            .pool_settings
            .iter()
            .map(|(name, threads, queue)| ThreadPool::new(name, *threads, *queue, main.for_threads()));
        main.pools = pools.collect();
        b.share(Arc::new(main));
        Ok(())
    }

    fn worker_start(&self, worker: &Rc<Worker>) -> Option<LocalFuture<Result<(), String>>> {
        let main = LuaMain::of(&worker.generation);
        if main.codes == 0 {
            return None;
        }
        let worker = Rc::clone(worker);
        Some(Box::pin(async move {
            crate::ffi::errlog::capture(&worker);
            LuaVm::of_worker(&worker).map_err(|e| {
                let is_file = main.init.as_ref().is_some_and(Code::is_file);
                let name = if is_file { "init_by_lua_file" } else { "init_by_lua" };
                format!("{name} error: {}\n{}", e.message, e.traceback)
            })?;
            match main.init_worker.clone() {
                Some(code) => handlers::worker_code(worker, code, LuaPhase::InitWorker).await,
                None => Ok(()),
            }
        }))
    }

    fn worker_end(&self, worker: &Rc<Worker>) -> Option<LocalFuture<()>> {
        let code = LuaMain::of(&worker.generation).exit_worker.clone()?;
        let worker = Rc::clone(worker);
        Some(Box::pin(async move {
            // Errors are logged; the worker ends in any case.
            let _ = handlers::worker_code(worker, code, LuaPhase::ExitWorker).await;
        }))
    }
}

type Put = fn(&mut Builder, Code) -> bool;

/// A directive's three forms.
struct Forms {
    names: [&'static str; 3],
    contexts: Contexts,
    doc: &'static str,
    set: [SetFn; 3],
}

fn store(b: &mut Builder, node: &Node, code: Code, put: Put) -> Result<(), ConfError> {
    if put(b, code) { Ok(()) } else { Err(node.duplicate()) }
}

fn set_inline(b: &mut Builder, node: &Node, put: Put) -> Result<(), ConfError> {
    let code = Code::inline(b, node, node.bytes(0)?.clone());
    store(b, node, code, put)
}

fn set_block(b: &mut Builder, node: &Node, put: Put) -> Result<(), ConfError> {
    let code = Code::inline(b, node, node.raw()?.clone());
    store(b, node, code, put)
}

fn set_file(b: &mut Builder, node: &Node, put: Put) -> Result<(), ConfError> {
    let code = Code::file(b, node)?;
    store(b, node, code, put)
}

/// Fills a slot once.
fn fill<T>(slot: &mut Option<T>, value: T) -> bool {
    slot.replace(value).is_none()
}

macro_rules! forms {
    ($name:literal, $contexts:expr, $doc:literal, $put:expr) => {
        Forms {
            names: [$name, concat!($name, "_block"), concat!($name, "_file")],
            contexts: $contexts,
            doc: $doc,
            set: [|b, n| set_inline(b, n, $put), |b, n| set_block(b, n, $put), |b, n| set_file(b, n, $put)],
        }
    };
}

#[rustfmt::skip]
fn all_forms() -> Vec<Forms> {
    const HTTP: Contexts = Contexts::HTTP;
    vec![
        forms!("init_by_lua", HTTP, "Lua code that runs when a worker's VM is made.", |b, c| fill(&mut b.state::<LuaMain>().init, c)),
        forms!("init_worker_by_lua", HTTP, "Lua code that runs when a worker starts.", |b, c| fill(&mut b.state::<LuaMain>().init_worker, c)),
        forms!("exit_worker_by_lua", HTTP, "Lua code that runs when a worker ends.", |b, c| fill(&mut b.state::<LuaMain>().exit_worker, c)),
        forms!("ssl_client_hello_by_lua", HS, "Lua code that sees a client's first message of TLS.", |b, c| fill(&mut b.conf::<LuaCodes>().ssl_client_hello, Arc::new(c))),
        forms!("ssl_certificate_by_lua", HS, "Lua code that chooses the certificate that a client is shown.", |b, c| fill(&mut b.conf::<LuaCodes>().ssl_certificate, Arc::new(c))),
        forms!("ssl_session_fetch_by_lua", HTTP, "Lua code that looks for the session that a client names.", |b, c| fill(&mut b.conf::<LuaCodes>().ssl_session_fetch, Arc::new(c))),
        forms!("ssl_session_store_by_lua", HTTP, "Lua code that keeps a session that a handshake has made.", |b, c| fill(&mut b.conf::<LuaCodes>().ssl_session_store, Arc::new(c))),
        forms!("server_rewrite_by_lua", Contexts::HTTP.union(Contexts::SERVER), "Lua code for the server's rewrite phase.", |b, c| fill(&mut b.conf::<LuaCodes>().server_rewrite, Arc::new(c))),
        forms!("rewrite_by_lua", HSLI, "Lua code for the rewrite phase.", |b, c| fill(&mut b.conf::<LuaCodes>().rewrite, Arc::new(c))),
        forms!("access_by_lua", HSLI, "Lua code for the access phase.", |b, c| fill(&mut b.conf::<LuaCodes>().access, Arc::new(c))),
        forms!("precontent_by_lua", HSLI, "Lua code that runs before the response is made.", |b, c| fill(&mut b.conf::<LuaCodes>().precontent, Arc::new(c))),
        forms!("content_by_lua", Contexts::LOCATION.union(Contexts::LOCATION_IF), "Lua code that makes the response.", |b, c| fill(&mut b.conf::<LuaCodes>().content, Arc::new(c))),
        forms!("proxy_ssl_certificate_by_lua", Contexts::LOCATION, "Lua code that gives the certificate that a server is shown.", |b, c| fill(&mut b.conf::<UpstreamHooks>().certificate, super::proxy_ssl::certificate(c))),
        forms!("proxy_ssl_verify_by_lua", Contexts::LOCATION, "Lua code that judges the certificate that a server shows.", |b, c| fill(&mut b.conf::<UpstreamHooks>().verify, super::proxy_ssl::verify(c))),
        forms!("header_filter_by_lua", HSLI, "Lua code that changes the response's header.", |b, c| fill(&mut b.conf::<LuaCodes>().header_filter, Arc::new(c))),
        forms!("body_filter_by_lua", HSLI, "Lua code that changes the response's body as it passes.", |b, c| fill(&mut b.conf::<LuaCodes>().body_filter, Arc::new(c))),
        forms!("log_by_lua", HSLI, "Lua code that runs after the response.", |b, c| fill(&mut b.conf::<LuaCodes>().log, Arc::new(c))),
    ]
}

fn table() -> Vec<Directive<Builder>> {
    let mut rows = Vec::new();
    for f in all_forms() {
        let shapes = [Shape::Simple, Shape::Raw, Shape::Simple];
        for (i, shape) in shapes.into_iter().enumerate() {
            let arity = if shape == Shape::Raw { Arity::Exactly(0) } else { Arity::Exactly(1) };
            let row = simple(f.names[i], f.contexts, arity, "", f.doc, f.set[i]);
            rows.push(Directive { shape, ..row });
        }
    }
    rows.extend(settings::table(HSL));
    rows.extend(super::balancer::table());
    rows
}
