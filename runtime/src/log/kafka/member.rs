//! Membership of a consumer group: who is assigned what. Members fetch nothing; the group only says who owns.
//!
//! A thread polls for each membership, so that a process lives in the eyes of the group for as long as it does, however
//! long a step takes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::OAuthToken;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, ConsumerGroupMetadata, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientContext, TopicPartitionList};

use super::fault::{Faults, fault};
use super::settings::Settings;
use crate::log::LogError;

const POLL: Duration = Duration::from_millis(100);

/// How long to wait for the first assignment. Who comes later is told so by the next call.
const SETTLED_WITHIN: Duration = Duration::from_secs(6);

/// Errors that are read without a wait, and the wait: far more than a client queues, and no busy loop.
const ERRORS_IN_A_ROW_MAX: u32 = 100;
const ERROR_WAIT: Duration = Duration::from_millis(500);

/// A membership. Leaves the group when dropped.
pub(super) struct Member {
    consumer: Arc<BaseConsumer<Context>>,
    context: Context,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

#[derive(Clone)]
struct Context {
    faults: Faults,
    shared: Arc<(Mutex<Shared>, Condvar)>,
}

#[derive(Default)]
struct Shared {
    /// Each partition with the number of its assignment: one that went and came back has another.
    assigned: BTreeMap<u32, u64>,
    count: u64,
    /// Whether the group has spoken since this process joined.
    settled: bool,
    refused: Option<LogError>,
}

impl Context {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Context {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.faults.token()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.faults.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.faults.error(error, reason);
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            let mut shared = self.lock();
            for partition in numbers(partitions) {
                shared.assigned.remove(&partition);
            }
            tracing::debug!(event = "partitions_revoked", partitions = ?numbers(partitions));
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let Rebalance::Assign(partitions) = rebalance else { return };
        // What is not paused would be fetched, for nobody.
        if let Err(error) = consumer.pause(partitions) {
            tracing::debug!(event = "pause_failed", error = %error);
        }
        tracing::debug!(event = "partitions_assigned", partitions = ?numbers(partitions));
        let mut shared = self.lock();
        for partition in numbers(partitions) {
            shared.count += 1;
            let count = shared.count;
            shared.assigned.insert(partition, count);
        }
        shared.settled = true;
        shared.refused = None;
        self.shared.1.notify_all();
    }
}

fn numbers(partitions: &TopicPartitionList) -> Vec<u32> {
    partitions.elements().iter().map(|element| element.partition() as u32).collect()
}

impl Member {
    pub(super) fn join(settings: &Settings, faults: &Faults, group: &str, topic: &str) -> Result<Member, LogError> {
        let context = Context { faults: faults.clone(), shared: Arc::default() };
        let failed = |error| fault(&error, &format!("to join the group {group}"));
        let consumer: BaseConsumer<Context> =
            settings.member(group)?.create_with_context(context.clone()).map_err(failed)?;
        consumer.subscribe(&[topic]).map_err(failed)?;
        let consumer = Arc::new(consumer);
        let stop = Arc::new(AtomicBool::new(false));
        let thread = {
            let (consumer, context, stop) = (consumer.clone(), context.clone(), stop.clone());
            let group = group.to_owned();
            std::thread::Builder::new()
                .name("log-member".into())
                .spawn(move || poll(&consumer, &context, &stop, &group))
                .map_err(|_| LogError::Closed)?
        };
        Ok(Member { consumer, context, stop, thread: Some(thread) })
    }

    /// The number of the assignment of a partition, if this process has it. Waits for the group's first word.
    pub(super) fn assignment(&self, partition: u32) -> Result<Option<u64>, LogError> {
        let waiting = |shared: &mut Shared| !shared.settled && shared.refused.is_none();
        let (mut shared, _) = self
            .context
            .shared
            .1
            .wait_timeout_while(self.context.lock(), SETTLED_WITHIN, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        // Who was not assigned anything in time may be later: nobody has to wait so long twice.
        shared.settled = true;
        match shared.refused.take() {
            Some(refused) => Err(refused),
            None => Ok(shared.assigned.get(&partition).copied()),
        }
    }

    /// The number of the assignment now.
    pub(super) fn assignment_now(&self, partition: u32) -> Option<u64> {
        self.context.lock().assigned.get(&partition).copied()
    }

    /// What tells the broker which member of which generation commits.
    pub(super) fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        self.consumer.group_metadata()
    }

    pub(super) fn committed(
        &self,
        partitions: TopicPartitionList,
        within: Duration,
    ) -> Result<TopicPartitionList, KafkaError> {
        self.consumer.committed_offsets(partitions, within)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends within a poll; a panic in it has already cost us our assignments.
            let _ = thread.join();
        }
    }
}

/// Serves the group. Errors are read as they come: while a broker is away the client queues several each second, and
/// what the group has decided since waits behind them.
fn poll(consumer: &BaseConsumer<Context>, context: &Context, stop: &AtomicBool, group: &str) {
    let mut errors_in_a_row = 0;
    while !stop.load(Ordering::Relaxed) {
        let Some(Err(error)) = consumer.poll(if errors_in_a_row > 0 { Duration::ZERO } else { POLL }) else {
            errors_in_a_row = 0;
            continue;
        };
        tracing::debug!(event = "group_error", group, error = %error);
        if let Some(code) = error.rdkafka_error_code()
            && code != RDKafkaErrorCode::AutoOffsetReset
        {
            let error = fault(&error, &format!("to read from the group {group}"));
            if !error.retryable() {
                context.lock().refused = Some(error);
                context.shared.1.notify_all();
            }
        }
        errors_in_a_row += 1;
        if errors_in_a_row == ERRORS_IN_A_ROW_MAX {
            errors_in_a_row = 0;
            std::thread::sleep(ERROR_WAIT);
        }
    }
}
