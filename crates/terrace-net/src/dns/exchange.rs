//! One server asked about one name: both kinds of address over one UDP socket, over TCP what did not fit.
//!
//! Each exchange has a socket, and thus a port, of its own. With the number of the query that makes replies hard to
//! guess; few wrong ones are read before the server is given up.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use terrace_base::OsError;
use terrace_base::log::{ErrorLog, Level};
use terrace_event::{timeout, timeout_at};
use thiserror::Error;

use super::NOT_FOUND;
use super::message::{Kind, Malformed, Query, Reply};
use crate::{Address, ConnectError, Datagram, Stream, connect};

/// The longest datagram that is read; without EDNS a server sends no more than 512 bytes.
const DATAGRAM_BYTES_MAX: usize = 4096;
/// How many datagrams that are no reply are read before the server is given up.
const WRONG_REPLIES_MAX: usize = 16;

/// What a server knows about a name.
pub(super) enum Answer {
    /// Its addresses, and for how many seconds.
    Addresses(Vec<IpAddr>, u32),
    /// Only that it is an alias of this name, and for how many seconds.
    Alias(String, u32),
    /// The server's code: [`NOT_FOUND`] is about the name, others are about the server.
    Failed(u8),
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub(super) enum Trouble {
    #[error("no answer")]
    Silent,
    #[error("{what} failed {}", OsError(.error))]
    Io { what: &'static str, error: io::Error },
    #[error("too many invalid DNS responses")]
    Wrong,
}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> Trouble {
    move |error| Trouble::Io { what, error }
}

/// One exchange.
pub(super) struct Exchange<'a> {
    pub server: SocketAddr,
    pub name: &'a str,
    pub log: &'a ErrorLog,
    /// How long the server may take.
    pub patience_ms: u64,
}

impl Exchange<'_> {
    /// Asks for addresses of these kinds, each with the number of its query.
    pub(super) async fn run(&self, kinds: &[(Kind, u16)]) -> Result<Answer, Trouble> {
        let end = Instant::now() + Duration::from_millis(self.patience_ms);
        let socket = Datagram::connect(&Address::Ip(self.server), None).map_err(io_error("connect()"))?;
        let mut open: Vec<Query> = kinds.iter().map(|(kind, id)| Query::new(*id, self.name, *kind)).collect();
        for query in &open {
            socket.send(query.bytes()).map_err(io_error("send()"))?;
        }
        let mut found = Found::default();
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let mut wrong = 0;
        while !open.is_empty() {
            let received = timeout_at(end, poll_fn(|cx| socket.poll_receive(cx, &mut buffer))).await;
            let Ok(received) = received else {
                // Some servers never answer what they have none of: addresses of the other kind will do.
                return if found.addresses.is_empty() { Err(Trouble::Silent) } else { Ok(found.answer()) };
            };
            let message = &buffer[..received.map_err(io_error("recv()"))?];
            let index = open.iter().position(|q| q.has_id_of(message));
            let read = index.ok_or(Malformed::Id).and_then(|i| Ok((i, open[i].read(message)?)));
            match read {
                Ok((i, Reply::Truncated)) => found.take(self.over_tcp(&open.swap_remove(i)).await?),
                Ok((i, reply)) => {
                    open.swap_remove(i);
                    found.take(reply);
                }
                Err(error) => {
                    self.complain(Level::Error, &error);
                    wrong += 1;
                    if wrong >= WRONG_REPLIES_MAX {
                        return Err(Trouble::Wrong);
                    }
                }
            }
        }
        Ok(found.answer())
    }

    async fn over_tcp(&self, query: &Query) -> Result<Reply, Trouble> {
        let exchange = async {
            let stream = match connect(&Address::Ip(self.server), self.patience_ms).await {
                Ok(stream) => stream,
                Err(ConnectError::Timeout) => return Err(Trouble::Silent),
                Err(ConnectError::Io(e) | ConnectError::Bind(e)) => return Err(io_error("connect()")(e)),
            };
            let length = u16::try_from(query.bytes().len()).unwrap_or(u16::MAX);
            let message = [&length.to_be_bytes(), query.bytes()].concat();
            stream.write_all(&message).await.map_err(io_error("send()"))?;
            let mut length = [0; 2];
            read_whole(&stream, &mut length).await.map_err(io_error("recv()"))?;
            let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
            read_whole(&stream, &mut message).await.map_err(io_error("recv()"))?;
            match query.read(&message) {
                // What does not fit here fits nowhere.
                Ok(Reply::Truncated) => Err(Trouble::Wrong),
                Ok(reply) => Ok(reply),
                Err(error) => {
                    self.complain(Level::Error, &error);
                    Err(Trouble::Wrong)
                }
            }
        };
        timeout(Duration::from_millis(self.patience_ms), exchange).await.unwrap_or(Err(Trouble::Silent))
    }

    /// Logs what is wrong with the server.
    pub(super) fn complain(&self, level: Level, what: &dyn std::fmt::Display) {
        let (name, server) = (self.name, self.server);
        self.log.print(level, None, format_args!("{what} while resolving \"{name}\", resolver: {server}"));
    }
}

async fn read_whole(stream: &Stream, mut buf: &mut [u8]) -> io::Result<()> {
    while !buf.is_empty() {
        match stream.read(buf).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => buf = &mut buf[n..],
        }
    }
    Ok(())
}

/// What the replies of an exchange say together.
#[derive(Default)]
struct Found {
    addresses: Vec<IpAddr>,
    alias: Option<String>,
    ttl_secs: Option<u32>,
    code: Option<u8>,
}

impl Found {
    fn take(&mut self, reply: Reply) {
        match reply {
            Reply::Truncated => {}
            Reply::Failed(code) => self.code = self.code.or(Some(code)),
            Reply::Records { addresses, alias, ttl_secs } => {
                if !addresses.is_empty() || alias.is_some() {
                    self.ttl_secs = Some(self.ttl_secs.map_or(ttl_secs, |t| t.min(ttl_secs)));
                }
                self.addresses.extend(addresses);
                self.alias = self.alias.take().or(alias);
            }
        }
    }

    fn answer(self) -> Answer {
        let ttl_secs = self.ttl_secs.unwrap_or(0);
        match (self.addresses.is_empty(), self.code, self.alias) {
            (false, _, _) => Answer::Addresses(self.addresses, ttl_secs),
            (true, Some(code), _) => Answer::Failed(code),
            (true, None, Some(alias)) => Answer::Alias(alias, ttl_secs),
            (true, None, None) => Answer::Failed(NOT_FOUND),
        }
    }
}
