//! The text protocol of memcached, as far as requests of clients need it: commands as bytes, and the first part of a
//! reply taken apart. No input or output here.

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    Get,
    Set,
    Add,
    Replace,
    Append,
    Prepend,
    Delete,
    Incr,
    Decr,
    FlushAll,
    Stats,
    Version,
}

const NAMES: &[(&str, Name)] = &[
    ("get", Name::Get),
    ("set", Name::Set),
    ("add", Name::Add),
    ("replace", Name::Replace),
    ("append", Name::Append),
    ("prepend", Name::Prepend),
    ("delete", Name::Delete),
    ("incr", Name::Incr),
    ("decr", Name::Decr),
    ("flush_all", Name::FlushAll),
    ("stats", Name::Stats),
    ("version", Name::Version),
];

impl Name {
    /// By the word that memcached has for it.
    pub(super) fn from_text(text: &[u8]) -> Option<Name> {
        NAMES.iter().find(|(word, _)| word.as_bytes() == text).map(|(_, name)| *name)
    }

    /// What a method stands for where no command is named.
    pub(super) fn from_method(method: &[u8]) -> Option<Name> {
        Some(match method {
            b"GET" | b"HEAD" => Name::Get,
            b"POST" => Name::Add,
            b"PUT" => Name::Set,
            b"DELETE" => Name::Delete,
            _ => return None,
        })
    }

    pub(super) fn text(self) -> &'static str {
        NAMES.iter().find(|(_, name)| *name == self).map_or("", |(word, _)| word)
    }

    /// Whether it carries a value to keep.
    pub(super) fn stores(self) -> bool {
        matches!(self, Name::Set | Name::Add | Name::Replace | Name::Append | Name::Prepend)
    }

    /// Whether it is about a key.
    pub(super) fn has_key(self) -> bool {
        !matches!(self, Name::FlushAll | Name::Stats | Name::Version)
    }
}

/// The parts of a command; those that it does not take are empty.
#[derive(Debug, Default)]
pub(super) struct Parts<'a> {
    /// Escaped already.
    pub(super) key: &'a [u8],
    pub(super) flags: &'a [u8],
    pub(super) exptime: &'a [u8],
    pub(super) value: &'a [u8],
}

