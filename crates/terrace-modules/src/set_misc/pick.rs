//! Functions that choose: random numbers and texts, counting round, an upstream by hash.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rustc_hash::FxHashMap;
use terrace_base::log::Level;
use terrace_http::Request;

use crate::rewrite::VarFunction;

/// The longest random text.
const RANDOM_BYTES_MAX: usize = 64;
const LOWER: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";
const ALPHANUM: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// A number without a sign, as nginx reads one.
fn number(text: &[u8]) -> Option<i64> {
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn argument(r: &Request, directive: &str, name: &str, text: &[u8]) -> Option<i64> {
    let number = number(text);
    if number.is_none() {
        let text = String::from_utf8_lossy(text);
        r.log(Level::Error, format_args!("{directive}: bad \"{name}\" argument value: \"{text}\""));
    }
    number
}

/// The range that two arguments span, in either order.
fn range(r: &Request, directive: &str, from: &[u8], to: &[u8]) -> Option<(i64, i64)> {
    let from = argument(r, directive, "from", from)?;
    let to = argument(r, directive, "to", to)?;
    Some((from.min(to), from.max(to)))
}

fn put(number: i64, out: &mut Vec<u8>) -> bool {
    out.extend_from_slice(number.to_string().as_bytes());
    true
}

/// `set_random`.
pub(super) struct Random;

impl VarFunction for Random {
    fn call(&self, r: &Request, args: &[Vec<u8>], out: &mut Vec<u8>) -> bool {
        let [from, to] = args else { return false };
        let Some((least, most)) = range(r, "set_random", from, to) else { return false };
        let mut random = [0; 8];
        if getrandom::fill(&mut random).is_err() {
            r.log(Level::Error, format_args!("set_random: the system gives no random numbers"));
            return false;
        }
        // The ends are not negative, so that the count of numbers fits.
        let count = most.abs_diff(least).saturating_add(1);
        put(least.saturating_add_unsigned(u64::from_ne_bytes(random) % count), out)
    }
}

/// `set_secure_random_alphanum`
pub(super) fn random_alphanum(r: &Request, length: &[u8], out: &mut Vec<u8>) -> bool {
    random_text(r, length, ALPHANUM, out)
}

/// `set_secure_random_lcalpha`
pub(super) fn random_lcalpha(r: &Request, length: &[u8], out: &mut Vec<u8>) -> bool {
    random_text(r, length, LOWER, out)
}

fn random_text(r: &Request, length: &[u8], alphabet: &[u8], out: &mut Vec<u8>) -> bool {
    let len = number(length).and_then(|n| usize::try_from(n).ok());
    let Some(len) = len.filter(|n| (1..=RANDOM_BYTES_MAX).contains(n)) else {
        let length = String::from_utf8_lossy(length);
        r.log(Level::Error, format_args!("set_random: bad \"length\" argument: {length}"));
        return false;
    };
    // Bytes that would make some letters likelier than others are drawn again.
    let fair = 256 - 256 % alphabet.len();
    let mut drawn = [0; 2 * RANDOM_BYTES_MAX];
    let end = out.len() + len;
    while out.len() < end {
        if getrandom::fill(&mut drawn).is_err() {
            r.log(Level::Error, format_args!("set_secure_random: the system gives no random numbers"));
            return false;
        }
        let letters = drawn.iter().map(|b| usize::from(*b)).filter(|b| *b < fair);
        out.extend(letters.take(end - out.len()).map(|b| alphabet[b % alphabet.len()]));
    }
    true
}

/// `set_rotate`. Keeps its last value for requests whose variable has none.
#[derive(Default)]
pub(super) struct Rotate {
    /// One more than the last value; 0 before there was any.
    last: AtomicI64,
}

impl VarFunction for Rotate {
    fn call(&self, r: &Request, args: &[Vec<u8>], out: &mut Vec<u8>) -> bool {
        let [current, from, to] = args else { return false };
        let Some((least, most)) = range(r, "set_rotate", from, to) else { return false };
        let given = number(current).filter(|_| !current.is_empty());
        if given.is_none() && !current.is_empty() {
            let current = String::from_utf8_lossy(current);
            r.log(Level::Error, format_args!("set_rotate: bad current value: \"{current}\""));
        }
        let after = |next: i64| if (least..=most).contains(&next) { next } else { least };
        let mut value = least;
        let step = |last: i64| {
            value = match given {
                Some(given) => after(given.saturating_add(1)),
                None if last == 0 => least,
                None => after(last),
            };
            Some(value.saturating_add(1))
        };
        // The step never refuses.
        let _ = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        put(value, out)
    }
}

/// The lists of `upstream_list`.
type Named = FxHashMap<Bytes, Vec<Bytes>>;

/// The lists while the configuration is read; complete, all functions share them.
#[derive(Default)]
pub(super) struct Lists {
    named: Named,
    shared: Arc<OnceLock<Named>>,
}

impl Lists {
    /// False when there is a list of this name.
    pub(super) fn add(&mut self, name: Bytes, names: Vec<Bytes>) -> bool {
        self.named.insert(name, names).is_none()
    }

    pub(super) fn has(&self, name: &[u8]) -> bool {
        self.named.contains_key(name)
    }

    pub(super) fn shared(&self) -> Arc<OnceLock<Named>> {
        Arc::clone(&self.shared)
    }

    pub(super) fn complete(&mut self) {
        // Set once a configuration, here.
        let _ = self.shared.set(std::mem::take(&mut self.named));
    }
}

/// `set_hashed_upstream`
pub(super) struct Hashed(pub(super) Arc<OnceLock<Named>>);

impl VarFunction for Hashed {
    fn call(&self, r: &Request, args: &[Vec<u8>], out: &mut Vec<u8>) -> bool {
        let [name, key] = args else { return false };
        let Some(names) = self.0.get().and_then(|lists| lists.get(name.as_slice())) else {
            let name = String::from_utf8_lossy(name);
            let text = format_args!("set_hashed_upstream: upstream list \"{name}\" not defined yet");
            r.log(Level::Error, text);
            return false;
        };
        // nginx's hash of names, so that keys go where they went.
        let hash = key
            .iter()
            .fold(0_u32, |hash, b| hash.wrapping_mul(31).wrapping_add(u32::from(b.to_ascii_lowercase())));
        if let Some(chosen) = names.get(hash as usize % names.len()) {
            out.extend_from_slice(chosen);
        }
        true
    }
}
