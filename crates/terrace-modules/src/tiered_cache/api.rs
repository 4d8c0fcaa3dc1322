//! `tiered_cache_api`: what an operator asks the caches of a running server, as JSON; `terrace cache` is its client.
//!
//! Below the location's own path:
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | the counters of all caches |
//! | `GET /NAME` | those of one |
//! | `GET /NAME/KEY`, `GET /NAME?key=KEY` | what memory holds, else L2; with `load=1&param.NAME=VALUE` what a reader gets |
//! | `DELETE /NAME/KEY`, `POST /NAME/purge?…` | as `tiered_cache_purge` |
//! | `POST /NAME/warm` | looks up the keys of its body, `[{"key":"7","params":{"id":"7"}}, …]` |

use std::rc::Rc;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value as Json, json};
use terrace_base::clock;
use terrace_cache::{Answer, Cache, CacheError, L2Error, Level, LoadError, Lookup, Param, Params, Stored};
use terrace_http::body::Stored as Body;
use terrace_http::{Handler, Request, Step};

use super::purge::{Asked, Change, purge, refuse, respond};
use super::query::{arguments, is_on};
use super::registry::{CacheEntry, Caches};
use super::status;

/// The most keys in one request to warm.
const WARM_KEYS_MAX: usize = 1_000;
/// The most keys that one request looks up at once, and how many it does unless it says.
const WARM_CONCURRENCY_MAX: usize = 256;
const WARM_CONCURRENCY: usize = 16;
/// How many errors of one request are told in words.
const ERRORS_TOLD_MAX: usize = 5;

/// The handler of one location.
pub(super) struct Api {
    /// The location's path, without a slash at its end.
    pub(super) path: Vec<u8>,
}

impl Handler for Api {
    fn handle(&self, r: &Rc<Request>) -> Step {
        let Some(caches) = r.generation().shared::<Caches>() else { return refuse(r, 404, "not found") };
        let uri = r.uri().to_vec();
        let Some(rest) = uri.strip_prefix(&self.path[..]) else { return refuse(r, 404, "not found") };
        let rest = rest.strip_prefix(b"/").unwrap_or(rest);
        let is_get = matches!(&r.method()[..], b"GET" | b"HEAD");
        if rest.is_empty() {
            return if is_get { respond(r, 200, &status::all(&caches)) } else { not_allowed(r, "GET, HEAD") };
        }
        let end = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
        let (name, key) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
        let Some(entry) = caches.entry(name) else { return refuse(r, 404, "unknown tiered cache") };
        match (&r.method()[..], key) {
            (b"GET" | b"HEAD", key) => get(r, &caches, entry, key),
            (b"POST", b"purge") => change(r, entry, None),
            (b"POST", b"warm") => warm(r, entry),
            (b"DELETE", b"") => change(r, entry, None),
            (b"DELETE", key) => change(r, entry, Some(Change::drop_key(key))),
            (b"POST", _) => refuse(r, 404, "not found"),
            _ => not_allowed(r, "GET, HEAD, POST, DELETE"),
        }
    }
}

fn not_allowed(r: &Rc<Request>, allow: &'static str) -> Step {
    r.headers_out.set(&b"Allow"[..], allow.as_bytes());
    refuse(r, 405, "method not allowed")
}

fn change(r: &Rc<Request>, entry: &CacheEntry, change: Option<Change>) -> Step {
    let asked = || Asked::read(&r.args()).map(|it| it.or_key(|| None));
    match change.map_or_else(asked, |it| Ok(Some(it))) {
        Ok(Some(change)) => purge(r, &entry.cache, &entry.name, change),
        Ok(None) => refuse(r, 400, "no key, prefix, tag or all"),
        Err(message) => refuse(r, 400, message),
    }
}

