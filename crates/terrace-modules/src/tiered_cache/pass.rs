//! `tiered_cache_pass` and its kin: a location that answers from a cache.
//!
//! A hit is answered at once; a miss waits for the load. Header fields say how: `X-Cache-Level` is `L1`, `source`,
//! `stale`, or `negative` for an absence that was remembered; `X-Cache-Time-Us` is the lookup's time in
//! microseconds; `Age` and `Cache-Control` tell downstream caches how old the value is and how long it stays
//! fresh. What is not fresh is marked `no-store`.
//!
//! `tiered_cache_headers` keeps the first two back, or shows them on request. `tiered_cache_purge_method` has PURGE drop what
//! GET answers with.
//!
//! Statuses other than 200 follow the location's `error_page` if it has one for them, and are short JSON else: 400
//! for an empty key or a parameter that cannot be bound, 404 for an absence, 405 for another method than GET and
//! HEAD (and PURGE), 503 when there is no value and no way to one.

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

use super::api::Api;
use super::cache_block::Specs;
use super::metrics::Metrics;
use super::purge::{Change, Purge, purge};
use super::source_block::Sources;
use super::status::Status;
use super::{numbers, query, registry};

/// The header field with the level that answered.
pub(super) const LEVEL: &[u8] = b"X-Cache-Level";
/// The header field with the lookup's time.
pub(super) const TIME_US: &[u8] = b"X-Cache-Time-Us";

/// A key buffer that grew beyond this is not kept for the next request.
const KEY_KEPT_BYTES_MAX: usize = 4096;

#[derive(Clone, PartialEq)]
enum Content {
    Pass { cache: Arc<str>, at: Position },
    Purge { cache: Arc<str>, at: Position },
    Status,
    Metrics,
    Api { at: Position },
}

/// Whether the header fields that say how an answer came about are sent.
#[derive(Clone)]
enum Headers {
    Always,
    Never,
    /// When the text says yes.
    If(Value),
}

/// The settings of a block.
#[derive(Default)]
pub(super) struct PassConf {
    content: Option<Content>,
    key: Option<Value>,
    params: Vec<(Arc<str>, Value)>,
    content_type: Option<Bytes>,
    headers: Option<Headers>,
    purge_method: Option<bool>,
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
        if self.headers.is_none() {
            self.headers.clone_from(&parent.headers);
        }
        self.purge_method = self.purge_method.or(parent.purge_method);
    }
}

pub(super) fn set_pass(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let content = Content::Pass { cache: node.text(0)?.into(), at: node.at.clone() };
    node.set_once(&mut b.conf::<PassConf>().content, content)
}

pub(super) fn set_status(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    node.set_once(&mut b.conf::<PassConf>().content, Content::Status)
}

pub(super) fn set_metrics(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    node.set_once(&mut b.conf::<PassConf>().content, Content::Metrics)
}

pub(super) fn set_api(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    node.set_once(&mut b.conf::<PassConf>().content, Content::Api { at: node.at.clone() })
}

pub(super) fn set_purge(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let content = Content::Purge { cache: node.text(0)?.into(), at: node.at.clone() };
    node.set_once(&mut b.conf::<PassConf>().content, content)
}

pub(super) fn set_purge_method(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let flag = node.flag(0)?;
    node.set_once(&mut b.conf::<PassConf>().purge_method, flag)
}

