//! `tiered_cache_pass` and its kin: a location that answers from a cache.
//!
//! A hit is answered at once; a miss waits for the load. Header fields say how: `X-Cache-Level` is `L1`, `source`,
//! `stale`, or `negative` for an absence that was remembered; `X-Cache-Time-Us` is the lookup's time in
//! microseconds; `Age` and `Cache-Control` tell downstream caches how old the value is and how long it stays
//! fresh. What is not fresh is marked `no-store`.
//!
//! Statuses other than 200 follow the location's `error_page` if it has one for them, and are short JSON else: 400
//! for an empty key or a parameter that cannot be bound, 404 for an absence, 405 for another method than GET and
//! HEAD, 503 when there is no value and no way to one.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use terrace_base::clock;
use terrace_base::log::Level as LogLevel;
use terrace_cache::{Answer, Cache, CacheError, Level, LoadError, Lookup, Param, Params};
use terrace_conf::{ConfError, Node, Position};
use terrace_http::headers_out::Field;
use terrace_http::{
    Builder, Handler, LocationBuilder, Merge, MergeContext, Outcome, Request, Step, Value, intern,
};
use terrace_http1::KnownHeader;

use super::cache_block::Specs;
use super::source_block::Sources;
use super::status::Status;
use super::{numbers, registry};

/// The header field with the level that answered.
pub(super) const LEVEL: &[u8] = b"X-Cache-Level";
/// The header field with the lookup's time.
pub(super) const TIME_US: &[u8] = b"X-Cache-Time-Us";

/// A key buffer that grew beyond this is not kept for the next request.
const KEY_KEPT_BYTES_MAX: usize = 4096;

#[derive(Clone, PartialEq)]
enum Content {
    Pass { cache: Arc<str>, at: Position },
    Status,
}

/// The settings of a block.
#[derive(Default)]
pub(super) struct PassConf {
    content: Option<Content>,
    key: Option<Value>,
    params: Vec<(Arc<str>, Value)>,
    content_type: Option<Bytes>,
}

impl Merge for PassConf {
    fn merge(&mut self, parent: &Self, context: MergeContext) {
        if context.is_if && self.content.is_none() {
            self.content.clone_from(&parent.content);
        }
        if self.key.is_none() {
            self.key.clone_from(&parent.key);
        }
        if self.params.is_empty() {
            self.params.clone_from(&parent.params);
        }
        if self.content_type.is_none() {
            self.content_type.clone_from(&parent.content_type);
        }
    }
}

pub(super) fn set_pass(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let content = Content::Pass { cache: node.text(0)?.into(), at: node.at.clone() };
    node.set_once(&mut b.conf::<PassConf>().content, content)
}

pub(super) fn set_status(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    node.set_once(&mut b.conf::<PassConf>().content, Content::Status)
}

pub(super) fn set_key(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let key = Value::compile(b, node.arg(0)?)?;
    node.set_once(&mut b.conf::<PassConf>().key, key)
}

pub(super) fn set_param(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let name = node.text(0)?;
    let value = Value::compile(b, node.arg(1)?)?;
    let params = &mut b.conf::<PassConf>().params;
    if params.iter().any(|(it, _)| **it == *name) {
        return Err(node.error(format!("duplicate parameter \"{name}\"")));
    }
    params.push((name.into(), value));
    Ok(())
}

pub(super) fn set_type(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    node.set_once(&mut b.conf::<PassConf>().content_type, intern::text(node.bytes(0)?))
}

