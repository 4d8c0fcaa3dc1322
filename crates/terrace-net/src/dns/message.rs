//! DNS messages (RFC 1035, section 4): queries for a name's addresses, and the replies to them.
//!
//! Only what a stub resolver needs. A reply is taken for what it says only if it has the query's number and question;
//! of its records, those of addresses count, whatever their owner's name: a server that recurses follows aliases itself.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

/// The longest name, as text without its last dot.
const NAME_BYTES_MAX: usize = 253;
const LABEL_BYTES_MAX: usize = 63;
const HEADER_BYTES: usize = 12;
/// How many addresses of a reply are taken.
const ADDRESSES_MAX: usize = 256;
/// How many pointers of a compressed name are followed.
const POINTERS_MAX: usize = 64;

/// The class of all queries: the internet.
const IN: u16 = 1;
const CNAME: u16 = 5;
/// A standard query that asks for recursion.
const QUERY: u16 = 0x0100;
/// A reply, its kind of query, and the bits that must be 0.
const REPLY_MASK: u16 = 0xf870;
const REPLY: u16 = 0x8000;
const TRUNCATED: u16 = 0x0200;
const CODE_MASK: u16 = 0x000f;

/// Which addresses are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// IPv4.
    A,
    /// IPv6.
    Aaaa,
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Kind::A => 1,
            Kind::Aaaa => 28,
        }
    }
}

/// A query.
#[derive(Debug, Clone)]
pub struct Query {
    id: u16,
    kind: Kind,
    bytes: Vec<u8>,
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It did not fit: to be asked for over TCP.
    Truncated,
    /// The server's code for a failure, which is not 0.
    Failed(u8),
    /// The records.
    Records {
        /// The addresses.
        addresses: Vec<IpAddr>,
        /// The name that the one asked for is an alias of, where there is one.
        alias: Option<String>,
        /// How long any of it is good, in seconds; of no meaning without records.
        ttl_secs: u32,
    },
}

/// Why a message is no reply to a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// It ends too early.
    #[error("short DNS response")]
    Short,
    /// It is no reply to a standard query.
    #[error("invalid DNS response")]
    Flags,
    /// It is a reply to another query.
    #[error("wrong ident in DNS response")]
    Id,
    /// It answers another question.
    #[error("unexpected DNS response")]
    Question,
    /// A name in it is none.
    #[error("invalid name in DNS response")]
    Name,
    /// A record in it is not what it should be.
    #[error("invalid record in DNS response")]
    Record,
}

/// A host as its name is asked for and remembered: in lower case, without the dot at its end. `None` for what no
/// query can have.
pub fn name_of(host: &str) -> Option<Cow<'_, str>> {
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.len() > NAME_BYTES_MAX || name.split('.').any(|l| l.is_empty() || l.len() > LABEL_BYTES_MAX) {
        return None;
    }
    if name.bytes().any(|b| b.is_ascii_uppercase()) {
        return Some(name.to_ascii_lowercase().into());
    }
    Some(name.into())
}

impl Query {
    /// Asks for the addresses of a name that [`name_of`] gave.
    pub fn new(id: u16, name: &str, kind: Kind) -> Query {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + name.len() + 6);
        for n in [id, QUERY, 1, 0, 0, 0] {
            bytes.extend_from_slice(&n.to_be_bytes());
        }
        for label in name.split('.') {
            bytes.push(label.len().min(LABEL_BYTES_MAX) as u8);
            bytes.extend_from_slice(&label.as_bytes()[..label.len().min(LABEL_BYTES_MAX)]);
        }
        bytes.push(0);
        bytes.extend_from_slice(&kind.number().to_be_bytes());
        bytes.extend_from_slice(&IN.to_be_bytes());
        Query { id, kind, bytes }
    }

    /// The message.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether a message has this query's number.
    pub fn has_id_of(&self, message: &[u8]) -> bool {
        message.get(..2) == Some(&self.id.to_be_bytes())
    }

    /// Reads a message as the reply to this query.
    ///
    /// # Errors
    /// When it is not one.
    pub fn read(&self, message: &[u8]) -> Result<Reply, Malformed> {
        let mut input = Input { message, at: 0 };
        let [id, flags, questions, answers, _, _] = input.header()?;
        if id != self.id {
            return Err(Malformed::Id);
        }
        if flags & REPLY_MASK != REPLY {
            return Err(Malformed::Flags);
        }
        let code = (flags & CODE_MASK) as u8;
        // A server that did not understand the query may leave the question out.
        if code != 0 && questions == 0 {
            return Ok(Reply::Failed(code));
        }
        let asked = &self.bytes[HEADER_BYTES..];
        if questions != 1 || !input.take(asked.len())?.eq_ignore_ascii_case(asked) {
            return Err(Malformed::Question);
        }
        if flags & TRUNCATED != 0 {
            return Ok(Reply::Truncated);
        }
        if code != 0 {
            return Ok(Reply::Failed(code));
        }
        self.records(&mut input, answers)
    }

    fn records(&self, input: &mut Input<'_>, count: u16) -> Result<Reply, Malformed> {
        let (mut addresses, mut alias, mut ttl_secs) = (Vec::new(), None, u32::MAX);
        for _ in 0..count {
            input.skip_name()?;
            let (kind, class) = (input.u16()?, input.u16()?);
            // RFC 2181, section 8: the top bit is 0; a TTL that has it set counts as 0.
            let ttl = input.u32()?;
            let ttl = if i32::try_from(ttl).is_ok() { ttl } else { 0 };
            let length = usize::from(input.u16()?);
            let start = input.at;
            let data = input.take(length)?;
            if class != IN {
                return Err(Malformed::Record);
            }
            if kind == self.kind.number() {
                let ip = address(self.kind, data).ok_or(Malformed::Record)?;
                if addresses.len() < ADDRESSES_MAX && !addresses.contains(&ip) {
                    addresses.push(ip);
                }
                ttl_secs = ttl_secs.min(ttl);
            } else if kind == CNAME {
                alias = Some(Input { message: input.message, at: start }.name()?);
                ttl_secs = ttl_secs.min(ttl);
            }
        }
        Ok(Reply::Records { addresses, alias, ttl_secs })
    }
}

