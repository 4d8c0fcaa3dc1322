//! Tiered caches for scripts (module `terrace.cache`): hits are answered at once, waits for another's load are awaited,
//! and the right to load is a token that the script's run holds while its loader runs.
//!
//! Invariant: tokens lie in the host of the run that got them, so that a run which is dropped (its client is gone)
//! lets go of its loads, and a waiter takes over.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::smallvec;
use terrace_base::clock::monotonic_ms;
use terrace_cache::{
    Answer, Begin, BeginWait, Cache, CacheError, Effect, Filled, L2Error, Level, LoadError, LoadToken,
    Loaded, Lookup, OnChange, Param, Params, Scope, SetOptions, TAGS_MAX, Version, Woken, version,
};
use terrace_lua::{Value, Values, pending};
use terrace_modules::tiered_cache::Caches;

use crate::ffi::{AWAIT, DONE, FAILED, NO_REQUEST, NOT_FOUND, Text, bytes, fail, functions};
use crate::host::current;

functions! {
    "void *(*cache_open)(const char *, size_t)" => cache_open,
    "void *(*cache_of_dictionary)(const char *, size_t, double)" => cache_of_dictionary,
    "void (*cache_close)(void *)" => cache_close,
    "int (*cache_begin)(void *, const char *, size_t, void *)" => cache_begin,
    "int (*cache_param)(const char *, size_t, const char *, size_t)" => cache_param,
    "int (*cache_lookup)(void *, const char *, size_t, void *)" => cache_lookup,
    "int (*cache_bulk_key)(const char *, size_t)" => cache_bulk_key,
    "int (*cache_bulk_lookup)(void *)" => cache_bulk_lookup,
    "int (*cache_tag)(const char *, size_t)" => cache_tag,
    "int (*cache_complete)(double, int, const char *, size_t, double, const char *, size_t)" => cache_complete,
    "int (*cache_fail)(double, const char *, size_t, void *)" => cache_fail,
    "double (*cache_park)(double)" => cache_park,
    "double (*cache_unpark)(double)" => cache_unpark,
    "int (*cache_ready)(double, void *)" => cache_ready,
    "int (*cache_peek)(void *, const char *, size_t, void *)" => cache_peek,
    "int (*cache_set)(void *, const char *, size_t, int, const char *, size_t, double, const char *, size_t)" => cache_set,
    "int (*cache_delete)(void *, const char *, size_t)" => cache_delete,
    "int (*cache_invalidate)(void *, int, const char *, size_t, const char *, size_t, int, void *)" => cache_invalidate,
}

/// The caller loads; the token's number is in `Out`.
const LOAD: c_int = 2;
/// An answer is in `Out`, and the number of its refresh, for [`cache_ready`].
const REFRESH: c_int = 3;

/// More tokens cannot be parked on a thread; a token more is refused, and its load runs at once.
const PARKED_MAX: usize = 1024;
/// A lookup takes no more parameters.
const PARAMS_MAX: usize = 64;
/// A lookup of many takes no more keys; `cache.lua` asks in as many parts as it needs.
const BULK_MAX: usize = 300;
/// A version that is neither a number nor a time.
const BAD_VERSION: c_int = 4;

/// What [`cache_invalidate`] is told: which values are meant.
const PREFIX: c_int = 1;
const TAG: c_int = 2;

/// What a call gives back beside its code. `cache.lua` declares the same.
#[repr(C)]
struct Out {
    text: Text,
    /// 0 for an absence that was remembered.
    has_value: c_int,
    /// 1 for memory, 2 for the shared level, 3 for a load, 4 for stale.
    level: c_int,
    /// Milliseconds of fresh life that remain.
    ttl_ms: f64,
    /// The number of a token, or how many values were dropped.
    token: f64,
}

/// What a run may do about a key.
enum Load {
    /// Load it.
    Now(LoadToken),
    /// Load it if the wait says so.
    Perhaps(BeginWait),
}

/// The loads that a run has begun, by numbers from 1.
#[derive(Default)]
pub struct Loads(RefCell<Vec<Option<Load>>>);

impl Loads {
    fn put(&self, load: Load) -> f64 {
        let mut loads = self.0.borrow_mut();
        if let Some(free) = loads.iter().position(Option::is_none) {
            loads[free] = Some(load);
            return (free + 1) as f64;
        }
        loads.push(Some(load));
        loads.len() as f64
    }