/// Adds the handler that the location's settings ask for.
pub(super) fn add_handler(b: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
    let Some(conf) = location.settings.find::<PassConf>() else { return Ok(()) };
    let (name, at) = match &conf.content {
        None => return Ok(()),
        Some(Content::Status) => {
            location.set_content(Status);
            return Ok(());
        }
        Some(Content::Pass { cache, at }) => (cache, at),
    };
    check(b, conf, name, at)?;
    let Some(key) = conf.key.clone() else {
        return Err(ConfError::at(at, "no \"tiered_cache_key\" for \"tiered_cache_pass\""));
    };
    let json = || Bytes::from_static(b"application/json");
    let content_type = conf.content_type.clone().unwrap_or_else(json);
    let (params, name) = (conf.params.clone(), name.clone());
    // There is none while a configuration is only checked.
    if let Some(cache) = registry::prepare(b)?.find(name.as_bytes()).cloned() {
        location.set_content(Pass(Arc::new(Settings { cache, name, key, params, content_type })));
    }
    Ok(())
}

/// Whether the cache exists, has a source, and the location has all parameters of the source's query.
fn check(b: &mut Builder, conf: &PassConf, name: &str, at: &Position) -> Result<(), ConfError> {
    let Some(cache) = b.state::<Specs>().0.iter().find(|it| *it.name == *name) else {
        return Err(ConfError::at(at, format!("unknown tiered cache \"{name}\"")));
    };
    let Some((source, _)) = cache.source.clone() else {
        let message = format!("tiered cache \"{name}\" has no \"source\", which \"tiered_cache_pass\" needs");
        return Err(ConfError::at(at, message));
    };
    let Some(spec) = b.state::<Sources>().0.iter().find(|it| *it.name == *source) else {
        // Reported where the cache names it.
        return Ok(());
    };
    let given = |name: &str| conf.params.iter().any(|(it, _)| **it == *name);
    match spec.parameters.iter().find(|it| !given(it)) {
        None => Ok(()),
        Some(missing) => {
            let message = format!(
                "no \"tiered_cache_param\" for the parameter :{missing} of cache source \"{source}\""
            );
            Err(ConfError::at(at, message))
        }
    }
}

/// What a response says about its lookup, for variables; nothing in locations without `tiered_cache_pass`.
pub(super) fn told(r: &Request, field: &[u8], out: &mut Vec<u8>) -> bool {
    let passes = |it: &PassConf| matches!(it.content, Some(Content::Pass { .. }));
    r.settings::<PassConf>().is_some_and(passes)
        && r.headers_out.with(field, |value| out.extend_from_slice(value)).is_some()
}

struct Settings {
    cache: Cache,
    name: Arc<str>,
    key: Value,
    params: Vec<(Arc<str>, Value)>,
    content_type: Bytes,
}

/// The handler of one location.
struct Pass(Arc<Settings>);

/// Why there is no value.
#[derive(Clone, Copy)]
enum Refusal {
    EmptyKey,
    BadParameter,
    NotFound,
    Method,
    Unavailable,
}

impl Refusal {
    fn status(self) -> u16 {
        match self {
            Self::EmptyKey | Self::BadParameter => 400,
            Self::NotFound => 404,
            Self::Method => 405,
            Self::Unavailable => 503,
        }
    }

    fn body(self) -> Bytes {
        Bytes::from_static(match self {
            Self::EmptyKey => b"{\"error\":\"the key is empty\"}",
            Self::BadParameter => b"{\"error\":\"a parameter is malformed\"}",
            Self::NotFound => b"{\"error\":\"not found\"}",
            Self::Method => b"{\"error\":\"method not allowed\"}",
            Self::Unavailable => b"{\"error\":\"unavailable\"}",
        })
    }
}

impl Handler for Pass {
    fn handle(&self, r: &Rc<Request>) -> Step {
        if !matches!(&r.method()[..], b"GET" | b"HEAD") {
            r.headers_out.set(&b"Allow"[..], &b"GET, HEAD"[..]);
            return refuse(r, Refusal::Method);
        }
        let settings = &self.0;
        let started = Instant::now();
        let lookup = with_key(&settings.key, r, |key| {
            let now_ms = clock::monotonic_ms();
            (!key.is_empty()).then(|| settings.cache.lookup(key, now_ms, || settings.params(r)))
        });
        match lookup {
            None => refuse(r, Refusal::EmptyKey),
            Some(Lookup::Hit(answer)) => settings.answer(r, answer, started),
            Some(Lookup::Failed(error)) => settings.fail(r, &error, started),
            Some(Lookup::Wait(wait)) => {
                let (settings, r) = (settings.clone(), r.clone());
                Step::wait(async move {
                    let step = match wait.await {
                        Ok(answer) => settings.answer(&r, answer, started),
                        Err(error) => settings.fail(&r, &error, started),
                    };
                    step.get().await
                })
            }
        }
    }
}

