//! The `upstream` blocks for code that looks after their peers: their names, a worker's peers, and taking a peer out.

use std::rc::Rc;
use std::sync::Arc;

use terrace_http::{Generation, Worker};
use terrace_upstream::{Peer, PeerIndex};

use crate::local::Local;
use crate::upstream::Upstream;

/// All `upstream` blocks of a generation, in their order.
#[derive(Default)]
pub(crate) struct Groups(pub(crate) Vec<Arc<Upstream>>);

/// The blocks' names, in their order.
pub fn names(generation: &Generation) -> Vec<String> {
    let groups = generation.shared::<Groups>().unwrap_or_default();
    groups.0.iter().map(|u| u.name.clone()).collect()
}

fn find(worker: &Rc<Worker>, name: &str) -> Option<Arc<Upstream>> {
    let groups = worker.generation.shared::<Groups>()?;
    groups.0.iter().find(|u| u.name == name).map(Arc::clone)
}

/// Shows the worker's peers of a block, primaries first; false where there is no such block.
pub fn visit(worker: &Rc<Worker>, name: &str, mut each: impl FnMut(&Peer)) -> bool {
    let peers = find(worker, name).and_then(|u| Local::of(worker).peers(&u));
    let Some(peers) = peers else { return false };
    peers.with_group(|g| g.peers().for_each(&mut each));
    true
}

/// Takes a peer of this worker out of balancing, or puts it back. `None` where there is no such block, false where it has
/// no such peer.
pub fn set_down(worker: &Rc<Worker>, name: &str, index: PeerIndex, is_down: bool) -> Option<bool> {
    let peers = find(worker, name).and_then(|u| Local::of(worker).peers(&u))?;
    Some(peers.with_group(|g| g.set_down(index, is_down)))
}
