//! Match: admits the records of one partition and judges each against all rules.
//!
//! One step commits together: the offset, the verdicts of the batch, the matches, dead letters, what admit
//! remembers, and which rule set is in force. So each record is admitted, judged and archived once or not at all.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use runtime::log::{Consumer, Input, Lease, Log, Message, Output, ReadLimit, StateChange, Store, To, Topic, Txn};
use runtime::metrics::Metrics;
use schemas::Event;
use schemas::envelope::{Envelope, Heartbeat, Mark, Received};
use schemas::event::NotARecord;
use schemas::history::History;
use schemas::json::key_hash;
use schemas::message::{DeadLetter, MatchMessage, Passed, Verdict, Verdicts};

use super::Error;
use super::judging_again::JudgingAgain;
use super::partitions::Worker;
use super::retiring::Retiring;
use super::rule_books::{Compiler, Follower};
use super::sighted::{self, Sighted};
use crate::admit::Admit;
use crate::matcher::Aside;
use crate::rule::Kind;

pub(super) struct MatchWorker {
    partition: u32,
    compiler: Arc<Compiler>,
    /// None until the first step, and while a pass has it.
    follower: Option<Follower>,
    sighted: Arc<Sighted>,
    metrics: Arc<Metrics>,
    admit: Admit,
    /// In partition 0, where there is an archive.
    judging_again: Option<JudgingAgain>,
    /// Where there is an archive.
    retiring: Option<Retiring>,
}

impl MatchWorker {
    pub(super) fn new(
        partition: u32,
        compiler: Arc<Compiler>,
        sighted: Arc<Sighted>,
        metrics: Arc<Metrics>,
    ) -> MatchWorker {
        let (follower, admit, judging_again, retiring) = (None, Admit::default(), None, None);
        MatchWorker { partition, compiler, follower, sighted, metrics, admit, judging_again, retiring }
    }

    /// The same with the archive: for rules that came later, which one partition reads for all, and for what it does not
    /// keep any more.
    pub(super) fn beside(mut self, history: &Arc<dyn History>) -> MatchWorker {
        self.retiring = Some(Retiring::new(history.clone()));
        if self.partition == 0 {
            self.judging_again = Some(JudgingAgain::new(history.clone(), self.metrics.clone()));
        }
        self
    }
}

#[async_trait]
impl Worker for MatchWorker {
    const CONSUMER: Consumer = Consumer::Match;
    const TOPIC: Topic = Topic::Records;

    async fn step(&mut self, log: &dyn Log, from: u64) -> Result<Option<u64>, Error> {
        let mut follower = match self.follower.take() {
            Some(follower) => follower,
            None => Follower::load(log, self.partition, self.compiler.clone()).await?,
        };
        if follower.in_force().is_none() && !follower.begin(log, from).await? {
            self.follower = Some(follower);
            return Ok(None);
        }
        let messages = log.read(Topic::Records, self.partition, from, ReadLimit::default()).await?;
        let Some(last) = messages.last() else {
            self.follower = Some(follower);
            return Ok(None);
        };
        let next = last.offset + 1;
        let offsets = messages.iter().map(|message| message.offset).collect();
        let mut pass = Pass {
            partition: self.partition,
            follower,
            sighted: self.sighted.clone(),
            metrics: self.metrics.clone(),
            admit: std::mem::take(&mut self.admit),
            messages: messages.into_iter(),
            batch: Batch { offsets, ..Batch::default() },
        };
        let mut batch = loop {
            let (back, stop) = blocking(move || pass.advance()).await??;
            pass = back;
            match stop {
                None => break std::mem::take(&mut pass.batch),
                Some(day) => {
                    let rows = log.scan(Store::Admit, self.partition, &Admit::prefix(day)).await?;
                    pass.admit.load(day, rows.into_iter().map(|(_, row)| row))?;
                }
            }
        };
        self.admit = pass.admit;
        let mut follower = pass.follower;
        let observed = std::mem::take(&mut batch.observed);
        let heartbeat = batch.heartbeat.clone();
        let epoch = follower.in_force().map_or(0, |in_force| in_force.epoch);
        let behind: Vec<String> = follower.behind().rules.iter().cloned().collect();
        let mut txn = batch.into_txn(self.partition, (from, next), (epoch, behind), self.admit.take_rows(from));
        follower.take_into(&mut txn);
        log.commit(txn).await?;
        if let Some(in_force) = follower.in_force() {
            self.metrics.engine.rule_set_epoch.with([]).set_count(in_force.epoch);
        }
        self.follower = Some(follower);
        self.sighted.note(observed);
        self.metrics.log.commits.with([Self::CONSUMER.name()]).inc();
        if let Some(heartbeat) = heartbeat {
            self.metrics.own.heartbeat.set(["match"], heartbeat.sent);
        }
        Ok(Some(next))
    }

