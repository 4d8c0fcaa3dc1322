//! The way between the nodes and L2: calls, replies and notices take time, overtake each other and get lost.

use super::*;

impl World {
    pub(super) fn call(&mut self, node: usize, key: usize, call: Call) {
        let (delay_ms, life) = (self.delay_ms(), self.nodes[node].life);
        self.after(delay_ms, Event::Arrives(node, life, key, call));
    }

    /// L2 does what it is asked, in one step.
    pub(super) fn arrives(&mut self, node: usize, life: u32, key: usize, call: Call) {
        let now_ms = self.now_ms;
        if now_ms < self.l2_away_until_ms {
            return self.lost(node, life, key, call);
        }
        let reply = match call {
            Call::Get { ticket, lease_ms, repair } => {
                if repair != 0 {
                    self.l2.invalidate(key, repair, repair, now_ms);
                    self.tell(key, &Told::Invalidated(repair, repair));
                }
                Reply::Found(ticket, Ok(self.l2.get(key, lease_ms, now_ms)))
            }
            Call::Fill { ticket, token, stored } => {
                let version = stored.version;
                let outcome = self.l2.fill(key, token, stored, now_ms);
                if outcome == Filled::Stored {
                    self.tell(key, &Told::Filled(version, version));
                }
                Reply::Filled(ticket, Ok(outcome))
            }
            Call::Release { token } => {
                if self.l2.release(key, token, now_ms) {
                    self.tell(key, &Told::Released);
                }
                return;
            }
            Call::Invalidate { version, truth } => {
                self.l2.invalidate(key, version, truth, now_ms);
                self.tell(key, &Told::Invalidated(version, truth));
                Reply::Invalidated { version, truth }
            }
            Call::Set { stored, truth } => {
                let version = stored.version;
                match self.l2.set(key, stored, truth, now_ms) {
                    Filled::Older(newest) => Reply::SetFailed(newest),
                    _ => return self.tell(key, &Told::Filled(version, version)),
                }
            }
        };
        let delay_ms = self.delay_ms();
        self.after(delay_ms, Event::Replied(node, life, key, reply));
    }

    /// A call that L2 never sees. Some fail at once, of others nothing is heard; changes are repeated.
    pub(super) fn lost(&mut self, node: usize, life: u32, key: usize, call: Call) {
        let error = || L2Error::Unavailable("simulated".into());
        let fails = self.below(2) == 0;
        let reply = match call {
            Call::Get { ticket, .. } if fails => Reply::Found(ticket, Err(error())),
            Call::Fill { ticket, .. } if fails => Reply::Filled(ticket, Err(error())),
            Call::Get { .. } | Call::Fill { .. } | Call::Release { .. } => return,
            Call::Set { .. } => Reply::SetFailed(0),
            call @ Call::Invalidate { .. } => return self.after(30, Event::Arrives(node, life, key, call)),
        };
        self.after(1, Event::Replied(node, life, key, reply));
    }

    pub(super) fn tell(&mut self, key: usize, told: &Told) {
        for node in 0..self.nodes.len() {
            let (delay_ms, life) = (self.delay_ms(), self.nodes[node].life);
            let hears = self.nodes[node].hears && self.below(100) != 0;
            if hears {
                self.after(delay_ms, Event::Notice(node, life, key, told.clone()));
            } else if self.nodes[node].hears {
                self.go_deaf(node);
            }
        }
    }

    pub(super) fn replied(&mut self, node: usize, key: usize, reply: Reply) {
        let bytes = [key as u8];
        match reply {
            Reply::Found(ticket, outcome) => {
                let clock_ms = self.nodes[node].clock_ms(self.now_ms);
                let met = &mut self.nodes[node].met[key];
                match &outcome {
                    Err(_) => met.failed = true,
                    Ok(Found::Held { .. }) => {
                        met.held_since_ms.get_or_insert(clock_ms);
                    }
                    Ok(_) => {}
                }
                self.at(node, &bytes, |n, now_ms, out| {
                    n.engine.l2_answered(&n.l1, &ticket, outcome, now_ms, out);
                });
            }
            Reply::Filled(ticket, outcome) => {
                self.at(node, &bytes, |n, now_ms, out| {
                    n.engine.filled(&n.l1, &ticket, outcome, now_ms, out);
                });
            }
            Reply::Invalidated { version, truth } => self.changed(node, key, version, truth),
            Reply::SetFailed(newest) => {
                self.at(node, &bytes, |n, now_ms, out| {
                    n.engine.changed(&n.l1, &bytes, newest, OnChange::Drop, now_ms, out)
                });
            }
        }
    }

    pub(super) fn noticed(&mut self, node: usize, key: usize, told: Told) {
        let bytes = [key as u8];
        match told {
            Told::Filled(version, truth) => {
                let heard = &mut self.nodes[node].heard[key];
                *heard = truth.max(*heard);
                self.at(node, &bytes, |n, now_ms, out| {
                    n.engine.noticed_fill(&n.l1, &bytes, version, now_ms, out);
                });
            }
            Told::Released => {
                self.at(node, &bytes, |n, now_ms, out| n.engine.noticed_release(&n.l1, &bytes, now_ms, out));
            }
            Told::Invalidated(version, truth) => self.changed(node, key, version, truth),
            Told::Gap => {
                let floors: Vec<u64> = (0..self.truth.len()).map(|key| self.l2.truth(key)).collect();
                let deaf = self.deaf_to_gaps;
                self.nodes[node].hears = true;
                self.nodes[node].fresh = floors;
                self.at(node, &bytes, |n, now_ms, out| {
                    if !deaf {
                        let number = n.l1.marks.gap(now_ms);
                        n.engine.noticed_gap(&n.l1, number, now_ms, out);
                    }
                });
            }
        }
    }
}
