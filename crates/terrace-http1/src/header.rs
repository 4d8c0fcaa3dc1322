//! Header lines: their syntax, and numbers for the names that the server looks at.
//!
//! A name is scanned once; the lookup of its number needs no copy and no lower-casing. nginx's reading of a line is
//! kept: a line without a colon is a field with an empty value, and odd characters make a name invalid (dropped or
//! kept, as configured) while control characters and spaces make the head invalid.

use smallvec::SmallVec;

use crate::Span;

/// How many header lines a head holds without allocating.
pub const HEADERS_INLINE: usize = 24;

/// One header line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderLine {
    /// The name as sent.
    pub name: Span,
    /// The value without the white space around it.
    pub value: Span,
    /// The name's number, if the server knows it.
    pub id: Option<KnownHeader>,
}

/// A set of known names, to be made once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NameSet(u64);

impl NameSet {
    /// The set of these.
    pub const fn of(names: &[KnownHeader]) -> NameSet {
        let mut set = 0;
        let mut at = 0;
        while at < names.len() {
            set |= names[at].bit();
            at += 1;
        }
        NameSet(set)
    }

    /// The set with `name` in it.
    #[must_use]
    pub const fn with(self, name: KnownHeader) -> NameSet {
        NameSet(self.0 | name.bit())
    }

    /// Whether no name is in the set.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `name` is in the set.
    #[inline]
    pub const fn has(self, name: KnownHeader) -> bool {
        self.0 & name.bit() != 0
    }
}

/// The header lines of a head, in the order sent.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    lines: SmallVec<[HeaderLine; HEADERS_INLINE]>,
    seen: u64,
}

impl Headers {
    /// All lines, in the order sent.
    #[inline]
    pub fn lines(&self) -> &[HeaderLine] {
        &self.lines
    }

    /// Whether a field with this name was sent.
    #[inline]
    pub fn has(&self, id: KnownHeader) -> bool {
        self.seen & id.bit() != 0
    }

    /// Whether a field with one of these names was sent.
    #[inline]
    pub fn has_any(&self, names: NameSet) -> bool {
        self.seen & names.0 != 0
    }

    /// The first line with this name.
    #[inline]
    pub fn first(&self, id: KnownHeader) -> Option<&HeaderLine> {
        if !self.has(id) {
            return None;
        }
        self.lines.iter().find(|line| line.id == Some(id))
    }

    /// The value of the first line with this name; `buf` is the buffer that was parsed.
    #[inline]
    pub fn value<'buf>(&self, buf: &'buf [u8], id: KnownHeader) -> Option<&'buf [u8]> {
        self.first(id).map(|line| line.value.of(buf))
    }

    /// All lines with this name.
    pub fn all(&self, id: KnownHeader) -> impl Iterator<Item = &HeaderLine> {
        let lines = if self.has(id) { &self.lines[..] } else { &[] };
        lines.iter().filter(move |line| line.id == Some(id))
    }

    /// All lines whose name equals `name` in any case; `buf` is the buffer that was parsed.
    pub fn named<'a>(&'a self, buf: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a HeaderLine> {
        self.lines.iter().filter(move |line| line.name.of(buf).eq_ignore_ascii_case(name))
    }

    #[inline]
    pub(crate) fn push(&mut self, line: HeaderLine) {
        if let Some(id) = line.id {
            self.seen |= id.bit();
        }
        self.lines.push(line);
    }

    #[inline]
    pub(crate) fn clear(&mut self) {
        self.lines.clear();
        self.seen = 0;
    }
}

/// A header line taken apart, before anyone judged its name.
pub(crate) struct RawLine {
    pub(crate) name: Span,
    pub(crate) value: Span,
    pub(crate) id: Option<KnownHeader>,
    /// Whether the name has characters other than letters, digits, hyphens and underscores.
    pub(crate) odd: bool,
    /// Whether the name has underscores.
    pub(crate) underscore: bool,
}

/// Takes apart the line at `start..end` of `buf` (without its line end); the error is the offset of the byte that
/// makes it invalid.
#[inline(always)]
#[allow(clippy::inline_always, reason = "runs once a line; what it finds need not go through memory")]
pub(crate) fn split_line(buf: &[u8], start: usize, end: usize) -> Result<RawLine, usize> {
    let line = &buf[start..end];
    let colon = colon(line).unwrap_or(line.len());
    let name = &line[..colon];
    let id = KnownHeader::from_name(name);
    // The characters of a name that is known are known as well.
    let classes = if id.is_some() { 0 } else { name_classes(name).map_err(|at| start + at)? };
    let mut value = line.get(colon + 1..).unwrap_or_default();
    while let [blank, rest @ ..] = value
        && is_blank(*blank)
    {
        value = rest;
    }
    let value_start = end - value.len();
    while let [rest @ .., blank] = value
        && is_blank(*blank)
    {
        value = rest;
    }
    Ok(RawLine {
        name: Span::new(start, start + colon),
        value: Span::new(value_start, value_start + value.len()),
        id,
        odd: classes & ODD != 0,
        underscore: classes & UNDERSCORE != 0,
    })
}

