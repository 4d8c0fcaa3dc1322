//! What an item of memcached holds: the key's state and its value; and what lookups, fills and invalidations make of it. Sans-io.
//!
//! ```text
//! magic "TrM1" | size of the key, 4 | key | generation, 8 | version, 8 | floor, 8 | life when written, 8 | has a value, 1
//! | age, 8 | ttl_ms, 8 | dead_ms, 8 | token, 8 | token's age, 8 | token's rest, 8 | epoch of the token, 8 | last token, 8
//! | floor's rest, 8 | number of tags, 1 | their generations, 8 each | envelope
//! ```
//!
//! memcached has no clock to ask, but says how long an item still lives: less than it was given when it was written, by as much as has
//! passed since. So ages and rests are as of the writing, and are moved on when they are read. Seconds are all that it knows.

use bytes::Bytes;

const MAGIC: &[u8; 4] = b"TrM1";

/// How long memcached takes a time to be a life and not a date: 30 days.
pub(super) const LIFE_MAX_S: u64 = 30 * 86_400;

/// A key's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// The cache's generation that the value was filled in, or the lease handed out.
    pub(super) generation: u64,
    pub(super) version: u64,
    /// The newest version heard of.
    pub(super) floor: u64,
    pub(super) value: Option<Bytes>,
    pub(super) age_ms: u64,
    pub(super) ttl_ms: u64,
    pub(super) dead_ms: u64,
    /// Zero: no lease.
    pub(super) token: u64,
    pub(super) lease_age_ms: u64,
    pub(super) lease_rest_ms: u64,
    /// The epoch of the cache when the lease was handed out.
    pub(super) epoch: u64,
    /// The token of the last fill.
    pub(super) last: u64,
    pub(super) floor_rest_ms: u64,
    /// The generations of the value's tags.
    pub(super) tags: Vec<u64>,
}

