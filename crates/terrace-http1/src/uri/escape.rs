//! Escapes: texts that are put into a URI.

/// Appends `path` with what may not stand in a path as `%XX` (the set of nginx's `NGX_ESCAPE_URI`).
pub fn escape_path(path: &[u8], out: &mut Vec<u8>) {
    escape(path, |byte| is_never_allowed(byte) || matches!(byte, b'#' | b'%' | b'?'), out);
}

/// Appends `text` with what may not stand in an argument as `%XX` (the set of nginx's `NGX_ESCAPE_ARGS`).
pub fn escape_args(text: &[u8], out: &mut Vec<u8>) {
    let is_special = |byte| matches!(byte, b'#' | b'%' | b'&' | b'+' | b';' | b'?');
    escape(text, |byte| is_never_allowed(byte) || is_special(byte), out);
}

fn escape(text: &[u8], is_escaped: impl Fn(u8) -> bool, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(text.len());
    for &byte in text {
        if is_escaped(byte) {
            out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        } else {
            out.push(byte);
        }
    }
}

/// What stands nowhere in a URI (RFC 3986 section 2).
fn is_never_allowed(byte: u8) -> bool {
    matches!(byte, 0..=b' ' | b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | 0x7f..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_stand_there_is_escaped() {
        let mut out = Vec::new();
        escape_path("/a b?c%/ä~{x}\"&+;\n".as_bytes(), &mut out);
        assert_eq!(out, b"/a%20b%3Fc%25/%C3%A4~%7Bx%7D%22&+;%0A");
        out.clear();
        escape_args(b"a b&c=d/\xc3\xa9'~;+", &mut out);
        assert_eq!(out, b"a%20b%26c=d/%C3%A9'~%3B%2B");
    }
}