    fn take(&self, number: f64) -> Option<Load> {
        let index = (number as usize).checked_sub(1)?;
        self.0.borrow_mut().get_mut(index)?.take()
    }
}

thread_local! {
    /// The value that `Out` points at.
    static SHOWN: Cell<Bytes> = const { Cell::new(Bytes::new()) };
    /// The parameters of the lookup that comes next.
    static PARAMS: RefCell<Params> = RefCell::new(Params::new());
    /// The keys of the lookup of many that comes next.
    static BULK: RefCell<Vec<(Bytes, Params)>> = const { RefCell::new(Vec::new()) };
    /// The tags of the value that is stored next.
    static TAGS: RefCell<Vec<Arc<str>>> = const { RefCell::new(Vec::new()) };
    /// Tokens on their way from a request to the timer that loads in its stead.
    static PARKED: Loads = Loads::default();
}

fn loads() -> Option<Rc<Loads>> {
    current(|h| Rc::clone(h.loads.get_or_init(Rc::default)))
}

fn take(number: f64) -> Option<LoadToken> {
    match loads()?.take(number)? {
        Load::Now(token) => Some(token),
        Load::Perhaps(_) => None,
    }
}

/// # Safety
/// `cache` is null or from [`cache_open`] and not yet closed.
unsafe fn cache_at<'a>(cache: *const Cache) -> Option<&'a Cache> {
    // SAFETY: the caller's promise.
    unsafe { cache.as_ref() }
}

/// # Safety
/// `out` is null or points at an [`Out`] of the caller that nothing else uses during the call.
unsafe fn out_at<'a>(out: *mut Out) -> Option<&'a mut Out> {
    // SAFETY: the caller's promise.
    unsafe { out.as_mut() }
}

impl Out {
    fn answer(&mut self, answer: Answer) {
        self.has_value = c_int::from(answer.value.is_some());
        self.level = c_int::from(answer.level.hit_level());
        self.ttl_ms = answer.ttl_ms as f64;
        let value = answer.value.unwrap_or_default();
        self.text = Text::of(&value);
        SHOWN.set(value);
    }

    fn error(&mut self, error: &CacheError) -> c_int {
        // SAFETY: the text is a field of this object.
        unsafe { fail(&mut self.text, &error.to_string()) }
    }
}

/// What a wait gives Lua: the code, then the value or nil and the level, or the token, or the error.
fn awaited(answer: Result<Answer, CacheError>) -> Values {
    match answer {
        Ok(Answer { value, level, .. }) => {
            let value = value.map_or(Value::Nil, Value::String);
            smallvec![Value::from(f64::from(DONE)), value, Value::from(f64::from(level.hit_level()))]
        }
        Err(e) => smallvec![Value::from(f64::from(FAILED)), Value::from(e.to_string())],
    }
}

/// What the end of a wait gives Lua: as [`awaited`], or the code and number of a load.
fn woken(loads: &Loads, woken: Woken) -> Values {
    match woken {
        Woken::Answer(answer) => awaited(Ok(answer)),
        Woken::Failed(error) => awaited(Err(error)),
        Woken::Load(token) => {
            smallvec![Value::from(f64::from(LOAD)), Value::from(loads.put(Load::Now(token)))]
        }
    }
}

/// A change's code for Lua, and a number in `out` if it has one; with a level that the fleet shares, an await that gives
/// both, or the error.
fn effect<T: 'static>(
    effect: Effect<T>,
    out: Option<&mut Out>,
    code: impl Fn(&T) -> (c_int, f64) + 'static,
) -> c_int {
    let later = match effect {
        Effect::Now(outcome) => {
            let (code, count) = code(&outcome);
            if let Some(out) = out {
                out.token = count;
            }
            return code;
        }
        Effect::Later(later) => later,
    };
    pending::set(Box::pin(async move {
        match later.await {
            Ok(outcome) => {
                let (code, count) = code(&outcome);
                smallvec![Value::from(f64::from(code)), Value::from(count)]
            }
            Err(e) => {
                let e: L2Error = e;
                smallvec![Value::from(f64::from(FAILED)), Value::from(e.to_string())]
            }
        }
    }));
    AWAIT
}

/// The version that a text names; zero for an empty one, none if it makes no sense.
fn version_of(text: &[u8]) -> Option<Version> {
    if text.is_empty() {
        return Some(0);
    }
    std::str::from_utf8(text).ok().and_then(version::from_text)
}

