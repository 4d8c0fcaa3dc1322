//! A minimal client of Kafka's protocol for the launcher and for tests that look at a broker from outside: one
//! connection, one request at a time, the old request versions with fixed layouts
//! (<https://kafka.apache.org/protocol>).

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long one answer may take.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// How much one fetch asks for.
const FETCH_BYTES_MAX: i32 = 8 << 20;

/// The error code of a topic that is there already.
const TOPIC_ALREADY_EXISTS: i16 = 36;

/// A request and its version.
#[derive(Debug, Clone, Copy)]
struct Api(i16, i16);

const PRODUCE: Api = Api(0, 2);
const FETCH: Api = Api(1, 2);
const METADATA: Api = Api(3, 1);
const OFFSET_FETCH: Api = Api(9, 1);
const FIND_COORDINATOR: Api = Api(10, 0);
const CREATE_TOPICS: Api = Api(19, 1);

/// A record of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place.
    pub offset: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
}

impl Record {
    /// The value as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }
}

/// A connection.
pub struct KafkaClient(TcpStream);

impl KafkaClient {
    /// Connects.
    pub fn connect(address: SocketAddr) -> io::Result<KafkaClient> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.set_nodelay(true)?;
        Ok(KafkaClient(stream))
    }

    /// Whether the broker has a place in its cluster, and a controller.
    pub fn is_ready(&mut self) -> io::Result<bool> {
        let mut answer = self.call(METADATA, Writer::default().i32(0))?;
        let brokers = answer.i32()?;
        for _ in 0..brokers {
            answer.i32()?;
            answer.string()?;
            answer.i32()?;
            answer.string()?;
        }
        Ok(brokers > 0 && answer.i32()? >= 0)
    }

    /// Makes a topic; one that is there is left as it is.
    pub fn create_topic(&mut self, topic: &str, partitions: i32) -> io::Result<()> {
        let body = Writer::default().i32(1).string(topic).i32(partitions).i16(1).i32(0).i32(0);
        let mut answer = self.call(CREATE_TOPICS, body.i32(TIMEOUT.as_millis() as i32).i8(0))?;
        answer.i32()?;
        answer.string()?;
        match answer.i16()? {
            0 | TOPIC_ALREADY_EXISTS => Ok(()),
            code => Err(failed(code)),
        }
    }

    /// Appends a record; its offset. It is durable as far as one broker goes.
    pub fn produce(&mut self, topic: &str, partition: i32, key: &[u8], value: &[u8]) -> io::Result<i64> {
        // Magic 1, no compression, the time of the broker's choice.
        let checked = Writer::default().i8(1).i8(0).i64(-1).bytes(key).bytes(value);
        let crc = crc32fast::hash(&checked.0);
        let message = Writer::default().i32(crc as i32).raw(&checked.0);
        let set = Writer::default().i64(0).bytes(&message.0);
        let body = Writer::default().i16(-1).i32(TIMEOUT.as_millis() as i32).i32(1).string(topic);
        let mut answer = self.call(PRODUCE, body.i32(1).i32(partition).bytes(&set.0))?;
        answer.i32()?;
        answer.string()?;
        answer.i32()?;
        answer.i32()?;
        answer.ok()?;
        answer.i64()
    }

    /// The records of a partition from an offset to its end.
    pub fn records(&mut self, topic: &str, partition: i32, from: i64) -> io::Result<Vec<Record>> {
        let mut records: Vec<Record> = Vec::new();
        loop {
            let next = records.last().map_or(from, |r| r.offset + 1);
            let (end, more) = self.fetch(topic, partition, next)?;
            let got = more.len();
            // A compressed batch is given whole, from before what was asked for.
            records.extend(more.into_iter().filter(|r| r.offset >= next));
            if records.last().map_or(from, |r| r.offset + 1) >= end || got == 0 {
                return Ok(records);
            }
        }
    }

    /// The committed offset of a group; -1 if there is none.
    pub fn committed(&mut self, group: &str, topic: &str, partition: i32) -> io::Result<i64> {
        // The first question for a coordinator is what makes the broker keep groups at all.
        self.call(FIND_COORDINATOR, Writer::default().string(group))?.ok()?;
        let body = Writer::default().string(group).i32(1).string(topic).i32(1).i32(partition);
        let mut answer = self.call(OFFSET_FETCH, body)?;
        answer.i32()?;
        answer.string()?;
        answer.i32()?;
        answer.i32()?;
        let offset = answer.i64()?;
        answer.string()?;
        answer.ok()?;
        Ok(offset)
    }

    fn fetch(&mut self, topic: &str, partition: i32, from: i64) -> io::Result<(i64, Vec<Record>)> {
        let body = Writer::default().i32(-1).i32(0).i32(0).i32(1).string(topic).i32(1);
        let mut answer = self.call(FETCH, body.i32(partition).i64(from).i32(FETCH_BYTES_MAX))?;
        answer.i32()?;
        answer.i32()?;
        answer.string()?;
        answer.i32()?;
        answer.i32()?;
        answer.ok()?;
        let end = answer.i64()?;
        let mut set = Answer { bytes: answer.bytes()?.unwrap_or_default(), at: 0 };
        let mut records = Vec::new();
        // The last message may be cut off.
        while let Ok(offset) = set.i64() {
            let Ok(Some(message)) = set.bytes() else { break };
            let mut message = Answer { bytes: message, at: 0 };
            message.i32()?;
            let magic = message.i8()?;
            if message.i8()? & 7 != 0 {
                return Err(io::Error::other("compressed records are not read"));
            }
            if magic == 1 {
                message.i64()?;
            }
            records.push(Record { offset, key: message.bytes()?, value: message.bytes()? });
        }
        Ok((end, records))
    }

    fn call(&mut self, api: Api, body: Writer) -> io::Result<Answer> {
        let head = Writer::default().i16(api.0).i16(api.1).i32(0).string("terrace-tests");
        let request = Writer::default().bytes(&head.raw(&body.0).0);
        self.0.write_all(&request.0)?;
        let mut size = [0; 4];
        self.0.read_exact(&mut size)?;
        let size = u32::from_be_bytes(size) as usize;
        if size > ANSWER_BYTES_MAX {
            return Err(io::Error::other("an answer that is too long"));
        }
        let mut bytes = vec![0; size];
        self.0.read_exact(&mut bytes)?;
        let mut answer = Answer { bytes, at: 0 };
        answer.i32()?;
        Ok(answer)
    }
}

