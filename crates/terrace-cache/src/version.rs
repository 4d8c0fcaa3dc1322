//! Versions from what sources and messages say: a revision, or the time of the last change.
//!
//! The versions of one cache are only ever compared with each other, so they must all come from the same field in the
//! same form: a number stays the number it is, a time becomes microseconds since 1970-01-01 UTC, and the two do not mix.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::l2::Version;

/// The version that a text names: a decimal number that fits 64 bits, or a point in time.
///
/// A time is in RFC 3339 (`2024-05-01T12:00:00.5Z`, `2024-05-01 12:00:00+08:00`) or, as databases print it, without a
/// zone (`2024-05-01 12:00:00.123456`), which is read as UTC. What is finer than a microsecond is cut off. `None`: neither;
/// a time before 1970 and MySQL's zero date among them. Zero is no version (see [`Version`]).
pub fn from_text(text: &str) -> Option<Version> {
    let text = text.trim_ascii();
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok();
    }
    let timestamp = text.parse::<Timestamp>().ok().or_else(|| {
        let local = text.parse::<DateTime>().ok()?;
        TimeZone::UTC.to_timestamp(local).ok()
    })?;
    u64::try_from(timestamp.as_microsecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::from_text;

    #[test]
    fn numbers_stay_what_they_are() {
        assert_eq!(from_text("0"), Some(0));
        assert_eq!(from_text(" 42\n"), Some(42));
        assert_eq!(from_text("18446744073709551615"), Some(u64::MAX));
        assert_eq!(from_text("18446744073709551616"), None);
        assert_eq!(from_text("-1"), None);
        assert_eq!(from_text("1.5"), None);
        assert_eq!(from_text(""), None);
    }

    #[test]
    fn all_spellings_of_one_time_are_one_version() {
        let expected = Some(1_704_164_645_123_456);
        for text in [
            "2024-01-02 03:04:05.123456",
            "2024-01-02T03:04:05.123456Z",
            "2024-01-02 03:04:05.123456+00:00",
            "2024-01-02 03:04:05.123456+00",
            "2024-01-02T11:04:05.123456+08:00",
            "2024-01-02T03:04:05.123456789Z",
        ] {
            assert_eq!(from_text(text), expected, "{text}");
        }
        assert_eq!(from_text("2024-01-02 03:04:05"), Some(1_704_164_645_000_000));
    }

    #[test]
    fn later_is_larger() {
        let times =
            ["1970-01-01 00:00:01", "1999-12-31 23:59:59.999999", "2000-01-01", "2024-02-29 00:00:00.000001"];
        let versions: Vec<_> = times.iter().map(|t| from_text(t).expect("a time")).collect();
        assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    }

    #[test]
    fn what_is_no_time_is_no_version() {
        for text in [
            "0000-00-00 00:00:00",
            "1969-12-31 23:59:59",
            "2023-02-29 00:00:00",
            "yesterday",
            "03:04:05",
            "-",
        ] {
            assert_eq!(from_text(text), None, "{text}");
        }
    }
}