/// The counters, or one value.
fn get(r: &Rc<Request>, caches: &Caches, entry: &CacheEntry, key: &[u8]) -> Step {
    let (mut key, mut load, mut params) = (key.to_vec(), false, Params::new());
    for (name, value) in arguments(&r.args()) {
        match &name[..] {
            b"key" => key = value,
            b"load" => load = is_on(&value),
            name => {
                if let Some(name) = name.strip_prefix(b"param.") {
                    params.push(Param::new(&*String::from_utf8_lossy(name), value));
                }
            }
        }
    }
    if key.is_empty() {
        return respond(r, 200, &status::of(entry));
    }
    let told = Told { cache: entry.name.clone(), key: key.into() };
    let now_ms = clock::monotonic_ms();
    if load {
        return match entry.cache.lookup(&told.key, now_ms, || params) {
            Lookup::Hit(answer) => told.answer(r, &answer),
            Lookup::Failed(error) => told.fail(r, &error),
            Lookup::Wait(wait) => {
                let r = r.clone();
                Step::wait(async move {
                    let step = match wait.await {
                        Ok(answer) => told.answer(&r, &answer),
                        Err(error) => told.fail(&r, &error),
                    };
                    step.get().await
                })
            }
        };
    }
    if let Some(answer) = entry.cache.peek(&told.key, now_ms) {
        return told.answer(r, &answer);
    }
    let (Some(l2), Some(runtime)) = (entry.l2(), caches.runtime()) else { return told.nothing(r) };
    let key = told.key.clone();
    let peek = runtime.spawn(async move { l2.peek(vec![key]).await });
    let r = r.clone();
    Step::wait(async move {
        let lost = |_| Err(L2Error::Unavailable("the call was dropped".into()));
        let step = match peek.await.unwrap_or_else(lost).map(|mut it| it.pop().flatten()) {
            Ok(Some(stored)) => told.stored(&r, &stored),
            Ok(None) => told.nothing(&r),
            Err(error) => refuse(&r, 503, &error.to_string()),
        };
        step.get().await
    })
}

/// What an answer is about.
struct Told {
    cache: Arc<str>,
    key: Bytes,
}

impl Told {
    fn answer(&self, r: &Rc<Request>, answer: &Answer) -> Step {
        let mut body = self.head(if answer.value.is_some() { "value" } else { "absent" });
        body["level"] = answer.level.as_str().into();
        body["age_ms"] = answer.age_ms.into();
        body["ttl_ms"] = answer.ttl_ms.into();
        self.respond(r, body, answer.value.as_ref())
    }

    fn stored(&self, r: &Rc<Request>, stored: &Stored) -> Step {
        let mut body = self.head(if stored.value.is_some() { "value" } else { "absent" });
        body["level"] = Level::L2.as_str().into();
        body["age_ms"] = stored.age_ms.into();
        body["ttl_ms"] = stored.ttl_ms.saturating_sub(stored.age_ms).into();
        body["version"] = stored.version.into();
        body["tags"] = stored.tags.iter().map(|it| &**it).collect();
        self.respond(r, body, stored.value.as_ref())
    }

    fn nothing(&self, r: &Rc<Request>) -> Step {
        self.respond(r, self.head("none"), None)
    }

    fn fail(&self, r: &Rc<Request>, error: &CacheError) -> Step {
        let status = match error {
            CacheError::Load(LoadError::Request(_)) | CacheError::NoSource => 400,
            _ => 503,
        };
        refuse(r, status, &error.to_string())
    }

    fn head(&self, state: &str) -> Json {
        let mut body = json!({ "cache": &*self.cache });
        put_bytes(&mut body, "key", &self.key);
        body["state"] = state.into();
        body
    }

    fn respond(&self, r: &Rc<Request>, mut body: Json, value: Option<&Bytes>) -> Step {
        let Some(value) = value else { return respond(r, 404, &body) };
        put_bytes(&mut body, "value", value);
        respond(r, 200, &body)
    }
}

/// Text as it is; what is no text under another name, in Base64.
fn put_bytes(body: &mut Json, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => body[name] = text.into(),
        Err(_) => body[format!("{name}_base64")] = STANDARD.encode(bytes).into(),
    }
}

