//! One shard: a hash table of indices into a slab of entries, chained into an LRU list by index.
//!
//! Knows no lock, no budget and no operation semantics. Each entry owns one allocation with its key followed by
//! its string value. Invariant: an entry is in the table if and only if it is on the LRU list; all other slots
//! are on the free list.

use std::collections::VecDeque;

use hashbrown::HashTable;

use crate::Value;

/// What an entry is charged beyond its key and value: its slab slot, table slot and allocation headers.
pub const ENTRY_OVERHEAD_BYTES: usize = 96;
/// What an item of a list is charged beyond its value.
pub const LIST_ITEM_OVERHEAD_BYTES: usize = 40;
/// What a boolean or a number is charged as a value.
pub const SCALAR_BYTES: usize = 8;

/// How many entries from the LRU end are looked at for an expired one before a valid one is evicted.
pub(crate) const PRESSURE_SCAN_ENTRIES: usize = 4;

const NIL: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) enum ListItem {
    Number(f64),
    String(Box<[u8]>),
}

impl ListItem {
    pub(crate) fn charge_bytes(&self) -> usize {
        LIST_ITEM_OVERHEAD_BYTES
            + match self {
                Self::Number(_) => SCALAR_BYTES,
                Self::String(bytes) => bytes.len(),
            }
    }
}

/// A list with the sum of its items' charges.
#[derive(Debug, Default)]
pub(crate) struct List {
    pub(crate) items: VecDeque<ListItem>,
    pub(crate) charge_bytes: usize,
}

#[derive(Debug)]
pub(crate) enum Payload {
    Vacant,
    Boolean(bool),
    Number(f64),
    /// The bytes of the entry's allocation after its key.
    String,
    List(Box<List>),
}

#[derive(Debug)]
pub(crate) struct Entry {
    hash: u64,
    bytes: Box<[u8]>,
    /// Absolute; 0 means never.
    pub(crate) expires_ms: u64,
    prev: u32,
    next: u32,
    pub(crate) flags: u32,
    key_len: u16,
    pub(crate) payload: Payload,
}

impl Entry {
    pub(crate) fn key(&self) -> &[u8] {
        &self.bytes[..usize::from(self.key_len)]
    }

    pub(crate) fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_ms != 0 && self.expires_ms <= now_ms
    }

    /// The value, unless it is a list.
    pub(crate) fn value(&self) -> Option<Value<'_>> {
        match self.payload {
            Payload::Boolean(boolean) => Some(Value::Boolean(boolean)),
            Payload::Number(number) => Some(Value::Number(number)),
            Payload::String => Some(Value::String(&self.bytes[usize::from(self.key_len)..])),
            Payload::List(_) | Payload::Vacant => None,
        }
    }

    /// Overwrites the value where that takes neither memory nor a new charge.
    pub(crate) fn overwrite(&mut self, value: Value<'_>) -> bool {
        match (&self.payload, value) {
            (Payload::Boolean(_) | Payload::Number(_), Value::Boolean(boolean)) => {
                self.payload = Payload::Boolean(boolean);
            }
            (Payload::Boolean(_) | Payload::Number(_), Value::Number(number)) => {
                self.payload = Payload::Number(number);
            }
            (Payload::String, Value::String(string)) => {
                let old = &mut self.bytes[usize::from(self.key_len)..];
                if old.len() != string.len() {
                    return false;
                }
                old.copy_from_slice(string);
            }
            _ => return false,
        }
        true
    }

    pub(crate) fn charge_bytes(&self) -> usize {
        ENTRY_OVERHEAD_BYTES
            + self.bytes.len()
            + match &self.payload {
                Payload::Boolean(_) | Payload::Number(_) => SCALAR_BYTES,
                Payload::String | Payload::Vacant => 0,
                Payload::List(list) => list.charge_bytes,
            }
    }
}

/// What an entry with this key and value is charged.
pub(crate) fn entry_charge_bytes(key: &[u8], value: Value<'_>) -> usize {
    ENTRY_OVERHEAD_BYTES
        + key.len()
        + match value {
            Value::Boolean(_) | Value::Number(_) => SCALAR_BYTES,
            Value::String(string) => string.len(),
        }
}

