//! What things are called in Redis. See the module for the layout.

use bytes::Bytes;

/// The names of one cache.
pub(super) struct Names {
    keys: Vec<u8>,
    tags: Vec<u8>,
    pub(super) channel: Vec<u8>,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        let name = |kind: &str| format!("{prefix}:{kind}").into_bytes();
        Self { keys: name("k:"), tags: name("t:"), channel: name("n") }
    }

    /// A key of the cache.
    pub(super) fn key(&self, key: &[u8]) -> Vec<u8> {
        [&self.keys[..], key].concat()
    }

    /// A tag's sorted set.
    pub(super) fn tag(&self, tag: &str) -> Vec<u8> {
        [&self.tags[..], tag.as_bytes()].concat()
    }

    /// The cache's key behind a name in Redis.
    pub(super) fn key_of(&self, name: &[u8]) -> Option<Bytes> {
        name.strip_prefix(&self.keys[..]).map(Bytes::copy_from_slice)
    }

    /// A pattern for SCAN that matches the keys that begin with `prefix`, and no others.
    pub(super) fn pattern(&self, prefix: &[u8]) -> Vec<u8> {
        let mut pattern = Vec::with_capacity(self.keys.len() + prefix.len() + 1);
        for byte in self.keys.iter().chain(prefix) {
            if b"*?[]\\".contains(byte) {
                pattern.push(b'\\');
            }
            pattern.push(*byte);
        }
        pattern.push(b'*');
        pattern
    }
}

/// A version or token as the scripts have it: 20 decimal digits.
pub(super) fn wide(number: u64) -> [u8; 20] {
    let mut digits = [b'0'; 20];
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    digits
}

/// The number in 20 decimal digits.
pub(super) fn narrow(digits: &[u8]) -> Option<u64> {
    if digits.len() != 20 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_64_bits_and_their_order() {
        for number in [0, 1, 9, 10, 1 << 53, (1 << 53) + 1, u64::MAX - 1, u64::MAX] {
            assert_eq!(narrow(&wide(number)), Some(number));
            assert!(number == u64::MAX || wide(number) < wide(number + 1));
        }
        assert_eq!(narrow(b"99999999999999999999"), None);
        assert_eq!(narrow(b"+0000000000000000001"), None);
    }

    #[test]
    fn patterns_match_no_more_than_the_prefix() {
        let names = Names::new("shop[1]");
        assert_eq!(names.pattern(b"a*b?\\[x]"), b"shop\\[1\\]:k:a\\*b\\?\\\\\\[x\\]*");
    }
}