/// Looks keys up, so that the levels have them.
fn warm(r: &Rc<Request>, entry: &CacheEntry) -> Step {
    let cache = entry.cache.clone();
    // More at once than half of the loads that may run would take them from readers.
    let concurrency_max = WARM_CONCURRENCY_MAX.min(entry.policy.loads_max / 2).max(1);
    let r = r.clone();
    Step::wait(async move {
        if let Err(status) = r.read_body().get().await {
            return refuse(&r, status, "the body cannot be read").get().await;
        }
        let wanted = match body(&r).and_then(|it| wanted(&it)) {
            Ok(wanted) => wanted,
            Err(message) => return refuse(&r, 400, message).get().await,
        };
        let asked = arguments(&r.args()).find(|(name, _)| name == b"concurrency");
        let asked = asked.and_then(|(_, value)| String::from_utf8(value).ok()?.parse().ok());
        let at_once = asked.unwrap_or(WARM_CONCURRENCY).clamp(1, concurrency_max);
        let report = look_up(&cache, wanted, at_once).await;
        respond(&r, 200, &report).get().await
    })
}

fn body(r: &Request) -> Result<Vec<u8>, &'static str> {
    match &*r.body.stored().borrow() {
        Body::Empty => Ok(Vec::new()),
        Body::Memory(bytes) => Ok(bytes.clone()),
        Body::File(file) => std::fs::read(file.path()).map_err(|_| "the body cannot be read"),
    }
}

/// The keys of a body, with the parameters of their loads.
fn wanted(body: &[u8]) -> Result<Vec<(Bytes, Params)>, &'static str> {
    let body: Json = serde_json::from_slice(body).map_err(|_| "the body is not JSON")?;
    let items = body.as_array().ok_or("the body is no array")?;
    if items.len() > WARM_KEYS_MAX {
        return Err("more than 1000 keys");
    }
    items.iter().map(one_wanted).collect()
}

fn one_wanted(item: &Json) -> Result<(Bytes, Params), &'static str> {
    let key = item.get("key").and_then(text).filter(|it| !it.is_empty()).ok_or("an item has no key")?;
    let mut params = Params::new();
    if let Some(given) = item.get("params") {
        for (name, value) in given.as_object().ok_or("params is no object")? {
            params.push(Param::new(name.as_str(), text(value).ok_or("a parameter is no text")?));
        }
    }
    Ok((key.into(), params))
}

fn text(value: &Json) -> Option<String> {
    match value {
        Json::String(text) => Some(text.clone()),
        Json::Number(_) | Json::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Looks the keys up, so many at once, and counts what came.
async fn look_up(cache: &Cache, wanted: Vec<(Bytes, Params)>, at_once: usize) -> Json {
    let (mut values, mut absent, mut loaded, mut failed) = (0, 0, 0, 0);
    let mut errors = Vec::new();
    for part in wanted.chunks(at_once) {
        let keys: Vec<Bytes> = part.iter().map(|(key, _)| key.clone()).collect();
        let params =
            |key: &[u8]| part.iter().find(|(it, _)| it == key).map(|it| it.1.clone()).unwrap_or_default();
        let answers = cache.lookup_many(&keys, clock::monotonic_ms(), params).await;
        for (key, answer) in keys.iter().zip(answers) {
            match answer {
                Ok(Answer { value, level, .. }) => {
                    *(if value.is_some() { &mut values } else { &mut absent }) += 1;
                    loaded += u32::from(level == Level::Source);
                }
                Err(error) => {
                    failed += 1;
                    if errors.len() < ERRORS_TOLD_MAX {
                        errors.push(format!("{}: {error}", String::from_utf8_lossy(key)));
                    }
                }
            }
        }
    }
    json!({
        "keys": wanted.len(), "values": values, "absent": absent, "loaded": loaded, "failed": failed, "errors": errors,
    })
}
