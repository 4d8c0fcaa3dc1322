//! HTTP dates (RFC 9110 5.6.7) and the date of the `Set-Cookie` attribute `expires`.
//!
//! Formatting writes the preferred form only. Parsing accepts the three forms of the RFC with nginx's leniency: the
//! weekday's name is not checked, nor what follows the last number, so `Thu, 18-Nov-10 11:27:35 GMT` parses as well.

use crate::civil::{Civil, MONTHS, SECONDS_MAX, WEEKDAYS, put_digits};

/// Formats seconds since the epoch as `Sun, 06 Nov 1994 08:49:37 GMT`. Years beyond 9999 are clamped.
#[must_use]
pub fn format(seconds: u64) -> [u8; 29] {
    let civil = from_seconds(seconds);
    let mut out = *b"Sun, 06 Nov 1994 08:49:37 GMT";
    out[..3].copy_from_slice(WEEKDAYS[civil.weekday as usize]);
    put_digits(&mut out[5..7], civil.day);
    out[8..11].copy_from_slice(MONTHS[civil.month as usize - 1]);
    put_digits(&mut out[12..16], civil.year);
    put_time(&mut out[17..25], civil);
    out
}

/// Formats seconds since the epoch as nginx does for cookies: `Sun, 06-Nov-94 08:49:37 GMT`, with a year of four
/// digits when it is past 2037.
#[must_use]
pub fn cookie_time(seconds: u64) -> String {
    let civil = from_seconds(seconds);
    let name = |text: &'static [u8; 3]| String::from_utf8_lossy(text);
    let (weekday, month) = (name(WEEKDAYS[civil.weekday as usize]), name(MONTHS[civil.month as usize - 1]));
    let year = if civil.year > 2037 { format!("{}", civil.year) } else { format!("{:02}", civil.year % 100) };
    format!(
        "{weekday}, {:02}-{month}-{year} {:02}:{:02}:{:02} GMT",
        civil.day, civil.hour, civil.minute, civil.second
    )
}

/// Parses any of the three forms to seconds since the epoch; a date before 1970 is `None`.
///
/// Two-digit years below 70 belong to this century, the others to the last one (nginx's rule, which unlike the
/// RFC's needs no clock).
#[must_use]
pub fn parse(text: &[u8]) -> Option<u64> {
    let cut = text.iter().position(|&byte| byte == b',' || byte == b' ')?;
    let asctime = text[cut] == b' ';
    let mut cursor = Cursor(text[cut + 1..].trim_ascii_start());
    let (year, month, day);
    let time;
    if asctime {
        month = cursor.month()?;
        cursor.expect(b' ')?;
        cursor.skip(b' ');
        day = cursor.one_or_two_digits()?;
        cursor.expect(b' ')?;
        time = cursor.time()?;
        cursor.expect(b' ')?;
        year = cursor.digits(4)?;
    } else {
        day = cursor.digits(2)?;
        let separator = cursor.byte()?;
        month = cursor.month()?;
        cursor.expect(separator)?;
        year = match separator {
            b' ' => cursor.digits(4)?,
            b'-' => match cursor.digits(2)? {
                short if short < 70 => 2000 + short,
                short => 1900 + short,
            },
            _ => return None,
        };
        cursor.expect(b' ')?;
        time = cursor.time()?;
    }
    let civil = Civil { year, month, day, hour: time.0, minute: time.1, second: time.2, weekday: 0 };
    u64::try_from(civil.to_seconds()?).ok()
}

/// Writes `hh:mm:ss` into eight bytes.
pub(crate) fn put_time(out: &mut [u8], civil: Civil) {
    put_digits(&mut out[0..2], civil.hour);
    out[2] = b':';
    put_digits(&mut out[3..5], civil.minute);
    out[5] = b':';
    put_digits(&mut out[6..8], civil.second);
}

fn from_seconds(seconds: u64) -> Civil {
    Civil::from_seconds(i64::try_from(seconds).unwrap_or(SECONDS_MAX))
}

/// What is left of the date; every step checks its bounds.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.byte()? == byte).then_some(())
    }

    fn skip(&mut self, byte: u8) {
        if self.0.first() == Some(&byte) {
            self.0 = &self.0[1..];
        }
    }

    fn digits(&mut self, count: usize) -> Option<u32> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        digits
            .iter()
            .try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + u32::from(byte - b'0')))
    }

    fn one_or_two_digits(&mut self) -> Option<u32> {
        let count = if self.0.get(1).is_some_and(u8::is_ascii_digit) { 2 } else { 1 };
        self.digits(count)
    }

    fn month(&mut self) -> Option<u32> {
        let (name, rest) = self.0.split_at_checked(3)?;
        self.0 = rest;
        MONTHS.iter().position(|month| month.as_slice() == name).map(|index| index as u32 + 1)
    }

    fn time(&mut self) -> Option<(u32, u32, u32)> {
        let hour = self.digits(2)?;
        self.expect(b':')?;
        let minute = self.digits(2)?;
        self.expect(b':')?;
        Some((hour, minute, self.digits(2)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The date that the RFC uses in its examples.
    const EXAMPLE: u64 = 784_111_777;

    #[test]
    fn formats() {
        assert_eq!(&format(EXAMPLE), b"Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(&format(0), b"Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(&format(u64::MAX), b"Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(cookie_time(EXAMPLE), "Sun, 06-Nov-94 08:49:37 GMT");
        assert_eq!(cookie_time(2_147_483_647), "Tue, 19-Jan-2038 03:14:07 GMT");
        assert_eq!(cookie_time(1_290_079_655), "Thu, 18-Nov-10 11:27:35 GMT");
    }

    #[test]
    fn parses_all_three_forms() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Sun Nov 06 08:49:37 1994",
        ] {
            assert_eq!(parse(text.as_bytes()), Some(EXAMPLE), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_date() {
        for text in [
            "",
            "Sun",
            "Sun,",
            "Sun, 06 Nov",
            "Sun, 06 Abc 1994 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06/Nov/1994 08:49:37 GMT",
            "Sun, 06 Nov-1994 08:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun Nov  x 08:49:37 1994",
            "0",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn parses_what_it_formats_and_survives_any_cut() {
        for step in 0..5_000u64 {
            let seconds = step * 40_013_377 % (SECONDS_MAX as u64);
            let text = format(seconds);
            assert_eq!(parse(&text), Some(seconds));
            let _ = parse(&text[..(step % 29) as usize]);
        }
    }
}
