//! The pump: one client, polled without a pause, and the lanes of its partitions.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::{Aborted, BoxFuture, abortable};
use futures_util::stream::FuturesUnordered;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use terrace_base::log::Level;
use tokio::sync::watch;
use tokio::task::JoinError;
use tokio::time::Instant;

use super::counters::add;
use super::lane::{Job, Lane, Partition, work_off};
use super::positions::discover;
use super::{Client, Role, Shared};
use crate::mapping::{Fault, Mapped};

/// Pause between two searches for partitions, once some are known.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(10);
/// Pause between two searches for partitions while none is known.
const DISCOVERY_RETRY: Duration = Duration::from_secs(1);
/// What a message without keys takes of a lane's bytes.
const JOB_OVERHEAD_BYTES: usize = 64;

/// How long a full lane keeps the pump from receiving before its partition is paused instead. Pausing throws away what the
/// client has fetched already, so it is for lanes that are stuck, not for those that are merely behind.
const STALL: Duration = Duration::from_millis(300);

/// How a pump ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was told to.
    Stopped,
    /// The client is of no more use.
    Failed,
}

/// The end of a lane's message: whose, and which; an error when its lane is gone.
type Done = Result<(Partition, u64, i64), Aborted>;
/// What a search for partitions found.
type Found = Result<KafkaResult<Vec<(Partition, i64)>>, JoinError>;

/// One client and its lanes.
pub(super) struct Pump<'a> {
    shared: &'a Arc<Shared>,
    client: Arc<Client>,
    lanes: HashMap<Partition, Lane>,
    running: FuturesUnordered<BoxFuture<'static, Done>>,
    lanes_made: u64,
}

impl<'a> Pump<'a> {
    pub fn new(shared: &'a Arc<Shared>, client: Arc<Client>) -> Self {
        Self { shared, client, lanes: HashMap::new(), running: FuturesUnordered::new(), lanes_made: 0 }
    }

    /// Works until told to stop or until the client fails.
    pub async fn run(mut self, stopped: &mut watch::Receiver<bool>) -> End {
        let client = Arc::clone(&self.client);
        let every_node = self.shared.options.role == Role::EveryNode;
        if every_node && !self.known_positions().is_empty() {
            self.assign(self.known_positions());
        }
        let mut discovery = self.discovery(Duration::ZERO);
        let mut full_since = None;
        loop {
            full_since = if self.any_full() { full_since.or_else(|| Some(Instant::now())) } else { None };
            let stalled_at = full_since.map_or_else(Instant::now, |since| since + STALL);
            tokio::select! {
                // Also when the other end is gone.
                _ = stopped.changed() => {
                    self.clear();
                    return End::Stopped;
                }
                () = client.context().rebalanced.notified() => self.drop_revoked(),
                Some(done) = self.running.next(), if !self.running.is_empty() => {
                    self.drop_revoked();
                    if let Ok((partition, lane, offset)) = done {
                        self.done(&partition, lane, offset);
                    }
                }
                () = tokio::time::sleep_until(stalled_at), if full_since.is_some() => {
                    self.drop_revoked();
                    self.pause_full();
                }
                received = client.recv(), if full_since.is_none() => {
                    self.drop_revoked();
                    match received {
                        Ok(message) => self.receive(&message),
                        Err(error) => if self.failed(&error) {
                            self.clear();
                            return End::Failed;
                        }
                    }
                }
                found = &mut discovery, if every_node => {
                    let pause = self.discovered(found);
                    discovery = self.discovery(pause);
                }
            }
            self.shared
                .counters
                .waiting
                .store(self.lanes.values().map(|l| l.queue.len() as u64).sum(), Relaxed);
        }
    }