impl State {
    /// The state in an item that still lives `left_s`; none if it is no state of this key.
    pub(super) fn read(key: &[u8], data: &Bytes, left_s: Option<u64>) -> Option<Self> {
        let mut rest = data.strip_prefix(MAGIC)?;
        let size = u32::from_be_bytes(take(&mut rest, 4)?.try_into().ok()?);
        if take(&mut rest, size as usize)? != key {
            return None;
        }
        let mut number =
            |size| Some(take(&mut rest, size)?.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)));
        let mut state =
            Self { generation: number(8)?, version: number(8)?, floor: number(8)?, ..Self::default() };
        let life_s = number(8)?;
        let has_value = number(1)? != 0;
        (state.age_ms, state.ttl_ms, state.dead_ms) = (number(8)?, number(8)?, number(8)?);
        (state.token, state.lease_age_ms, state.lease_rest_ms) = (number(8)?, number(8)?, number(8)?);
        (state.epoch, state.last, state.floor_rest_ms) = (number(8)?, number(8)?, number(8)?);
        for _ in 0..number(1)? {
            state.tags.push(number(8)?);
        }
        state.value = has_value.then(|| data.slice_ref(rest));
        state.move_on(life_s.saturating_sub(left_s.unwrap_or(life_s)).saturating_mul(1000));
        Some(state)
    }

    /// The item, and for how long it is to live; none if nothing in it is needed.
    pub(super) fn write(&self, key: &[u8]) -> Option<(Vec<u8>, u64)> {
        let value_rest_ms = if self.value.is_some() { self.dead_ms.saturating_sub(self.age_ms) } else { 0 };
        let lease_rest_ms = if self.token == 0 { 0 } else { self.lease_rest_ms.saturating_mul(2) };
        let rest_ms = value_rest_ms.max(lease_rest_ms).max(self.floor_rest_ms);
        if rest_ms == 0 {
            return None;
        }
        let life_s = rest_ms.div_ceil(1000).min(LIFE_MAX_S);
        let mut out = Vec::with_capacity(160 + key.len() + self.value.as_ref().map_or(0, Bytes::len));
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&(key.len() as u32).to_be_bytes());
        out.extend_from_slice(key);
        let mut number = |number: u64| out.extend_from_slice(&number.to_be_bytes());
        [self.generation, self.version, self.floor, life_s].into_iter().for_each(&mut number);
        out.push(u8::from(self.value.is_some()));
        let mut number = |number: u64| out.extend_from_slice(&number.to_be_bytes());
        [self.age_ms, self.ttl_ms, self.dead_ms].into_iter().for_each(&mut number);
        [self.token, self.lease_age_ms, self.lease_rest_ms].into_iter().for_each(&mut number);
        [self.epoch, self.last, self.floor_rest_ms].into_iter().for_each(&mut number);
        out.push(self.tags.len() as u8);
        self.tags.iter().for_each(|tag| out.extend_from_slice(&tag.to_be_bytes()));
        out.extend_from_slice(self.value.as_deref().unwrap_or_default());
        Some((out, life_s))
    }

    fn move_on(&mut self, passed_ms: u64) {
        self.age_ms = self.age_ms.saturating_add(passed_ms);
        self.lease_age_ms = self.lease_age_ms.saturating_add(passed_ms);
        self.lease_rest_ms = self.lease_rest_ms.saturating_sub(passed_ms);
        self.floor_rest_ms = self.floor_rest_ms.saturating_sub(passed_ms);
        if self.age_ms >= self.dead_ms {
            self.drop_value();
        }
    }

    /// Whether the value is fresh.
    pub(super) fn is_fresh(&self) -> bool {
        self.value.is_some() && self.age_ms < self.ttl_ms
    }

    pub(super) fn drop_value(&mut self) {
        self.value = None;
        (self.version, self.age_ms, self.ttl_ms, self.dead_ms) = (0, 0, 0, 0);
        self.tags.clear();
    }

    pub(super) fn drop_lease(&mut self) {
        (self.token, self.lease_age_ms, self.lease_rest_ms, self.epoch) = (0, 0, 0, 0);
    }

    /// Whether somebody other than `token` has the lease.
    pub(super) fn is_held(&self, token: u64) -> bool {
        self.token != 0 && self.token != token && self.lease_rest_ms > 0
    }
}

fn take<'a>(rest: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(size)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            generation: 1,
            version: u64::MAX,
            floor: u64::MAX,
            value: Some(Bytes::from_static(b"envelope")),
            age_ms: 500,
            ttl_ms: 10_000,
            dead_ms: 60_000,
            token: 7,
            lease_age_ms: 0,
            lease_rest_ms: 5_000,
            epoch: 2,
            last: 3,
            floor_rest_ms: 1_000,
            tags: vec![4, 5],
        }
    }

    #[test]
    fn what_is_written_is_read_and_time_passes() {
        let (data, life_s) = state().write(b"k").unwrap();
        assert_eq!(life_s, 60);
        let data = Bytes::from(data);
        assert_eq!(State::read(b"k", &data, Some(life_s)), Some(state()));
        let later = State::read(b"k", &data, Some(life_s - 6)).unwrap();
        assert_eq!((later.age_ms, later.lease_rest_ms, later.lease_age_ms), (6_500, 0, 6_000));
        assert!(later.is_fresh() && !later.is_held(8));
        assert_eq!(State::read(b"k", &data, Some(0)).unwrap().value, None);
    }

    #[test]
    fn what_is_damaged_or_another_keys_is_nothing() {
        let data = Bytes::from(state().write(b"k").unwrap().0);
        assert_eq!(State::read(b"other", &data, None), None);
        assert_eq!(State::read(b"k", &Bytes::from_static(b"{}"), None), None);
        for at in 0..data.len() - b"envelope".len() {
            assert_eq!(State::read(b"k", &data.slice(..at), None), None, "{at} bytes");
        }
        assert_eq!(State::default().write(b"k"), None);
    }
}
