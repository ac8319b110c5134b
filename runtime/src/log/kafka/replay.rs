//! Reading partitions from their beginning to their end, once: how state is made again from its topics.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::fault::{Faults, bounds, fault};
use super::settings::Settings;
use crate::log::LogError;

/// How long to wait for a broker to say anything at all.
const SILENCE_MAX: Duration = Duration::from_secs(30);

pub(super) struct Partition<'n> {
    pub topic: &'n str,
    pub partition: u32,
}

/// Reads what is committed of these partitions, to the end as it is when the call begins, or later. `take` is given the
/// index of the partition, the offset, the key and the value.
///
/// Several partitions at once only where nobody else writes to them meanwhile: an end that moves is told twice.
pub(super) fn replay(
    settings: &Settings,
    faults: &Faults,
    partitions: &[Partition<'_>],
    mut take: impl FnMut(usize, u64, &[u8], Option<&[u8]>) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let consumer: BaseConsumer<Faults> =
        settings.replaying()?.create_with_context(faults.clone()).map_err(|error| fault(&error, "a consumer"))?;
    let failed = |error| fault(&error, "to read topics");
    let mut assignment = TopicPartitionList::new();
    let mut index = BTreeMap::new();
    for (at, Partition { topic, partition }) in partitions.iter().enumerate() {
        // Asked first also because a client that does not know who leads a partition looks only twice a second.
        let (begins, end) = bounds(&consumer, topic, *partition)?;
        if begins < end {
            assignment.add_partition_offset(topic, *partition as i32, Offset::Beginning).map_err(failed)?;
            index.insert(((*topic).to_owned(), *partition as i32), at);
        }
    }
    let result = if index.is_empty() { Ok(()) } else { read(&consumer, faults, &assignment, &index, &mut take) };
    // A client takes its time to end.
    std::thread::spawn(move || drop(consumer));
    result
}

fn read(
    consumer: &BaseConsumer<Faults>,
    faults: &Faults,
    assignment: &TopicPartitionList,
    index: &BTreeMap<(String, i32), usize>,
    take: &mut impl FnMut(usize, u64, &[u8], Option<&[u8]>) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let failed = |error| fault(&error, "to read topics");
    consumer.assign(assignment).map_err(failed)?;
    // librdkafka says for each partition once that its end has been reached, but not of which topic.
    let mut ends = 0;
    let mut heard = Instant::now();
    while ends < index.len() {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                let Some(&at) = index.get(&(message.topic().to_owned(), message.partition())) else { continue };
                take(at, message.offset() as u64, message.key().unwrap_or_default(), message.payload())?;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {
                heard = Instant::now();
                ends += 1;
            }
            Some(Err(error)) => {
                let error = fault(&error, "to read topics");
                if !error.retryable() || heard.elapsed() > SILENCE_MAX {
                    return Err(error);
                }
            }
            None if heard.elapsed() > SILENCE_MAX => {
                let reason = faults.last().unwrap_or_else(|| "no broker answers".to_owned());
                return Err(LogError::Broker(format!("reading state: {reason}")));
            }
            None => {}
        }
    }
    Ok(())
}
