//! The listening sockets of the serving process. They outlive generations: a reload takes over what is there, and
//! only what is new is bound. Each worker has a socket of its own per address; where a later generation has fewer
//! workers, some of them serve several, so that no accept queue is lost.

use std::io;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use terrace_base::OsError;
use terrace_http::Generation;
use terrace_net::{Address, ListenOptions, Listener};
use thiserror::Error;

use crate::channel::Channel;

/// An address that could not be listened on, in nginx's words.
#[derive(Debug, Error)]
#[error("bind() to {address} failed {}", OsError(error))]
pub struct BindError {
    /// The address.
    pub address: Address,
    /// Why.
    #[source]
    pub error: io::Error,
}

/// The sockets of one address.
struct Held {
    address: Address,
    listeners: Vec<Listener>,
}

impl Held {
    fn of_worker(&self, id: usize, workers: usize) -> impl Iterator<Item = &Listener> {
        let shared = matches!(self.address, Address::Unix(_));
        let numbered = self.listeners.iter().enumerate();
        numbered.filter(move |(i, _)| shared || i % workers == id).map(|(_, listener)| listener)
    }
}

/// All sockets, and where new ones come from.
pub struct Sockets {
    held: Vec<Held>,
    master: Option<Channel>,
}

impl Sockets {
    /// None yet. With a `master`, it binds and keeps them.
    pub fn new(master: Option<Channel>) -> Sockets {
        Sockets { held: Vec::new(), master }
    }

    /// Binds what `generation` needs for `workers` and is not there.
    ///
    /// # Errors
    /// The first address that cannot be listened on.
    pub async fn prepare(&mut self, generation: &Generation, workers: usize) -> Result<(), BindError> {
        for listen in &generation.listens {
            let address = &listen.address;
            // A Unix socket cannot be bound twice: all workers share it.
            let wanted = if matches!(address, Address::Unix(_)) { 1 } else { workers };
            let have = self.held.iter().find(|h| h.address == *address).map_or(0, |h| h.listeners.len());
            for index in have..wanted {
                let bound = match &self.master {
                    Some(master) => master.bind(index, address, &listen.options).await,
                    None => {
                        let mine = self.held.iter().map(|h| &h.address);
                        bind(address, &listen.options, mine)
                    }
                };
                let listener = bound.map_err(|error| BindError { address: address.clone(), error })?;
                match self.held.iter_mut().find(|h| h.address == *address) {
                    Some(held) => held.listeners.push(listener),
                    None => self.held.push(Held { address: address.clone(), listeners: vec![listener] }),
                }
            }
        }
        Ok(())
    }

    /// The sockets of worker `id` of `workers`, each with the index of its address in the generation.
    pub fn of_worker(&self, generation: &Generation, id: usize, workers: usize) -> Vec<(usize, Listener)> {
        let mut mine = Vec::new();
        for (index, listen) in generation.listens.iter().enumerate() {
            let Some(held) = self.held.iter().find(|h| h.address == listen.address) else { continue };
            mine.extend(held.of_worker(id, workers).map(|listener| (index, listener.clone())));
        }
        mine
    }

    /// Closes the sockets of addresses that `generation` does not have.
    pub async fn keep_only(&mut self, generation: &Generation) {
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|h| generation.listens.iter().any(|l| l.address == h.address));
        self.held = kept;
        for held in gone {
            match &self.master {
                // A master that is gone is noticed by the control loop.
                Some(master) => _ = master.release(&held.address).await,
                None => remove_file(&held.address),
            }
        }
    }

    /// Closes all sockets, and removes the files of Unix sockets unless the master still needs them.
    pub fn close(&mut self) {
        for held in self.held.drain(..) {
            if self.master.is_none() {
                remove_file(&held.address);
            }
        }
    }

    /// The channel to the master.
    pub fn master(&self) -> Option<&Channel> {
        self.master.as_ref()
    }
}

/// Binds an address. `mine` are the addresses that this process listens on.
///
/// `SO_REUSEPORT` would let a second server share the port in silence; a first bind without it finds that out.
///
/// # Errors
/// Those of `bind(2)` and `listen(2)`.
pub fn bind<'a>(
    address: &Address,
    options: &ListenOptions,
    mut mine: impl Iterator<Item = &'a Address>,
) -> io::Result<Listener> {
    if let Address::Ip(ip) = address
        && !mine.any(|a| matches!(a, Address::Ip(other) if other.port() == ip.port()))
    {
        let domain = if ip.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
        let probe = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
        probe.set_reuse_address(true)?;
        if ip.is_ipv6() {
            probe.set_only_v6(options.ipv6_only)?;
        }
        probe.bind(&SockAddr::from(*ip))?;
    }
    Listener::bind(address, options)
}

/// Removes the file of a Unix socket that is no longer listened on.
pub fn remove_file(address: &Address) {
    if let Address::Unix(path) = address {
        // Somebody else may have removed it already.
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn local(socket: &Listener) -> Address {
        let address: SocketAddr = socket.socket().local_addr().unwrap().as_socket().unwrap();
        Address::Ip(address)
    }

    fn bind_any() -> (Listener, Address) {
        let any = Address::Ip("127.0.0.1:0".parse().unwrap());
        let listener = bind(&any, &ListenOptions::default(), [].iter()).unwrap();
        let address = local(&listener);
        (listener, address)
    }

    #[test]
    fn a_second_server_on_the_port_is_refused_but_our_own_sockets_share_it() {
        let (_held, address) = bind_any();
        let options = ListenOptions::default();
        let error = bind(&address, &options, [].iter()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let text = BindError { address: address.clone(), error }.to_string();
        assert_eq!(text, format!("bind() to {address} failed (98: Address already in use)"));
        let second = bind(&address, &options, [address.clone()].iter()).unwrap();
        assert_eq!(local(&second), address);
    }

    #[test]
    fn every_socket_has_a_worker_whatever_their_numbers() {
        for (sockets, workers) in [(4, 4), (4, 3), (5, 1)] {
            let (first, address) = bind_any();
            let mut listeners = vec![first];
            for _ in 1..sockets {
                listeners.push(bind(&address, &ListenOptions::default(), [address.clone()].iter()).unwrap());
            }
            let held = Held { address, listeners };
            let taken: Vec<usize> = (0..workers).map(|id| held.of_worker(id, workers).count()).collect();
            assert_eq!(taken.iter().sum::<usize>(), sockets);
            assert!(taken.iter().all(|n| *n > 0), "{taken:?}");
        }
    }

    #[test]
    fn all_workers_share_a_unix_socket() {
        let dir = tempfile::tempdir().unwrap();
        let address = Address::Unix(dir.path().join("s"));
        let listener = bind(&address, &ListenOptions::default(), [].iter()).unwrap();
        let held = Held { address: address.clone(), listeners: vec![listener] };
        assert!((0..3).all(|id| held.of_worker(id, 3).count() == 1));
        remove_file(&address);
        assert!(bind(&address, &ListenOptions::default(), [].iter()).is_ok());
    }
}
