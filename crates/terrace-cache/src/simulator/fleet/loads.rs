//! What the engines want done, and the loads from the source.

use super::*;

impl World {
    pub(super) fn carry_out(&mut self, node: usize, actions: Vec<Action<Client>>) {
        let life = self.nodes[node].life;
        for action in actions {
            match action {
                Action::Wake(client, outcome) => self.wake(&client, outcome),
                Action::Hand(client, ticket) => {
                    self.check(!client.gone, || "a load was handed to somebody who left".to_owned());
                    self.asked[client.id].answers += 1;
                    self.begin(node, ticket, true);
                }
                Action::Load(ticket) => self.begin(node, ticket, false),
                Action::Watch(ticket) => {
                    self.after(self.policy.load_timeout_ms, Event::Expires(node, life, ticket))
                }
                Action::AskL2 { ticket, lease_ms, repair } => {
                    let key = Node::key_of(&ticket.key);
                    let clock_ms = self.nodes[node].clock_ms(self.now_ms);
                    let met = &mut self.nodes[node].met[key];
                    met.asks += 1;
                    met.asked_ms = clock_ms;
                    let timeout = Err(L2Error::Timeout(self.policy.l2_timeout_ms));
                    let reply = Reply::Found(ticket.clone(), timeout);
                    self.after(self.policy.l2_timeout_ms, Event::Replied(node, life, key, reply));
                    self.call(node, key, Call::Get { ticket, lease_ms, repair });
                }
                Action::Fill { ticket, token, stored } => {
                    let key = Node::key_of(&ticket.key);
                    let timeout = Err(L2Error::Timeout(self.policy.l2_timeout_ms));
                    let reply = Reply::Filled(ticket.clone(), timeout);
                    self.after(self.policy.l2_timeout_ms, Event::Replied(node, life, key, reply));
                    self.call(node, key, Call::Fill { ticket, token, stored });
                }
                Action::Release { key, token } => {
                    self.call(node, Node::key_of(&key), Call::Release { token });
                }
                Action::Wait { ticket, wait_ms } => {
                    self.after(wait_ms + 1, Event::Waited(node, life, ticket))
                }
                Action::Lock { ticket, wait_ms } => {
                    let delay_ms = self.draw.draw() % wait_ms;
                    self.after(delay_ms, Event::Locked(node, life, ticket));
                }
            }
        }
    }

    pub(super) fn begin(&mut self, node: usize, ticket: Ticket, by_caller: bool) {
        let key = Node::key_of(&ticket.key);
        let n = &self.nodes[node];
        let (life, met, clock_ms) = (n.life, n.met[key], n.clock_ms(self.now_ms));
        // Away, or silent for so long that the next lookup took it for a timeout.
        let away = !n.health.is_up() || met.asked_ms + self.policy.l2_timeout_ms <= clock_ms;
        // Taken over by somebody else within the same event: not this load's any more.
        let Some(lease) = n.engine.load_under(&ticket) else { return };
        match lease {
            Some(token) => {
                let now = |load: &&Load| load.lease == Some(token) && load.key == key;
                let running = |load: &&Load| self.nodes[load.node].engine.load_under(&load.ticket).is_some();
                let others = self.loads.values().filter(now).filter(running).count();
                self.check(others == 0, || format!("key {key}: two loads under one lease"));
            }
            None => {
                let held =
                    met.held_since_ms.is_some_and(|at_ms| at_ms + self.policy.held_wait_ms <= clock_ms);
                let excused = away || met.failed || held || met.asks >= ASKS_MAX;
                self.check(excused, || format!("node {node} loads key {key} without a lease: {met:?}"));
            }
        }
        let (truth, began_ms) = (self.truth[key], self.now_ms);
        let delay_ms = if self.below(15) == 0 { 150 } else { 2 + self.draw.draw() % 60 };
        self.after(delay_ms, Event::LoadEnds(node, life, ticket.clone()));
        if !by_caller {
            self.after(self.policy.load_timeout_ms, Event::Expires(node, life, ticket.clone()));
        }
        let number = (node, life, ticket.flight);
        self.loads.insert(number, Load { node, life, key, truth, began_ms, ticket, by_caller, lease });
    }

    pub(super) fn end_load(&mut self, node: usize, ticket: &Ticket) {
        let number = (node, self.nodes[node].life, ticket.flight);
        let Some(load) = self.loads.remove(&number) else { return };
        debug_assert_eq!(load.life, self.nodes[node].life);
        match self.below(10) {
            0 | 1 => self.fail(node, load.key, ticket),
            2 if load.by_caller => {
                self.at(node, &ticket.key, |n, now_ms, out| n.engine.abandoned(&n.l1, ticket, now_ms, out));
            }
            _ => {
                let value = value_of(load.truth, load.began_ms);
                let loaded = Loaded::versioned(value, None, self.version(load.truth));
                self.at(node, &ticket.key, |n, now_ms, out| {
                    n.engine.loaded(&n.l1, ticket, loaded, now_ms, out)
                });
            }
        }
    }

    pub(super) fn fail(&mut self, node: usize, key: usize, ticket: &Ticket) {
        let error = LoadError::Unavailable("simulated".into());
        let (before, outcome, after) = self.at(node, &ticket.key, |n, now_ms, out| {
            let before = n.l1.usable(&ticket.key, now_ms);
            let outcome = n.engine.failed(&n.l1, ticket, error, now_ms, out);
            (before, outcome, n.l1.usable(&ticket.key, now_ms))
        });
        if before.is_some() {
            self.check(before == after, || format!("key {key}: an error replaced {before:?} by {after:?}"));
            self.check(outcome.is_ok(), || format!("key {key}: a usable value was not served"));
        }
    }
}
