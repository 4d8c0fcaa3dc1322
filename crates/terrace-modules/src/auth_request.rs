//! `auth_request`, `auth_request_set`: a subrequest decides whether a client is let in.
//!
//! A status from 200 to 299 lets it in, 401 and 403 keep it out, anything else is an error. Its body is dropped. The
//! subrequest sees the variables of the request; those of `auth_request_set` are evaluated in it.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use terrace_base::log::Level;
use terrace_conf::{Arity, ConfError, Directive, Node};
use terrace_http::conf::table::{HSL, simple};
use terrace_http::subrequest::{self, Inherit, Subrequest};
use terrace_http::vars::VarIndex;
use terrace_http::{
    Builder, Handler, LocationBuilder, Merge, MergeContext, Module, Outcome, Phase, Request, Step, Value,
    status,
};
use terrace_http1::KnownHeader;

/// The module; it stands behind that of `allow` and `deny`.
pub struct AuthRequest;

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    simple("auth_request", HSL, Arity::Exactly(1), "off", "The URI whose status decides whether a client is let in.", set_uri),
    simple("auth_request_set", HSL, Arity::Exactly(2), "", "A variable that gets a value after the request for authorisation.", set_variable),
];

impl Module for AuthRequest {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        let conf = location.settings.of::<Conf>();
        if let Some(Some(uri)) = &conf.uri {
            let ask = Ask(Arc::new(Settings { uri: uri.clone(), variables: conf.variables.clone() }));
            location.add(Phase::Access, ask);
        }
        Ok(())
    }
}

/// What a block configures. The variables of a block without any are those of the enclosing one.
#[derive(Default)]
struct Conf {
    /// Inner `None`: `off`.
    uri: Option<Option<Bytes>>,
    variables: Vec<(VarIndex, Value)>,
}

impl Merge for Conf {
    fn merge(&mut self, parent: &Self, _: MergeContext) {
        if self.uri.is_none() {
            self.uri.clone_from(&parent.uri);
        }
        if self.variables.is_empty() {
            self.variables.clone_from(&parent.variables);
        }
    }
}

fn set_uri(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let uri = node.bytes(0)?;
    let uri = (&uri[..] != b"off").then(|| uri.clone());
    node.set_once(&mut b.conf::<Conf>().uri, uri)
}

fn set_variable(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let arg = node.arg(0)?;
    let invalid = || arg.error(format!("invalid variable name \"{arg}\""));
    let name = arg.value.strip_prefix(b"$").filter(|it| !it.is_empty()).ok_or_else(invalid)?;
    let variable = b.vars.define_stored(name).map_err(|e| arg.error(e))?;
    let value = Value::compile(b, node.arg(1)?)?;
    b.conf::<Conf>().variables.push((variable, value));
    Ok(())
}

struct Settings {
    uri: Bytes,
    variables: Vec<(VarIndex, Value)>,
}

struct Ask(Arc<Settings>);

impl Handler for Ask {
    fn handle(&self, r: &Rc<Request>) -> Step {
        let sub = Subrequest {
            uri: self.0.uri.clone(),
            args: Bytes::new(),
            method: Bytes::from_static(b"GET"),
            body: None,
            vars: Inherit::Share,
            bare_errors: true,
        };
        let Some(sub) = subrequest::make(r, sub) else {
            return Outcome::Status(status::INTERNAL).into();
        };
        let (r, settings) = (Rc::clone(r), Arc::clone(&self.0));
        Step::wait(async move {
            subrequest::run(&sub).await;
            for (variable, value) in &settings.variables {
                let value = value.eval_bytes(&sub);
                r.generation().vars.set(&r, *variable, Some(value));
            }
            decide(&r, &sub)
        })
    }
}

fn decide(r: &Request, sub: &Request) -> Outcome {
    match sub.headers_out.status.get() {
        200..=299 => Outcome::Satisfied,
        403 => Outcome::Status(403),
        401 => {
            let name = Bytes::from_static(KnownHeader::WwwAuthenticate.name().as_bytes());
            sub.headers_out.for_each(|field| {
                if field.id == Some(KnownHeader::WwwAuthenticate) {
                    r.headers_out.add(name.clone(), field.value.clone());
                }
            });
            Outcome::Status(401)
        }
        other => {
            r.log(Level::Error, format_args!("auth request unexpected status: {other}"));
            Outcome::Status(status::INTERNAL)
        }
    }
}
