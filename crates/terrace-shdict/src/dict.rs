//! The dictionary: shards behind locks, reads, expiry and enumeration. Writes are in `write`, lists in `list`.
//!
//! Each operation first drops up to two expired entries from the LRU end of its shard, as lua-nginx-module
//! does, so that a dictionary of short-lived entries does not fill with dead ones.

use ahash::RandomState;
use parking_lot::{Mutex, MutexGuard};

use crate::budget::{Budget, Reservation, Stats};
use crate::shard::{Reclaim, Shard};
use crate::{Error, Item, Value, check_key};

/// How many keys `get_keys` returns when the script names no number.
pub const KEYS_DEFAULT_MAX: usize = 1024;

/// Below this capacity a dictionary has one shard, and its LRU order is exact.
const SHARDED_FROM_BYTES: usize = 4 << 20;
const SHARD_BYTES: usize = 1 << 20;
const SHARDS_MAX: usize = 64;
/// Keeps the slots of one shard within 32-bit indices.
const CAPACITY_BYTES_MAX: usize = 256 << 30;

/// Expired entries dropped from the LRU end by each operation.
const EXPIRED_PER_OPERATION: usize = 2;
/// Entries removed from one foreign shard before the next one is asked.
const EVICTION_BATCH: usize = 8;
/// Times all shards are asked for room before a write gives up; more than one only under contention or for
/// values that displace many small ones.
const EVICTION_ROUNDS_MAX: usize = 1 << 16;

/// What a read copied out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fetched {
    /// The value; a string's bytes are in the caller's buffer.
    pub value: FetchedValue,
    /// The user flags (default 0).
    pub flags: u32,
    /// Whether the entry had expired; only a stale read can see `true`.
    pub stale: bool,
}

/// The value of a [`Fetched`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum FetchedValue {
    /// A Lua boolean.
    Boolean(bool),
    /// A Lua number.
    Number(f64),
    /// A Lua string, in the buffer that was given.
    String,
}

// Neighbouring locks must not share a cache line; 128 because x86 prefetches lines in pairs.
#[repr(align(128))]
#[derive(Debug)]
struct Cell(Mutex<Shard>);

/// A dictionary shared by all worker threads.
#[derive(Debug)]
pub struct Dict {
    pub(crate) budget: Budget,
    hasher: RandomState,
    shards: Box<[Cell]>,
}

impl Dict {
    /// An empty dictionary of `capacity_bytes`, counting keys, values and a fixed overhead per entry (at most
    /// 256 GiB, more is taken as that). `seed` keys the hash and should differ between processes.
    pub fn new(capacity_bytes: usize, seed: u64) -> Self {
        let capacity_bytes = capacity_bytes.min(CAPACITY_BYTES_MAX);
        let shards = if capacity_bytes < SHARDED_FROM_BYTES {
            1
        } else {
            (capacity_bytes / SHARD_BYTES).next_power_of_two().min(SHARDS_MAX)
        };
        Self {
            budget: Budget::new(capacity_bytes),
            hasher: RandomState::with_seeds(seed, seed.rotate_left(17), !seed, seed.rotate_left(41)),
            shards: (0..shards).map(|_| Cell(Mutex::new(Shard::new()))).collect(),
        }
    }