/// A cache of the configuration; null if there is none of this name.
extern "C" fn cache_open(name: *const u8, len: usize) -> *mut Cache {
    // SAFETY: a Lua string.
    let name = unsafe { bytes(name, len) };
    let caches = current(|h| h.request.generation().shared::<Caches>()).flatten();
    let cache = caches.and_then(|it| it.find(name).cloned());
    cache.map_or(std::ptr::null_mut(), |it| Box::into_raw(Box::new(it)))
}

/// The cache that has the size of a dictionary and its name, and lives as long as the process; null without a request.
extern "C" fn cache_of_dictionary(name: *const u8, len: usize, size_bytes: f64) -> *mut Cache {
    // SAFETY: a Lua string.
    let name = String::from_utf8_lossy(unsafe { bytes(name, len) });
    let caches = current(|h| h.request.generation().shared::<Caches>()).flatten();
    let cache = caches.and_then(|it| it.of_dictionary(&name, size_bytes as u64));
    cache.map_or(std::ptr::null_mut(), |it| Box::into_raw(Box::new(it)))
}

extern "C" fn cache_close(cache: *mut Cache) {
    if !cache.is_null() {
        // SAFETY: from `cache_open`, given back once, by Lua's collector.
        drop(unsafe { Box::from_raw(cache) });
    }
}

/// Looks a key up for a script that can load it.
extern "C" fn cache_begin(cache: *const Cache, key: *const u8, len: usize, out: *mut Out) -> c_int {
    // SAFETY: a cache that Lua holds, a Lua string, an `Out` of `cache.lua`.
    let (Some(cache), key, Some(out)) = (unsafe { (cache_at(cache), bytes(key, len), out_at(out)) }) else {
        return NOT_FOUND;
    };
    let Some(loads) = loads() else { return NO_REQUEST };
    match cache.begin(key, monotonic_ms()) {
        Begin::Hit(answer) => {
            out.answer(answer);
            DONE
        }
        Begin::Refresh(answer, wait) => {
            out.answer(answer);
            out.token = loads.put(Load::Perhaps(wait));
            REFRESH
        }
        Begin::Load(token) => {
            out.token = loads.put(Load::Now(token));
            LOAD
        }
        Begin::Wait(wait) => {
            pending::set(Box::pin(async move { woken(&loads, wait.await) }));
            AWAIT
        }
        Begin::Failed(error) => out.error(&error),
    }
}

/// Adds a parameter for the next [`cache_lookup`].
extern "C" fn cache_param(name: *const u8, name_len: usize, value: *const u8, len: usize) -> c_int {
    // SAFETY: Lua strings.
    let (name, value) = unsafe { (bytes(name, name_len), bytes(value, len)) };
    let param = Param::new(&*String::from_utf8_lossy(name), Bytes::copy_from_slice(value));
    PARAMS.with_borrow_mut(|params| {
        if params.len() >= PARAMS_MAX {
            params.clear();
            return FAILED;
        }
        params.push(param);
        DONE
    })
}

/// Looks a key up; the cache's own source loads it.
extern "C" fn cache_lookup(cache: *const Cache, key: *const u8, len: usize, out: *mut Out) -> c_int {
    let params = PARAMS.take();
    // SAFETY: a cache that Lua holds, a Lua string, an `Out` of `cache.lua`.
    let (Some(cache), key, Some(out)) = (unsafe { (cache_at(cache), bytes(key, len), out_at(out)) }) else {
        return NOT_FOUND;
    };
    match cache.lookup(key, monotonic_ms(), || params) {
        Lookup::Hit(answer) => {
            out.answer(answer);
            DONE
        }
        Lookup::Wait(wait) => {
            pending::set(Box::pin(async move { awaited(wait.await) }));
            AWAIT
        }
        Lookup::Failed(error) => out.error(&error),
    }
}

/// Adds a key, with the parameters given just before, for the next [`cache_bulk_lookup`].
extern "C" fn cache_bulk_key(key: *const u8, len: usize) -> c_int {
    let params = PARAMS.take();
    // SAFETY: a Lua string.
    let key = Bytes::copy_from_slice(unsafe { bytes(key, len) });
    BULK.with_borrow_mut(|bulk| {
        if bulk.len() >= BULK_MAX {
            bulk.clear();
            return FAILED;
        }
        bulk.push((key, params));
        DONE
    })
}

