//! The host of a request: its syntax and its port.
//!
//! The rules are those of nginx: a registered name, an IPv4 address or a bracketed IP literal, then an optional
//! port; two dots in a row, an empty name and anything outside RFC 3986's host characters are refused.

/// A host field taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// How many of the first bytes are the name: the port and one trailing dot are left out.
    pub name_len: usize,
    /// The port, if one is given.
    pub port: Option<u16>,
    /// Whether the name has upper-case letters, so that it must be lowered before it is looked up.
    pub has_upper: bool,
}

/// Takes apart the value of a Host field or the authority of an absolute target.
///
/// `None` means that it is not a valid host (nginx answers 400).
pub fn parse(value: &[u8]) -> Option<Host> {
    let literal = value.first() == Some(&b'[');
    let mut has_upper = false;
    let mut end = value.len();
    // Most hosts are a run of usual bytes and single dots, then a port.
    let mut usual = 0;
    let (mut previous, mut two_dots) = (LOWER, 0);
    for &byte in value {
        let class = CLASSES[byte as usize];
        if class > DOT {
            break;
        }
        two_dots |= previous & class;
        previous = class;
        usual += 1;
    }
    if two_dots != 0 {
        return None;
    }
    let mut after_dot = previous == DOT;
    for (at, &byte) in value.iter().enumerate().skip(usual) {
        match CLASSES[byte as usize] {
            LOWER => after_dot = false,
            UPPER => {
                has_upper = true;
                after_dot = false;
            }
            DOT if after_dot => return None,
            DOT => after_dot = true,
            COLON if literal => after_dot = false,
            COLON => {
                end = at;
                break;
            }
            PERCENT if !literal => after_dot = false,
            BRACKET if literal && at == 0 => {}
            BRACKET if literal && byte == b']' => {
                end = at + 1;
                after_dot = false;
                break;
            }
            _ => return None,
        }
    }
    if literal && value[..end].last() != Some(&b']') {
        return None;
    }
    let port = match &value[end..] {
        [] | [b':'] => None,
        [b':', digits @ ..] => Some(port(digits)?),
        _ => return None,
    };
    let name_len = end - usize::from(after_dot);
    (name_len > 0).then_some(Host { name_len, port, has_upper })
}

fn port(digits: &[u8]) -> Option<u16> {
    let mut port: u32 = 0;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        port = port * 10 + u32::from(digit);
        if port > u32::from(u16::MAX) {
            return None;
        }
    }
    Some(port as u16)
}

/// The first two are what most hosts consist of, and two `DOT`s have a bit in common.
const LOWER: u8 = 0;
const DOT: u8 = 1;
const UPPER: u8 = 2;
const COLON: u8 = 3;
const PERCENT: u8 = 4;
const BRACKET: u8 = 5;
const REFUSED: u8 = 6;

/// The class of each byte; `LOWER` stands for all that needs no care (digits, unreserved and sub-delims).
static CLASSES: [u8; 256] = {
    let mut classes = [REFUSED; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => LOWER,
            b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' => LOWER,
            b'A'..=b'Z' => UPPER,
            b'.' => DOT,
            b':' => COLON,
            b'%' => PERCENT,
            b'[' | b']' => BRACKET,
            _ => REFUSED,
        };
        byte += 1;
    }
    classes
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_hosts_are_taken_apart() {
        let cases: &[(&str, usize, Option<u16>, bool)] = &[
            ("example.com", 11, None, false),
            ("Example.com:8080", 11, Some(8080), true),
            ("example.com.", 11, None, false),
            ("example.com.:80", 11, Some(80), false),
            ("a_b~c", 5, None, false),
            ("host:", 4, None, false),
            ("host:65535", 4, Some(65535), false),
            ("[::1]", 5, None, false),
            ("[::1]:443", 5, Some(443), false),
            ("127.0.0.1:0", 9, Some(0), false),
            ("a%20b", 5, None, false),
        ];
        for &(text, name_len, port, has_upper) in cases {
            assert_eq!(parse(text.as_bytes()), Some(Host { name_len, port, has_upper }), "{text}");
        }
    }

    #[test]
    fn malformed_hosts_are_refused() {
        let cases = [
            "",
            ".",
            ":80",
            "a..b",
            "..",
            "a b",
            "a/b",
            "user@host",
            "host:65536",
            "host:8a",
            "host:1:2",
            "[::1",
            "[",
            "[::1]x",
            "[::1]:x",
            "a[b]",
            "a]",
            "a\"b",
            "caf\u{e9}",
            "a\\b",
            "a?b",
            "a#b",
            "[a%b]",
            "a\u{0}",
        ];
        for text in cases {
            assert_eq!(parse(text.as_bytes()), None, "{text:?}");
        }
    }
}
