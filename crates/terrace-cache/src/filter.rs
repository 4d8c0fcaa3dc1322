//! A filter of the keys that exist (Bloom, "Space/time trade-offs in hash coding with allowable errors", 1970), so that
//! lookups of keys that were never there reach neither L2 nor the source.
//!
//! Invariant: no false negatives. Keys are only added; to forget deleted ones the filter is built anew, and while that
//! goes on, keys that are added reach the old and the new one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

/// The largest filter: 512 MiB.
pub const FILTER_BITS_MAX: u64 = 1 << 32;

/// Fixed, because two filters of one cache must agree with themselves only.
const SEEDS: [u64; 4] = [0x7465_7272, 0x6163_6520, 0x6669_6c74, 0x6572];

/// The bits of one generation of keys.
struct Bits {
    words: Box<[AtomicU64]>,
    hashes: u32,
    hasher: ahash::RandomState,
}

impl Bits {
    /// Dimensioned by Bloom's formulae: `-ln(p) / ln(2)^2` bits for a key, `bits / keys * ln(2)` hashes.
    fn new(keys: u64, false_positives: f64) -> Self {
        let share = false_positives.clamp(1e-6, 0.5);
        let bits_per_key = -share.ln() / std::f64::consts::LN_2.powi(2);
        let bits = (keys.max(64) as f64 * bits_per_key).min(FILTER_BITS_MAX as f64) as u64;
        let hashes = (bits_per_key * std::f64::consts::LN_2).round().clamp(1.0, 20.0) as u32;
        let [a, b, c, d] = SEEDS;
        Self {
            words: (0..bits.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            hashes,
            hasher: ahash::RandomState::with_seeds(a, b, c, d),
        }
    }

    fn add(&self, key: &[u8]) {
        for (word, bit) in self.places(key) {
            self.words[word].fetch_or(bit, Ordering::Relaxed);
        }
    }

    fn has(&self, key: &[u8]) -> bool {
        self.places(key).all(|(word, bit)| self.words[word].load(Ordering::Relaxed) & bit != 0)
    }

    /// Two halves of one hash give all places (Kirsch and Mitzenmacher, "Less hashing, same performance", 2006).
    fn places(&self, key: &[u8]) -> impl Iterator<Item = (usize, u64)> {
        let hash = self.hasher.hash_one(key);
        let (first, step) = (hash, hash.rotate_left(32) | 1);
        let bits = self.words.len() as u64 * 64;
        (0..u64::from(self.hashes)).map(move |n| {
            let at = first.wrapping_add(n.wrapping_mul(step)) % bits;
            ((at / 64) as usize, 1 << (at % 64))
        })
    }
}

/// The filter of a cache; lets everything pass until it was built.
#[derive(Default)]
pub(crate) struct KeyFilter {
    on: AtomicBool,
    bits: RwLock<Filters>,
}

#[derive(Default)]
struct Filters {
    current: Option<Arc<Bits>>,
    next: Option<Arc<Bits>>,
}

impl KeyFilter {
    pub(crate) fn may_exist(&self, key: &[u8]) -> bool {
        !self.on.load(Ordering::Acquire) || self.bits.read().current.as_ref().is_none_or(|bits| bits.has(key))
    }

    pub(crate) fn add(&self, key: &[u8]) {
        let filters = self.bits.read();
        filters.current.iter().chain(&filters.next).for_each(|bits| bits.add(key));
    }

    fn begin(&self, bits: Arc<Bits>) {
        self.bits.write().next = Some(bits);
    }

    /// Puts the new bits in place, unless another build has begun since.
    fn finish(&self, bits: &Arc<Bits>) -> bool {
        let mut filters = self.bits.write();
        if !filters.next.as_ref().is_some_and(|next| Arc::ptr_eq(next, bits)) {
            return false;
        }
        filters.current = filters.next.take();
        self.on.store(true, Ordering::Release);
        true
    }

    fn give_up(&self, bits: &Arc<Bits>) {
        let mut filters = self.bits.write();
        if filters.next.as_ref().is_some_and(|next| Arc::ptr_eq(next, bits)) {
            filters.next = None;
        }
    }

    pub(crate) fn switch_off(&self) {
        self.on.store(false, Ordering::Release);
        *self.bits.write() = Filters::default();
    }
}

/// A filter being built. The old one stays in use until [`FilterBuild::finish`]; dropped before, it stays for good.
#[must_use = "a filter that is not finished is not used"]
pub struct FilterBuild {
    cache: crate::Cache,
    bits: Arc<Bits>,
}

impl FilterBuild {
    /// Adds a key that exists.
    pub fn add(&self, key: &[u8]) {
        self.bits.add(key);
    }

    /// Puts the filter in place. False if another build has begun since this one; then this one is lost.
    pub fn finish(self) -> bool {
        self.cache.inner.filter.finish(&self.bits)
    }
}

impl Drop for FilterBuild {
    fn drop(&mut self) {
        self.cache.inner.filter.give_up(&self.bits);
    }
}

impl crate::Cache {
    /// Begins a filter of existing keys, for about `keys` of them and this share of absent keys that pass all the same
    /// (0.01 is one in a hundred). Every key that exists must be added before it is finished; keys that are filled or set
    /// meanwhile, here or by a node whose notices are heard, are added by the cache.
    pub fn build_filter(&self, keys: u64, false_positives: f64) -> FilterBuild {
        let bits = Arc::new(Bits::new(keys, false_positives));
        self.inner.filter.begin(bits.clone());
        FilterBuild { cache: self.clone(), bits }
    }

    /// Adds a key that exists from now on.
    pub fn filter_add(&self, key: &[u8]) {
        self.inner.filter.add(key);
    }

    /// Lets lookups of all keys pass again.
    pub fn drop_filter(&self) {
        self.inner.filter.switch_off();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_known_and_few_others_are() {
        let bits = Bits::new(10_000, 0.01);
        (0..10_000u32).for_each(|key| bits.add(&key.to_le_bytes()));
        assert!((0..10_000u32).all(|key| bits.has(&key.to_le_bytes())));
        let wrong = (10_000..60_000u32).filter(|key| bits.has(&key.to_le_bytes())).count();
        assert!(wrong < 1_000, "{wrong} of 50 000 absent keys pass");
    }

    #[test]
    fn keys_added_during_a_build_are_in_the_new_filter() {
        let filter = KeyFilter::default();
        assert!(filter.may_exist(b"a"), "without a filter all pass");
        let first = Arc::new(Bits::new(100, 0.001));
        filter.begin(first.clone());
        filter.add(b"a");
        assert!(filter.may_exist(b"b"), "not in place yet");
        assert!(filter.finish(&first));
        assert!(filter.may_exist(b"a") && !filter.may_exist(b"b"));
        let (lost, second) = (Arc::new(Bits::new(100, 0.001)), Arc::new(Bits::new(100, 0.001)));
        filter.begin(lost.clone());
        filter.begin(second.clone());
        filter.add(b"c");
        assert!(!filter.finish(&lost) && filter.finish(&second));
        assert!(filter.may_exist(b"c") && !filter.may_exist(b"a"));
    }
}