/// Looks the keys up; the cache's own source loads those that no level has. Lua awaits three values for each key: the code,
/// the value or nil (or the error), the level.
extern "C" fn cache_bulk_lookup(cache: *const Cache) -> c_int {
    let bulk = BULK.take();
    // SAFETY: a cache that Lua holds.
    let Some(cache) = (unsafe { cache_at(cache) }).cloned() else { return NOT_FOUND };
    pending::set(Box::pin(async move {
        let keys: Vec<Bytes> = bulk.iter().map(|(key, _)| key.clone()).collect();
        let params = |key: &[u8]| {
            let given = bulk.iter().find(|(it, _)| it == key);
            given.map(|(_, params)| params.clone()).unwrap_or_default()
        };
        let answers = cache.lookup_many(&keys, monotonic_ms(), params).await;
        let three = |answer| {
            let mut values = awaited(answer);
            values.resize_with(3, || Value::Nil);
            values
        };
        answers.into_iter().flat_map(three).collect()
    }));
    AWAIT
}

/// Adds a tag for the value that is stored next; beyond [`TAGS_MAX`] they are ignored.
extern "C" fn cache_tag(tag: *const u8, len: usize) -> c_int {
    // SAFETY: a Lua string.
    let tag = String::from_utf8_lossy(unsafe { bytes(tag, len) });
    TAGS.with_borrow_mut(|tags| {
        if tags.len() < TAGS_MAX {
            tags.push((*tag).into());
        }
    });
    DONE
}

fn ttl(ttl_ms: f64) -> Option<u64> {
    (ttl_ms >= 0.0).then_some(ttl_ms.ceil() as u64)
}

/// Ends a load: with a value and the tags given just before, or without one for an absence. A `ttl_ms` below 0 leaves the
/// life to the cache. The load goes on if the version makes no sense.
extern "C" fn cache_complete(
    token: f64,
    has_value: c_int,
    value: *const u8,
    len: usize,
    ttl_ms: f64,
    version: *const u8,
    version_len: usize,
) -> c_int {
    let tags = TAGS.take();
    // SAFETY: Lua strings, or null.
    let (value, version) = unsafe { (bytes(value, len), bytes(version, version_len)) };
    let Some(version) = version_of(version) else { return BAD_VERSION };
    let Some(token) = take(token) else { return NOT_FOUND };
    let ttl_ms = ttl(ttl_ms);
    // The loader's own answer is what it gives us here.
    let _ = token.complete(match has_value {
        0 => Loaded::NotFound { ttl_ms },
        _ => Loaded::Found { value: Bytes::copy_from_slice(value), ttl_ms, version, tags },
    });
    DONE
}

/// Ends a load without a value; what stands in for it is in `out`, else the error.
extern "C" fn cache_fail(token: f64, message: *const u8, len: usize, out: *mut Out) -> c_int {
    // SAFETY: a Lua string and an `Out` of `cache.lua`.
    let (message, Some(out)) = (unsafe { (bytes(message, len), out_at(out)) }) else { return NOT_FOUND };
    let Some(token) = take(token) else { return NOT_FOUND };
    let message: Arc<str> = String::from_utf8_lossy(message).into();
    match token.fail(LoadError::Unavailable(message)) {
        Ok(answer) => {
            out.answer(answer);
            DONE
        }
        Err(error) => out.error(&error),
    }
}

/// Takes a token from its run, so that a timer can load; 0 if that cannot be. Should the timer never come, the cache's
/// `load_timeout` ends the load.
extern "C" fn cache_park(token: f64) -> f64 {
    let full = PARKED.with(|it| it.0.borrow().iter().flatten().count() >= PARKED_MAX);
    if full {
        return 0.0;
    }
    let load = loads().and_then(|it| it.take(token));
    load.map_or(0.0, |load| PARKED.with(|it| it.put(load)))
}

/// Gives a parked token to the run under way; 0 if there is none.
extern "C" fn cache_unpark(parked: f64) -> f64 {
    let Some(loads) = loads() else { return 0.0 };
    PARKED.with(|it| it.take(parked)).map_or(0.0, |load| loads.put(load))
}

