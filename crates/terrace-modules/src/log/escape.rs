//! How values are escaped in log lines.

/// `escape=` of a `log_format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Escape {
    /// `\xHH` for quotes, backslashes, control characters and bytes from 0x7f on; `-` for what has no value.
    Default,
    /// As in a JSON string.
    Json,
    /// Not at all.
    None,
}

impl Escape {
    /// Appends `value`.
    pub(super) fn append(self, value: &[u8], out: &mut Vec<u8>) {
        let special: fn(&u8) -> bool = match self {
            Escape::Default => |b| matches!(b, 0..b' ' | b'"' | b'\\' | 0x7f..),
            Escape::Json => |b| matches!(b, 0..b' ' | b'"' | b'\\'),
            Escape::None => |_| false,
        };
        let mut rest = value;
        while let Some(at) = rest.iter().position(special) {
            out.extend_from_slice(&rest[..at]);
            match self {
                Escape::Json => json(rest[at], out),
                _ => hex(b"\\x", rest[at], out),
            }
            rest = &rest[at + 1..];
        }
        out.extend_from_slice(rest);
    }

    /// Appends what stands for a variable without a value.
    pub(super) fn append_missing(self, out: &mut Vec<u8>) {
        if self == Escape::Default {
            out.push(b'-');
        }
    }
}

fn json(byte: u8, out: &mut Vec<u8>) {
    let short = match byte {
        b'"' | b'\\' => byte,
        b'\n' => b'n',
        b'\r' => b'r',
        b'\t' => b't',
        0x08 => b'b',
        0x0c => b'f',
        _ => return hex(b"\\u00", byte, out),
    };
    out.extend_from_slice(&[b'\\', short]);
}

fn hex(prefix: &[u8], byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(prefix);
    out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way() {
        let value = b"a\"b\\c\n\x01\x7f\xc3\xa9/";
        for (escape, expected) in [
            (Escape::Default, &b"a\\x22b\\x5Cc\\x0A\\x01\\x7F\\xC3\\xA9/"[..]),
            (Escape::Json, b"a\\\"b\\\\c\\n\\u0001\x7f\xc3\xa9/"),
            (Escape::None, value),
        ] {
            let mut out = Vec::new();
            escape.append(value, &mut out);
            assert_eq!(out, expected, "{escape:?}");
        }
    }
}
