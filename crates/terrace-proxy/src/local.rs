//! What each worker keeps for proxying: peers, names resolved at run time, buffers, random bits.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use terrace_http::{Request, Worker};
use terrace_net::dns::Addresses;
use terrace_upstream::Address;

use crate::peers::Peers;
use crate::resolve;
use crate::upstream::Upstream;
use crate::url::Host;

/// How many hosts that variables named a worker keeps the peers of.
const RESOLVED_MAX: usize = 1024;
/// The size of a buffer that responses are read into.
pub(crate) const BUFFER_BYTES: usize = 16 * 1024;
/// The size that a request's head usually stays below.
const SCRATCH_BYTES: usize = 2 * 1024;
const BUFFERS_KEPT_MAX: usize = 64;

/// One worker's state.
pub(crate) struct Local {
    peers: RefCell<Vec<Option<Rc<Peers>>>>,
    resolved: RefCell<HashMap<HostKey, Resolved>>,
    buffers: RefCell<Vec<Vec<u8>>>,
    scratch: RefCell<Vec<Vec<u8>>>,
    random: Cell<u64>,
}

/// Who resolves it, the host, the port. Clients may choose hosts: the map hashes with a key.
type HostKey = (usize, Box<str>, u16);

/// The peers of a host, with the addresses they were made of; a literal address has none.
struct Resolved {
    peers: Rc<Peers>,
    addresses: Option<Rc<Addresses>>,
}

impl Resolved {
    fn is_of(&self, addresses: Option<&Rc<Addresses>>) -> bool {
        match (&self.addresses, addresses) {
            (None, None) => true,
            (Some(a), Some(b)) => Rc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Local {
    /// The worker's.
    pub(crate) fn of(worker: &Worker) -> Rc<Local> {
        worker.state(|| Local {
            peers: RefCell::default(),
            resolved: RefCell::default(),
            buffers: RefCell::default(),
            scratch: RefCell::default(),
            random: Cell::new(std::hash::RandomState::new().build_hasher().finish()),
        })
    }

    /// The worker's peers of an upstream.
    pub(crate) fn peers(&self, upstream: &Arc<Upstream>) -> Option<Rc<Peers>> {
        let mut all = self.peers.borrow_mut();
        if all.len() <= upstream.index {
            all.resize(upstream.index + 1, None);
        }
        let slot = &mut all[upstream.index];
        if slot.is_none() {
            *slot = Peers::new(upstream);
        }
        slot.clone()
    }

    /// The peers of a host that a variable names: the same ones as long as its addresses are. The error is what the log
    /// says.
    pub(crate) async fn resolve(&self, r: &Request, host: &Host, port: u16) -> Result<Rc<Peers>, String> {
        let (shown, fixed): (Box<str>, _) = match host {
            Host::Unix(path) => {
                (format!("unix:{}", path.display()).into(), Some(Address::Unix(path.clone())))
            }
            Host::Name(name) => {
                let ip = terrace_net::literal(name);
                (name.as_str().into(), ip.map(|ip| Address::Inet((ip, port).into())))
            }
        };
        let (found, resolver) = match (host, &fixed) {
            (Host::Name(name), None) => (Some(r.resolve(name).await?), Rc::as_ptr(&r.resolver()) as usize),
            _ => (None, 0),
        };
        let key = (resolver, shown, port);
        if let Some(known) = self.resolved.borrow().get(&key).filter(|k| k.is_of(found.as_ref())) {
            return Ok(Rc::clone(&known.peers));
        }
        let addresses = match &found {
            Some(found) => found.by_turns().map(|ip| Address::Inet((ip, port).into())).collect(),
            None => fixed.into_iter().collect(),
        };
        let upstream = Arc::new(Upstream::plain(0, &key.1, resolve::plain_peers(addresses, &key.1)));
        let peers = Peers::new(&upstream).ok_or_else(|| format!("{} has no address", key.1))?;
        let mut resolved = self.resolved.borrow_mut();
        if resolved.len() >= RESOLVED_MAX && !resolved.contains_key(&key) {
            resolved.clear();
        }
        resolved.insert(key, Resolved { peers: Rc::clone(&peers), addresses: found });
        Ok(peers)
    }

    /// A buffer whose whole length may be read into, of at least `bytes`.
    pub(crate) fn take_buffer(&self, bytes: usize) -> Vec<u8> {
        let bytes = bytes.max(BUFFER_BYTES);
        match self.buffers.borrow_mut().pop() {
            Some(b) if b.len() >= bytes => b,
            _ => vec![0; bytes],
        }
    }

    /// Takes a buffer back.
    pub(crate) fn give_buffer(&self, buffer: Vec<u8>) {
        let mut kept = self.buffers.borrow_mut();
        if kept.len() < BUFFERS_KEPT_MAX && (BUFFER_BYTES..=4 * BUFFER_BYTES).contains(&buffer.len()) {
            kept.push(buffer);
        }
    }

    /// An empty buffer to write a request into.
    pub(crate) fn take_scratch(&self) -> Vec<u8> {
        self.scratch.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(SCRATCH_BYTES))
    }

    /// Takes it back.
    pub(crate) fn give_scratch(&self, mut buffer: Vec<u8>) {
        let mut kept = self.scratch.borrow_mut();
        if kept.len() < BUFFERS_KEPT_MAX && (SCRATCH_BYTES..=4 * BUFFER_BYTES).contains(&buffer.capacity()) {
            buffer.clear();
            kept.push(buffer);
        }
    }

    /// Fresh bits for balancing (the splitmix64 sequence).
    pub(crate) fn random(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        let bits = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) ^ (bits >> 31)
    }
}
