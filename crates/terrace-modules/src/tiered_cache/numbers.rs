//! Numbers in header fields without an allocation: those below a thousand are texts in the binary.
//!
//! A hit's headers say ages, lives and microseconds, nearly all of them small.

use bytes::Bytes;

const PREFIX: &[u8; 8] = b"max-age=";
const COUNT: usize = 1000;
const ROW: usize = PREFIX.len() + 3;

static ROWS: [[u8; ROW]; COUNT] = rows();

const fn rows() -> [[u8; ROW]; COUNT] {
    let mut rows = [[0; ROW]; COUNT];
    let mut n = 0;
    while n < COUNT {
        let mut i = 0;
        while i < PREFIX.len() {
            rows[n][i] = PREFIX[i];
            i += 1;
        }
        let len = digits(n);
        let (mut rest, mut at) = (n, PREFIX.len() + len);
        while at > PREFIX.len() {
            at -= 1;
            rows[n][at] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        n += 1;
    }
    rows
}

const fn digits(n: usize) -> usize {
    match n {
        0..=9 => 1,
        10..=99 => 2,
        _ => 3,
    }
}

fn row(n: u64) -> Option<&'static [u8]> {
    let n = usize::try_from(n).ok().filter(|n| *n < COUNT)?;
    Some(&ROWS[n][..PREFIX.len() + digits(n)])
}

/// The number in decimal.
pub(super) fn decimal(n: u64) -> Bytes {
    row(n).map_or_else(|| n.to_string().into(), |row| Bytes::from_static(&row[PREFIX.len()..]))
}

/// `max-age=` and the number.
pub(super) fn max_age(n: u64) -> Bytes {
    row(n).map_or_else(|| format!("max-age={n}").into(), Bytes::from_static)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_standard_library_writes_them() {
        for n in (0..1100).chain([u64::MAX]) {
            assert_eq!(decimal(n), n.to_string());
            assert_eq!(max_age(n), format!("max-age={n}"));
        }
    }
}
