//! `balancer_by_lua*`: Lua code that chooses the peer of each attempt at an upstream.

use std::rc::Rc;
use std::sync::Arc;

use terrace_base::log::Level;
use terrace_conf::{Arity, ConfError, Contexts, Directive, Node, Shape};
use terrace_http::conf::table::simple;
use terrace_http::{Builder, Request, Step, status};
use terrace_lua::Finish;
use terrace_proxy::{Attempt, Balancer, set_balancer, set_balancer_keepalive};

use crate::chunks::Code;
use crate::handlers;
use crate::host::{Args, log_error};
use crate::phase::LuaPhase;

/// `ngx.OK`
const OK: i32 = 0;

struct LuaBalancer(Code);

impl Balancer for LuaBalancer {
    fn pick(&self, r: &Rc<Request>, attempt: &Rc<Attempt>) -> Step<Result<(), u16>> {
        r.put_state(Rc::clone(attempt));
        let request = Rc::clone(r);
        handlers::run(r, &self.0, LuaPhase::Balancer, Args::None).map(move |ended| match &ended?.finish {
            Finish::Returned | Finish::Exit(OK) => Ok(()),
            Finish::Exit(code) => {
                request.log(Level::Debug, format_args!("balancer_by_lua* left with {code}"));
                Err(u16::try_from(*code).ok().filter(|s| (300..=999).contains(s)).unwrap_or(status::INTERNAL))
            }
            Finish::Error(e) => {
                log_error(&request, "failed to run balancer_by_lua*", e);
                Err(status::INTERNAL)
            }
        })
    }
}

fn set(b: &mut Builder, node: &Node, code: Code) -> Result<(), ConfError> {
    set_balancer(b, node, Arc::new(LuaBalancer(code)))
}

fn set_inline(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let code = Code::inline(b, node, node.bytes(0)?.clone());
    set(b, node, code)
}

fn set_block(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let code = Code::inline(b, node, node.raw()?.clone());
    set(b, node, code)
}

fn set_file(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let code = Code::file(b, node)?;
    set(b, node, code)
}

#[rustfmt::skip]
pub(super) fn table() -> Vec<Directive<Builder>> {
    const UP: Contexts = Contexts::UPSTREAM;
    const DOC: &str = "Lua code that chooses the server of each attempt.";
    vec![
        simple("balancer_by_lua", UP, Arity::Exactly(1), "", DOC, set_inline),
        Directive { shape: Shape::Raw, ..simple("balancer_by_lua_block", UP, Arity::Exactly(0), "", DOC, set_block) },
        simple("balancer_by_lua_file", UP, Arity::Exactly(1), "", DOC, set_file),
        simple("balancer_keepalive", UP, Arity::Exactly(1), "32", "How many idle connections each worker keeps for enable_keepalive of ngx.balancer.", set_balancer_keepalive),
    ]
}
