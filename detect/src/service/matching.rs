//! Match: admits the records of one partition and judges each against all rules.
//!
//! One step commits together: the offset, the verdicts of the batch, the matches, dead letters, and what admit
//! remembers. So each record is admitted, judged and archived once or not at all.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::NaiveDate;
use runtime::log::{Consumer, Input, Log, Message, Output, ReadLimit, StateChange, Store, To, Topic, Txn};
use runtime::metrics::Metrics;
use schemas::Event;
use schemas::envelope::{Envelope, Heartbeat, Mark, Received};
use schemas::event::NotARecord;
use schemas::json::key_hash;
use schemas::message::{DeadLetter, MatchMessage, Verdict, Verdicts};

use super::Error;
use super::partitions::Worker;
use super::sighted::{self, Sighted};
use crate::admit::Admit;
use crate::matcher::Matcher;
use crate::rule::Kind;

pub(super) struct MatchWorker {
    partition: u32,
    matcher: Arc<Matcher>,
    sighted: Arc<Sighted>,
    metrics: Arc<Metrics>,
    admit: Admit,
}

/// A message as it was found.
enum Read {
    Event(Box<Event>),
    Unreadable(Received, NotARecord),
    Mark(Mark),
    Heartbeat(Heartbeat),
}

impl MatchWorker {
    pub(super) fn new(
        partition: u32,
        matcher: Arc<Matcher>,
        sighted: Arc<Sighted>,
        metrics: Arc<Metrics>,
    ) -> MatchWorker {
        MatchWorker { partition, matcher, sighted, metrics, admit: Admit::default() }
    }

    /// Loads the known records of the days that the batch speaks of.
    async fn load_days(&mut self, log: &dyn Log, reads: &[Read]) -> Result<(), Error> {
        let days: BTreeSet<NaiveDate> = reads
            .iter()
            .filter_map(|read| match read {
                Read::Event(event) => Some(event.time().date_naive()),
                _ => None,
            })
            .filter(|day| !self.admit.is_loaded(*day))
            .collect();
        for day in days {
            let rows = log.scan(Store::Admit, self.partition, &Admit::prefix(day)).await?;
            self.admit.load(day, rows.into_iter().map(|(_, row)| row))?;
        }
        Ok(())
    }

    fn count(&self, event: &Event, verdict: Verdict) {
        let tenant = event.tenant().as_str();
        match verdict {
            Verdict::Duplicate => self.metrics.ingest.duplicates.with([tenant]).inc(),
            Verdict::Variant => self.metrics.ingest.variants.with([tenant]).inc(),
            _ => {}
        }
    }
}

#[async_trait]
impl Worker for MatchWorker {
    const CONSUMER: Consumer = Consumer::Match;
    const TOPIC: Topic = Topic::Records;

    async fn step(&mut self, log: &dyn Log, from: u64) -> Result<Option<u64>, Error> {
        let messages = log.read(Topic::Records, self.partition, from, ReadLimit::default()).await?;
        let Some(last) = messages.last() else { return Ok(None) };
        let next = last.offset + 1;
        let partition = self.partition;
        let reads = blocking(move || read_all(&messages, partition)).await??;
        self.load_days(log, &reads).await?;

        let started = std::time::Instant::now();
        let mut batch = Batch::default();
        let mut fresh = Vec::new();
        for read in reads {
            match read {
                Read::Event(event) => {
                    let verdict = self.admit.judge(&event);
                    self.count(&event, verdict);
                    batch.codes.push(char::from(verdict as u8));
                    if verdict != Verdict::Duplicate {
                        fresh.push(event);
                    }
                }
                Read::Unreadable(received, reason) => {
                    batch.codes.push(char::from(Verdict::Rejected as u8));
                    self.metrics.ingest.rejected.with([label(&reason)]).inc();
                    batch.dead_letters.push(dead_letter(received, &reason));
                }
                Read::Mark(mark) => batch.mark(mark),
                Read::Heartbeat(heartbeat) => batch.heartbeat(heartbeat),
            }
        }
        let (matcher, sighted, metrics) = (self.matcher.clone(), self.sighted.clone(), self.metrics.clone());
        let found = blocking(move || judge_all(&matcher, &sighted, &metrics, &fresh)).await?;
        self.metrics.engine.rule_batch_duration.observe(started.elapsed());
        let observed = found.observed;
        batch.matches = found.messages;
        let heartbeat = batch.heartbeat.clone();
        let txn = batch.into_txn(self.partition, from, next, self.admit.take_rows(from));
        log.commit(txn).await?;
        self.sighted.note(observed);
        self.metrics.log.commits.with([Self::CONSUMER.name()]).inc();
        if let Some(heartbeat) = heartbeat {
            self.metrics.own.heartbeat.set(["match"], heartbeat.sent);
        }
        Ok(Some(next))
    }
}

/// The reason as a label of `events_rejected_total`.
fn label(reason: &NotARecord) -> &'static str {
    match reason {
        NotARecord::Json(_) => "not_json",
        NotARecord::NotAnObject => "not_an_object",
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Worker)
}

fn read_all(messages: &[Message], partition: u32) -> Result<Vec<Read>, Error> {
    messages
        .iter()
        .map(|message| {
            let damaged = Error::Message { topic: Topic::Records.name(), partition, offset: message.offset };
            Ok(match Envelope::decode(&message.value).map_err(|_| damaged)? {
                Envelope::Mark(mark) => Read::Mark(mark),
                Envelope::Heartbeat(heartbeat) => Read::Heartbeat(heartbeat),
                Envelope::Record(received) => match Event::read(&received) {
                    Ok(event) => Read::Event(Box::new(event)),
                    Err(reason) => Read::Unreadable(received, reason),
                },
            })
        })
        .collect()
}