fn address(kind: Kind, data: &[u8]) -> Option<IpAddr> {
    Some(match kind {
        Kind::A => Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into(),
        Kind::Aaaa => Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into(),
    })
}

/// A message being read.
struct Input<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(bytes).ok_or(Malformed::Short)?;
        let taken = self.message.get(self.at..end).ok_or(Malformed::Short)?;
        self.at = end;
        Ok(taken)
    }

    fn header(&mut self) -> Result<[u16; 6], Malformed> {
        let mut all = [0; 6];
        for field in &mut all {
            *field = self.u16()?;
        }
        Ok(all)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.take(1).map(|b| b[0])
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from(self.u16()?) << 16 | u32::from(self.u16()?))
    }

    /// Goes beyond a name, which a pointer ends.
    fn skip_name(&mut self) -> Result<(), Malformed> {
        loop {
            match self.u8()? {
                0 => return Ok(()),
                n if n & 0xc0 == 0xc0 => return self.take(1).map(|_| ()),
                n if n & 0xc0 != 0 => return Err(Malformed::Name),
                n => _ = self.take(usize::from(n))?,
            }
        }
    }

    /// A name as it is asked for in turn. Bytes that no host's name has are an error.
    fn name(mut self) -> Result<String, Malformed> {
        let mut name = String::new();
        let mut pointers = 0;
        loop {
            match self.u8()? {
                0 => break,
                n if n & 0xc0 == 0xc0 => {
                    pointers += 1;
                    if pointers > POINTERS_MAX {
                        return Err(Malformed::Name);
                    }
                    self.at = usize::from(n & 0x3f) << 8 | usize::from(self.u8()?);
                }
                n if n & 0xc0 != 0 => return Err(Malformed::Name),
                n => {
                    let label = self.take(usize::from(n))?;
                    if label.iter().any(|b| !b.is_ascii_graphic() || *b == b'.') {
                        return Err(Malformed::Name);
                    }
                    let dot = if name.is_empty() { "" } else { "." };
                    // Writing to a string does not fail.
                    let _ = write!(name, "{dot}{}", String::from_utf8_lossy(label).to_ascii_lowercase());
                    if name.len() > NAME_BYTES_MAX {
                        return Err(Malformed::Name);
                    }
                }
            }
        }
        if name.is_empty() { Err(Malformed::Name) } else { Ok(name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: u16 = 0x1234;

    fn query() -> Query {
        Query::new(ID, "a.test", Kind::A)
    }

    /// A reply to `query` with these flags, number of records, and records.
    fn reply(query: &Query, flags: u16, count: u16, records: &[u8]) -> Vec<u8> {
        let mut message = query.bytes().to_vec();
        message[2..4].copy_from_slice(&flags.to_be_bytes());
        message[6..8].copy_from_slice(&count.to_be_bytes());
        message.extend_from_slice(records);
        message
    }

    /// A record whose name is that of the question.
    fn record(kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
        let mut record = vec![0xc0, 12];
        record.extend_from_slice(&kind.to_be_bytes());
        record.extend_from_slice(&IN.to_be_bytes());
        record.extend_from_slice(&ttl.to_be_bytes());
        record.extend_from_slice(&(data.len() as u16).to_be_bytes());
        record.extend_from_slice(data);
        record
    }

    #[test]
    fn a_query_is_to_the_byte_what_the_rfc_says() {
        let want = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x04test\x00\x00\x01\x00\x01";
        assert_eq!(query().bytes(), want);
        assert!(Query::new(1, "a", Kind::Aaaa).bytes().ends_with(b"\x01a\x00\x00\x1c\x00\x01"));
    }

    #[test]
    fn names_are_checked_and_put_into_lower_case() {
        let name = |h: &str| name_of(h).map(Cow::into_owned);
        assert_eq!(name("Web.Test.").as_deref(), Some("web.test"));
        assert_eq!(name("a").as_deref(), Some("a"));
        for bad in ["", ".", "a..b", ".a", &"x".repeat(64), &"x.".repeat(128)] {
            assert_eq!(name(bad), None, "{bad}");
        }
        assert!(name(&"x".repeat(63)).is_some());
    }

    #[test]
    fn addresses_aliases_and_the_shortest_ttl() {
        let q = query();
        let records = [
            record(CNAME, 60, b"\x04Real\x04test\x00"),
            record(1, 7, &[127, 0, 0, 9]),
            record(1, 9, &[127, 0, 0, 8]),
            record(1, 9, &[127, 0, 0, 9]),
            // Of another kind: passed over.
            record(16, 1, b"\x01x"),
        ];
        let got = q.read(&reply(&q, 0x8180, 5, &records.concat())).unwrap();
        let addresses = ["127.0.0.9", "127.0.0.8"].map(|a| a.parse().unwrap()).to_vec();
        assert_eq!(got, Reply::Records { addresses, alias: Some("real.test".into()), ttl_secs: 7 });
        let six = Query::new(ID, "a.test", Kind::Aaaa);
        let v6 = record(28, 1 << 31, &"::5".parse::<Ipv6Addr>().unwrap().octets());
        let want = Reply::Records { addresses: vec!["::5".parse().unwrap()], alias: None, ttl_secs: 0 };
        assert_eq!(six.read(&reply(&six, 0x8180, 1, &v6)), Ok(want));
    }

    #[test]
    fn codes_truncation_and_case() {
        let q = query();
        assert_eq!(q.read(&reply(&q, 0x8183, 0, b"")), Ok(Reply::Failed(3)));
        assert_eq!(q.read(&reply(&q, 0x8380, 0, b"")), Ok(Reply::Truncated));
        assert_eq!(q.read(b"\x12\x34\x81\x01\0\0\0\0\0\0\0\0"), Ok(Reply::Failed(1)));
        let mut upper = reply(&q, 0x8180, 0, b"");
        upper[13] = b'A';
        assert!(matches!(q.read(&upper), Ok(Reply::Records { .. })));
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let q = query();
        let other = Query::new(ID + 1, "a.test", Kind::A);
        assert_eq!(q.read(&reply(&other, 0x8180, 0, b"")), Err(Malformed::Id));
        let name = Query::new(ID, "b.test", Kind::A);
        assert_eq!(q.read(&reply(&name, 0x8180, 0, b"")), Err(Malformed::Question));
        let six = Query::new(ID, "a.test", Kind::Aaaa);
        assert_eq!(q.read(&reply(&six, 0x8180, 0, b"")), Err(Malformed::Question));
        assert_eq!(q.read(q.bytes()), Err(Malformed::Flags));
        assert_eq!(q.read(&reply(&q, 0x8180, 1, &record(1, 1, &[1, 2, 3]))), Err(Malformed::Record));
        assert_eq!(q.read(&reply(&q, 0x8180, 1, &record(CNAME, 1, b"\x00"))), Err(Malformed::Name));
        assert_eq!(q.read(&reply(&q, 0x8180, 1, &record(CNAME, 1, b"\x02a b\x00"))), Err(Malformed::Name));
    }

    #[test]
    fn pointers_that_go_round_end() {
        let q = query();
        let start = q.bytes().len();
        let here = [0xc0, (start + 12) as u8];
        assert_eq!(q.read(&reply(&q, 0x8180, 1, &record(CNAME, 1, &here))), Err(Malformed::Name));
    }

    #[test]
    fn no_change_of_a_reply_does_harm() {
        let q = query();
        let records = [record(CNAME, 60, b"\x04real\xc0\x0e"), record(1, 7, &[127, 0, 0, 9])].concat();
        let whole = reply(&q, 0x8180, 2, &records);
        assert!(matches!(q.read(&whole), Ok(Reply::Records { .. })));
        for at in 0..whole.len() {
            for value in 0..=255 {
                let mut changed = whole.clone();
                changed[at] = value;
                if let Ok(Reply::Records { alias: Some(alias), .. }) = q.read(&changed) {
                    assert_eq!(name_of(&alias).as_deref(), Some(&alias[..]), "{at} {value}");
                }
            }
        }
    }

    #[test]
    fn every_beginning_of_a_reply_is_short() {
        let q = query();
        let whole = reply(&q, 0x8180, 1, &record(1, 7, &[127, 0, 0, 9]));
        for end in 0..whole.len() {
            assert_eq!(q.read(&whole[..end]), Err(Malformed::Short), "{end}");
        }
        assert!(q.read(&whole).is_ok());
    }
}