/// What may be removed to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reclaim {
    ExpiredOnly,
    Any,
}

/// An entry that was removed to make room.
#[derive(Debug)]
pub(crate) struct Reclaimed {
    pub(crate) bytes: usize,
    pub(crate) expired: bool,
}

#[derive(Debug)]
pub(crate) struct Shard {
    table: HashTable<u32>,
    slots: Vec<Entry>,
    free: u32,
    /// Most recently used.
    head: u32,
    /// Least recently used.
    tail: u32,
}

impl Shard {
    pub(crate) fn new() -> Self {
        Self { table: HashTable::new(), slots: Vec::new(), free: NIL, head: NIL, tail: NIL }
    }

    #[inline]
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        self.table
            .find(hash, |index| {
                let entry = &self.slots[*index as usize];
                entry.hash == hash && entry.key() == key
            })
            .copied()
    }

    pub(crate) fn entry(&self, index: u32) -> &Entry {
        &self.slots[index as usize]
    }

    pub(crate) fn entry_mut(&mut self, index: u32) -> &mut Entry {
        &mut self.slots[index as usize]
    }

    /// Inserts as the most recently used. The key must not be present.
    pub(crate) fn insert(
        &mut self,
        hash: u64,
        key: &[u8],
        value: NewValue<'_>,
        expires_ms: u64,
        flags: u32,
    ) -> u32 {
        debug_assert!(self.find(hash, key).is_none(), "duplicate key");
        let (payload, tail): (Payload, &[u8]) = match value {
            NewValue::Plain(Value::Boolean(boolean)) => (Payload::Boolean(boolean), &[]),
            NewValue::Plain(Value::Number(number)) => (Payload::Number(number), &[]),
            NewValue::Plain(Value::String(string)) => (Payload::String, string),
            NewValue::List(list) => (Payload::List(Box::new(list)), &[]),
        };
        let mut bytes = Vec::with_capacity(key.len() + tail.len());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(tail);
        // A checked key fits; the mask only keeps an unchecked one from lying about its length.
        debug_assert!(key.len() <= crate::KEY_BYTES_MAX);
        let key_len = key.len().min(crate::KEY_BYTES_MAX) as u16;
        let entry = Entry {
            hash,
            bytes: bytes.into_boxed_slice(),
            expires_ms,
            prev: NIL,
            next: NIL,
            flags,
            key_len,
            payload,
        };
        let index = self.place(entry);
        self.link_head(index);
        let slots = &self.slots;
        self.table.insert_unique(hash, index, |index| slots[*index as usize].hash);
        index
    }

    /// Removes an entry and returns its charge and payload.
    pub(crate) fn remove(&mut self, index: u32) -> (usize, Payload) {
        self.unlink(index);
        let hash = self.slots[index as usize].hash;
        if let Ok(occupied) = self.table.find_entry(hash, |other| *other == index) {
            occupied.remove();
        }
        let free = self.free;
        let entry = &mut self.slots[index as usize];
        let bytes = entry.charge_bytes();
        entry.bytes = Box::default();
        entry.next = free;
        let payload = std::mem::replace(&mut entry.payload, Payload::Vacant);
        self.free = index;
        (bytes, payload)
    }

    /// Makes an entry the most recently used.
    #[inline]
    pub(crate) fn promote(&mut self, index: u32) {
        if self.head != index {
            self.unlink(index);
            self.link_head(index);
        }
    }

    /// Removes the least recently used entry if it has expired; returns its charge.
    #[inline]
    pub(crate) fn remove_expired_tail(&mut self, now_ms: u64) -> Option<usize> {
        let tail = self.tail;
        if tail == NIL || !self.entry(tail).is_expired(now_ms) {
            return None;
        }
        Some(self.remove(tail).0)
    }

    /// Removes one entry to make room: an expired one near the LRU end, else (if allowed) the last one.
    pub(crate) fn reclaim_one(&mut self, now_ms: u64, reclaim: Reclaim) -> Option<Reclaimed> {
        let expired =
            self.oldest().take(PRESSURE_SCAN_ENTRIES).find(|index| self.entry(*index).is_expired(now_ms));
        let index = match (expired, reclaim) {
            (Some(index), _) => index,
            (None, Reclaim::Any) if self.tail != NIL => self.tail,
            _ => return None,
        };
        Some(Reclaimed { bytes: self.remove(index).0, expired: expired.is_some() })
    }

    /// All entries, least recently used first.
    pub(crate) fn oldest(&self) -> impl Iterator<Item = u32> + '_ {
        let start = Some(self.tail).filter(|index| *index != NIL);
        std::iter::successors(start, |index| {
            Some(self.slots[*index as usize].prev).filter(|prev| *prev != NIL)
        })
    }

    /// The entry used just after `index`, for walks from the LRU end that remove as they go.
    pub(crate) fn newer(&self, index: u32) -> Option<u32> {
        Some(self.slots[index as usize].prev).filter(|prev| *prev != NIL)
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Panics if the links, the table, the free list and the slots disagree; returns the charged bytes.
    pub(crate) fn check_invariants(&self) -> usize {
        let mut seen = vec![false; self.slots.len()];
        let mut bytes = 0;
        let mut expected_next = NIL;
        for index in self.oldest() {
            let entry = self.entry(index);
            assert!(!std::mem::replace(&mut seen[index as usize], true), "LRU list visits {index} twice");
            assert_eq!(entry.next, expected_next, "broken back link at {index}");
            assert!(!matches!(entry.payload, Payload::Vacant), "vacant slot {index} on the LRU list");
            assert_eq!(self.find(entry.hash, entry.key()), Some(index), "slot {index} not in the table");
            if let Payload::List(list) = &entry.payload {
                assert!(!list.items.is_empty(), "empty list kept at {index}");
                let items: usize = list.items.iter().map(ListItem::charge_bytes).sum();
                assert_eq!(items, list.charge_bytes, "wrong charge of the list at {index}");
            }
            bytes += entry.charge_bytes();
            expected_next = index;
        }
        assert_eq!(self.head, expected_next, "head is not the last entry of the list");
        let live = seen.iter().filter(|seen| **seen).count();
        assert_eq!(live, self.table.len(), "table and LRU list differ in length");
        let mut free = self.free;
        let mut vacant = 0;
        while free != NIL {
            assert!(matches!(self.entry(free).payload, Payload::Vacant), "live slot {free} on the free list");
            vacant += 1;
            free = self.entry(free).next;
        }
        assert_eq!(live + vacant, self.slots.len(), "a slot is on no list");
        bytes
    }

    fn place(&mut self, entry: Entry) -> u32 {
        if self.free != NIL {
            let index = self.free;
            self.free = self.slots[index as usize].next;
            self.slots[index as usize] = entry;
            return index;
        }
        // The dictionary's capacity bound keeps the number of slots far below the index space.
        let index = self.slots.len() as u32;
        debug_assert!(self.slots.len() < NIL as usize);
        self.slots.push(entry);
        index
    }

    fn link_head(&mut self, index: u32) {
        let old = self.head;
        let entry = &mut self.slots[index as usize];
        entry.prev = NIL;
        entry.next = old;
        match old {
            NIL => self.tail = index,
            old => self.slots[old as usize].prev = index,
        }
        self.head = index;
    }

    fn unlink(&mut self, index: u32) {
        let (prev, next) = {
            let entry = &self.slots[index as usize];
            (entry.prev, entry.next)
        };
        match prev {
            NIL => self.head = next,
            prev => self.slots[prev as usize].next = next,
        }
        match next {
            NIL => self.tail = prev,
            next => self.slots[next as usize].prev = prev,
        }
    }
}

/// What a new entry holds.
pub(crate) enum NewValue<'a> {
    Plain(Value<'a>),
    List(List),
}
