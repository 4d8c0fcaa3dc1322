//! Texts as literals of SQL and JSON.

/// Appends a MySQL string literal.
pub(super) fn sql(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'\'');
    for &c in text {
        let escaped = match c {
            0 => b'0',
            8 => b'b',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            26 => b'Z',
            b'\\' | b'\'' | b'"' | b'$' => c,
            _ => {
                out.push(c);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', escaped]);
    }
    out.push(b'\'');
}

/// Appends a PostgreSQL string literal. In a text that is not UTF-8, bytes beyond ASCII are octal escapes behind two
/// backslashes, as the text form of `bytea` has them.
pub(super) fn pgsql(text: &[u8], out: &mut Vec<u8>) {
    if text.is_empty() {
        return out.extend_from_slice(b"''");
    }
    out.push(b'E');
    if std::str::from_utf8(text).is_ok() {
        return sql(text, out);
    }
    let mut quoted = Vec::with_capacity(text.len() + 2);
    sql(text, &mut quoted);
    for c in quoted {
        if c.is_ascii() {
            out.push(c);
        } else {
            out.extend_from_slice(&[b'\\', b'\\', b'0' + (c >> 6), b'0' + (c >> 3 & 7), b'0' + (c & 7)]);
        }
    }
}

/// Appends a JSON string; nothing at all is `null`. Bytes beyond ASCII stay as they are.
pub(super) fn json(text: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    if text.is_empty() {
        return out.extend_from_slice(b"null");
    }
    out.push(b'"');
    for &c in text {
        let escaped = match c {
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            12 => b'f',
            8 => b'b',
            b'\\' | b'"' => c,
            0..32 => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[HEX[usize::from(c >> 4)], HEX[usize::from(c & 15)]]);
                continue;
            }
            _ => {
                out.push(c);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', escaped]);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(f: fn(&[u8], &mut Vec<u8>), text: &[u8]) -> String {
        let mut out = Vec::new();
        f(text, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn literals() {
        assert_eq!(quoted(sql, b"a\n\0\x1a'\"\\$\xc3\xa9"), "'a\\n\\0\\Z\\'\\\"\\\\\\$\u{e9}'");
        assert_eq!(quoted(sql, b""), "''");
        assert_eq!(quoted(pgsql, b"it's"), "E'it\\'s'");
        assert_eq!(quoted(pgsql, b"\xff"), "E'\\\\377'");
        assert_eq!(quoted(pgsql, b""), "''");
        assert_eq!(quoted(json, b"a\x01\x0c\"\xc3\xa9"), "\"a\\u0001\\f\\\"\u{e9}\"");
        assert_eq!(quoted(json, b""), "null");
    }
}