    /// Takes a message in: maps it, and queues what it asks for.
    fn receive(&mut self, message: &BorrowedMessage<'_>) {
        let shared = self.shared;
        add(&shared.counters.messages, 1);
        let payload = message.payload().unwrap_or_default();
        let mapped = if payload.len() > shared.options.message_bytes_max {
            Mapped { faults: vec![Fault::TooLarge(payload.len())], ..Mapped::default() }
        } else {
            shared.mapping.apply(payload)
        };
        add(&shared.counters.unversioned, mapped.unversioned);
        for fault in &mapped.faults {
            shared.counters.fault(fault);
            let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
            let line =
                format_args!("message {topic}/{partition}/{offset} is skipped, or a part of it: {fault}");
            shared.noise.say(Level::Warn, fault_kind(fault), line);
        }
        let size_bytes =
            mapped.invalidations.iter().map(|i| scope_bytes(&i.scope) + JOB_OVERHEAD_BYTES).sum();
        let job = Job {
            offset: message.offset(),
            invalidations: mapped.invalidations,
            size_bytes: JOB_OVERHEAD_BYTES.max(size_bytes),
        };

        let partition: Partition = (message.topic().into(), message.partition());
        let made = &mut self.lanes_made;
        let context = self.client.context();
        let lane = self.lanes.entry(partition.clone()).or_insert_with(|| {
            *made += 1;
            context.begun(partition.clone(), job.offset);
            Lane::new(*made)
        });
        lane.push(job);
        self.go_on(&partition);
    }

    /// Begins with the next message of a lane, unless one is under way.
    fn go_on(&mut self, partition: &Partition) {
        let Some(lane) = self.lanes.get_mut(partition) else { return };
        if lane.running.is_some() {
            return;
        }
        let Some(job) = lane.pop() else { return };
        let (id, offset, partition) = (lane.id, job.offset, partition.clone());
        let shared = Arc::clone(self.shared);
        let (work, handle) = abortable(async move {
            work_off(shared, job.invalidations).await;
            (partition, id, offset)
        });
        lane.running = Some(handle);
        self.running.push(Box::pin(work));
    }

    /// The effects of a message are done: its offset may be committed.
    fn done(&mut self, partition: &Partition, lane_id: u64, offset: i64) {
        let Some(lane) = self.lanes.get_mut(partition).filter(|lane| lane.id == lane_id) else { return };
        lane.running = None;
        let resume = lane.paused && lane.has_room(self.shared.options.in_flight_max);
        if resume {
            lane.paused = false;
        }
        add(&self.shared.counters.done, 1);
        self.client.context().done(partition, offset);
        // Fails when the partition was taken away a moment ago: then another member hears of the message again.
        if let Err(error) = self.client.store_offset(&partition.0, partition.1, offset) {
            self.shared.noise.say(Level::Info, "store", format_args!("an offset is not kept: {error}"));
        }
        if self.shared.options.role == Role::EveryNode {
            self.shared.positions.lock().done(partition, offset);
        }
        if resume {
            self.pause(partition, false);
        }
        self.go_on(partition);
    }

    /// Whether there is a lane that takes no more and whose partition is not paused.
    fn any_full(&self) -> bool {
        self.lanes.values().any(|lane| !lane.paused && lane.is_full(self.shared.options.in_flight_max))
    }

    /// Pauses the partitions of full lanes.
    fn pause_full(&mut self) {
        let in_flight_max = self.shared.options.in_flight_max;
        let mut full = Vec::new();
        for (partition, lane) in self.lanes.iter_mut().filter(|(_, l)| !l.paused && l.is_full(in_flight_max))
        {
            lane.paused = true;
            full.push(partition.clone());
        }
        for partition in full {
            self.pause(&partition, true);
        }
    }