    /// Reads a live entry in place, under its shard's lock: `read` must be short and must not use this
    /// dictionary. `None` if there is no live entry.
    ///
    /// # Errors
    /// [`Error::ValueIsAList`], or the key is empty or too long.
    pub fn get_with<R>(
        &self,
        key: &[u8],
        now_ms: u64,
        read: impl FnOnce(Item<'_>) -> R,
    ) -> Result<Option<R>, Error> {
        check_key(key)?;
        let hash = self.hash(key);
        let mut shard = self.lock(hash);
        self.drop_expired(&mut shard, now_ms);
        let Some(index) = shard.find(hash, key) else { return Ok(None) };
        if shard.entry(index).is_expired(now_ms) {
            return Ok(None);
        }
        shard.promote(index);
        let entry = shard.entry(index);
        let value = entry.value().ok_or(Error::ValueIsAList)?;
        Ok(Some(read(Item { value, flags: entry.flags, stale: false })))
    }

    /// As [`Dict::get_with`], but an expired entry that still lies in memory is read too, and nothing is
    /// reclaimed.
    ///
    /// # Errors
    /// As [`Dict::get_with`].
    pub fn get_stale_with<R>(
        &self,
        key: &[u8],
        now_ms: u64,
        read: impl FnOnce(Item<'_>) -> R,
    ) -> Result<Option<R>, Error> {
        check_key(key)?;
        let hash = self.hash(key);
        let mut shard = self.lock(hash);
        let Some(index) = shard.find(hash, key) else { return Ok(None) };
        let stale = shard.entry(index).is_expired(now_ms);
        if !stale {
            shard.promote(index);
        }
        let entry = shard.entry(index);
        let value = entry.value().ok_or(Error::ValueIsAList)?;
        Ok(Some(read(Item { value, flags: entry.flags, stale })))
    }

    /// Reads a live entry; a string replaces the contents of `out`.
    ///
    /// # Errors
    /// As [`Dict::get_with`].
    pub fn get(&self, key: &[u8], now_ms: u64, out: &mut Vec<u8>) -> Result<Option<Fetched>, Error> {
        self.get_with(key, now_ms, |item| fetch(item, out))
    }

    /// Reads an entry whether or not it has expired; a string replaces the contents of `out`.
    ///
    /// # Errors
    /// As [`Dict::get_with`].
    pub fn get_stale(&self, key: &[u8], now_ms: u64, out: &mut Vec<u8>) -> Result<Option<Fetched>, Error> {
        self.get_stale_with(key, now_ms, |item| fetch(item, out))
    }

    /// Milliseconds until the entry expires, `None` if it never does. Negative for one that has expired and
    /// was not reclaimed yet, as in OpenResty. Does not count as a use.
    ///
    /// # Errors
    /// [`Error::NotFound`], or the key is empty or too long.
    pub fn ttl(&self, key: &[u8], now_ms: u64) -> Result<Option<i64>, Error> {
        check_key(key)?;
        let hash = self.hash(key);
        let shard = self.lock(hash);
        let index = shard.find(hash, key).ok_or(Error::NotFound)?;
        Ok(match shard.entry(index).expires_ms {
            0 => None,
            expires_ms => Some(expires_ms.wrapping_sub(now_ms) as i64),
        })
    }

    /// Lets the entry expire `ttl_ms` from now, or never if 0. One that has expired and still lies in memory
    /// comes back to life, as in OpenResty. Does not count as a use.
    ///
    /// # Errors
    /// [`Error::NotFound`], or the key is empty or too long.
    pub fn expire(&self, key: &[u8], ttl_ms: u64, now_ms: u64) -> Result<(), Error> {
        check_key(key)?;
        let hash = self.hash(key);
        let mut shard = self.lock(hash);
        let index = shard.find(hash, key).ok_or(Error::NotFound)?;
        shard.entry_mut(index).expires_ms = expires_ms(ttl_ms, now_ms);
        Ok(())
    }

    /// Marks every entry as expired. Memory comes back as entries are reclaimed or by
    /// [`Dict::flush_expired`]; until then stale reads still see them.
    pub fn flush_all(&self, now_ms: u64) {
        for cell in &self.shards {
            let mut shard = cell.0.lock();
            let mut next = shard.oldest().next();
            while let Some(index) = next {
                next = shard.newer(index);
                shard.entry_mut(index).expires_ms = 1;
            }
            self.drop_expired(&mut shard, now_ms);
        }
    }

    /// Removes up to `max` expired entries (all if 0), least recently used first; returns how many.
    pub fn flush_expired(&self, max: usize, now_ms: u64) -> usize {
        let mut flushed = 0;
        for cell in &self.shards {
            let mut shard = cell.0.lock();
            let mut next = shard.oldest().next();
            while let Some(index) = next {
                next = shard.newer(index);
                if shard.entry(index).is_expired(now_ms) {
                    self.budget.release_reclaimed(shard.remove(index).0, true);
                    flushed += 1;
                    if flushed == max {
                        return flushed;
                    }
                }
            }
        }
        flushed
    }

    /// Up to `max` keys (all if 0) of live entries, least recently used first within a shard. Locks each
    /// shard in turn for as long as that takes.
    pub fn keys(&self, max: usize, now_ms: u64) -> Vec<Box<[u8]>> {
        let mut keys = Vec::new();
        for cell in &self.shards {
            let shard = cell.0.lock();
            let wanted = if max == 0 { usize::MAX } else { max - keys.len() };
            let live =
                shard.oldest().map(|index| shard.entry(index)).filter(|entry| !entry.is_expired(now_ms));
            keys.extend(live.take(wanted).map(|entry| Box::from(entry.key())));
            if keys.len() == max {
                break;
            }
        }
        keys
    }

    /// Entries that are in memory, expired ones included.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|cell| cell.0.lock().len()).sum()
    }

    /// Whether no entry is in memory.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The capacity in bytes.
    pub fn capacity_bytes(&self) -> usize {
        self.budget.capacity_bytes()
    }

    /// The bytes that are neither charged to an entry nor reserved by a write in flight.
    pub fn free_bytes(&self) -> usize {
        self.budget.capacity_bytes() - self.budget.used_bytes()
    }

    /// How often bounds were met.
    pub fn stats(&self) -> Stats {
        self.budget.stats()
    }

    /// Panics if a structure or the byte accounting is inconsistent; for tests, with no operation in flight.
    pub fn check_invariants(&self) {
        let charged: usize = self.shards.iter().map(|cell| cell.0.lock().check_invariants()).sum();
        assert_eq!(charged, self.budget.used_bytes(), "charged bytes and the budget differ");
        assert!(charged <= self.budget.capacity_bytes(), "over capacity");
    }

    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    pub(crate) fn lock(&self, hash: u64) -> MutexGuard<'_, Shard> {
        self.shards[self.shard_index(hash)].0.lock()
    }