/// Calls `f` with the key's text, in a buffer that the thread keeps.
fn with_key<R>(key: &Value, r: &Request, f: impl FnOnce(&[u8]) -> R) -> R {
    thread_local! {
        static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    let mut buffer = BUFFER.take();
    key.eval(r, &mut buffer);
    let result = f(&buffer);
    if buffer.capacity() <= KEY_KEPT_BYTES_MAX {
        buffer.clear();
        BUFFER.set(buffer);
    }
    result
}

impl Settings {
    fn params(&self, r: &Request) -> Params {
        let bound = |(name, value): &(Arc<str>, Value)| Param::new(name.clone(), value.eval_bytes(r));
        self.params.iter().map(bound).collect()
    }

    fn answer(&self, r: &Rc<Request>, answer: Answer, started: Instant) -> Step {
        let level: &[u8] = match (&answer.value, answer.level) {
            (None, Level::L1) => b"negative",
            (_, level) => level.as_str().as_bytes(),
        };
        let control = match answer.ttl_ms {
            0 => Bytes::from_static(b"no-store"),
            ms => numbers::max_age(ms / 1000),
        };
        r.headers_out.edit(|fields| {
            fields.reserve(4);
            fields.push(own_field(LEVEL, Bytes::from_static(level)));
            fields.push(own_field(TIME_US, elapsed_us(started)));
            let age = numbers::decimal(answer.age_ms / 1000);
            fields.push(Field { name: Bytes::from_static(b"Age"), value: age, id: Some(KnownHeader::Age) });
            let (name, id) = (Bytes::from_static(b"Cache-Control"), Some(KnownHeader::CacheControl));
            fields.push(Field { name, value: control, id });
        });
        let Some(value) = answer.value else {
            return refuse(r, Refusal::NotFound);
        };
        r.headers_out.status.set(200);
        r.headers_out.content_type.replace(Some(self.content_type.clone()));
        r.respond(value).map(|_| Outcome::Done)
    }

    fn fail(&self, r: &Rc<Request>, error: &CacheError, started: Instant) -> Step {
        r.log(LogLevel::Error, format_args!("tiered cache \"{}\": {error}", self.name));
        r.headers_out.edit(|fields| fields.push(own_field(TIME_US, elapsed_us(started))));
        r.headers_out.set(&b"Cache-Control"[..], &b"no-store"[..]);
        match error {
            CacheError::Load(LoadError::Request(_)) => refuse(r, Refusal::BadParameter),
            _ => refuse(r, Refusal::Unavailable),
        }
    }
}

fn own_field(name: &'static [u8], value: Bytes) -> Field {
    Field { name: Bytes::from_static(name), value, id: None }
}

fn elapsed_us(started: Instant) -> Bytes {
    numbers::decimal(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// Goes to the location's `error_page` for the status, or answers in JSON.
fn refuse(r: &Rc<Request>, refusal: Refusal) -> Step {
    let (status, core) = (refusal.status(), &r.location().core);
    let may_redirect = !r.error_page.get() || core.recursive_error_pages;
    if may_redirect && core.error_pages.find(status).is_some() {
        return Outcome::Status(status).into();
    }
    r.headers_out.status.set(status);
    r.headers_out.content_type.replace(Some(Bytes::from_static(b"application/json")));
    r.respond(refusal.body()).map(|_| Outcome::Done)
}
