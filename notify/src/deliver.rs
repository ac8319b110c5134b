//! One sink at work: begins what is due, sends it, takes in the answers. A task for each sink, so that a slow one
//! never holds up another; what they share is the memory of the outbox, which nobody holds while something is sent.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::entry::{Failure, FailureClass, RETRY_AFTER_MAX, SCHEDULE_SECONDS};
use crate::pick::{self, Ended, Flight, Room, What};
use crate::service::{Desk, Error};
use crate::sinks::{Built, Deliver, Outgoing};

/// Failures in a row after which the receiver, not the message, is taken to be the trouble: more than are under way at
/// once. From then on the sink pauses, twice as long each time, so that thousands of waiting messages do not meet a
/// receiver that is just getting up.
const FAILURES_IN_A_ROW_MAX: u32 = 4;
const PAUSE_MAX: TimeDelta = TimeDelta::seconds(60);

/// What a dead letter of a disabled sink says.
const DISABLED: &str = "the receiver has answered 410 Gone: nothing more is sent to it until harrier is restarted";

pub(crate) struct Worker {
    desk: Arc<Desk>,
    sink: usize,
    name: String,
    built: Built,
    in_flight: HashSet<String>,
    /// Findings among them, for the storm brake.
    flying: usize,
    /// The receiver has asked for a pause: it counts for everything sent there, not only for the message it refused.
    paused_until: Option<DateTime<Utc>>,
    failures_in_a_row: u32,
    /// The receiver is gone for good. Forgotten by a restart, which then asks once more.
    disabled: bool,
}

/// A batch and how it went.
struct Landed {
    batch: Vec<Flight>,
    answers: Vec<Result<(), Failure>>,
    took: Duration,
}

impl Worker {
    pub(crate) fn new(desk: Arc<Desk>, sink: usize, name: String, built: Built) -> Worker {
        let in_flight = HashSet::new();
        let (flying, failures_in_a_row, paused_until, disabled) = (0, 0, None, false);
        Worker { desk, sink, name, built, in_flight, flying, paused_until, failures_in_a_row, disabled }
    }