    #[inline]
    pub(crate) fn drop_expired(&self, shard: &mut Shard, now_ms: u64) {
        for _ in 0..EXPIRED_PER_OPERATION {
            let Some(bytes) = shard.remove_expired_tail(now_ms) else { break };
            self.budget.release_reclaimed(bytes, true);
        }
    }

    /// Reserves `bytes`, making room in `shard` only. `forcible` is set when a valid entry had to go.
    pub(crate) fn reserve_in(
        &self,
        shard: &mut Shard,
        bytes: usize,
        now_ms: u64,
        reclaim: Reclaim,
        forcible: &mut bool,
    ) -> Option<Reservation<'_>> {
        if bytes > self.budget.capacity_bytes() {
            return None;
        }
        loop {
            if let Some(reservation) = self.budget.reserve(bytes) {
                return Some(reservation);
            }
            let reclaimed = shard.reclaim_one(now_ms, reclaim)?;
            self.budget.release_reclaimed(reclaimed.bytes, reclaimed.expired);
            *forcible |= !reclaimed.expired;
        }
    }

    /// Reserves `bytes`, making room in all shards in turn, beginning after the one of `hash`. The caller
    /// holds no lock.
    pub(crate) fn reserve_anywhere(
        &self,
        hash: u64,
        bytes: usize,
        now_ms: u64,
        reclaim: Reclaim,
        forcible: &mut bool,
    ) -> Option<Reservation<'_>> {
        if bytes > self.budget.capacity_bytes() || self.shards.len() == 1 {
            return None;
        }
        let own = self.shard_index(hash);
        for _ in 0..EVICTION_ROUNDS_MAX {
            let mut progress = false;
            for step in 1..=self.shards.len() {
                let mut shard = self.shards[(own + step) % self.shards.len()].0.lock();
                for _ in 0..EVICTION_BATCH {
                    if let Some(reservation) = self.budget.reserve(bytes) {
                        return Some(reservation);
                    }
                    let Some(reclaimed) = shard.reclaim_one(now_ms, reclaim) else { break };
                    self.budget.release_reclaimed(reclaimed.bytes, reclaimed.expired);
                    *forcible |= !reclaimed.expired;
                    progress = true;
                }
            }
            if !progress && reclaim == Reclaim::ExpiredOnly {
                break;
            }
        }
        self.budget.reserve(bytes)
    }

    fn shard_index(&self, hash: u64) -> usize {
        // The table takes its bucket from the low bits and its tag from the high ones.
        (hash >> 40) as usize & (self.shards.len() - 1)
    }
}

/// The absolute expiry for a time to live; 0 stays "never".
pub(crate) fn expires_ms(ttl_ms: u64, now_ms: u64) -> u64 {
    if ttl_ms == 0 { 0 } else { now_ms.saturating_add(ttl_ms) }
}

fn fetch(item: Item<'_>, out: &mut Vec<u8>) -> Fetched {
    let value = match item.value {
        Value::Boolean(boolean) => FetchedValue::Boolean(boolean),
        Value::Number(number) => FetchedValue::Number(number),
        Value::String(string) => {
            out.clear();
            out.extend_from_slice(string);
            FetchedValue::String
        }
    };
    Fetched { value, flags: item.flags, stale: item.stale }
}