    /// A piece of the archive for the rules that have not been shown it, or of what admit can forget.
    async fn aside(&mut self, log: &dyn Log, lease: &Lease) -> Result<bool, Error> {
        if let Some(retiring) = &mut self.retiring
            && let Some(retired) = retiring.next(log, self.partition).await?
        {
            log.commit(Txn { state: retired.rows, lease: Some(lease.clone()), ..Txn::default() }).await?;
            self.admit.unload(retired.day);
            self.metrics.engine.known_retired.add(retired.records);
            return Ok(true);
        }
        let (Some(judging), Some(follower)) = (&mut self.judging_again, &mut self.follower) else { return Ok(false) };
        let Some(in_force) = follower.in_force().cloned() else { return Ok(false) };
        let Some(taken) = judging.next(log, &in_force, &follower.behind().clone()).await? else { return Ok(false) };
        let mut outputs = taken.outputs;
        if taken.behind.rules.is_empty() {
            // What waits for these rules need not wait for a mark as well: of who only imports none may come.
            let passed = Passed { partition: self.partition, epoch: in_force.epoch, behind: Vec::new(), mark: None };
            outputs.push(matched(To::Everywhere, &MatchMessage::Mark(passed)));
        }
        let state = follower.move_behind(taken.behind).into_iter().collect();
        let lease = Some(lease.clone());
        // If this fails the worker is made anew, with what is committed.
        log.commit(Txn { outputs, state, lease, ..Txn::default() }).await?;
        self.sighted.note(taken.observed);
        self.metrics.engine.records_judged_again.add(taken.records);
        Ok(true)
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

/// The way of one batch through admit and the rules. A record is read, judged and let go before the next one is looked
/// at: thousands of parsed records at once would be megabytes for every partition.
struct Pass {
    partition: u32,
    follower: Follower,
    sighted: Arc<Sighted>,
    metrics: Arc<Metrics>,
    admit: Admit,
    messages: std::vec::IntoIter<Message>,
    batch: Batch,
}

impl Pass {
    /// Goes on to the end of the batch, or to a record whose day admit has to load first.
    fn advance(mut self) -> Result<(Pass, Option<NaiveDate>), Error> {
        let started = std::time::Instant::now();
        let mut admitted = 0;
        let mut needed = None;
        while let Some(message) = self.messages.as_slice().first() {
            let damaged =
                Error::Message { topic: Topic::Records.name(), partition: self.partition, offset: message.offset };
            match Envelope::decode(&message.value).map_err(|_| damaged)? {
                Envelope::Mark(mark) => self.batch.mark(mark),
                Envelope::Heartbeat(heartbeat) => self.batch.heartbeat(heartbeat),
                Envelope::RulesOffered { book, again } => {
                    self.batch.control();
                    self.follower.offered(book, again);
                }
                Envelope::RulesInForce { epoch, book } => {
                    self.batch.control();
                    self.follower.follow(epoch, book)?;
                }
                Envelope::Record(received) => match Event::read(&received) {
                    Err(reason) => {
                        self.batch.codes.push(char::from(Verdict::Rejected as u8));
                        self.metrics.ingest.rejected.with([label(&reason)]).inc();
                        self.batch.dead_letters.push(dead_letter(received, &reason));
                    }
                    Ok(event) if !self.admit.is_loaded(event.time().date_naive()) => {
                        needed = Some(event.time().date_naive());
                        break;
                    }
                    Ok(event) => admitted += u64::from(self.record(&event)),
                },
            }
            self.messages.next();
        }
        let rules = self.follower.in_force().map_or(&[][..], |in_force| in_force.matcher.rules().rules());
        for rule in rules.iter().filter(|rule| matches!(rule.kind, Kind::Detection(_))) {
            self.metrics.engine.rule_evaluations.with([&rule.id]).add(admitted);
        }
        self.metrics.engine.rule_batch_duration.observe(started.elapsed());
        Ok((self, needed))
    }

    /// Admits a record and judges it. False if it is known already.
    fn record(&mut self, event: &Event) -> bool {
        let mut verdict = self.admit.judge(event);
        if runtime::failpoint::is_broken("admit-off") {
            verdict = Verdict::Admitted;
        }
        self.batch.codes.push(char::from(verdict as u8));
        let tenant = [event.tenant().as_str()];
        match verdict {
            Verdict::Duplicate => {
                self.metrics.ingest.duplicates.with(tenant).inc();
                return false;
            }
            Verdict::Variant => self.metrics.ingest.variants.with(tenant).inc(),
            _ => {}
        }
        // A step begins only where a set is in force.
        let Some(in_force) = self.follower.in_force() else { return true };
        let mut found = Vec::new();
        let Aside { dropped, excepted } = in_force.matcher.matches(event, &mut found);
        for rule_id in dropped {
            self.metrics.engine.group_key_missing.with([&rule_id]).inc();
        }
        for exception in excepted.into_iter().filter_map(|number| in_force.matcher.rules().exceptions().get(number)) {
            self.metrics.engine.records_excepted.with([&exception.rule]).inc();
        }
        for mut message in found {
            match &mut message {
                // Each once, and none that the log has already.
                MatchMessage::Observation(observation) => {
                    observation.epoch = in_force.epoch;
                    let key = sighted::key(observation);
                    if !self.sighted.has(key) && self.batch.observed.insert(key) {
                        self.batch.observations.push(message);
                    }
                    continue;
                }
                MatchMessage::Match(found) => {
                    found.epoch = in_force.epoch;
                    let rule = [found.rule_id.as_str()];
                    self.metrics.engine.rule_matches.with(rule).inc();
                    self.metrics.engine.rule_last_match.with(rule).set_time(found.received);
                }
                MatchMessage::Mark(_)
                | MatchMessage::Heartbeat(_)
                | MatchMessage::Rules(_)
                | MatchMessage::Followed(_) => {}
            }
            self.batch.matches.push(message);
        }
        true
    }
}

/// What one mark may take the place of another for.
type MarkKey = (String, String, Option<(Option<DateTime<Utc>>, DateTime<Utc>)>);

/// What one step puts out.
#[derive(Default)]
struct Batch {
    /// Of every message read; a code for each.
    offsets: Vec<u64>,
    codes: String,
    dead_letters: Vec<DeadLetter>,
    matches: Vec<MatchMessage>,
    observations: Vec<MatchMessage>,
    /// Names of the observations.
    observed: HashSet<u128>,
    /// By tenant, feed, and what an import was whole of.
    marks: BTreeMap<MarkKey, Mark>,
    heartbeat: Option<Heartbeat>,
}

impl Batch {
    fn control(&mut self) {
        self.codes.push(char::from(Verdict::Control as u8));
    }

    /// Of several marks of one feed only the newest matters; that is what batching them means. Those of imports speak for
    /// themselves.
    fn mark(&mut self, mark: Mark) {
        self.control();
        let stretch = mark.is_of_import().then_some((mark.since, mark.until));
        let key = (mark.tenant.as_str().to_owned(), mark.content_type.clone(), stretch);
        match self.marks.get(&key) {
            Some(known) if known.until >= mark.until => {}
            _ => {
                self.marks.insert(key, mark);
            }
        }
    }

    fn heartbeat(&mut self, heartbeat: Heartbeat) {
        self.control();
        if self.heartbeat.as_ref().is_none_or(|known| known.sent < heartbeat.sent) {
            self.heartbeat = Some(heartbeat);
        }
    }

    fn into_txn(
        self,
        partition: u32,
        (from, next): (u64, u64),
        (epoch, behind): (u64, Vec<String>),
        rows: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> Txn {
        let mut outputs = Vec::with_capacity(self.matches.len() + 2);
        let verdicts = Verdicts::new(partition, from, &self.offsets, self.codes);
        outputs.push(output(Topic::Verdicts, To::Partition(partition), &verdicts));
        for message in self.matches.iter().chain(&self.observations) {
            outputs.push(matched(To::Key(key_of(message)), message));
        }
        // Marks and heartbeats come after the matches they speak of.
        for mark in self.marks.into_values() {
            let passed = Passed { partition, epoch, behind: behind.clone(), mark: Some(mark) };
            outputs.push(matched(To::Everywhere, &MatchMessage::Mark(passed)));
        }
        // One partition passes heartbeats on, else their number would multiply from stage to stage.
        if let (Some(heartbeat), 0) = (self.heartbeat, partition) {
            outputs.push(matched(To::Partition(0), &MatchMessage::Heartbeat(heartbeat)));
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
pub(super) fn key_of(message: &MatchMessage) -> u128 {
    match message {
        MatchMessage::Match(found) => key_hash(&[found.tenant.as_str(), &found.rule_id, &found.shard]),
        MatchMessage::Observation(seen) => key_hash(&[seen.tenant.as_str(), &seen.rule_id, &seen.shard]),
        // These go everywhere, or to a partition by its number.
        MatchMessage::Mark(_) | MatchMessage::Heartbeat(_) | MatchMessage::Rules(_) | MatchMessage::Followed(_) => 0,
    }
}

fn matched(to: To, message: &MatchMessage) -> Output {
    Output { topic: Topic::Matches, to, value: message.encode() }
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

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::log::LogError;
    use runtime::log::embedded::Embedded;
    use schemas::envelope::Origin;
    use schemas::{RuleBook, RuleText};

    use super::super::rule_books::offer;

    const RULES: &str = r#"
title: Base
id: base
logsource: {product: m365}
detection: {s: {Operation: x}, condition: s}
---
title: New
id: new
correlation: {type: x_new_value, rules: [base], group-by: [user_id]}
x-field: client_ip
"#;

    fn worker(sighted: &Arc<Sighted>) -> MatchWorker {
        MatchWorker::new(0, Arc::default(), sighted.clone(), Metrics::new("test"))
    }

    fn record(number: u32) -> Output {
        let origin = Origin {
            tenant: "t1".parse().unwrap(),
            source: "import".into(),
            content_type: String::new(),
            blob_id: String::new(),
            received: "2026-11-22T10:00:00Z".parse().unwrap(),
            notify: true,
        };
        let bytes = format!(
            r#"{{"Id":"{number}","CreationTime":"2026-11-22T09:00:00","Operation":"x","UserId":"a@b.example","ClientIP":"192.0.2.7"}}"#
        );
        let value = Envelope::Record(Received { origin, bytes: bytes.into_bytes() }).encode();
        Output { topic: Topic::Records, to: To::Partition(0), value }
    }

    async fn observations(log: &dyn Log) -> usize {
        let messages = log.read(Topic::Matches, 0, 0, ReadLimit::default()).await.unwrap();
        let messages = messages.iter().map(|message| MatchMessage::decode(&message.value).unwrap());
        messages.filter(|message| matches!(message, MatchMessage::Observation(_))).count()
    }

    #[tokio::test]
    async fn an_observation_is_said_once_and_a_refused_step_has_said_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let log = Embedded::open(&folder.path().join("log.sqlite"), 1).unwrap();
        let put = |outputs| log.commit(Txn { outputs, ..Txn::default() });
        put(vec![record(1), record(2)]).await.unwrap();
        let rules = RuleText { file: "t.yml".into(), text: RULES.into() };
        offer(&log, &RuleBook { files: vec![rules], ..RuleBook::default() }, false).await.unwrap();

        let sighted = Arc::new(Sighted::default());
        // It read from 1, but the log knows that nothing has been consumed yet.
        let refused = worker(&sighted).step(&log, 1).await;
        assert!(matches!(refused, Err(Error::Log(LogError::Moved { .. }))));
        assert_eq!(observations(&log).await, 0);

        let mut worker = worker(&sighted);
        assert_eq!(worker.step(&log, 0).await.unwrap(), Some(3), "two records and the rules");
        assert_eq!(observations(&log).await, 1, "of two records that say the same");
        put(vec![record(3)]).await.unwrap();
        assert_eq!(worker.step(&log, 3).await.unwrap(), Some(5));
        assert_eq!(observations(&log).await, 1, "what is committed is not said again");
    }
}