    /// Delivers until the end is asked for; what is under way then has a little time to land.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let mut flights = FuturesUnordered::new();
        let desk = self.desk.clone();
        while !desk.shutdown.is_requested() {
            let free = self.built.kind.concurrency_max.saturating_sub(flights.len());
            if free > 0 {
                for batch in self.begin(free).await? {
                    flights.push(send(self.built.deliver.clone(), batch));
                }
            }
            tokio::select! {
                Some(landed) = flights.next(), if !flights.is_empty() => self.settle(landed).await?,
                () = desk.news(self.sink) => {}
                () = desk.shutdown.requested() => {}
            }
        }
        let landing = async {
            while let Some(landed) = flights.next().await {
                self.settle(landed).await?;
            }
            Ok(())
        };
        // What has not landed by then is sent again after the next start, under the same id.
        tokio::time::timeout(desk.options.grace, landing).await.unwrap_or(Ok(()))
    }

    /// Begins as many batches as there is room for, and commits that they have begun.
    async fn begin(&mut self, batches_max: usize) -> Result<Vec<Vec<Flight>>, Error> {
        let desk = self.desk.clone();
        let mut outbox = desk.outbox.lock().await;
        loop {
            let now = desk.clock.now();
            if self.disabled {
                self.expire(&mut outbox, now).await?;
                return Ok(Vec::new());
            }
            if self.paused_until.is_some_and(|until| now < until) {
                return Ok(Vec::new());
            }
            let Some(table) = outbox.tables.get_mut(self.sink) else { return Ok(Vec::new()) };
            let kind = self.built.kind;
            let room = Room::of(table, batches_max * kind.batch_max, self.flying, kind.paced, now);
            let mut draft = outbox.draft();
            let Some(table) = outbox.tables.get(self.sink) else { return Ok(Vec::new()) };
            let flights = pick::pick(&mut draft, self.sink, table, &self.in_flight, room, now);
            let changes = draft.finish();
            if changes.is_empty() {
                return Ok(Vec::new());
            }
            desk.commit(&mut outbox, changes, Vec::new()).await?;
            if flights.is_empty() {
                // The brake has made a digest, which is now due itself.
                tracing::warn!(event = "notifications_collected", sink = self.name);
                continue;
            }
            runtime::failpoint::reached("notify_before_send");
            for flight in &flights {
                self.in_flight.insert(flight.key.clone());
                self.flying += usize::from(matches!(flight.what, What::Finding(_)));
            }
            return Ok(flights.chunks(kind.batch_max.max(1)).map(<[Flight]>::to_vec).collect());
        }
    }

    async fn expire(&self, outbox: &mut crate::outbox::Outbox, now: DateTime<Utc>) -> Result<(), Error> {
        let lasts: i64 = SCHEDULE_SECONDS.iter().sum();
        let before = now - TimeDelta::seconds(lasts);
        let mut draft = outbox.draft();
        let Some(table) = outbox.tables.get(self.sink) else { return Ok(()) };
        let expired = pick::expire(&mut draft, (self.sink, &self.name), table, DISABLED, before, now);
        let changes = draft.finish();
        if expired > 0 {
            self.desk.commit(outbox, changes, Vec::new()).await?;
            self.desk.measure(outbox);
        }
        Ok(())
    }

    /// Commits how a batch went.
    async fn settle(&mut self, landed: Landed) -> Result<(), Error> {
        runtime::failpoint::reached("notify_after_send");
        let desk = self.desk.clone();
        let mut outbox = desk.outbox.lock().await;
        let now = desk.clock.now();
        let mut draft = outbox.draft();
        let mut delivered = 0;
        for (index, flight) in landed.batch.iter().enumerate() {
            let lost = || {
                Err(Failure {
                    class: FailureClass::Retry { after: None },
                    label: "other",
                    reason: "no answer for this message".to_owned(),
                })
            };
            let answer = landed.answers.get(index).cloned().unwrap_or_else(lost);
            let ended = pick::settle(&mut draft, (self.sink, &self.name), flight, &answer, now);
            self.note(flight, &answer, ended, now);
            // Heads are no alert: the brake does not count them.
            delivered += usize::from(ended == Ended::Delivered && !matches!(flight.what, What::Heads(_)));
        }
        let changes = draft.finish();
        desk.commit(&mut outbox, changes, Vec::new()).await?;
        for flight in &landed.batch {
            self.in_flight.remove(&flight.key);
            self.flying = self.flying.saturating_sub(usize::from(matches!(flight.what, What::Finding(_))));
        }
        if let Some(table) = outbox.tables.get_mut(self.sink) {
            table.sent.extend(std::iter::repeat_n(now, delivered));
        }
        desk.metrics.sinks.notification_duration.with([self.built.kind.name]).observe(landed.took);
        desk.measure(&outbox);
        Ok(())
    }

    /// Tells metrics and log, and what the answer means for the sink as a whole.
    fn note(&mut self, flight: &Flight, answer: &Result<(), Failure>, ended: Ended, now: DateTime<Utc>) {
        let (sink, kind, id) = (self.name.as_str(), self.built.kind.name, flight.outgoing.id.as_str());
        let Err(failure) = answer else {
            self.desk.metrics.sinks.notifications.with([sink, kind]).inc();
            self.failures_in_a_row = 0;
            return;
        };
        self.desk.metrics.sinks.notifications_failed.with([sink, kind, failure.label]).inc();
        match ended {
            Ended::Dead => tracing::error!(event = "notification_dead", sink, id, reason = failure.reason),
            _ => tracing::warn!(event = "notification_failed", sink, id, reason = failure.reason),
        }
        match failure.class {
            FailureClass::Gone if !self.disabled => {
                tracing::error!(event = "sink_disabled", sink, reason = failure.reason);
                self.disabled = true;
            }
            FailureClass::Retry { after } => {
                self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
                let asked = TimeDelta::from_std(after.unwrap_or_default().min(RETRY_AFTER_MAX)).unwrap_or_default();
                self.paused_until = self.paused_until.max(Some(now + asked.max(pause(self.failures_in_a_row))));
            }
            _ => {}
        }
    }
}

/// 0 up to [`FAILURES_IN_A_ROW_MAX`], then 1 s, 2 s, 4 s and so on.
fn pause(failures_in_a_row: u32) -> TimeDelta {
    match failures_in_a_row.checked_sub(FAILURES_IN_A_ROW_MAX + 1) {
        Some(beyond) => TimeDelta::seconds(1 << beyond.min(10)).min(PAUSE_MAX),
        None => TimeDelta::zero(),
    }
}

async fn send(deliver: Arc<dyn Deliver>, batch: Vec<Flight>) -> Landed {
    let outgoing: Vec<Outgoing> = batch.iter().map(|flight| flight.outgoing.clone()).collect();
    let began = Instant::now();
    let answers = deliver.deliver(&outgoing).await;
    Landed { batch, answers, took: began.elapsed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_that_keeps_failing_is_given_time() {
        let seconds = [0, 4, 5, 6, 7, 10, 11, 100, u32::MAX].map(|failures| pause(failures).num_seconds());
        assert_eq!(seconds, [0, 0, 1, 2, 4, 32, 60, 60, 60]);
    }
}
