//! What must hold: of each answer, of every node after every step, and at the end.

use super::*;

impl World {
    pub(super) fn wake(&mut self, client: &Client, outcome: Result<Answer, CacheError>) {
        if client.gone {
            return;
        }
        self.asked[client.id].answers += 1;
        self.check(self.asked[client.id].answers == 1, || format!("client {} was answered twice", client.id));
        if let Ok(answer) = outcome {
            self.judge(client.id, &answer);
        }
    }

    pub(super) fn judge(&mut self, id: usize, answer: &Answer) {
        let Asked { node, key, heard, fresh, .. } = self.asked[id];
        let Some(value) = &answer.value else { return };
        let (truth, loaded_ms) = (truth_of(Some(value)), loaded_ms(value));
        let n = &self.nodes[node];
        // A failover that lost an invalidation takes back what may be asked of its key.
        let heard = heard.min(n.heard[key]);
        let fresh = fresh.min(n.fresh[key]);
        let stale = answer.level == Level::Stale;
        if !(stale && self.policy.on_change == OnChange::Refresh) {
            self.check(truth >= heard, || {
                format!("node {node}, key {key}: {truth} served ({:?}), {heard} was heard of", answer.level)
            });
        }
        if !stale {
            self.check(truth >= fresh, || {
                format!(
                    "node {node}, key {key}: {truth} called fresh, {fresh} was known before the gap ended"
                )
            });
        }
        let windows_ms = self.policy.stale_while_revalidate_ms.max(self.policy.stale_if_error_ms);
        let life_ms = self.policy.ttl_ms + windows_ms + self.policy.load_timeout_ms;
        // Clocks differ by one in a hundred, and messages are on their way for a while.
        let bound_ms = life_ms + life_ms / 20 + 400;
        let age_ms = self.now_ms - loaded_ms;
        self.check(age_ms <= bound_ms, || format!("key {key}: served {age_ms} ms after its load"));
    }

    pub(super) fn check_always(&mut self) {
        if let Some(violation) = self.l2.violation.take() {
            self.check(false, || violation);
        }
        for node in 0..self.nodes.len() {
            let n = &self.nodes[node];
            let (size_bytes, flights) = (n.l1.size_bytes(), n.engine.flights());
            let (taken, loads) = (n.bounds.flights.taken(), n.bounds.loads.taken());
            let inside = size_bytes <= SIZE_BYTES_MAX && flights <= FLIGHTS_MAX && loads <= LOADS_MAX;
            let dropped = self.policy.on_change == OnChange::Drop;
            let old = (0..self.truth.len()).find_map(|key| {
                let entry = n.l1.peek(&[key as u8]).filter(|_| dropped)?;
                let truth = truth_of(entry.value.as_ref());
                (truth < n.heard[key]).then_some((key, truth, n.heard[key]))
            });
            self.check(inside && flights == taken, || {
                format!(
                    "node {node}: {size_bytes} bytes, {flights} flights hold {taken} permits, {loads} loads"
                )
            });
            self.check(old.is_none(), || format!("node {node}: L1 holds (key, version, due) {old:?}"));
        }
    }

    /// Lets everything that is on its way arrive, after which nobody may be left waiting.
    pub(super) fn settle(&mut self) {
        self.l2_away_until_ms = 0;
        for _ in 0..100_000 {
            if self.events.is_empty() || self.violation.is_some() {
                break;
            }
            self.next_event();
        }
        self.check_always();
        let left = self.asked.iter().filter(|it| it.answers == 0 && self.lives(it.node, it.life)).count();
        // A caller's load that nobody waited for has no deadline but the next lookup.
        let flights: usize = self.nodes.iter().map(|node| node.engine.flights()).sum();
        self.check(left == 0, || format!("{left} clients were never answered, {flights} flights are left"));
    }
}
