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
    Answer, Begin, BeginWait, Cache, CacheError, Effect, L2Error, Level, LoadError, LoadToken, Loaded,
    Lookup, Param, Params, Woken,
};
use terrace_lua::{Value, Values, pending};
use terrace_modules::tiered_cache::Caches;

use crate::ffi::{AWAIT, DONE, FAILED, NO_REQUEST, NOT_FOUND, Text, bytes, fail, functions};
use crate::host::current;

functions! {
    "void *(*cache_open)(const char *, size_t)" => cache_open,
    "void (*cache_close)(void *)" => cache_close,
    "int (*cache_begin)(void *, const char *, size_t, void *)" => cache_begin,
    "int (*cache_param)(const char *, size_t, const char *, size_t)" => cache_param,
    "int (*cache_lookup)(void *, const char *, size_t, void *)" => cache_lookup,
    "int (*cache_complete)(double, int, const char *, size_t, double)" => cache_complete,
    "int (*cache_fail)(double, const char *, size_t, void *)" => cache_fail,
    "double (*cache_park)(double)" => cache_park,
    "double (*cache_unpark)(double)" => cache_unpark,
    "int (*cache_ready)(double, void *)" => cache_ready,
    "int (*cache_peek)(void *, const char *, size_t, void *)" => cache_peek,
    "int (*cache_set)(void *, const char *, size_t, int, const char *, size_t, double)" => cache_set,
    "int (*cache_delete)(void *, const char *, size_t)" => cache_delete,
    "int (*cache_purge)(void *)" => cache_purge,
}

/// The caller loads; the token's number is in `Out`.
const LOAD: c_int = 2;
/// An answer is in `Out`, and the number of its refresh, for [`cache_ready`].
const REFRESH: c_int = 3;

/// More tokens cannot be parked on a thread; a token more is refused, and its load runs at once.
const PARKED_MAX: usize = 1024;
/// A lookup takes no more parameters.
const PARAMS_MAX: usize = 64;

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

/// A change's code for Lua; with a level that the fleet shares, an await that gives it and the error.
fn effect<T: 'static>(effect: Effect<T>, code: impl Fn(&T) -> c_int + 'static) -> c_int {
    let later = match effect {
        Effect::Now(outcome) => return code(&outcome),
        Effect::Later(later) => later,
    };
    pending::set(Box::pin(async move {
        match later.await {
            Ok(outcome) => smallvec![Value::from(f64::from(code(&outcome)))],
            Err(e) => {
                let e: L2Error = e;
                smallvec![Value::from(f64::from(FAILED)), Value::from(e.to_string())]
            }
        }
    }));
    AWAIT
}

/// A cache of the configuration; null if there is none of this name.
extern "C" fn cache_open(name: *const u8, len: usize) -> *mut Cache {
    // SAFETY: a Lua string.
    let name = unsafe { bytes(name, len) };
    let caches = current(|h| h.request.generation().shared::<Caches>()).flatten();
    let cache = caches.and_then(|it| it.find(name).cloned());
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

fn ttl(ttl_ms: f64) -> Option<u64> {
    (ttl_ms >= 0.0).then_some(ttl_ms.ceil() as u64)
}

/// Ends a load: with a value, or without one for an absence. A `ttl_ms` below 0 leaves the life to the cache.
extern "C" fn cache_complete(
    token: f64,
    has_value: c_int,
    value: *const u8,
    len: usize,
    ttl_ms: f64,
) -> c_int {
    // SAFETY: a Lua string, or null.
    let value = unsafe { bytes(value, len) };
    let Some(token) = take(token) else { return NOT_FOUND };
    let ttl_ms = ttl(ttl_ms);
    // The loader's own answer is what it gives us here.
    let _ = token.complete(match has_value {
        0 => Loaded::NotFound { ttl_ms },
        _ => Loaded::versioned(Bytes::copy_from_slice(value), ttl_ms, 0),
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

extern "C" fn cache_set(
    cache: *const Cache,
    key: *const u8,
    len: usize,
    has_value: c_int,
    value: *const u8,
    value_len: usize,
    ttl_ms: f64,
) -> c_int {
    // SAFETY: a cache that Lua holds, Lua strings (or null).
    let (cache, key, value) = unsafe { (cache_at(cache), bytes(key, len), bytes(value, value_len)) };
    let Some(cache) = cache else { return NOT_FOUND };
    let value = (has_value != 0).then(|| Bytes::copy_from_slice(value));
    effect(cache.set(key, value, ttl(ttl_ms), monotonic_ms()), |_| DONE)
}

/// `DONE` if there was a value, `NOT_FOUND` else.
extern "C" fn cache_delete(cache: *const Cache, key: *const u8, len: usize) -> c_int {
    // SAFETY: a cache that Lua holds and a Lua string.
    let (Some(cache), key) = (unsafe { (cache_at(cache), bytes(key, len)) }) else { return NOT_FOUND };
    effect(cache.delete(key), |had| if *had { DONE } else { NOT_FOUND })
}

extern "C" fn cache_purge(cache: *const Cache) -> c_int {
    // SAFETY: a cache that Lua holds.
    let Some(cache) = (unsafe { cache_at(cache) }) else { return NOT_FOUND };
    effect(cache.purge_all(), |_| DONE)
}
