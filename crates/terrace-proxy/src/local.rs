//! What each worker keeps for proxying: peers, names resolved at run time, buffers, random bits.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use terrace_base::clock;
use terrace_http::Worker;

use crate::peers::Peers;
use crate::resolve;
use crate::upstream::Upstream;
use crate::url::Host;

/// How many names resolved at run time a worker remembers.
const RESOLVED_MAX: usize = 1024;
/// How long it remembers one, ms.
const RESOLVED_TTL_MS: u64 = 10_000;
/// The size of a buffer that responses are read into.
pub(crate) const BUFFER_BYTES: usize = 16 * 1024;
/// The size that a request's head usually stays below.
const SCRATCH_BYTES: usize = 2 * 1024;
const BUFFERS_KEPT_MAX: usize = 64;

/// One worker's state.
pub(crate) struct Local {
    peers: RefCell<Vec<Option<Rc<Peers>>>>,
    resolved: RefCell<FxHashMap<(Name, u16), Resolved>>,
    buffers: RefCell<Vec<Vec<u8>>>,
    scratch: RefCell<Vec<Vec<u8>>>,
    random: Cell<u64>,
}

type Name = Box<str>;

struct Resolved {
    peers: Rc<Peers>,
    until_ms: u64,
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

    /// The peers of a host that a variable names. The error is what the log says.
    pub(crate) async fn resolve(&self, host: &Host, port: u16) -> Result<Rc<Peers>, String> {
        let shown: Box<str> = match host {
            Host::Unix(path) => format!("unix:{}", path.display()).into(),
            Host::Name(name) => name.as_str().into(),
        };
        let key = (shown, port);
        let now_ms = clock::monotonic_ms();
        if let Some(r) = self.resolved.borrow().get(&key).filter(|r| r.until_ms > now_ms) {
            return Ok(Rc::clone(&r.peers));
        }
        let addresses = match host {
            Host::Unix(path) => vec![terrace_upstream::Address::Unix(path.clone())],
            Host::Name(name) => match terrace_net::resolve(name, port).await {
                Ok(found) => resolve::ordered(found),
                Err(_) => return Err(format!("{name} could not be resolved (3: Host not found)")),
            },
        };
        let upstream = Arc::new(Upstream::plain(0, &key.0, resolve::plain_peers(addresses, &key.0)));
        let peers = Peers::new(&upstream).ok_or_else(|| format!("{} has no address", key.0))?;
        let mut resolved = self.resolved.borrow_mut();
        if resolved.len() >= RESOLVED_MAX {
            resolved.retain(|_, r| r.until_ms > now_ms);
            if resolved.len() >= RESOLVED_MAX {
                resolved.clear();
            }
        }
        let until_ms = clock::monotonic_ms() + RESOLVED_TTL_MS;
        resolved.insert(key, Resolved { peers: Rc::clone(&peers), until_ms });
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