pub(super) fn set_headers(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let headers = match &node.bytes(0)?[..] {
        b"on" => Headers::Always,
        b"off" => Headers::Never,
        _ => Headers::If(Value::compile(b, node.arg(0)?)?),
    };
    node.set_once(&mut b.conf::<PassConf>().headers, headers)
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
        Some(Content::Metrics) => {
            location.set_content(Metrics);
            return Ok(());
        }
        Some(Content::Api { at }) => return add_api(location, &at.clone()),
        Some(Content::Purge { cache, at }) => {
            let (name, key) = (cache.clone(), conf.key.clone());
            if !b.state::<Specs>().0.iter().any(|it| it.name == name) {
                return Err(ConfError::at(at, format!("unknown tiered cache \"{name}\"")));
            }
            if let Some(cache) = registry::prepare(b)?.find(name.as_bytes()).cloned() {
                location.set_content(Purge { cache, name, key });
            }
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
    let headers = conf.headers.clone().unwrap_or(Headers::Always);
    let purge_method = conf.purge_method.unwrap_or(false);
    // There is none while a configuration is only checked.
    if let Some(cache) = registry::prepare(b)?.find(name.as_bytes()).cloned() {
        let settings = Settings { cache, name, key, params, content_type, headers, purge_method };
        location.set_content(Pass(Arc::new(settings)));
    }
    Ok(())
}

/// What comes behind the location's path names the cache, so that it must be a prefix.
fn add_api(location: &mut LocationBuilder, at: &Position) -> Result<(), ConfError> {
    if location.name.first() != Some(&b'/') {
        return Err(ConfError::at(at, "\"tiered_cache_api\" needs a location that is a path"));
    }
    let path = location.name.strip_suffix(b"/").unwrap_or(&location.name).to_vec();
    location.set_content(Api { path });
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
    if !r.settings::<PassConf>().is_some_and(passes) {
        return false;
    }
    if let Some(told) = r.state::<Told>() {
        let value = if field == LEVEL { told.level.unwrap_or_default() } else { &told.time_us };
        out.extend_from_slice(value);
        return !value.is_empty();
    }
    r.headers_out.with(field, |value| out.extend_from_slice(value)).is_some()
}

/// What a response does not say about its lookup, for variables.
struct Told {
    level: Option<&'static [u8]>,
    time_us: Bytes,
}

struct Settings {
    cache: Cache,
    name: Arc<str>,
    key: Value,
    params: Vec<(Arc<str>, Value)>,
    content_type: Bytes,
    headers: Headers,
    purge_method: bool,
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
        let settings = &self.0;
        if !matches!(&r.method()[..], b"GET" | b"HEAD") {
            return settings.other_method(r);
        }
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

    fn other_method(&self, r: &Rc<Request>) -> Step {
        if self.purge_method && &r.method()[..] == b"PURGE" {
            let change = with_key(&self.key, r, |key| (!key.is_empty()).then(|| Change::drop_key(key)));
            return match change {
                Some(change) => purge(r, &self.cache, &self.name, change),
                None => refuse(r, Refusal::EmptyKey),
            };
        }
        let allow: &[u8] = if self.purge_method { b"GET, HEAD, PURGE" } else { b"GET, HEAD" };
        r.headers_out.set(&b"Allow"[..], allow);
        refuse(r, Refusal::Method)
    }

    fn shows_headers(&self, r: &Request) -> bool {
        match &self.headers {
            Headers::Always => true,
            Headers::Never => false,
            Headers::If(value) => query::is_on(&value.eval_bytes(r)),
        }
    }

    fn answer(&self, r: &Rc<Request>, answer: Answer, started: Instant) -> Step {
        let level: &'static [u8] = match (&answer.value, answer.level) {
            (None, Level::L1) => b"negative",
            (_, level) => level.as_str().as_bytes(),
        };
        let control = match answer.ttl_ms {
            0 => Bytes::from_static(b"no-store"),
            ms => numbers::max_age(ms / 1000),
        };
        let shows = self.shows_headers(r);
        if !shows {
            r.put_state(Rc::new(Told { level: Some(level), time_us: elapsed_us(started) }));
        }
        r.headers_out.edit(|fields| {
            fields.reserve(4);
            if shows {
                fields.push(own_field(LEVEL, Bytes::from_static(level)));
                fields.push(own_field(TIME_US, elapsed_us(started)));
            }
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
        if self.shows_headers(r) {
            r.headers_out.edit(|fields| fields.push(own_field(TIME_US, elapsed_us(started))));
        } else {
            r.put_state(Rc::new(Told { level: None, time_us: elapsed_us(started) }));
        }
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
