//! Percent-escaping of URIs and header fields, its reverse, and the splitting of query strings; pure functions on
//! bytes.

/// Which bytes an escaping leaves as they are. The first six are the types of `ngx.escape_uri`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Escape {
    /// A URI: type 0.
    Uri,
    /// Arguments: type 1.
    Args,
    /// A component of a URI, the default: type 2.
    Component,
    /// A URI in HTML: type 3.
    Html,
    /// A URI in a `Refresh` field: type 4.
    Refresh,
    /// A memcached key: type 5; also of mail authentication, type 6.
    Memcached,
    /// A whole query string, of which only blanks and control bytes are unsafe.
    Query,
    /// The name of a header field.
    FieldName,
    /// The value of a header field.
    FieldValue,
}

type Table = [bool; 256];

const fn with(mut table: Table, bytes: &[u8]) -> Table {
    let mut i = 0;
    while i < bytes.len() {
        table[bytes[i] as usize] = true;
        i += 1;
    }
    table
}

/// Marks `from..=to`.
const fn range(mut table: Table, from: usize, to: usize) -> Table {
    let mut i = from;
    while i <= to {
        table[i] = true;
        i += 1;
    }
    table
}

/// Control bytes below the space.
const CONTROLS: Table = range([false; 256], 0, 0x1f);
const BEYOND_ASCII: Table = range(CONTROLS, 0x7f, 0xff);
const URI: Table = with(BEYOND_ASCII, b" #%?");
const ARGS: Table = with(BEYOND_ASCII, b" #%+?");
const COMPONENT: Table = with(BEYOND_ASCII, b" \"#$%&+,/:;<=>?@[\\]^`{|}");
const HTML: Table = with(BEYOND_ASCII, b" \"#%'");
const REFRESH: Table = with(BEYOND_ASCII, b" \"'");
const MEMCACHED: Table = with(CONTROLS, b" %");
const QUERY: Table = with(CONTROLS, b" \x7f");
const FIELD_NAME: Table = with(BEYOND_ASCII, b" \"(),/:;<=>?@[\\]{}");
const FIELD_VALUE: Table = {
    let mut table = with(CONTROLS, b"\x7f");
    table[b'\t' as usize] = false;
    table
};

impl Escape {
    /// By the number that `ngx.escape_uri` takes.
    pub fn from_number(n: i32) -> Option<Escape> {
        Some(match n {
            0 => Escape::Uri,
            1 => Escape::Args,
            2 => Escape::Component,
            3 => Escape::Html,
            4 => Escape::Refresh,
            5 | 6 => Escape::Memcached,
            _ => return None,
        })
    }

    fn table(self) -> &'static Table {
        match self {
            Escape::Uri => &URI,
            Escape::Args => &ARGS,
            Escape::Component => &COMPONENT,
            Escape::Html => &HTML,
            Escape::Refresh => &REFRESH,
            Escape::Memcached => &MEMCACHED,
            Escape::Query => &QUERY,
            Escape::FieldName => &FIELD_NAME,
            Escape::FieldValue => &FIELD_VALUE,
        }
    }

    /// Whether the text stays as it is.
    pub fn is_clean(self, text: &[u8]) -> bool {
        let table = self.table();
        !text.iter().any(|b| table[usize::from(*b)])
    }

    /// Appends the text, escaped.
    pub fn append(self, text: &[u8], out: &mut Vec<u8>) {
        const HEX: &[u8; 16] = b"0123456789ABCDEF";
        let table = self.table();
        out.reserve(text.len());
        for b in text {
            if table[usize::from(*b)] {
                out.extend_from_slice(&[b'%', HEX[usize::from(b >> 4)], HEX[usize::from(b & 15)]]);
            } else {
                out.push(*b);
            }
        }
    }

    /// The text, escaped.
    pub fn apply(self, text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        self.append(text, &mut out);
        out
    }
}

/// Appends the text with `%XX` decoded and `+` as a space. What is no escape stays as it is.
pub fn unescape(text: &[u8], out: &mut Vec<u8>) {
    let hex = |at: usize| (*text.get(at)? as char).to_digit(16);
    let mut i = 0;
    while let Some(b) = text.get(i) {
        let byte = match b {
            b'+' => b' ',
            b'%' => match hex(i + 1).zip(hex(i + 2)) {
                Some((high, low)) => {
                    i += 2;
                    (high << 4 | low) as u8
                }
                None => b'%',
            },
            b => *b,
        };
        out.push(byte);
        i += 1;
    }
}

/// The first control byte that `ngx.req.set_uri` refuses in a URI: all but the tab.
pub fn unsafe_byte(uri: &[u8]) -> Option<u8> {
    uri.iter().copied().find(|b| FIELD_VALUE[usize::from(*b)])
}

/// One argument of a query string, still escaped. `None`: there was no `=`.
pub type Arg<'a> = (&'a [u8], Option<&'a [u8]>);

/// The arguments of a query string; those without a name are left out.
pub fn args(query: &[u8]) -> impl Iterator<Item = Arg<'_>> {
    query.split(|b| *b == b'&').filter_map(|part| {
        let (name, value) = match memchr::memchr(b'=', part) {
            Some(at) => (&part[..at], Some(&part[at + 1..])),
            None => (part, None),
        };
        (!name.is_empty()).then_some((name, value))
    })
}

/// How many arguments a query string has, nameless ones included.
pub fn count_args(query: &[u8]) -> usize {
    if query.is_empty() { 0 } else { memchr::memchr_iter(b'&', query).count() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unescaped(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        unescape(text, &mut out);
        out
    }

    #[test]
    fn each_type_has_its_own_set() {
        let all: Vec<u8> = (0x20..0x80).collect();
        let kept =
            |e: Escape| -> String { all.iter().filter(|b| e.is_clean(&[**b])).map(|b| *b as char).collect() };
        assert_eq!(
            kept(Escape::Component),
            "!'()*-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
        );
        let without = |removed: &str| -> String {
            all.iter().map(|b| *b as char).filter(|c| !removed.contains(*c)).collect()
        };
        assert_eq!(kept(Escape::Uri), without(" #%?\x7f"));
        assert_eq!(kept(Escape::Args), without(" #%+?\x7f"));
        assert_eq!(kept(Escape::Html), without(" \"#%'\x7f"));
        assert_eq!(kept(Escape::Refresh), without(" \"'\x7f"));
        assert_eq!(kept(Escape::Memcached), without(" %"));
    }

    #[test]
    fn escapes_and_back() {
        assert_eq!(Escape::Component.apply(b"a b&\xe4/~"), b"a%20b%26%E4%2F~");
        assert_eq!(Escape::FieldValue.apply(b"a\r\nb\tc"), b"a%0D%0Ab\tc");
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unescaped(&Escape::Component.apply(&all)), all);
    }

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(unescaped(b"%4a+%4A%zz%4%"), b"J J%zz%4%");
    }

    #[test]
    fn splits_arguments() {
        let got: Vec<_> = args(b"a=1&b&=x&&c=&d=e=f").collect();
        let want: Vec<Arg<'_>> =
            vec![(b"a", Some(b"1")), (b"b", None), (b"c", Some(b"")), (b"d", Some(b"e=f"))];
        assert_eq!(got, want);
        assert_eq!(args(b"").count(), 0);
        assert_eq!((count_args(b""), count_args(b"a"), count_args(b"a&&b")), (0, 1, 3));
    }

    #[test]
    fn finds_unsafe_bytes() {
        assert_eq!(unsafe_byte(b"/a\tb\n"), Some(b'\n'));
        assert_eq!(unsafe_byte("/ü b".as_bytes()), None);
    }
}