/// The offset of the first colon. Names are short: word by word.
#[inline]
fn colon(line: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xff;
    const COLONS: u64 = ONES * b':' as u64;
    let (words, rest) = line.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let other = u64::from_le_bytes(*word) ^ COLONS;
        // The high bit of each byte that is zero. A borrow can only set bits of the bytes behind the first such byte.
        let zero = other.wrapping_sub(ONES) & !other & (ONES * 0x80);
        if zero != 0 {
            return Some(index * 8 + zero.trailing_zeros() as usize / 8);
        }
    }
    let searched = line.len() - rest.len();
    rest.iter().position(|byte| *byte == b':').map(|found| searched + found)
}

/// The classes of a name's characters, together; the error is the offset of the one that makes the line invalid.
fn name_classes(name: &[u8]) -> Result<u8, usize> {
    if name.is_empty() {
        return Err(0);
    }
    let mut classes = USUAL;
    for (at, &byte) in name.iter().enumerate() {
        let class = NAME_CLASSES[byte as usize];
        if class == REFUSED {
            return Err(at);
        }
        classes |= class;
    }
    Ok(classes)
}

#[inline]
fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

const USUAL: u8 = 0;
const UNDERSCORE: u8 = 1;
const ODD: u8 = 2;
const REFUSED: u8 = 4;

static NAME_CLASSES: [u8; 256] = {
    let mut classes = [ODD; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => USUAL,
            b'_' => UNDERSCORE,
            0..=b' ' | 0x7f => REFUSED,
            _ => ODD,
        };
        byte += 1;
    }
    classes
};

macro_rules! known_headers {
    ($($id:ident $name:literal)*) => {
        /// A header name that the server or the proxy looks at.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum KnownHeader {
            $(#[doc = $name] $id,)*
        }

        impl KnownHeader {
            /// All of them, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$id,)*];

            /// The name in its usual spelling.
            #[inline]
            pub fn name(self) -> &'static str {
                NAMES[self as usize]
            }
        }

        const NAMES: &[&str] = &[$($name,)*];
    };
}

known_headers! {
    Accept "Accept"
    AcceptEncoding "Accept-Encoding"
    AcceptLanguage "Accept-Language"
    AcceptRanges "Accept-Ranges"
    Age "Age"
    Authorization "Authorization"
    CacheControl "Cache-Control"
    Connection "Connection"
    ContentDisposition "Content-Disposition"
    ContentEncoding "Content-Encoding"
    ContentLength "Content-Length"
    ContentRange "Content-Range"
    ContentType "Content-Type"
    Cookie "Cookie"
    Date "Date"
    Depth "Depth"
    Destination "Destination"
    ETag "ETag"
    Expect "Expect"
    Expires "Expires"
    Host "Host"
    IfMatch "If-Match"
    IfModifiedSince "If-Modified-Since"
    IfNoneMatch "If-None-Match"
    IfRange "If-Range"
    IfUnmodifiedSince "If-Unmodified-Since"
    KeepAlive "Keep-Alive"
    LastModified "Last-Modified"
    Link "Link"
    Location "Location"
    Origin "Origin"
    Overwrite "Overwrite"
    Pragma "Pragma"
    ProxyAuthenticate "Proxy-Authenticate"
    ProxyAuthorization "Proxy-Authorization"
    ProxyConnection "Proxy-Connection"
    Range "Range"
    Referer "Referer"
    Refresh "Refresh"
    Server "Server"
    SetCookie "Set-Cookie"
    Status "Status"
    Te "TE"
    Trailer "Trailer"
    TransferEncoding "Transfer-Encoding"
    Upgrade "Upgrade"
    UserAgent "User-Agent"
    Vary "Vary"
    Via "Via"
    WwwAuthenticate "WWW-Authenticate"
    XAccelBuffering "X-Accel-Buffering"
    XAccelCharset "X-Accel-Charset"
    XAccelExpires "X-Accel-Expires"
    XAccelLimitRate "X-Accel-Limit-Rate"
    XAccelRedirect "X-Accel-Redirect"
    XForwardedFor "X-Forwarded-For"
    XForwardedHost "X-Forwarded-Host"
    XForwardedProto "X-Forwarded-Proto"
    XRealIp "X-Real-IP"
}

