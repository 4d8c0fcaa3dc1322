//! A name server that says what a test wants it to say, over UDP and TCP, and remembers what it was asked.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::PATIENCE;

/// The type of an IPv4 address.
pub const A: u16 = 1;
/// The type of an IPv6 address.
pub const AAAA: u16 = 28;
const CNAME: u16 = 5;
const HEADER_BYTES: usize = 12;

/// One question that came.
#[derive(Debug, Clone)]
pub struct Asked {
    /// In lower case, without the last dot.
    pub name: String,
    /// [`A`] or [`AAAA`].
    pub kind: u16,
    /// Whether it came over TCP.
    pub over_tcp: bool,
    query: Vec<u8>,
}

/// What is sent for a question; several messages go out one after the other.
pub type Script = dyn Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync;

/// A running server. Dropping it ends it.
pub struct Dns {
    /// Its port, of both protocols.
    pub port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    ended: Arc<AtomicBool>,
}

impl Dns {
    /// A server that answers by `script`.
    pub fn start(script: impl Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Dns {
        let (udp, tcp) = bind();
        let port = udp.local_addr().expect("a bound socket has an address").port();
        let dns = Dns { port, asked: Arc::default(), ended: Arc::default() };
        let script: Arc<Script> = Arc::new(script);
        let server =
            |script| Answering { script, asked: Arc::clone(&dns.asked), ended: Arc::clone(&dns.ended) };
        let (by_udp, by_tcp) = (server(Arc::clone(&script)), server(script));
        thread::spawn(move || by_udp.serve_udp(&udp));
        thread::spawn(move || by_tcp.serve_tcp(&tcp));
        dns
    }

    /// How often a name was asked for, by type.
    pub fn count(&self, name: &str, kind: u16) -> usize {
        self.asked().iter().filter(|a| a.name == name && a.kind == kind).count()
    }

    /// All questions so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        // Either may fail only when its thread is gone already.
        let _ = UdpSocket::bind("127.0.0.1:0").and_then(|s| s.send_to(b"", ("127.0.0.1", self.port)));
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// Both protocols on one port.
fn bind() -> (UdpSocket, TcpListener) {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = udp.local_addr().expect("a bound socket has an address");
        if let Ok(tcp) = TcpListener::bind(address) {
            return (udp, tcp);
        }
    }
}

struct Answering {
    script: Arc<Script>,
    asked: Arc<Mutex<Vec<Asked>>>,
    ended: Arc<AtomicBool>,
}

impl Answering {
    fn answers(&self, query: &[u8], over_tcp: bool) -> Vec<Vec<u8>> {
        let asked = Asked::read(query, over_tcp).expect("a query");
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
        (self.script)(&asked)
    }

    fn serve_udp(&self, socket: &UdpSocket) {
        let mut buffer = [0; 4096];
        loop {
            // An error is that of an earlier answer, whose receiver has left.
            let Ok((bytes, peer)) = socket.recv_from(&mut buffer) else { continue };
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            for message in self.answers(&buffer[..bytes], false) {
                let _ = socket.send_to(&message, peer);
            }
        }
    }

    fn serve_tcp(&self, listener: &TcpListener) {
        for stream in listener.incoming() {
            if self.ended.load(Ordering::Relaxed) {
                return;
            }
            // A client that leaves is its own business.
            let _ = stream.and_then(|s| self.serve_stream(s));
        }
    }

    fn serve_stream(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut length = [0; 2];
        stream.read_exact(&mut length)?;
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut query)?;
        for message in self.answers(&query, true) {
            let length = u16::try_from(message.len()).expect("a message of DNS");
            stream.write_all(&length.to_be_bytes())?;
            stream.write_all(&message)?;
        }
        Ok(())
    }
}

impl Asked {
    fn read(query: &[u8], over_tcp: bool) -> Option<Asked> {
        let mut labels = Vec::new();
        let mut at = HEADER_BYTES;
        loop {
            let length = usize::from(*query.get(at)?);
            let label = query.get(at + 1..at + 1 + length)?;
            at += 1 + length;
            if length == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(label).into_owned());
        }
        let kind = u16::from_be_bytes(query.get(at..at + 2)?.try_into().ok()?);
        Some(Asked { name: labels.join("."), kind, over_tcp, query: query.to_vec() })
    }

    /// A reply with these flags and records, already counted and written.
    fn reply(&self, flags: u16, records: &[Vec<u8>]) -> Vec<u8> {
        let mut message = self.query.clone();
        message[2..4].copy_from_slice(&flags.to_be_bytes());
        message[6..8].copy_from_slice(&(records.len() as u16).to_be_bytes());
        message.extend(records.concat());
        message
    }

    /// Those of `addresses` that are of the type asked for.
    pub fn addresses(&self, ttl_secs: u32, addresses: &[&str]) -> Vec<u8> {
        let data = addresses.iter().filter_map(|a| match a.parse().expect("an address") {
            IpAddr::V4(v4) if self.kind == A => Some(v4.octets().to_vec()),
            IpAddr::V6(v6) if self.kind == AAAA => Some(v6.octets().to_vec()),
            _ => None,
        });
        let records: Vec<_> = data.map(|d| record(self.kind, ttl_secs, &d)).collect();
        self.reply(0x8180, &records)
    }

    /// That the name is an alias, and no more.
    pub fn alias(&self, ttl_secs: u32, of: &str) -> Vec<u8> {
        let mut data: Vec<u8> = Vec::new();
        for label in of.split('.') {
            data.push(label.len() as u8);
            data.extend_from_slice(label.as_bytes());
        }
        data.push(0);
        self.reply(0x8180, &[record(CNAME, ttl_secs, &data)])
    }

    /// A failure.
    pub fn code(&self, code: u16) -> Vec<u8> {
        self.reply(0x8180 | code, &[])
    }

    /// That the records did not fit.
    pub fn truncated(&self) -> Vec<u8> {
        self.reply(0x8380, &[])
    }
}

/// A record of the name in the question.
fn record(kind: u16, ttl_secs: u32, data: &[u8]) -> Vec<u8> {
    let mut record = vec![0xc0, HEADER_BYTES as u8];
    record.extend_from_slice(&kind.to_be_bytes());
    record.extend_from_slice(&1_u16.to_be_bytes());
    record.extend_from_slice(&ttl_secs.to_be_bytes());
    record.extend_from_slice(&(data.len() as u16).to_be_bytes());
    record.extend_from_slice(data);
    record
}
