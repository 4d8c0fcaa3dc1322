//! A TCP proxy in front of a service, which can be slow, stall, cut connections or refuse them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::home::hold;

/// Chunks of a connection that may be on their way in one direction; more are left in the socket.
const CHUNKS_MAX: usize = 1024;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// What the proxy does with what comes from the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Hand it on this much later.
    Delay(Duration),
    /// Keep it until the mode changes, in both directions.
    Stall,
}

struct Shared {
    target: SocketAddr,
    mode: Mutex<(Mode, bool)>,
    changed: Condvar,
    streams: Mutex<Vec<TcpStream>>,
}

/// A proxy on a port from the system.
pub struct DelayProxy {
    /// Its port on 127.0.0.1.
    pub port: u16,
    shared: Arc<Shared>,
    listener: Mutex<Option<(TcpListener, thread::JoinHandle<()>)>>,
    _held: Socket,
}

impl DelayProxy {
    /// Starts one that hands everything on at once.
    pub fn start(target: SocketAddr) -> DelayProxy {
        let held = hold(0).expect("a free port");
        let port = held.local_addr().ok().and_then(|a| a.as_socket()).expect("a bound socket").port();
        let shared = Arc::new(Shared {
            target,
            mode: Mutex::new((Mode::Delay(Duration::ZERO), false)),
            changed: Condvar::new(),
            streams: Mutex::new(Vec::new()),
        });
        let proxy = DelayProxy { port, shared, listener: Mutex::new(None), _held: held };
        proxy.accept();
        proxy
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Hands on everything at once, from now on.
    pub fn pass(&self) {
        self.delay(Duration::ZERO);
    }

    /// What the service sends comes this much later.
    pub fn delay(&self, by: Duration) {
        self.shared.set(Mode::Delay(by));
    }

    /// Accepts connections and bytes and hands on nothing.
    pub fn stall(&self) {
        self.shared.set(Mode::Stall);
    }

    /// Closes all connections; new ones are served.
    pub fn cut(&self) {
        for stream in lock(&self.shared.streams).drain(..) {
            // It may be closed already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Closes all connections and refuses new ones.
    pub fn refuse(&self) {
        if let Some((listener, thread)) = lock(&self.listener).take() {
            // Wakes the thread in its accept.
            let _ = Socket::from(listener).shutdown(Shutdown::Both);
            let _ = thread.join();
        }
        self.cut();
    }

    /// Ends [`DelayProxy::refuse`].
    pub fn accept(&self) {
        let mut slot = lock(&self.listener);
        if slot.is_some() {
            return;
        }
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("an option");
        socket.bind(&self.address().into()).expect("the port is held for this");
        socket.listen(BACKLOG).expect("it listens");
        let listener = TcpListener::from(socket);
        let (ours, shared) = (listener.try_clone().expect("a second handle"), self.shared.clone());
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(client) = stream else { return };
                shared.serve(client);
            }
        });
        *slot = Some((ours, thread));
    }
}

impl Drop for DelayProxy {
    fn drop(&mut self) {
        lock(&self.shared.mode).1 = true;
        self.shared.changed.notify_all();
        self.refuse();
    }
}

impl Shared {
    fn set(&self, mode: Mode) {
        lock(&self.mode).0 = mode;
        self.changed.notify_all();
    }

    fn serve(self: &Arc<Shared>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(self.target) else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let clones = (client.try_clone(), server.try_clone(), client.try_clone(), server.try_clone());
        let (Ok(client_too), Ok(server_too), Ok(client_kept), Ok(server_kept)) = clones else { return };
        lock(&self.streams).extend([client_kept, server_kept]);
        self.copy(client, server, false);
        self.copy(server_too, client_too, true);
    }

    /// Hands bytes on, `delayed` as the mode has it. A reader and a writer, so that a delay costs no throughput.
    fn copy(self: &Arc<Shared>, mut from: TcpStream, to: TcpStream, delayed: bool) {
        let (sender, chunks) = sync_channel(CHUNKS_MAX);
        thread::spawn(move || {
            let mut bytes = vec![0; 16 * 1024];
            while let Ok(n @ 1..) = from.read(&mut bytes) {
                if sender.send((Instant::now(), bytes[..n].to_vec())).is_err() {
                    break;
                }
            }
        });
        let shared = self.clone();
        thread::spawn(move || {
            shared.write(&chunks, to.try_clone(), delayed);
            let _ = to.shutdown(Shutdown::Write);
        });
    }

    fn write(&self, chunks: &Receiver<(Instant, Vec<u8>)>, to: std::io::Result<TcpStream>, delayed: bool) {
        let Ok(mut to) = to else { return };
        for (came, bytes) in chunks {
            if !self.hold_back(came, delayed) || to.write_all(&bytes).is_err() {
                return;
            }
        }
    }

    /// Waits until what came then is due; false if the proxy ends.
    fn hold_back(&self, came: Instant, delayed: bool) -> bool {
        let mut mode = lock(&self.mode);
        loop {
            let wait = match *mode {
                (_, true) => return false,
                (Mode::Delay(by), _) if delayed => (came + by).saturating_duration_since(Instant::now()),
                (Mode::Delay(_), _) => Duration::ZERO,
                (Mode::Stall, _) => Duration::MAX,
            };
            mode = match wait {
                Duration::ZERO => return true,
                Duration::MAX => self.changed.wait(mode).unwrap_or_else(PoisonError::into_inner),
                wait => self.changed.wait_timeout(mode, wait).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
