//! Reading partitions from their beginning to their end, once: how state is made again from its topics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::{Message as _, Offset, TopicPartitionList};

use super::fault::{Faults, bounds, fault};
use super::settings::Settings;
use crate::log::LogError;

/// How long to wait for a broker to say anything at all.
const SILENCE_MAX: Duration = Duration::from_secs(30);

const POLL: Duration = Duration::from_millis(100);

pub(super) struct Partition<'n> {
    pub topic: &'n str,
    pub partition: u32,
}

/// Reads what is committed of these partitions, to the end as it is when the call begins, or later. `take` is given the
/// index of the partition, the offset, the key and the value. It may be given some of them twice.
pub(super) fn replay(
    settings: &Settings,
    faults: &Faults,
    partitions: &[Partition<'_>],
    mut take: impl FnMut(usize, u64, &[u8], Option<&[u8]>) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let consumer: BaseConsumer<Faults> =
        settings.replaying()?.create_with_context(faults.clone()).map_err(|error| fault(&error, "a consumer"))?;
    let consumer = Arc::new(consumer);
    let mut assignment = TopicPartitionList::new();
    let mut stretches = Vec::new();
    for (index, Partition { topic, partition }) in partitions.iter().enumerate() {
        // Asked first also because a client that does not know who leads a partition looks only twice a second.
        let (begins, end) = bounds(&consumer, topic, *partition)?;
        if begins == end {
            continue;
        }
        // Before the assignment: what came between the two would go to the common queue.
        let queue = consumer
            .split_partition_queue(topic, *partition as i32)
            .ok_or_else(|| LogError::Broker(format!("{topic}/{partition} cannot be read")))?;
        assignment.add_partition_offset(topic, *partition as i32, Offset::Beginning).map_err(failed)?;
        stretches.push(Stretch { index, topic, partition: *partition as i32, next: begins, end, queue });
    }
    let result = if stretches.is_empty() {
        Ok(())
    } else {
        let assigned = consumer.assign(&assignment).map_err(failed);
        assigned.and_then(|()| stretches.iter_mut().try_for_each(|stretch| stretch.read(&consumer, faults, &mut take)))
    };
    drop(stretches);
    // A client takes its time to end.
    std::thread::spawn(move || drop(consumer));
    result
}

fn failed(error: KafkaError) -> LogError {
    fault(&error, "to read topics")
}

/// One partition on its way to its end.
struct Stretch<'n> {
    index: usize,
    topic: &'n str,
    partition: i32,
    /// The least offset that the next message may have.
    next: u64,
    /// Where the partition ended when the call began.
    end: u64,
    queue: PartitionQueue<Faults>,
}

impl Stretch<'_> {
    /// librdkafka's word that the end has been reached is believed if it has come to the end that the leader has told.
    /// A leader that is new may for a moment believe in an earlier one, and an end is told again when a partition has
    /// moved. Where the last messages do not show in librdkafka's position, the question is put anew, once the leader
    /// tells ends again: it does not before it knows its own.
    fn read(
        &mut self,
        consumer: &BaseConsumer<Faults>,
        faults: &Faults,
        take: &mut impl FnMut(usize, u64, &[u8], Option<&[u8]>) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let mut heard = Instant::now();
        let mut asked_anew = false;
        loop {
            // Where nothing has come, there may be something that concerns the client as a whole.
            let event = self.queue.poll(POLL).or_else(|| consumer.poll(Duration::ZERO)?.err().map(Err));
            match event {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    self.next = message.offset() as u64 + 1;
                    take(self.index, message.offset() as u64, message.key().unwrap_or_default(), message.payload())?;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    heard = Instant::now();
                    if asked_anew || self.position(consumer) >= self.end {
                        return Ok(());
                    }
                    bounds(consumer, self.topic, self.partition as u32)?;
                    let next = Offset::Offset(self.next as i64);
                    consumer.seek(self.topic, self.partition, next, SILENCE_MAX).map_err(failed)?;
                    asked_anew = true;
                }
                Some(Err(error)) => {
                    let error = failed(error);
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
    }

    /// How far librdkafka has come, markers of transactions included.
    fn position(&self, consumer: &BaseConsumer<Faults>) -> u64 {
        let positions = consumer.position().ok();
        match positions.and_then(|all| all.find_partition(self.topic, self.partition).map(|found| found.offset())) {
            Some(Offset::Offset(offset)) => self.next.max(offset as u64),
            _ => self.next,
        }
    }
}