/// Whether a refresh is to load: the token's number is in `out` then. `DONE` if there is nothing to load.
extern "C" fn cache_ready(number: f64, out: *mut Out) -> c_int {
    // SAFETY: an `Out` of `cache.lua`.
    let (Some(loads), Some(out)) = (loads(), unsafe { out_at(out) }) else { return NO_REQUEST };
    let outcome = match loads.take(number) {
        None => return NOT_FOUND,
        Some(Load::Now(token)) => Ok(Woken::Load(token)),
        Some(Load::Perhaps(wait)) => wait.try_now(),
    };
    match outcome {
        Ok(Woken::Load(token)) => {
            out.token = loads.put(Load::Now(token));
            LOAD
        }
        Ok(Woken::Answer(_) | Woken::Failed(_)) => DONE,
        Err(wait) => {
            pending::set(Box::pin(async move { woken(&loads, wait.await) }));
            AWAIT
        }
    }
}

/// What memory holds, fresh or stale; nothing is loaded.
extern "C" fn cache_peek(cache: *const Cache, key: *const u8, len: usize, out: *mut Out) -> c_int {
    // SAFETY: a cache that Lua holds, a Lua string, an `Out` of `cache.lua`.
    let (Some(cache), key, Some(out)) = (unsafe { (cache_at(cache), bytes(key, len), out_at(out)) }) else {
        return NOT_FOUND;
    };
    match cache.peek(key, monotonic_ms()) {
        Some(answer) => {
            let level = if answer.ttl_ms == 0 { Level::Stale } else { Level::L1 };
            out.answer(Answer { level, ..answer });
            DONE
        }
        None => NOT_FOUND,
    }
}

/// Stores a value with the tags given just before. `NOT_FOUND` if a newer version is known.
extern "C" fn cache_set(
    cache: *const Cache,
    key: *const u8,
    len: usize,
    has_value: c_int,
    value: *const u8,
    value_len: usize,
    ttl_ms: f64,
    version: *const u8,
    version_len: usize,
) -> c_int {
    let tags = TAGS.take();
    // SAFETY: a cache that Lua holds, Lua strings (or null).
    let (cache, key, value) = unsafe { (cache_at(cache), bytes(key, len), bytes(value, value_len)) };
    // SAFETY: a Lua string, or null.
    let version = unsafe { bytes(version, version_len) };
    let (Some(cache), Some(version)) = (cache, version_of(version)) else { return BAD_VERSION };
    let value = (has_value != 0).then(|| Bytes::copy_from_slice(value));
    let options = SetOptions { ttl_ms: ttl(ttl_ms), version, tags };
    let code = |filled: &Filled| (if *filled == Filled::Stored { DONE } else { NOT_FOUND }, 0.0);
    effect(cache.set_with(key, value, options, monotonic_ms()), None, code)
}

/// `DONE` if there was a value, `NOT_FOUND` else.
extern "C" fn cache_delete(cache: *const Cache, key: *const u8, len: usize) -> c_int {
    // SAFETY: a cache that Lua holds and a Lua string.
    let (Some(cache), key) = (unsafe { (cache_at(cache), bytes(key, len)) }) else { return NOT_FOUND };
    effect(cache.delete(key), None, |had| (if *had { DONE } else { NOT_FOUND }, 0.0))
}

/// Tells of a change of a key, of those with a prefix (all with the empty one) or with a tag; how many values were dropped is
/// in `out`, or awaited behind the code.
extern "C" fn cache_invalidate(
    cache: *const Cache,
    which: c_int,
    text: *const u8,
    len: usize,
    version: *const u8,
    version_len: usize,
    refresh: c_int,
    out: *mut Out,
) -> c_int {
    // SAFETY: a cache that Lua holds, Lua strings (or null), an `Out` of `cache.lua`.
    let (cache, text, version) = unsafe { (cache_at(cache), bytes(text, len), bytes(version, version_len)) };
    let (Some(cache), Some(version)) = (cache, version_of(version)) else { return BAD_VERSION };
    let scope = match which {
        PREFIX => Scope::Prefix(Bytes::copy_from_slice(text)),
        TAG => Scope::Tag((*String::from_utf8_lossy(text)).into()),
        _ => Scope::Key(Bytes::copy_from_slice(text)),
    };
    let how = if refresh == 0 { OnChange::Drop } else { OnChange::Refresh };
    // SAFETY: an `Out` of `cache.lua`.
    let out = unsafe { out_at(out) };
    effect(cache.invalidate(scope, version, how), out, |count| (DONE, *count as f64))
}