impl KnownHeader {
    /// The number of a name in any case.
    #[inline]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        let (&first, &last) = (name.first()?, name.last()?);
        let mut candidate = HEADS[slot(name.len(), first, last)];
        while candidate != NONE {
            if is_name(name, NAMES[candidate as usize].as_bytes()) {
                return Some(Self::ALL[candidate as usize]);
            }
            candidate = NEXT[candidate as usize];
        }
        None
    }

    #[inline]
    pub(crate) const fn bit(self) -> u64 {
        1 << self as u8
    }
}

const _: () = assert!(NAMES.len() <= u64::BITS as usize, "the set of seen names is a u64");

/// Whether `name` is `known` in any case. Word by word, the last one overlapping the one before.
#[inline]
fn is_name(name: &[u8], known: &[u8]) -> bool {
    if name.len() != known.len() {
        return false;
    }
    if let (Some(name_end), Some(known_end)) = (name.last_chunk::<8>(), known.last_chunk::<8>()) {
        let words = name.as_chunks::<8>().0.iter().zip(known.as_chunks::<8>().0);
        let is_word = |a: &[u8; 8], b: &[u8; 8]| is_word(u64::from_le_bytes(*a), u64::from_le_bytes(*b));
        return is_word(name_end, known_end) && words.into_iter().all(|(a, b)| is_word(a, b));
    }
    if let (Some(name), Some(known)) = (half_words(name), half_words(known)) {
        return is_word(name, known);
    }
    name.eq_ignore_ascii_case(known)
}

/// The first and the last four bytes.
#[inline]
fn half_words(text: &[u8]) -> Option<u64> {
    let (first, last) = (text.first_chunk::<4>()?, text.last_chunk::<4>()?);
    Some(u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32)
}

/// Whether two words have the same letters in any case. `known` has letters and hyphens only.
#[inline]
fn is_word(word: u64, known: u64) -> bool {
    const CASE: u64 = u64::MAX / 0xff * 0x20;
    // Without its case bit a letter still has the bit above; a control character, which a hyphen would hide, has not.
    (word | CASE) == (known | CASE) && (word | word >> 1) & CASE == CASE
}

/// The end of a chain in the name table.
const NONE: u8 = u8::MAX;

const SLOTS: usize = 256;

/// The slot of a name in the table, from its length, first and last byte.
#[inline]
const fn slot(len: usize, first: u8, last: u8) -> usize {
    let (first, last) = ((first | 0x20) as usize, (last | 0x20) as usize);
    (len.wrapping_mul(41) ^ (first * 11) ^ (last * 3)) % SLOTS
}

/// A chained hash table that is filled at compile time: the first name of each slot, and the name after each.
static HEADS: [u8; SLOTS] = TABLE.0;
static NEXT: [u8; NAMES.len()] = TABLE.1;

const TABLE: ([u8; SLOTS], [u8; NAMES.len()]) = {
    let mut heads = [NONE; SLOTS];
    let mut next = [NONE; NAMES.len()];
    let mut id = 0;
    while id < NAMES.len() {
        let name = NAMES[id].as_bytes();
        let slot = slot(name.len(), name[0], name[name.len() - 1]);
        next[id] = heads[slot];
        heads[slot] = id as u8;
        id += 1;
    }
    (heads, next)
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_found_in_any_case() {
        for &id in KnownHeader::ALL {
            let name = id.name();
            for spelling in [name.to_owned(), name.to_lowercase(), name.to_uppercase()] {
                assert_eq!(KnownHeader::from_name(spelling.as_bytes()), Some(id), "{spelling}");
            }
            assert_eq!(KnownHeader::from_name(format!("{name}x").as_bytes()), None);
            assert_eq!(KnownHeader::from_name(&name.as_bytes()[1..]), None, "{name}");
        }
        assert_eq!(KnownHeader::from_name(b""), None);
        assert_eq!(KnownHeader::from_name(b"Content_Length"), None);
        assert_eq!(KnownHeader::from_name(b"Content\rLength"), None);
        assert_eq!(KnownHeader::from_name(b"Content-Lengt\x48"), Some(KnownHeader::ContentLength));
        assert_eq!(KnownHeader::from_name(b"Content-Lengt\x08"), None);
        assert_eq!(KnownHeader::from_name(b"\x08ost"), None);
    }
}
