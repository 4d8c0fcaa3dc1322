//! `tiered_cache_purge` and what else purges over HTTP: which values are meant, and the answer when L2 has it too.
//!
//! The methods are PURGE, POST and DELETE. What is meant is `key=`, `prefix=`, `tag=` or `all=1` of the arguments, else the
//! location's `tiered_cache_key`; `version=` spares values of that version and newer, `refresh=1` has values served as past
//! their life until they are renewed. The memory of this process is changed at once, whatever becomes of L2.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value as Json, json};
use terrace_base::log::Level as LogLevel;
use terrace_cache::{Cache, Effect, L2Error, OnChange, Scope, Version, version};
use terrace_http::{Handler, Outcome, Request, Step, Value};

use super::query::{arguments, is_on};

/// The handler of one location.
pub(super) struct Purge {
    pub(super) cache: Cache,
    pub(super) name: Arc<str>,
    /// What is meant where the arguments do not say.
    pub(super) key: Option<Value>,
}

impl Handler for Purge {
    fn handle(&self, r: &Rc<Request>) -> Step {
        if !matches!(&r.method()[..], b"PURGE" | b"POST" | b"DELETE") {
            r.headers_out.set(&b"Allow"[..], &b"PURGE, POST, DELETE"[..]);
            return refuse(r, 405, "method not allowed");
        }
        let asked = match Asked::read(&r.args()) {
            Ok(asked) => asked,
            Err(message) => return refuse(r, 400, message),
        };
        match asked.or_key(|| self.key.as_ref().map(|it| it.eval_bytes(r))) {
            Some(change) => purge(r, &self.cache, &self.name, change),
            None => refuse(r, 400, "no key, prefix, tag or all"),
        }
    }
}

/// A change that somebody tells of.
pub(super) struct Change {
    scope: Scope,
    version: Version,
    how: OnChange,
}

/// What arguments say of a change.
pub(super) struct Asked {
    scope: Option<Scope>,
    version: Version,
    how: OnChange,
}

impl Asked {
    /// Reads the arguments. Those it does not know are not for it.
    pub(super) fn read(query: &[u8]) -> Result<Asked, &'static str> {
        let mut asked = Asked { scope: None, version: 0, how: OnChange::Drop };
        for (name, value) in arguments(query) {
            let scope = match &name[..] {
                b"key" if value.is_empty() => return Err("the key is empty"),
                b"key" => Scope::Key(value.into()),
                b"prefix" if value.is_empty() => return Err("the prefix is empty"),
                b"prefix" => Scope::Prefix(value.into()),
                b"tag" if value.is_empty() => return Err("the tag is empty"),
                b"tag" => Scope::Tag(String::from_utf8(value).map_err(|_| "the tag is not UTF-8")?.into()),
                b"all" if is_on(&value) => Scope::Prefix(Bytes::new()),
                b"version" => {
                    let text = std::str::from_utf8(&value).ok();
                    asked.version = text
                        .and_then(version::from_text)
                        .ok_or("the version is neither a number nor a time")?;
                    continue;
                }
                b"refresh" => {
                    asked.how = if is_on(&value) { OnChange::Refresh } else { OnChange::Drop };
                    continue;
                }
                _ => continue,
            };
            if asked.scope.replace(scope).is_some() {
                return Err("more than one of key, prefix, tag and all");
            }
        }
        Ok(asked)
    }

    /// The change, of this key where the arguments do not say which; none if there is no key either.
    pub(super) fn or_key(self, key: impl FnOnce() -> Option<Bytes>) -> Option<Change> {
        let own = || key().filter(|it| !it.is_empty()).map(Scope::Key);
        let scope = self.scope.or_else(own)?;
        Some(Change { scope, version: self.version, how: self.how })
    }
}

impl Change {
    /// One key is dropped, whatever its version.
    pub(super) fn drop_key(key: &[u8]) -> Change {
        Change { scope: Scope::Key(Bytes::copy_from_slice(key)), version: 0, how: OnChange::Drop }
    }
}

/// Has the change take effect and answers when L2 has it: `{"purged":3}`, or null where the number is not known.
pub(super) fn purge(r: &Rc<Request>, cache: &Cache, name: &Arc<str>, change: Change) -> Step {
    let Change { scope, version, how } = change;
    let is_tag = matches!(scope, Scope::Tag(_));
    if let (Scope::Key(key), 0, OnChange::Drop) = (&scope, version, how) {
        return answered(r, name, cache.delete(key), |had| json!(u64::from(*had)));
    }
    let effect = cache.invalidate(scope, version, how);
    // Without an L2 the values of a tag are found when they are looked up.
    let is_unknown = is_tag && matches!(effect, Effect::Now(_));
    answered(r, name, effect, move |count| if is_unknown { Json::Null } else { json!(*count) })
}

fn answered<T: 'static>(
    r: &Rc<Request>,
    name: &Arc<str>,
    effect: Effect<T>,
    count: impl Fn(&T) -> Json + 'static,
) -> Step {
    match effect {
        Effect::Now(outcome) => respond(r, 200, &json!({ "purged": count(&outcome) })),
        Effect::Later(later) => {
            let (r, name) = (r.clone(), name.clone());
            Step::wait(async move {
                let step = match later.await {
                    Ok(outcome) => respond(&r, 200, &json!({ "purged": count(&outcome) })),
                    Err(error) => failed(&r, &name, &error),
                };
                step.get().await
            })
        }
    }
}

fn failed(r: &Rc<Request>, name: &str, error: &L2Error) -> Step {
    r.log(LogLevel::Error, format_args!("tiered cache \"{name}\": a purge did not reach L2: {error}"));
    let status = match error {
        L2Error::Refused(_) => 502,
        L2Error::Unavailable(_) | L2Error::Timeout(_) => 503,
    };
    respond(r, status, &json!({ "error": error.to_string(), "purged_here": true }))
}

/// Answers with a status and `{"error":…}`.
pub(super) fn refuse(r: &Rc<Request>, status: u16, message: &str) -> Step {
    respond(r, status, &json!({ "error": message }))
}

/// Answers with JSON that nobody shall keep.
pub(super) fn respond(r: &Rc<Request>, status: u16, body: &Json) -> Step {
    r.headers_out.status.set(status);
    r.headers_out.content_type.replace(Some(Bytes::from_static(b"application/json")));
    r.headers_out.set(&b"Cache-Control"[..], &b"no-store"[..]);
    let mut text = body.to_string();
    text.push('\n');
    r.respond(text.into()).map(|_| Outcome::Done)
}
