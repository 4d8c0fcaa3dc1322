//! Sizes, times and flags as they are written in nginx.conf.
//!
//! The rules are nginx's (`ngx_parse_size`, `ngx_parse_offset`, `ngx_parse_time`), because existing configuration
//! must mean here exactly what it meant there. Every function is total: overflow and garbage are `None`.

/// Largest value nginx accepts for a size, an offset or a time: its integers are signed.
const VALUE_MAX: u64 = i64::MAX as u64;

/// A size in bytes: digits with an optional `k`, `m` or `g` of either case (powers of 1024).
///
/// nginx allows `g` for file offsets only; here it is allowed everywhere.
#[must_use]
pub fn parse_size(text: &[u8]) -> Option<u64> {
    let (last, front) = text.split_last()?;
    let (digits, scale) = match last {
        b'k' | b'K' => (front, 1u64 << 10),
        b'm' | b'M' => (front, 1 << 20),
        b'g' | b'G' => (front, 1 << 30),
        _ => (text, 1),
    };
    parse_number(digits)?.checked_mul(scale).filter(|&size| size <= VALUE_MAX)
}

/// A number without sign: one or more digits, at most `i64::MAX`.
#[must_use]
pub fn parse_number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0, |value, &byte| push_digit(value, byte))
}

/// `on` or `off` in any case.
#[must_use]
pub fn parse_flag(text: &[u8]) -> Option<bool> {
    if text.eq_ignore_ascii_case(b"on") {
        Some(true)
    } else if text.eq_ignore_ascii_case(b"off") {
        Some(false)
    } else {
        None
    }
}

/// A time in milliseconds: `500ms`, `10s`, `1h30m`, `1d 12h`; a number without a unit counts seconds.
///
/// Units go from large to small, each at most once: `y` (365 days), `M` (30 days), `w`, `d`, `h`, `m`, `s`, `ms`.
/// nginx refuses `y` and `M` where it stores milliseconds; here they are accepted in both kinds of time.
#[must_use]
pub fn parse_time_ms(text: &[u8]) -> Option<u64> {
    parse_time(text, Resolution::Milliseconds)
}

/// A time in seconds: as [`parse_time_ms`], but without the unit `ms`.
#[must_use]
pub fn parse_time_secs(text: &[u8]) -> Option<u64> {
    parse_time(text, Resolution::Seconds)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Resolution {
    Milliseconds,
    Seconds,
}

/// Units from large to small with their length in seconds; the index is the rank in the order rule.
const UNITS: [(u8, u64); 7] = [
    (b'y', 31_536_000),
    (b'M', 2_592_000),
    (b'w', 604_800),
    (b'd', 86_400),
    (b'h', 3600),
    (b'm', 60),
    (b's', 1),
];
/// Rank of `s`, and that of `ms` behind it. A blank after a bare number ranks last: nothing may follow with a unit.
const RANK_SECOND: usize = 6;
const RANK_MILLISECOND: usize = 7;
const RANK_LAST: usize = 8;

fn parse_time(text: &[u8], resolution: Resolution) -> Option<u64> {
    let per_second = if resolution == Resolution::Milliseconds { 1000 } else { 1 };
    let mut total = 0u64;
    let mut value = 0u64;
    let mut any_digit = false;
    // The rank of the last unit seen; the next one must rank strictly lower in size.
    let mut reached: Option<usize> = None;
    let mut rest = text;

    while let [byte, tail @ ..] = rest {
        rest = tail;
        if byte.is_ascii_digit() {
            value = push_digit(value, *byte)?;
            any_digit = true;
            continue;
        }
        let (rank, scale) = match (byte, rest.first()) {
            (b'm', Some(b's')) => {
                if resolution == Resolution::Seconds {
                    return None;
                }
                rest = &rest[1..];
                (RANK_MILLISECOND, 1)
            }
            (b' ', _) => (RANK_LAST, per_second),
            _ => {
                let rank = UNITS.iter().position(|(unit, _)| unit == byte)?;
                (rank, UNITS[rank].1 * per_second)
            }
        };
        // A blank that ends a bare number may follow anything larger than a second.
        let bound = if rank == RANK_LAST { RANK_SECOND } else { rank };
        if reached.is_some_and(|seen| seen >= bound) {
            return None;
        }
        reached = Some(rank);
        total = total.checked_add(value.checked_mul(scale)?).filter(|&sum| sum <= VALUE_MAX)?;
        value = 0;
        while let [b' ', tail @ ..] = rest {
            rest = tail;
        }
    }
    if !any_digit {
        return None;
    }
    total.checked_add(value.checked_mul(per_second)?).filter(|&sum| sum <= VALUE_MAX)
}

fn push_digit(value: u64, byte: u8) -> Option<u64> {
    let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
    value.checked_mul(10)?.checked_add(digit).filter(|&next| next <= VALUE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", Some(0)),
            ("8k", Some(8192)),
            ("1M", Some(1 << 20)),
            ("2g", Some(2 << 30)),
            ("9223372036854775807", Some(VALUE_MAX)),
            ("9223372036854775808", None),
            ("9007199254740993k", None),
            ("", None),
            ("k", None),
            ("-1", None),
            ("1.5k", None),
            ("1kb", None),
            (" 1", None),
        ] {
            assert_eq!(parse_size(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn times_in_milliseconds() {
        for (text, expected) in [
            ("10", Some(10_000)),
            ("10s", Some(10_000)),
            ("500ms", Some(500)),
            ("1h30m", Some(5_400_000)),
            ("1d 12h", Some(129_600_000)),
            ("1m30", Some(90_000)),
            ("1s500ms", Some(1_500)),
            ("1y", Some(31_536_000_000)),
            ("1M1w", Some(3_196_800_000)),
            ("1m 30 ", Some(90_000)),
            ("1h1h", None),
            ("30m1h", None),
            ("1ms1s", None),
            ("1s 5 ", None),
            ("", None),
            ("s", None),
            ("ten", None),
            ("1.5s", None),
            ("9223372036854775807", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(parse_time_ms(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn times_in_seconds() {
        for (text, expected) in
            [("1y", Some(31_536_000)), ("1M", Some(2_592_000)), ("90", Some(90)), ("5ms", None)]
        {
            assert_eq!(parse_time_secs(text.as_bytes()), expected, "{text:?}");
        }
    }

    #[test]
    fn flags() {
        assert_eq!(parse_flag(b"on"), Some(true));
        assert_eq!(parse_flag(b"OFF"), Some(false));
        assert_eq!(parse_flag(b"yes"), None);
        assert_eq!(parse_flag(b""), None);
    }
}