    /// Pauses or resumes a partition. That fails only where it has been taken away.
    fn pause(&self, partition: &Partition, pause: bool) {
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&partition.0, partition.1);
        let result = if pause { self.client.pause(&list) } else { self.client.resume(&list) };
        if let Err(error) = result {
            self.shared.noise.say(
                Level::Info,
                "pause",
                format_args!("a partition is not paused or resumed: {error}"),
            );
        }
    }

    /// Forgets what waits of partitions that others have now.
    fn drop_revoked(&mut self) {
        for partition in self.client.context().take_revoked() {
            self.lanes.remove(&partition);
        }
    }

    /// Forgets everything that waits.
    fn clear(&mut self) {
        self.lanes.clear();
        self.shared.counters.waiting.store(0, Relaxed);
        self.shared.counters.partitions.store(0, Relaxed);
    }

    /// Counts an error of the client; true when it will not recover by itself.
    fn failed(&self, error: &KafkaError) -> bool {
        add(&self.shared.counters.client_errors, 1);
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        let what = if fatal { "a new client is made" } else { "waiting" };
        self.shared.noise.say(Level::Error, "consumption", format_args!("{error}; {what}"));
        fatal
    }

    fn known_positions(&self) -> Vec<(Partition, i64)> {
        self.shared.positions.lock().known().iter().map(|(p, offset)| (p.clone(), *offset)).collect()
    }

    /// Searches for partitions that are not known yet, after a pause. Does nothing for a member of a group.
    fn discovery(&self, pause: Duration) -> BoxFuture<'static, Found> {
        let client = Arc::clone(&self.client);
        let shared = Arc::clone(self.shared);
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            let (known, since_ms) = {
                let positions = shared.positions.lock();
                (positions.known().keys().cloned().collect::<Vec<_>>(), positions.since_ms())
            };
            tokio::task::spawn_blocking(move || discover(&client, &shared.options.topics, &known, since_ms))
                .await
        })
    }

    /// Takes in what a search found; answers how long to wait with the next.
    fn discovered(&self, found: Found) -> Duration {
        match found {
            Ok(Ok(found)) => {
                if !found.is_empty() {
                    let mut positions = self.shared.positions.lock();
                    for (partition, offset) in &found {
                        positions.begin(partition.clone(), *offset);
                    }
                    drop(positions);
                    self.assign(found);
                }
            }
            Ok(Err(error)) => {
                add(&self.shared.counters.client_errors, 1);
                self.shared.noise.say(
                    Level::Error,
                    "discovery",
                    format_args!("partitions are not known: {error}"),
                );
            }
            Err(error) => {
                self.shared.noise.say(
                    Level::Error,
                    "discovery",
                    format_args!("partitions are not known: {error}"),
                );
            }
        }
        if self.shared.positions.lock().known().is_empty() { DISCOVERY_RETRY } else { DISCOVERY_INTERVAL }
    }

    /// Adds partitions to those that are heard.
    fn assign(&self, found: Vec<(Partition, i64)>) {
        let mut list = TopicPartitionList::with_capacity(found.len());
        let added = found.iter().try_for_each(|((topic, number), offset)| {
            list.add_partition_offset(topic, *number, Offset::Offset(*offset))
        });
        if let Err(error) = added.and_then(|()| self.client.incremental_assign(&list)) {
            self.shared.noise.say(
                Level::Error,
                "assignment",
                format_args!("partitions are not heard: {error}"),
            );
            return;
        }
        self.shared.noise.note(Level::Info, format_args!("{} partitions found", found.len()));
        add(&self.shared.counters.rebalances, 1);
        if let Ok(assigned) = self.client.assignment() {
            self.shared.counters.partitions.store(assigned.count() as u64, Relaxed);
        }
    }
}

/// Faults of different kinds are told apart by the log's limit.
fn fault_kind(fault: &Fault) -> &'static str {
    match fault {
        Fault::TooLarge(_) => "too large",
        Fault::NotJson(_) => "not json",
        Fault::Unmatched => "unmatched",
        Fault::Missing(_) => "missing",
        Fault::NotScalar(_) => "not scalar",
        Fault::KeyTooLong => "key too long",
        Fault::TooManyKeys => "too many keys",
    }
}

fn scope_bytes(scope: &terrace_cache::Scope) -> usize {
    match scope {
        terrace_cache::Scope::Key(key) | terrace_cache::Scope::Prefix(key) => key.len(),
        terrace_cache::Scope::Tag(tag) => tag.len(),
    }
}