/// What the rules make of a batch.
#[derive(Default)]
struct Found {
    /// Matches, then observations.
    messages: Vec<MatchMessage>,
    /// Names of the observations among them.
    observed: HashSet<u128>,
}

/// Matches, and observations combined: each once, and none that the log has already.
fn judge_all(matcher: &Matcher, sighted: &Sighted, metrics: &Metrics, events: &[Box<Event>]) -> Found {
    let mut found = Found::default();
    let mut observations: Vec<MatchMessage> = Vec::new();
    let mut of_event = Vec::new();
    for event in events {
        for rule_id in matcher.matches(event, &mut of_event) {
            metrics.engine.group_key_missing.with([&rule_id]).inc();
        }
        for message in of_event.drain(..) {
            match message {
                MatchMessage::Observation(observation) => {
                    let key = sighted::key(&observation);
                    if !sighted.has(key) && found.observed.insert(key) {
                        observations.push(MatchMessage::Observation(observation));
                    }
                }
                MatchMessage::Match(found_match) => {
                    let rule = [found_match.rule_id.as_str()];
                    metrics.engine.rule_matches.with(rule).inc();
                    metrics.engine.rule_last_match.with(rule).set_time(found_match.received);
                    found.messages.push(MatchMessage::Match(found_match));
                }
                control => found.messages.push(control),
            }
        }
    }
    for rule in matcher.rules().rules().iter().filter(|rule| matches!(rule.kind, Kind::Detection(_))) {
        metrics.engine.rule_evaluations.with([&rule.id]).add(events.len() as u64);
    }
    found.messages.append(&mut observations);
    found
}

/// What one step puts out.
#[derive(Default)]
struct Batch {
    codes: String,
    dead_letters: Vec<DeadLetter>,
    matches: Vec<MatchMessage>,
    marks: BTreeMap<(String, String), Mark>,
    heartbeat: Option<Heartbeat>,
}

impl Batch {
    /// Of several marks of one feed only the newest matters; that is what batching them means.
    fn mark(&mut self, mark: Mark) {
        self.codes.push(char::from(Verdict::Control as u8));
        let key = (mark.tenant.as_str().to_owned(), mark.content_type.clone());
        match self.marks.get(&key) {
            Some(known) if known.until >= mark.until => {}
            _ => {
                self.marks.insert(key, mark);
            }
        }
    }

    fn heartbeat(&mut self, heartbeat: Heartbeat) {
        self.codes.push(char::from(Verdict::Control as u8));
        if self.heartbeat.as_ref().is_none_or(|known| known.sent < heartbeat.sent) {
            self.heartbeat = Some(heartbeat);
        }
    }

    fn into_txn(self, partition: u32, from: u64, next: u64, rows: Vec<(Vec<u8>, Vec<u8>)>) -> Txn {
        let mut outputs = Vec::with_capacity(self.matches.len() + 2);
        let verdicts = Verdicts { partition, from, codes: self.codes };
        outputs.push(output(Topic::Verdicts, To::Partition(partition), &verdicts));
        for message in &self.matches {
            outputs.push(output(Topic::Matches, To::Key(key_of(message)), message));
        }
        // Marks and heartbeats come after the matches they speak of.
        for mark in self.marks.into_values() {
            outputs.push(output(Topic::Matches, To::Everywhere, &MatchMessage::Mark(mark)));
        }
        // One partition passes heartbeats on, else their number would multiply from stage to stage.
        if let (Some(heartbeat), 0) = (self.heartbeat, partition) {
            outputs.push(output(Topic::Matches, To::Partition(0), &MatchMessage::Heartbeat(heartbeat)));
        }
        for letter in &self.dead_letters {
            outputs.push(output(Topic::DeadLetters, To::Key(key_hash(&[letter.tenant.as_str()])), letter));
        }
        let change = |(key, value)| StateChange { store: Store::Admit, partition, key, value: Some(value) };
        Txn {
            inputs: vec![Input { consumer: Consumer::Match, topic: Topic::Records, partition, from, next }],
            outputs,
            state: rows.into_iter().map(change).collect(),
            lease: None,
        }
    }
}

/// Everything one operator instance needs goes to one partition.
fn key_of(message: &MatchMessage) -> u128 {
    match message {
        MatchMessage::Match(found) => key_hash(&[found.tenant.as_str(), &found.rule_id, &found.shard]),
        MatchMessage::Observation(seen) => key_hash(&[seen.tenant.as_str(), &seen.rule_id, &seen.shard]),
        MatchMessage::Mark(_) | MatchMessage::Heartbeat(_) => 0,
    }
}

fn output<T: serde::Serialize>(topic: Topic, to: To, message: &T) -> Output {
    // Messages are structs of strings, numbers and times: they always serialise.
    Output { topic, to, value: serde_json::to_vec(message).unwrap_or_default() }
}

fn dead_letter(received: Received, reason: &NotARecord) -> DeadLetter {
    DeadLetter {
        tenant: received.origin.tenant,
        source: received.origin.source,
        place: received.origin.blob_id,
        reason: reason.to_string(),
        received: received.origin.received,
        bytes: received.bytes,
        whole: None,
    }
}
