//! Base32 with any alphabet (RFC 4648 section 6; the default is that of section 7, in lower case).

/// Digits for which there is no value.
const NONE: u8 = 0xff;

/// The digits and their values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alphabet {
    digits: [u8; 32],
    values: [u8; 256],
}

impl Default for Alphabet {
    fn default() -> Alphabet {
        Alphabet::of(*b"0123456789abcdefghijklmnopqrstuv")
    }
}

impl Alphabet {
    /// `None` unless these are 32 different bytes.
    pub(super) fn new(digits: &[u8]) -> Option<Alphabet> {
        let digits = digits.try_into().ok()?;
        let alphabet = Alphabet::of(digits);
        let known = alphabet.values.iter().filter(|v| **v != NONE).count();
        (known == 32).then_some(alphabet)
    }

    fn of(digits: [u8; 32]) -> Alphabet {
        let mut values = [NONE; 256];
        for (value, digit) in (0..).zip(digits) {
            values[usize::from(digit)] = value;
        }
        Alphabet { digits, values }
    }

    /// Appends the text's digits, padded to eights if asked for.
    pub(super) fn encode(&self, text: &[u8], padding: bool, out: &mut Vec<u8>) {
        for group in text.chunks(5) {
            let mut five = [0; 8];
            five[3..3 + group.len()].copy_from_slice(group);
            let bits = u64::from_be_bytes(five);
            let digits = (group.len() * 8).div_ceil(5);
            for i in 0..digits {
                out.push(self.digits[(bits >> (35 - 5 * i)) as usize & 31]);
            }
            if padding {
                out.resize(out.len() + 8 - digits, b'=');
            }
        }
    }

    /// Appends what the digits before the first `=` stand for; nothing and false if they are not base32.
    pub(super) fn decode(&self, text: &[u8], out: &mut Vec<u8>) -> bool {
        let end = memchr::memchr(b'=', text).unwrap_or(text.len());
        let text = &text[..end];
        if matches!(end % 8, 1 | 3 | 6) || text.iter().any(|d| self.values[usize::from(*d)] == NONE) {
            return false;
        }
        for group in text.chunks(8) {
            let mut bits = 0_u64;
            for i in 0..8 {
                let value = group.get(i).map_or(0, |d| self.values[usize::from(*d)]);
                bits = bits << 5 | u64::from(value);
            }
            out.extend_from_slice(&bits.to_be_bytes()[3..3 + group.len() * 5 / 8]);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(alphabet: &Alphabet, text: &[u8], padding: bool) -> String {
        let mut out = Vec::new();
        alphabet.encode(text, padding, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// The vectors of RFC 4648 section 10.
    #[test]
    fn vectors_of_the_rfc() {
        let standard = Alphabet::new(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567").expect("an alphabet");
        let hex = Alphabet::default();
        for (text, plain, extended) in [
            ("", "", ""),
            ("f", "MY======", "co======"),
            ("fo", "MZXQ====", "cpng===="),
            ("foo", "MZXW6===", "cpnmu==="),
            ("foob", "MZXW6YQ=", "cpnmuog="),
            ("fooba", "MZXW6YTB", "cpnmuoj1"),
            ("foobar", "MZXW6YTBOI======", "cpnmuoj1e8======"),
        ] {
            assert_eq!(encoded(&standard, text.as_bytes(), true), plain);
            assert_eq!(encoded(&hex, text.as_bytes(), true), extended);
            assert_eq!(encoded(&hex, text.as_bytes(), false), extended.trim_end_matches('='));
            let mut out = Vec::new();
            assert!(standard.decode(plain.as_bytes(), &mut out));
            assert_eq!(out, text.as_bytes());
        }
    }

    #[test]
    fn what_is_no_base32() {
        let mut out = Vec::new();
        for text in ["c", "cpn", "cpnmuo", "CO", "c!"] {
            assert!(!Alphabet::default().decode(text.as_bytes(), &mut out), "{text}");
        }
        assert!(out.is_empty());
        assert_eq!(Alphabet::new(b"abc"), None);
        assert_eq!(Alphabet::new(&[b'a'; 32]), None);
    }
}
