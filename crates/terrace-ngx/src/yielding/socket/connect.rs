//! Connecting: an idle connection of the pool, or a name's addresses one after the other.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use smallvec::smallvec;
use terrace_base::log::Level;
use terrace_base::{OsError, clock};
use terrace_http::Request;
use terrace_lua::{Operation, Value, Values};
use terrace_net::{Address, ConnectError, Stream};

use super::conn::{Conn, reason};
use super::pool::{Acquired, Lease, Pool, Pools};
use super::tcp::{Busy, Tcp, log_socket, setting};
use super::transport::Transport;

/// Where to connect to and through which pool.
pub struct Target<'a> {
    /// A name, an address, or `unix:/path`.
    pub host: &'a [u8],
    /// The port; of no meaning for a Unix socket.
    pub port: u16,
    /// Whether a port was given, which is then a part of the pool's key.
    pub has_port: bool,
    /// The pool's name, where the script gave one.
    pub pool: &'a [u8],
    /// The pool's size, where the script gave one.
    pub pool_size: Option<usize>,
    /// How many may wait for a connection, where the script says so.
    pub backlog: Option<usize>,
}

/// How connecting began.
pub enum Connecting {
    /// With a connection out of the pool.
    Done,
    /// It failed at once.
    Failed(&'static str),
    /// It waits.
    Waits(Operation),
}

/// Connects a socket that the request has adopted.
pub fn connect(socket: &Rc<Tcp>, r: &Rc<Request>, target: &Target<'_>) -> Connecting {
    let pools = r.worker.state(Pools::default);
    let mut key = socket.key.borrow_mut();
    target.write_key(&mut key);
    let pool = match (target.pool_size, target.backlog) {
        (None, None) => pools.find(&key),
        (size, backlog) => {
            let size = size.unwrap_or_else(|| setting(r, |s| s.socket_pool_size(), 30));
            Some(pools.find_or_make(&key, size, backlog))
        }
    };
    drop(key);
    let timeout_ms =
        socket.connect_timeout_ms.get().unwrap_or_else(|| setting(r, |s| s.socket_connect_timeout(), 60_000));
    let lease = match pool.as_ref().map(Pool::acquire) {
        Some(Some(Acquired::Idle(conn))) => {
            reuse(socket, conn);
            return Connecting::Done;
        }
        Some(Some(Acquired::Lease(lease))) => Start::Open(Some(lease)),
        None => Start::Open(None),
        Some(None) => match pool {
            Some(pool) if pool.may_queue() => Start::Queue(pool),
            _ => return Connecting::Failed("too many waiting connect operations"),
        },
    };
    let attempt = Attempt {
        r: Rc::clone(r),
        busy: socket.hold_connecting(),
        host: String::from_utf8_lossy(target.host).into_owned(),
        port: target.port,
        timeout_ms,
        deadline_ms: Cell::new(0),
    };
    attempt.start_clock();
    Connecting::Waits(Box::pin(attempt.run(lease)))
}

fn reuse(socket: &Tcp, conn: Rc<Conn>) {
    conn.reused.set(conn.reused.get().saturating_add(1));
    socket.open(conn);
}

impl Target<'_> {
    fn write_key(&self, key: &mut Vec<u8>) {
        key.clear();
        if !self.pool.is_empty() {
            key.extend_from_slice(self.pool);
            return;
        }
        key.extend_from_slice(self.host);
        if self.has_port {
            key.push(b':');
            key.extend_from_slice(itoa::Buffer::new().format(self.port).as_bytes());
        }
    }
}

/// How an attempt begins.
enum Start {
    Open(Option<Lease>),
    Queue(Rc<Pool>),
}

struct Attempt {
    r: Rc<Request>,
    busy: Busy,
    host: String,
    port: u16,
    timeout_ms: u64,
    deadline_ms: Cell<u64>,
}

