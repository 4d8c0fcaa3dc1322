//! DER (X.690), as far as certificates and proofs by OCSP need it: reading elements in place, and writing a few.
//!
//! The reader takes any input, never reads beyond it, and copies nothing.

/// Tags of universal types, with the bit of those that are made of others.
pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const ENUMERATED: u8 = 0x0a;
pub(super) const UTC_TIME: u8 = 0x17;
pub(super) const GENERALIZED_TIME: u8 = 0x18;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// Reads elements of DER one after the other.
pub(super) struct Der<'a>(pub(super) &'a [u8]);

impl<'a> Der<'a> {
    /// The next element: its tag, its content, and all of it.
    pub(super) fn next(&mut self) -> Option<(u8, &'a [u8], &'a [u8])> {
        let tag = *self.0.first()?;
        let first = usize::from(*self.0.get(1)?);
        let (head, len) = if first < 0x80 {
            (2, first)
        } else {
            let count = first & 0x7f;
            if count == 0 || count > 4 {
                return None;
            }
            let bytes = self.0.get(2..2 + count)?;
            (2 + count, bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b)))
        };
        let end = head.checked_add(len)?;
        let whole = self.0.get(..end)?;
        self.0 = &self.0[end..];
        Some((tag, &whole[head..], whole))
    }

    /// The content of the next element, which must have this tag.
    pub(super) fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(t, ..)| *t == tag).map(|(_, content, _)| content)
    }

    /// The content of the next element if it has this tag; it stays where it is otherwise.
    pub(super) fn optional(&mut self, tag: u8) -> Option<&'a [u8]> {
        if self.0.first() == Some(&tag) { self.expect(tag) } else { None }
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The first element of DER, whole.
pub(super) fn element(der: &[u8]) -> Option<&[u8]> {
    Der(der).next().map(|(_, _, whole)| whole)
}

/// The bytes of a bit string that has whole ones.
pub(super) fn bits(content: &[u8]) -> Option<&[u8]> {
    content.split_first().filter(|(unused, _)| **unused == 0).map(|(_, bytes)| bytes)
}

/// A number that is not negative, without the zero before its highest bit.
pub(super) fn unsigned(content: &[u8]) -> &[u8] {
    match content {
        [0, rest @ ..] if !rest.is_empty() => rest,
        _ => content,
    }
}

/// Writes an element.
pub(super) fn write(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let len: usize = parts.iter().map(|p| p.len()).sum();
    let mut out = vec![tag];
    if len < 0x80 {
        out.extend(u8::try_from(len));
    } else {
        let bytes = len.to_be_bytes();
        let used = &bytes[bytes.iter().take_while(|b| **b == 0).count()..];
        out.extend(u8::try_from(0x80 + used.len()));
        out.extend_from_slice(used);
    }
    parts.iter().for_each(|p| out.extend_from_slice(p));
    out
}

/// The next element as a time, Unix seconds.
pub(super) fn time(der: &mut Der<'_>) -> Option<i64> {
    let (tag, text, _) = der.next()?;
    let number = |at: usize, len: usize| -> Option<i64> {
        std::str::from_utf8(text.get(at..at + len)?).ok()?.parse().ok()
    };
    let (year, at) = match tag {
        UTC_TIME => {
            let year = number(0, 2)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, 2)
        }
        GENERALIZED_TIME => (number(0, 4)?, 4),
        _ => return None,
    };
    let (month, day) = (number(at, 2)?, number(at + 2, 2)?);
    let (hour, minute, second) = (number(at + 4, 2)?, number(at + 6, 2)?, number(at + 8, 2)?);
    Some(days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second)
}

/// Days since 1970-01-01 of a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for len in [0, 1, 127, 128, 255, 256, 70_000] {
            let content = vec![7; len];
            let der = write(OCTET_STRING, &[&content[..len / 2], &content[len / 2..]]);
            let mut reader = Der(&der);
            assert_eq!(reader.optional(SEQUENCE), None);
            assert_eq!(reader.expect(OCTET_STRING), Some(&content[..]));
            assert!(reader.is_empty());
            assert_eq!(element(&der[..der.len() - 1]), None);
        }
    }
}