/// The error of a code. Where the broker has no leader or coordinator yet, it is [`io::ErrorKind::NotConnected`]:
/// nothing was done, and asking again will do.
fn failed(code: i16) -> io::Error {
    let kind = match code {
        // Unknown partition, leader not available, not leader, coordinator loading, not available, elsewhere.
        3 | 5 | 6 | 14 | 15 | 16 => io::ErrorKind::NotConnected,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, format!("Kafka's error {code}"))
}

/// What is sent: big-endian numbers, strings with two bytes of length, bytes with four.
#[derive(Debug, Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn raw(mut self, bytes: &[u8]) -> Writer {
        self.0.extend(bytes);
        self
    }

    fn i8(self, n: i8) -> Writer {
        self.raw(&n.to_be_bytes())
    }

    fn i16(self, n: i16) -> Writer {
        self.raw(&n.to_be_bytes())
    }

    fn i32(self, n: i32) -> Writer {
        self.raw(&n.to_be_bytes())
    }

    fn i64(self, n: i64) -> Writer {
        self.raw(&n.to_be_bytes())
    }

    fn string(self, text: &str) -> Writer {
        self.i16(text.len() as i16).raw(text.as_bytes())
    }

    fn bytes(self, bytes: &[u8]) -> Writer {
        self.i32(bytes.len() as i32).raw(bytes)
    }
}

/// What was received, and how far it was read. An end too early is an error.
struct Answer {
    bytes: Vec<u8>,
    at: usize,
}

impl Answer {
    fn take(&mut self, len: usize) -> io::Result<&[u8]> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.get(..len));
        self.at += len;
        taken.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn number<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn i8(&mut self) -> io::Result<i8> {
        self.number().map(i8::from_be_bytes)
    }

    fn i16(&mut self) -> io::Result<i16> {
        self.number().map(i16::from_be_bytes)
    }

    fn i32(&mut self) -> io::Result<i32> {
        self.number().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> io::Result<i64> {
        self.number().map(i64::from_be_bytes)
    }

    /// An error code, which must be none.
    fn ok(&mut self) -> io::Result<()> {
        match self.i16()? {
            0 => Ok(()),
            code => Err(failed(code)),
        }
    }

    fn string(&mut self) -> io::Result<()> {
        let len = self.i16()?.max(0);
        self.take(len as usize).map(|_| ())
    }

    fn bytes(&mut self) -> io::Result<Option<Vec<u8>>> {
        match usize::try_from(self.i32()?) {
            Ok(len) => self.take(len).map(|b| Some(b.to_vec())),
            Err(_) => Ok(None),
        }
    }
}
