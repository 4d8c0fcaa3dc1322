//! A flight: one key on its way from L2 or the source, with those who wait for it.
//!
//! Its phases, and what ends each:
//!
//! ```text
//!  Asking ---- fresh ------------------------------------------------> kept in L1, answered
//!    |  ^ \--- held -> Waiting -- filled, released, gap, time -> Asking
//!    |   \                 \----- the bound on waiting -> stale, or Loading past L2
//!    |    \--- (again, when what was heard voids the answer)
//!    +-- lease, error, timeout -> Locking (if there is a fleet lock) -> Loading
//!  Loading -- failed -> lease given back, stale or error
//!    |  \---- loaded, without a lease -> kept in L1, answered
//!    +------- loaded, with a lease: answered -> Filling -- stored -> kept in L1
//!                                                  \----- voided, older -> not kept; late askers ask again
//! ```
//!
//! Without an L2 a flight begins at Locking or Loading.

use bytes::Bytes;

use crate::entry::{Answer, Entry, Made};
use crate::error::{Bound, CacheError};
use crate::l2::{LeaseToken, Stored, Version};
use crate::source::Params;

/// Somebody who waits; the engine only asks whether they are still there.
pub(crate) trait Waiting {
    fn is_gone(&self) -> bool;
}

/// Identifies one phase of one flight. Whoever carries out what the phase asked for shows it with the outcome; an
/// outcome of a phase that is over changes nothing.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    pub(crate) key: Bytes,
    pub(crate) flight: u64,
    pub(crate) params: Params,
}

/// A lookup that L1 could not answer without a decision.
pub(crate) struct Ask<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) now_ms: u64,
    /// Whether the source loads (then the asker waits) or the asker may be asked to.
    pub(crate) native: bool,
    pub(crate) params: Params,
}

/// What the asker does next.
#[derive(Debug)]
pub(crate) enum Verdict {
    Answer(Answer),
    /// Use the answer, then load.
    AnswerAndLoad(Answer, Ticket),
    /// Use the answer, then see whether the wait says to load.
    AnswerAndWait(Answer),
    /// Load.
    Load(Ticket),
    /// Wait.
    Joined,
    Refused(Bound),
}

/// What the front carries out after an event.
#[derive(Debug)]
pub(crate) enum Action<W> {
    /// Give the outcome to a waiter.
    Wake(W, Result<Answer, CacheError>),
    /// Make a waiter the loader.
    Hand(W, Ticket),
    /// Ask the source; report `loaded`, `failed`, or `expired` after the load timeout.
    Load(Ticket),
    /// Report a caller's load as `expired` after the load timeout.
    Watch(Ticket),
    /// Ask L2; report `l2_answered`, as a timeout after the soft timeout. With a `repair` that is not zero, first tell
    /// L2 that versions below it are out of date.
    AskL2 { ticket: Ticket, lease_ms: u64, repair: Version },
    /// Report `waited` after this time.
    Wait { ticket: Ticket, wait_ms: u64 },
    /// Take the fleet lock; report `locked`, whether it was had or not.
    Lock { ticket: Ticket, wait_ms: u64 },
    /// Fill L2; report `filled`, as a timeout after the soft timeout.
    Fill { ticket: Ticket, token: LeaseToken, stored: Stored },
    /// Give a lease back; nobody waits for the outcome.
    Release { key: Bytes, token: LeaseToken },
}

pub(super) struct Waiter<W> {
    pub(super) who: W,
    pub(super) native: bool,
    /// The number of the latest event when they asked: an event with a larger one came after.
    pub(super) as_of: u64,
}

/// Where the result of a load is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// There is no L2: in L1, for its whole life.
    Local,
    /// In L2 under this lease, and then in L1.
    Fleet(LeaseToken),
    /// L2 could not say: in L1, briefly.
    Brief,
}

pub(super) enum Phase {
    Asking,
    Waiting,
    Locking,
    Loading,
    /// L2 is asked to keep this, which was loaded at `loaded_ms`. So many notices of fills without a version came.
    Filling {
        made: Made,
        loaded_ms: u64,
        notices: u32,
    },
}

/// What voids the result of a question that was put before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Void {
    /// Who asked as of this number or a later one is not answered by the result.
    pub(super) number: u64,
    /// Results of this version and newer ones are not void; none is for the largest number.
    pub(super) below: Version,
}

/// No version is out of reach of this bound.
pub(super) const ALL_VERSIONS: Version = Version::MAX;

pub(super) struct Flight<W> {
    pub(super) id: u64,
    pub(super) phase: Phase,
    /// The phase has taken too long, should nobody have reported it.
    pub(super) deadline_ms: u64,
    pub(super) params: Params,
    /// The number of the latest event when the question on its way was put.
    pub(super) as_of: u64,
    pub(super) void: Option<Void>,
    /// The source may load, whoever waits.
    pub(super) native: bool,
    /// Somebody reports the deadline of a load.
    pub(super) watched: bool,
    /// It holds one of the permits to load.
    pub(super) permit: bool,
    /// The fleet lock was asked for.
    pub(super) locked: bool,
    pub(super) keep: Keep,
    pub(super) waiters: Vec<Waiter<W>>,
    /// What L2 has past its life.
    pub(super) stale: Option<Entry>,
    /// A lease ended, or may have, since L2 was asked.
    pub(super) heard: bool,
    pub(super) asks: u8,
    /// Waiting for another node's load ends then; 0 if it has not begun.
    pub(super) wait_until_ms: u64,
}

impl<W> Flight<W> {
    /// An event of this number: versions below `below` are no longer true.
    pub(super) fn void(&mut self, number: u64, below: Version) {
        self.heard = true;
        // The earliest number and the highest bound: on the safe side of both events.
        let void = self.void.get_or_insert(Void { number, below });
        void.below = void.below.max(below);
        if self.stale.as_ref().is_some_and(|stale| stale.version < below) {
            self.stale = None;
        }
    }

    /// What voids a result of this version, if anything does.
    pub(super) fn voids(&self, version: Version) -> Option<Void> {
        self.void.filter(|void| version < void.below)
    }

    /// Those who asked before `void`, and those who asked after it.
    pub(super) fn split(&mut self, void: Void) -> (Vec<Waiter<W>>, Vec<Waiter<W>>) {
        std::mem::take(&mut self.waiters).into_iter().partition(|waiter| waiter.as_of < void.number)
    }
}
