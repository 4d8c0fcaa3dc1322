//! What L2 tells this node.
//!
//! Invariant: a notice is applied without waiting, so the listener may be called from wherever the store reads.

use std::sync::Arc;

use super::Inner;
use crate::engine::Tiers;
use crate::l2::{FleetLock, L2, Notice, Scope, Version};
use crate::policy::OnChange;
use crate::stats::Counter;

/// Invalidations of this node whose notices are awaited, because they are to be taken otherwise than those of others.
const OWN_MAX: usize = 64;

impl Inner {
    /// Begins to hear the notices of an L2. They are heard for as long as the cache lives and has this L2.
    pub(super) fn listen_to(self: &Arc<Self>, l2: Option<Arc<dyn L2>>) {
        let Some(l2) = l2 else { return };
        let (cache, from) = (Arc::downgrade(self), Arc::downgrade(&l2));
        l2.listen(Arc::new(move |notice| {
            let (Some(cache), Some(from)) = (cache.upgrade(), from.upgrade()) else { return };
            let current = cache.l2.read().as_ref().is_some_and(|l2| same(l2, &from));
            if current {
                cache.noticed(&notice);
            }
        }));
    }

    pub(super) fn set_fleet(self: &Arc<Self>, l2: Option<Arc<dyn L2>>, lock: Option<Arc<dyn FleetLock>>) {
        let tiers = Tiers { l2: l2.is_some(), lock: lock.is_some() };
        let before = std::mem::replace(&mut *self.l2.write(), l2.clone());
        *self.lock.write() = lock;
        self.engines.iter().for_each(|engine| engine.lock().set_tiers(tiers));
        let kept = match (&before, &l2) {
            (Some(before), Some(l2)) => same(before, l2),
            (None, None) => true,
            _ => false,
        };
        if !kept {
            self.listen_to(l2.clone());
            if l2.is_some() {
                self.missed_notices();
            }
        }
    }

    /// Applies a notice.
    pub(super) fn noticed(self: &Arc<Self>, notice: &Notice) {
        self.counters.bump(Counter::Notices);
        match notice {
            Notice::Filled { key, version } => {
                self.filter.add(key);
                self.step(key, |engine, l1, now_ms, out| {
                    engine.noticed_fill(l1, key, *version, now_ms, out);
                });
            }
            Notice::Released { key } => {
                self.step(key, |engine, l1, now_ms, out| engine.noticed_release(l1, key, now_ms, out));
            }
            Notice::Invalidated { scope, version } => {
                let own = self.take_own(scope, *version);
                let how = if own { OnChange::Refresh } else { self.policy().on_change };
                self.changed_here(scope, *version, how, true);
            }
            Notice::Gap => {
                self.counters.bump(Counter::Gaps);
                self.missed_notices();
            }
        }
    }

    fn missed_notices(self: &Arc<Self>) {
        self.own.lock().clear();
        let number = self.l1.marks.gap((self.clock)());
        for engine in &self.engines {
            let mut actions = Vec::new();
            engine.lock().noticed_gap(&self.l1, number, (self.clock)(), &mut actions);
            self.carry_out(actions, None);
        }
    }

    /// Remembers an invalidation of this node that is gentler than what its notice would do.
    pub(super) fn expect_own(&self, scope: &Scope, version: Version, how: OnChange) {
        if how != OnChange::Refresh || self.policy().on_change == OnChange::Refresh {
            return;
        }
        let mut own = self.own.lock();
        if own.len() >= OWN_MAX {
            own.pop_front();
        }
        own.push_back((scope.clone(), version));
    }

    fn take_own(&self, scope: &Scope, version: Version) -> bool {
        let mut own = self.own.lock();
        let at = own.iter().position(|it| it.0 == *scope && it.1 == version);
        at.is_some_and(|at| own.remove(at).is_some())
    }
}

fn same(one: &Arc<dyn L2>, other: &Arc<dyn L2>) -> bool {
    std::ptr::addr_eq(Arc::as_ptr(one), Arc::as_ptr(other))
}
