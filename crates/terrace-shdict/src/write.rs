//! The writing operations: set, add, replace, their safe forms, delete and incr.
//!
//! A write that finds no room in its own shard lets go of the lock, makes room elsewhere, and starts over with
//! the reserved bytes in hand: what it decided before may no longer hold.

use crate::budget::Reservation;
use crate::dict::{Dict, expires_ms};
use crate::shard::{NewValue, Reclaim, Shard, entry_charge_bytes};
use crate::{Error, Value, check_key};

/// Which store operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Store unconditionally; evict if need be.
    Set,
    /// Store unconditionally, never evicting a valid entry.
    SafeSet,
    /// Store if there is no live entry; evict if need be.
    Add,
    /// Store if there is no live entry, never evicting a valid entry.
    SafeAdd,
    /// Store if there is a live entry; evict if need be.
    Replace,
}

impl Operation {
    fn reclaim(self) -> Reclaim {
        match self {
            Self::SafeSet | Self::SafeAdd => Reclaim::ExpiredOnly,
            Self::Set | Self::Add | Self::Replace => Reclaim::Any,
        }
    }
}

/// A successful store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Valid entries were evicted to make room.
    pub forcible: bool,
}

/// A successful `incr`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Incremented {
    /// The new value.
    pub value: f64,
    /// Valid entries were evicted to make room.
    pub forcible: bool,
}

/// What a write decided under the lock.
enum Step<'v, R> {
    Done(R),
    Insert { value: Value<'v>, flags: u32, result: R },
}

impl Dict {
    /// Stores a value, live for `ttl_ms` (0 = for ever), with user flags; `None` deletes. An existing entry
    /// that is to be replaced is gone even if the new value finds no memory, as in OpenResty.
    ///
    /// # Errors
    /// [`Error::NoMemory`], [`Error::Exists`] (add), [`Error::NotFound`] (replace), [`Error::NilValue`] (add and
    /// replace), or the key is empty or too long.
    pub fn store(
        &self,
        operation: Operation,
        key: &[u8],
        value: Option<Value<'_>>,
        ttl_ms: u64,
        flags: u32,
        now_ms: u64,
    ) -> Result<Stored, Error> {
        let Some(value) = value else {
            return match operation {
                Operation::Set | Operation::SafeSet => self.delete(key, now_ms).map(|()| Stored::default()),
                Operation::Add | Operation::SafeAdd | Operation::Replace => Err(Error::NilValue),
            };
        };
        let mut replacing = false;
        let decide = |shard: &mut Shard, found: Option<u32>, live: bool| {
            match operation {
                Operation::Add | Operation::SafeAdd if live => return Err(Error::Exists),
                Operation::Replace if !live && !replacing => return Err(Error::NotFound),
                _ => {}
            }
            if let Some(index) = found {
                let entry = shard.entry_mut(index);
                if entry.overwrite(value) {
                    entry.flags = flags;
                    entry.expires_ms = expires_ms(ttl_ms, now_ms);
                    shard.promote(index);
                    return Ok(Step::Done(()));
                }
            }
            // A second round comes without the entry that the first one removed.
            replacing = true;
            Ok(Step::Insert { value, flags, result: () })
        };
        let ((), forcible) = self.write(key, ttl_ms, now_ms, operation.reclaim(), decide)?;
        Ok(Stored { forcible })
    }

    /// [`Dict::store`] with [`Operation::Set`].
    ///
    /// # Errors
    /// As [`Dict::store`].
    pub fn set(
        &self,
        key: &[u8],
        value: Value<'_>,
        ttl_ms: u64,
        flags: u32,
        now_ms: u64,
    ) -> Result<Stored, Error> {
        self.store(Operation::Set, key, Some(value), ttl_ms, flags, now_ms)
    }

    /// Removes an entry; that there is none is no error.
    ///
    /// # Errors
    /// The key is empty or too long.
    pub fn delete(&self, key: &[u8], now_ms: u64) -> Result<(), Error> {
        check_key(key)?;
        let hash = self.hash(key);
        let mut shard = self.lock(hash);
        self.drop_expired(&mut shard, now_ms);
        if let Some(index) = shard.find(hash, key) {
            self.budget.release(shard.remove(index).0);
        }
        Ok(())
    }

    /// Adds `delta` to a number. Without a live entry, `init` (if given) + `delta` is stored for
    /// `init_ttl_ms` (0 = for ever) with flags 0; a live entry keeps its flags and expiry.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotANumber`], [`Error::NoMemory`], or the key is empty or too long.
    pub fn incr(
        &self,
        key: &[u8],
        delta: f64,
        init: Option<f64>,
        init_ttl_ms: u64,
        now_ms: u64,
    ) -> Result<Incremented, Error> {
        let decide = |shard: &mut Shard, found: Option<u32>, live: bool| {
            if let Some(index) = found.filter(|_| live) {
                let entry = shard.entry_mut(index);
                let Some(Value::Number(number)) = entry.value() else { return Err(Error::NotANumber) };
                let sum = number + delta;
                entry.overwrite(Value::Number(sum));
                return Ok(Step::Done(sum));
            }
            let sum = init.ok_or(Error::NotFound)? + delta;
            Ok(Step::Insert { value: Value::Number(sum), flags: 0, result: sum })
        };
        let (value, forcible) = self.write(key, init_ttl_ms, now_ms, Reclaim::Any, decide)?;
        Ok(Incremented { value, forcible })
    }

    /// Runs one write to its end. `decide` sees the shard, the entry if any, and whether it is live.
    fn write<'v, R>(
        &self,
        key: &[u8],
        ttl_ms: u64,
        now_ms: u64,
        reclaim: Reclaim,
        mut decide: impl FnMut(&mut Shard, Option<u32>, bool) -> Result<Step<'v, R>, Error>,
    ) -> Result<(R, bool), Error> {
        check_key(key)?;
        let hash = self.hash(key);
        let mut forcible = false;
        let mut reserved: Option<Reservation<'_>> = None;
        loop {
            let mut shard = self.lock(hash);
            self.drop_expired(&mut shard, now_ms);
            let found = shard.find(hash, key);
            let live = found.is_some_and(|index| !shard.entry(index).is_expired(now_ms));
            if let Some(index) = found.filter(|_| live) {
                shard.promote(index);
            }
            let (value, flags, result) = match decide(&mut shard, found, live)? {
                Step::Done(result) => return Ok((result, forcible)),
                Step::Insert { value, flags, result } => (value, flags, result),
            };
            if let Some(index) = found {
                self.budget.release(shard.remove(index).0);
            }
            let bytes = entry_charge_bytes(key, value);
            let reservation = match reserved.take().filter(|reservation| reservation.bytes() >= bytes) {
                Some(reservation) => Some(reservation),
                None => self.reserve_in(&mut shard, bytes, now_ms, reclaim, &mut forcible),
            };
            if let Some(reservation) = reservation {
                shard.insert(hash, key, NewValue::Plain(value), expires_ms(ttl_ms, now_ms), flags);
                reservation.commit(bytes);
                return Ok((result, forcible));
            }
            drop(shard);
            reserved = self.reserve_anywhere(hash, bytes, now_ms, reclaim, &mut forcible);
            if reserved.is_none() {
                self.budget.count_no_memory();
                return Err(Error::NoMemory);
            }
        }
    }
}
