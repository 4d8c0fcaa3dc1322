//! Lists: push and pop at both ends, and the length.
//!
//! A push never evicts a valid entry, as in OpenResty. Invariant: a list that becomes empty is removed.

use crate::budget::Reservation;
use crate::dict::Dict;
use crate::shard::{ENTRY_OVERHEAD_BYTES, List, ListItem, NewValue, Payload, Reclaim};
use crate::{Error, Value, check_key};

/// What a pop took off a list.
#[derive(Clone, Debug, PartialEq)]
pub enum Popped {
    /// A Lua number.
    Number(f64),
    /// A Lua string.
    String(Box<[u8]>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Left,
    Right,
}

impl Dict {
    /// Prepends a number or string, creating the list (without expiry) if there is no live entry; returns the
    /// new length.
    ///
    /// # Errors
    /// [`Error::ValueNotAList`], [`Error::BadValueType`] for a boolean, [`Error::NoMemory`], or the key is empty
    /// or too long.
    pub fn lpush(&self, key: &[u8], value: Value<'_>, now_ms: u64) -> Result<usize, Error> {
        self.push(End::Left, key, value, now_ms)
    }

    /// Appends; otherwise as [`Dict::lpush`].
    ///
    /// # Errors
    /// As [`Dict::lpush`].
    pub fn rpush(&self, key: &[u8], value: Value<'_>, now_ms: u64) -> Result<usize, Error> {
        self.push(End::Right, key, value, now_ms)
    }

    /// Removes and returns the first item; `None` if there is no live entry.
    ///
    /// # Errors
    /// [`Error::ValueNotAList`], or the key is empty or too long.
    pub fn lpop(&self, key: &[u8], now_ms: u64) -> Result<Option<Popped>, Error> {
        self.pop(End::Left, key, now_ms)
    }

    /// Removes and returns the last item; otherwise as [`Dict::lpop`].
    ///
    /// # Errors
    /// As [`Dict::lpop`].
    pub fn rpop(&self, key: &[u8], now_ms: u64) -> Result<Option<Popped>, Error> {
        self.pop(End::Right, key, now_ms)
    }

    /// The length of a list; 0 if there is no live entry.
    ///
    /// # Errors
    /// As [`Dict::lpop`].
    pub fn llen(&self, key: &[u8], now_ms: u64) -> Result<usize, Error> {
        check_key(key)?;
        let hash = self.hash(key);
        let mut shard = self.lock(hash);
        self.drop_expired(&mut shard, now_ms);
        let Some(index) = shard.find(hash, key) else { return Ok(0) };
        if shard.entry(index).is_expired(now_ms) {
            return Ok(0);
        }
        shard.promote(index);
        match &shard.entry(index).payload {
            Payload::List(list) => Ok(list.items.len()),
            _ => Err(Error::ValueNotAList),
        }
    }

    fn push(&self, end: End, key: &[u8], value: Value<'_>, now_ms: u64) -> Result<usize, Error> {
        check_key(key)?;
        let item = match value {
            Value::Boolean(_) => return Err(Error::BadValueType),
            Value::Number(number) => ListItem::Number(number),
            Value::String(string) => ListItem::String(Box::from(string)),
        };
        let item_bytes = item.charge_bytes();
        let hash = self.hash(key);
        let mut reserved: Option<Reservation<'_>> = None;
        loop {
            let mut shard = self.lock(hash);
            self.drop_expired(&mut shard, now_ms);
            let mut found = shard.find(hash, key);
            if let Some(index) = found.filter(|index| shard.entry(*index).is_expired(now_ms)) {
                self.budget.release(shard.remove(index).0);
                found = None;
            }
            if let Some(index) = found {
                shard.promote(index);
                if !matches!(shard.entry(index).payload, Payload::List(_)) {
                    return Err(Error::ValueNotAList);
                }
            }
            let bytes = match found {
                Some(_) => item_bytes,
                None => ENTRY_OVERHEAD_BYTES + key.len() + item_bytes,
            };
            let mut forcible = false;
            let reservation = match reserved.take() {
                // A list that vanished in between needs more than was reserved for an item.
                Some(reservation) if reservation.bytes() >= bytes => Some(reservation),
                _ => self.reserve_in(&mut shard, bytes, now_ms, Reclaim::ExpiredOnly, &mut forcible),
            };
            if let Some(reservation) = reservation {
                let index =
                    found.unwrap_or_else(|| shard.insert(hash, key, NewValue::List(List::default()), 0, 0));
                reservation.commit(bytes);
                let Payload::List(list) = &mut shard.entry_mut(index).payload else {
                    return Err(Error::ValueNotAList);
                };
                match end {
                    End::Left => list.items.push_front(item),
                    End::Right => list.items.push_back(item),
                }
                list.charge_bytes += item_bytes;
                return Ok(list.items.len());
            }
            drop(shard);
            reserved = self.reserve_anywhere(hash, bytes, now_ms, Reclaim::ExpiredOnly, &mut forcible);
            if reserved.is_none() {
                self.budget.count_no_memory();
                return Err(Error::NoMemory);
            }
        }
    }

    fn pop(&self, end: End, key: &[u8], now_ms: u64) -> Result<Option<Popped>, Error> {
        check_key(key)?;
        let hash = self.hash(key);
        let mut shard = self.lock(hash);
        self.drop_expired(&mut shard, now_ms);
        let Some(index) = shard.find(hash, key) else { return Ok(None) };
        if shard.entry(index).is_expired(now_ms) {
            return Ok(None);
        }
        shard.promote(index);
        let Payload::List(list) = &mut shard.entry_mut(index).payload else {
            return Err(Error::ValueNotAList);
        };
        let item = match end {
            End::Left => list.items.pop_front(),
            End::Right => list.items.pop_back(),
        };
        let emptied = list.items.is_empty();
        if let Some(item) = &item {
            list.charge_bytes -= item.charge_bytes();
            self.budget.release(item.charge_bytes());
        }
        if emptied {
            self.budget.release(shard.remove(index).0);
        }
        Ok(item.map(|item| match item {
            ListItem::Number(number) => Popped::Number(number),
            ListItem::String(string) => Popped::String(string),
        }))
    }
}
