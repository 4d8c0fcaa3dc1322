//! The few meta commands of memcached that the store needs (memcached's `doc/protocol.txt`, "Meta Commands"; 1.6 or newer), on
//! connections of our own: the clients that there are either lack compare-and-swap by meta commands or are not kept up.
//!
//! Invariant: a connection whose exchange did not end, for whatever reason, is never used again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::codec::VALUE_BYTES_MAX;

/// How long a line of the protocol may be.
const LINE_BYTES_MAX: u64 = 2_048;

/// An item as it was found.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) data: Bytes,
    /// Identifies this state of the item.
    pub(super) unique: u64,
    /// How long it still lives; none: for ever.
    pub(super) left_s: Option<u64>,
}

/// A request.
pub(super) enum Request<'a> {
    /// Reads an item.
    Get { name: &'a str },
    /// Writes an item if it is as it was found, or is still not there.
    Swap { name: &'a str, unique: Option<u64>, life_s: u64, data: &'a [u8] },
}

/// What a request came to.
#[derive(Debug)]
pub(super) enum Answer {
    Found(Item),
    Missing,
    Written,
    /// Somebody else was faster.
    Changed,
    /// The server's own words.
    Refused(String),
}

/// One server and the connections to it.
pub(super) struct Server {
    address: String,
    lanes: Vec<Mutex<Option<BufStream<TcpStream>>>>,
    next: AtomicUsize,
    connect_timeout: Duration,
}

impl Server {
    pub(super) fn new(address: String, connections: usize, connect_timeout: Duration) -> Self {
        let lanes = (0..connections).map(|_| Mutex::default()).collect();
        Self { address, lanes, next: AtomicUsize::new(0), connect_timeout }
    }

    /// Sends requests in one go and reads their answers. A connection that turns out to be dead is made anew, once.
    pub(super) async fn exchange(&self, requests: &[Request<'_>]) -> Result<Vec<Answer>, String> {
        let mut bytes = Vec::new();
        requests.iter().for_each(|request| request.write(&mut bytes));
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.lanes.len();
        let mut lane = self.lanes[at].lock().await;
        let reused = lane.take();
        let fresh = reused.is_none();
        let mut stream = match reused {
            Some(stream) => stream,
            None => self.connect().await?,
        };
        let mut answers = talk(&mut stream, &bytes, requests).await;
        if answers.is_err() && !fresh {
            stream = self.connect().await?;
            answers = talk(&mut stream, &bytes, requests).await;
        }
        let answers = answers.map_err(|error| format!("{}: {error}", self.address))?;
        *lane = Some(stream);
        Ok(answers)
    }

    async fn connect(&self) -> Result<BufStream<TcpStream>, String> {
        let connecting = tokio::time::timeout(self.connect_timeout, TcpStream::connect(&self.address)).await;
        let stream = connecting
            .map_err(|_| {
                format!("{}: no connection within {} ms", self.address, self.connect_timeout.as_millis())
            })?
            .map_err(|error| format!("{}: {error}", self.address))?;
        stream.set_nodelay(true).map_err(|error| format!("{}: {error}", self.address))?;
        Ok(BufStream::new(stream))
    }
}

impl Request<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Request::Get { name } => out.extend(format!("mg {name} v c t\r\n").into_bytes()),
            Request::Swap { name, unique, life_s, data } => {
                let condition = unique.map_or_else(|| "ME".to_owned(), |unique| format!("C{unique}"));
                let size = data.len();
                out.extend(format!("ms {name} {size} T{life_s} {condition}\r\n").into_bytes());
                out.extend_from_slice(data);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

async fn talk(
    stream: &mut BufStream<TcpStream>,
    bytes: &[u8],
    requests: &[Request<'_>],
) -> std::io::Result<Vec<Answer>> {
    stream.write_all(bytes).await?;
    stream.flush().await?;
    let mut answers = Vec::with_capacity(requests.len());
    for _ in requests {
        answers.push(read_answer(stream).await?);
    }
    Ok(answers)
}

async fn read_answer(stream: &mut BufStream<TcpStream>) -> std::io::Result<Answer> {
    let nonsense = || std::io::Error::new(std::io::ErrorKind::InvalidData, "an answer that makes no sense");
    let mut line = Vec::new();
    stream.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
    let line =
        std::str::from_utf8(&line).ok().and_then(|line| line.strip_suffix("\r\n")).ok_or_else(nonsense)?;
    let mut words = line.split(' ');
    match words.next().unwrap_or_default() {
        "VA" => {
            let size: usize = words.next().and_then(|size| size.parse().ok()).ok_or_else(nonsense)?;
            if size > VALUE_BYTES_MAX * 2 {
                return Err(nonsense());
            }
            let (mut unique, mut left_s) = (None, None);
            for word in words {
                match word.split_at_checked(1) {
                    Some(("c", number)) => unique = number.parse().ok(),
                    Some(("t", number)) => left_s = number.parse().ok(),
                    _ => {}
                }
            }
            let mut data = vec![0; size + 2];
            stream.read_exact(&mut data).await?;
            if data.split_off(size) != b"\r\n" {
                return Err(nonsense());
            }
            Ok(Answer::Found(Item { data: data.into(), unique: unique.ok_or_else(nonsense)?, left_s }))
        }
        "EN" => Ok(Answer::Missing),
        "HD" => Ok(Answer::Written),
        "NS" | "EX" | "NF" => Ok(Answer::Changed),
        "SERVER_ERROR" => Ok(Answer::Refused(line.to_owned())),
        _ => Err(nonsense()),
    }
}