impl Attempt {
    async fn run(self, start: Start) -> Values {
        let ended = match start {
            Start::Open(lease) => self.open(lease).await,
            Start::Queue(pool) => self.queue(pool).await,
        };
        match ended {
            Ok(()) => smallvec![Value::Number(1.0)],
            Err(text) => smallvec![Value::Nil, Value::from(text)],
        }
    }

    /// What OpenResty adds to a socket's log lines: `, upstream: host:port(address)`.
    fn upstream(&self, address: &Address) -> String {
        match address {
            Address::Ip(a) => format!(", upstream: {}:{}({})", self.host, self.port, a.ip()),
            Address::Unix(_) => format!(", upstream: {}({address})", self.host),
        }
    }

    fn start_clock(&self) {
        self.deadline_ms.set(clock::monotonic_ms().saturating_add(self.timeout_ms));
    }

    fn left_ms(&self) -> u64 {
        self.deadline_ms.get().saturating_sub(clock::monotonic_ms())
    }

    async fn queue(&self, pool: Rc<Pool>) -> Result<(), String> {
        match terrace_event::timeout(Duration::from_millis(self.left_ms()), pool.wait()).await {
            Ok(Acquired::Idle(conn)) => {
                reuse(self.busy.socket(), conn);
                Ok(())
            }
            Ok(Acquired::Lease(lease)) => self.open(Some(lease)).await,
            Err(_) => {
                let (host, port) = (&self.host, self.port);
                log_socket(
                    &self.r,
                    format_args!(
                        "lua tcp socket queued connect timed out, when trying to connect to {host}:{port}"
                    ),
                );
                Err("timeout".to_owned())
            }
        }
    }

    async fn open(&self, lease: Option<Lease>) -> Result<(), String> {
        let addresses = self.addresses().await?;
        // Resolving has a time of its own.
        self.start_clock();
        let mut last = "no address".to_owned();
        for address in addresses {
            match self.dial(&address).await {
                Ok(stream) => {
                    self.busy.socket().open(Rc::new(Conn::new(Transport::Peer(stream), lease)));
                    return Ok(());
                }
                Err(text) => last = text,
            }
            if self.left_ms() == 0 {
                break;
            }
        }
        Err(last)
    }

    async fn addresses(&self) -> Result<Vec<Address>, String> {
        if let Some(path) = unix_path(&self.host) {
            return Ok(vec![Address::Unix(path)]);
        }
        let found = addresses(&self.r, &self.host, self.port).await?;
        Ok(found.into_iter().map(Address::Ip).collect())
    }

    async fn dial(&self, address: &Address) -> Result<Stream, String> {
        let local = self.busy.socket().local.get();
        match terrace_net::connect_from(address, local, self.left_ms()).await {
            Ok(stream) => Ok(stream),
            Err(ConnectError::Timeout) => {
                let upstream = self.upstream(address);
                log_socket(&self.r, format_args!("lua tcp socket connect timed out{upstream}"));
                Err("timeout".to_owned())
            }
            Err(ConnectError::Io(e) | ConnectError::Bind(e)) => {
                let (os, upstream) = (OsError(&e), self.upstream(address));
                match address {
                    Address::Unix(_) => {
                        self.r.log(Level::Crit, format_args!("connect() to {address} failed {os}{upstream}"));
                    }
                    Address::Ip(_) => log_socket(&self.r, format_args!("connect() failed {os}{upstream}")),
                }
                Err(reason(&e))
            }
        }
    }
}

/// The path of `unix:/path`.
pub fn unix_path(host: &str) -> Option<PathBuf> {
    let (scheme, path) = host.split_at_checked(5)?;
    scheme.eq_ignore_ascii_case("unix:").then(|| PathBuf::from(path))
}

/// The addresses of a host, which may be one; the error is OpenResty's text.
pub async fn addresses(r: &Request, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if let Some(ip) = terrace_net::literal(host) {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    Ok(r.resolve(host).await?.by_turns().map(|ip| SocketAddr::new(ip, port)).collect())
}
