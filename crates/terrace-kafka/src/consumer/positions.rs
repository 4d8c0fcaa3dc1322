//! Where a node that is in no group stands in its partitions.
//!
//! "The end" would be resolved when a broker is first reached, and whatever was written between the node's start and that
//! moment would never be heard, though L1 may already hold values of before. So a node begins at a time: its start.
//! Partitions that appear later are looked up in the same way, which finds their first message.

use std::collections::HashMap;
use std::time::Duration;

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{Offset, TopicPartitionList};

use super::Client;
use super::lane::Partition;

/// Longest time that one question to the brokers may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The offsets that come next.
pub(super) struct Positions {
    since_ms: i64,
    next: HashMap<Partition, i64>,
}

impl Positions {
    pub fn since(unix_ms: u64) -> Self {
        Self { since_ms: i64::try_from(unix_ms).unwrap_or(0), next: HashMap::new() }
    }

    pub fn since_ms(&self) -> i64 {
        self.since_ms
    }

    pub fn known(&self) -> &HashMap<Partition, i64> {
        &self.next
    }

    pub fn begin(&mut self, partition: Partition, offset: i64) {
        self.next.entry(partition).or_insert(offset);
    }

    pub fn done(&mut self, partition: &Partition, offset: i64) {
        if let Some(next) = self.next.get_mut(partition) {
            *next = offset + 1;
        }
    }
}

/// Finds partitions of `topics` that are not in `known`, and the offset at which to begin in each. Waits for brokers.
pub(super) fn discover(
    client: &Client,
    topics: &[String],
    known: &[Partition],
    since_ms: i64,
) -> KafkaResult<Vec<(Partition, i64)>> {
    let mut found = Vec::new();
    let mut asked = TopicPartitionList::new();
    for topic in topics {
        let metadata = client.fetch_metadata(Some(topic), TIMEOUT)?;
        for listed in metadata.topics() {
            if let Some(error) = listed.error() {
                return Err(KafkaError::MetadataFetch(error.into()));
            }
            for partition in listed.partitions() {
                let partition = (listed.name().into(), partition.id());
                if known.contains(&partition) {
                    continue;
                }
                // Asked before the time is looked up: should no message be younger than that time, the end as of now is
                // where to begin, and not the end as of some later moment.
                let (_, end) = client.fetch_watermarks(&partition.0, partition.1, TIMEOUT)?;
                asked.add_partition_offset(&partition.0, partition.1, Offset::Offset(since_ms))?;
                found.push((partition, end));
            }
        }
    }
    if found.is_empty() {
        return Ok(found);
    }
    for answer in client.offsets_for_times(asked, TIMEOUT)?.elements() {
        answer.error()?;
        if let Offset::Offset(offset) = answer.offset()
            && let Some((_, begin)) = found
                .iter_mut()
                .find(|((topic, number), _)| **topic == *answer.topic() && *number == answer.partition())
        {
            *begin = offset;
        }
    }
    Ok(found)
}