/// Appends a command.
pub(super) fn write(name: Name, parts: &Parts<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(name.text().as_bytes());
    let mut word = |text: &[u8]| {
        out.push(b' ');
        out.extend_from_slice(text);
    };
    if name.has_key() {
        word(parts.key);
    }
    match name {
        Name::Incr | Name::Decr => word(parts.value),
        Name::Delete | Name::FlushAll if !parts.exptime.is_empty() => word(parts.exptime),
        _ if name.stores() => {
            for number in [parts.flags, parts.exptime] {
                word(if number.is_empty() { b"0" } else { number });
            }
            word(parts.value.len().to_string().as_bytes());
        }
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
    if name.stores() {
        out.extend_from_slice(parts.value);
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends a key: control bytes, spaces and `%` are escaped.
pub(super) fn escape_key(key: &[u8], out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for &b in key {
        if b <= b' ' || b == b'%' {
            out.extend_from_slice(&[b'%', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
        } else {
            out.push(b);
        }
    }
}

/// What a reply is, as far as it has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// More must be read.
    Partial,
    /// The whole reply, of this length, and the status that stands for it.
    Whole { len: usize, status: u16 },
    /// A value of this length, which begins at an offset.
    Value { at: usize, len: u64, flags: u32 },
    /// It makes no sense.
    Invalid,
}

/// The end of a value.
pub(super) const VALUE_END: &[u8] = b"\r\nEND\r\n";

/// Takes a reply apart.
pub(super) fn parse(name: Name, key: &[u8], reply: &[u8]) -> Reply {
    let Some(end) = memchr::memmem::find(reply, b"\r\n") else { return Reply::Partial };
    let line = &reply[..end];
    let len = end + 2;
    if name == Name::Get {
        return parse_get(key, line, len);
    }
    if line == b"ERROR" || line.starts_with(b"CLIENT_ERROR") || line.starts_with(b"SERVER_ERROR") {
        return Reply::Whole { len, status: 502 };
    }
    let status = match (name, line) {
        (Name::Stats, _) => return parse_stats(reply),
        (Name::Delete | Name::Incr | Name::Decr, b"NOT_FOUND") => 404,
        (Name::Delete, b"DELETED") | (Name::FlushAll, b"OK") => 200,
        (Name::Incr | Name::Decr, digits) if is_number(digits.trim_ascii_end()) => 200,
        (Name::Version, line) if line.starts_with(b"VERSION ") => 200,
        (name, b"STORED") if name.stores() => 201,
        (name, b"NOT_STORED" | b"EXISTS") if name.stores() => 200,
        (name, b"NOT_FOUND") if name.stores() => 404,
        _ => return Reply::Invalid,
    };
    Reply::Whole { len, status }
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// `END`, or `VALUE key flags length`.
fn parse_get(key: &[u8], line: &[u8], at: usize) -> Reply {
    if line == b"END" {
        return Reply::Whole { len: at, status: 404 };
    }
    let mut words = line.split(|b| *b == b' ');
    let (value, named, flags, len) = (words.next(), words.next(), words.next(), words.next());
    let number = |text: Option<&[u8]>| std::str::from_utf8(text?).ok()?.parse::<u64>().ok();
    let flags = number(flags).and_then(|flags| u32::try_from(flags).ok());
    match (flags, number(len)) {
        (Some(flags), Some(len)) if value == Some(b"VALUE") && named == Some(key) => {
            Reply::Value { at, len, flags }
        }
        _ => Reply::Invalid,
    }
}

/// Lines up to one that is `END`.
fn parse_stats(reply: &[u8]) -> Reply {
    let mut at = 0;
    while let Some(end) = memchr::memmem::find(&reply[at..], b"\r\n") {
        let line = &reply[at..at + end];
        at += end + 2;
        if line == b"END" {
            return Reply::Whole { len: at, status: 200 };
        }
    }
    Reply::Partial
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(name: Name, parts: &Parts<'_>) -> String {
        let mut out = Vec::new();
        write(name, parts, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn commands_as_bytes() {
        let parts = Parts { key: b"k", flags: b"", exptime: b"7", value: b"two" };
        assert_eq!(written(Name::Get, &parts), "get k\r\n");
        assert_eq!(written(Name::Set, &parts), "set k 0 7 3\r\ntwo\r\n");
        assert_eq!(written(Name::Delete, &parts), "delete k 7\r\n");
        assert_eq!(written(Name::FlushAll, &parts), "flush_all 7\r\n");
        assert_eq!(written(Name::Stats, &parts), "stats\r\n");
        let two = Parts { key: b"n", value: b"2", ..Parts::default() };
        assert_eq!(written(Name::Incr, &two), "incr n 2\r\n");
        assert_eq!(written(Name::Delete, &two), "delete n\r\n");
    }

    #[test]
    fn replies() {
        let whole = |len, status| Reply::Whole { len, status };
        for (name, reply, expected) in [
            (Name::Get, "END\r\n", whole(5, 404)),
            (Name::Get, "VALUE k 5 3\r\nab", Reply::Value { at: 13, len: 3, flags: 5 }),
            (Name::Get, "VALUE other 5 3\r\n", Reply::Invalid),
            (Name::Get, "VALUE k", Reply::Partial),
            (Name::Get, "ERROR\r\n", Reply::Invalid),
            (Name::Set, "STORED\r\n", whole(8, 201)),
            (Name::Add, "NOT_STORED\r\n", whole(12, 200)),
            (Name::Set, "DELETED\r\n", Reply::Invalid),
            (Name::Set, "SERVER_ERROR out of memory\r\n", whole(28, 502)),
            (Name::Delete, "NOT_FOUND\r\n", whole(11, 404)),
            (Name::Incr, "7 \r\n", whole(4, 200)),
            (Name::Incr, "x\r\n", Reply::Invalid),
            (Name::Version, "VERSION 1.6\r\n", whole(13, 200)),
            (Name::Stats, "STAT a 1\r\nEN", Reply::Partial),
            (Name::Stats, "STAT a 1\r\nEND\r\n", whole(15, 200)),
            (Name::FlushAll, "OK\r\n", whole(4, 200)),
        ] {
            assert_eq!(parse(name, b"k", reply.as_bytes()), expected, "{name:?} {reply:?}");
        }
    }

    #[test]
    fn keys_have_no_blanks() {
        let mut out = Vec::new();
        escape_key(b"a b%\n\xff", &mut out);
        assert_eq!(out, b"a%20b%25%0A\xff");
    }
}
