//! Rules that came later are shown what was there before: the archive, judged again.
//!
//! # The guarantee
//!
//! Once a rule is no longer *behind*, what it has found is what it would have found had it been in force from the first
//! record on. A change of rules ends in the same findings whenever it was made, and however often it was interrupted.
//!
//! # How
//!
//! When match of partition 0 follows a rule set, it notes in the same step which rules are in it that were not in the set
//! before, or meant something else: they are behind. Then, beside its records, it reads the archive day by day, judges
//! each record by these rules alone, and puts out their matches as if the records had just come.
//!
//! That is enough because correlate works on sets. A record that is in the archive and comes live as well is one member,
//! so nothing needs to fit exactly where the archive ends and the log begins: it is only necessary that they overlap. They
//! do, because reading begins when the archive has all that was in the log when the set was followed. And a day that was
//! broken off is read again from its beginning, to no effect.
//!
//! What is committed is how far it has come, by day, together with the matches. Correlate decides about the pace: no more
//! is put out than it has taken in ([`BACKLOG_MAX`]), so that what is new does not wait behind what is old.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use runtime::log::{Consumer, Log, LogError, Output, ReadLimit, To, Topic};
use runtime::metrics::Metrics;
use schemas::Event;
use schemas::envelope::{MANAGEMENT_ACTIVITY, Received};
use schemas::history::{History, HistoryError};
use schemas::message::{Match, MatchMessage, Observation};
use schemas::tenant::Tenant;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::matching::key_of;
use super::rule_books::InForce;
use super::sighted;
use crate::matcher::Matcher;
use crate::rule::RuleSet;

/// Most messages that a step puts out: a commit stays short, and live records wait for one at most.
const STEP_MESSAGES_MAX: usize = 2_000;

/// Messages of a day that are held to be put out window by window: about 50 MB.
const MESSAGES_HELD_MAX: usize = 50_000;

/// Steps that wait to be taken.
const STEPS_READY: usize = 1;

/// Messages of `matches` that correlate may be behind, in any partition, before more of the past is put out. It takes in
/// so many in a second or two.
const BACKLOG_MAX: u64 = 20_000;

/// How long to wait before an archive that did not answer, or is not there yet, is asked again.
const RETRY_WAIT: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 5_000 });

/// How often to look whether the archive has come far enough.
const LOOK_INTERVAL: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 500 });

/// Which rules are behind, and how far they have come: a row of [`Store::Rules`](runtime::log::Store::Rules), kept by
/// match of partition 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Behind {
    /// Their ids.
    pub rules: BTreeSet<String>,
    /// The last day of the archive that they were shown, tenant by tenant.
    done: Option<(Tenant, NaiveDate)>,
}

impl Behind {
    /// Who is behind once `new` follows on `old`. Without an old set nothing came before.
    pub(super) fn after(before: &Behind, old: Option<&RuleSet>, new: &RuleSet) -> Behind {
        let Some(old) = old else { return Behind::default() };
        let came = new.rules().iter().filter(|rule| rule.generates).filter(|rule| {
            let meant = old.get(&rule.id).filter(|old| old.generates).map(|old| &old.version);
            meant != Some(&rule.version)
        });
        let came: BTreeSet<String> = came.map(|rule| rule.id.clone()).collect();
        let is_further = came.is_empty();
        let still = before.rules.iter().filter(|id| new.get(id).is_some_and(|rule| rule.generates)).cloned();
        let rules: BTreeSet<String> = still.chain(came).collect();
        // Who comes now has seen nothing, so all begin again: it costs no more than reading for the new ones alone.
        let done = before.done.clone().filter(|_| is_further && !rules.is_empty());
        Behind { rules, done }
    }

    /// The same after a step.
    fn with(&self, step: &Step) -> Behind {
        match &step.come_to {
            None => self.clone(),
            Some(ComeTo::Day(tenant, day)) => Behind { done: Some((tenant.clone(), *day)), ..self.clone() },
            Some(ComeTo::End) => Behind::default(),
        }
    }
}

/// What a step came to, beside its messages.
#[derive(Debug)]
enum ComeTo {
    Day(Tenant, NaiveDate),
    End,
}

/// Something to commit.
#[derive(Debug, Default)]
struct Step {
    messages: Vec<MatchMessage>,
    records: u64,
    come_to: Option<ComeTo>,
}

/// A step as match takes it: what to put out, and who is behind afterwards.
pub(super) struct Taken {
    pub(super) outputs: Vec<Output>,
    /// Names of the observations among them.
    pub(super) observed: Vec<u128>,
    pub(super) behind: Behind,
    pub(super) records: u64,
}

/// Reads the archive for the rules that are behind.
pub(super) struct JudgingAgain {
    history: Arc<dyn History>,
    metrics: Arc<Metrics>,
    state: State,
    looked: Option<Instant>,
}

enum State {
    Idle,
    /// The archive has to come to these ends of `records`.
    Waiting {
        ends: Vec<u64>,
    },
    Reading {
        epoch: u64,
        rules: BTreeSet<String>,
        steps: mpsc::Receiver<Step>,
        task: Task,
    },
    /// The archive did not answer.
    Failed {
        since: Instant,
    },
}

/// A task that ends with who waits for it.
struct Task(JoinHandle<Result<(), HistoryError>>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl JudgingAgain {
    pub(super) fn new(history: Arc<dyn History>, metrics: Arc<Metrics>) -> JudgingAgain {
        JudgingAgain { history, metrics, state: State::Idle, looked: None }
    }

    /// What to commit next, if anything is ready. Never waits for the archive: records come first.
    pub(super) async fn next(
        &mut self,
        log: &dyn Log,
        in_force: &InForce,
        behind: &Behind,
    ) -> Result<Option<Taken>, LogError> {
        self.metrics.engine.rules_behind.set_count(behind.rules.len() as u64);
        if behind.rules.is_empty() {
            self.state = State::Idle;
            return Ok(None);
        }
        match &mut self.state {
            State::Reading { epoch, rules, .. } if *epoch != in_force.epoch || *rules != behind.rules => {
                self.state = State::Idle;
            }
            State::Failed { since } if since.elapsed() >= RETRY_WAIT => self.state = State::Idle,
            _ => {}
        }
        if let State::Idle = self.state {
            self.state = State::Waiting { ends: ends(log, Topic::Records).await? };
        }
        if let State::Waiting { ends } = &self.state {
            if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_INTERVAL) {
                return Ok(None);
            }
            self.looked = Some(Instant::now());
            let Some(archived) = archived(log, ends).await? else { return Ok(None) };
            self.begin((log.id(), archived), in_force, behind);
        }
        self.ready(log, behind).await
    }

    fn begin(&mut self, (log, archived): (&str, Vec<u64>), in_force: &InForce, behind: &Behind) {
        let (sender, steps) = mpsc::channel(STEPS_READY);
        tracing::info!(event = "judging_again", epoch = in_force.epoch, rules = behind.rules.len());
        let reading = Reading {
            history: self.history.clone(),
            log: log.to_owned(),
            archived,
            matcher: in_force.matcher.clone(),
            epoch: in_force.epoch,
            behind: Arc::new(behind.clone()),
            sender,
        };
        let task = Task(tokio::spawn(reading.run()));
        self.state = State::Reading { epoch: in_force.epoch, rules: behind.rules.clone(), steps, task };
    }

    /// A step, if one is ready and correlate has room for it.
    async fn ready(&mut self, log: &dyn Log, behind: &Behind) -> Result<Option<Taken>, LogError> {
        let State::Reading { steps, task, .. } = &mut self.state else { return Ok(None) };
        if steps.is_empty() && !steps.is_closed() || is_behind(log).await? {
            return Ok(None);
        }
        match steps.try_recv() {
            Ok(step) => Ok(Some(taken(step, behind))),
            Err(mpsc::error::TryRecvError::Empty) => Ok(None),
            Err(mpsc::error::TryRecvError::Disconnected) => {
                let ended = (&mut task.0).await;
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(event = "judging_again_waits", error = %error),
                    Err(error) => tracing::warn!(event = "judging_again_waits", error = %error),
                }
                self.state = State::Failed { since: Instant::now() };
                Ok(None)
            }
        }
    }
}

fn taken(step: Step, behind: &Behind) -> Taken {
    let behind = behind.with(&step);
    let output = |message: &MatchMessage| Output {
        topic: Topic::Matches,
        to: To::Key(key_of(message)),
        value: message.encode(),
    };
    let outputs = step.messages.iter().map(output).collect();
    let observed = step.messages.iter().filter_map(|message| match message {
        MatchMessage::Observation(observation) => Some(sighted::key(observation)),
        _ => None,
    });
    Taken { outputs, observed: observed.collect(), behind, records: step.records }
}

/// The reading of one snapshot, in a task of its own.
struct Reading {
    history: Arc<dyn History>,
    log: String,
    archived: Vec<u64>,
    matcher: Arc<Matcher>,
    epoch: u64,
    behind: Arc<Behind>,
    sender: mpsc::Sender<Step>,
}

impl Reading {
    async fn run(self) -> Result<(), HistoryError> {
        let snapshot = self.history.snapshot(&self.log, &self.archived).await?;
        let days = snapshot.days().await?;
        for (tenant, day) in days.into_iter().filter(|day| self.behind.done.as_ref().is_none_or(|done| day > done)) {
            let mut batches = snapshot.records(&tenant, (day, day)).await?;
            let mut made = Made::default();
            while let Some(records) = batches.next().await? {
                let (matcher, behind, epoch) = (self.matcher.clone(), self.behind.clone(), self.epoch);
                let judged = tokio::task::spawn_blocking(move || made.judged(&matcher, epoch, &behind.rules, records));
                made = judged.await.map_err(|error| HistoryError(error.into()))?;
                if made.matches.len() + made.observations.len() >= MESSAGES_HELD_MAX
                    && !self.send(&mut made, None).await
                {
                    return Ok(());
                }
            }
            if !self.send(&mut made, Some(ComeTo::Day(tenant, day))).await {
                return Ok(());
            }
        }
        self.send(&mut Made::default(), Some(ComeTo::End)).await;
        Ok(())
    }

    /// Hands over what was made. False if nobody wants it any more.
    async fn send(&self, made: &mut Made, come_to: Option<ComeTo>) -> bool {
        let mut steps = std::mem::take(made).into_steps();
        match steps.last_mut() {
            Some(last) => last.come_to = come_to,
            None => steps.push(Step { come_to, ..Step::default() }),
        }
        for step in steps {
            if self.sender.send(step).await.is_err() {
                return false;
            }
        }
        true
    }
}

/// What rules have made of a day so far.
#[derive(Default)]
struct Made {
    observations: BTreeSet<Observation>,
    matches: Vec<Match>,
    records: u64,
}

impl Made {
    /// With what these rules make of these records.
    fn judged(mut self, matcher: &Matcher, epoch: u64, rules: &BTreeSet<String>, records: Vec<Received>) -> Made {
        let mut found = Vec::new();
        self.records += records.len() as u64;
        for mut record in records {
            // The archive does not say who was to be told. What came by a feed was news.
            record.origin.notify = record.origin.source == MANAGEMENT_ACTIVITY;
            let Ok(event) = Event::read(&record) else {
                // It was read when it was admitted, so the archive is damaged, which `verify` names.
                tracing::error!(event = "archived_record_unreadable", blob = record.origin.blob_id);
                continue;
            };
            matcher.matches(&event, &mut found);
            for message in found.drain(..) {
                match message {
                    MatchMessage::Match(one) if rules.contains(&one.rule_id) => {
                        self.matches.push(Match { epoch, ..one });
                    }
                    MatchMessage::Observation(one) if rules.contains(&one.rule_id) => {
                        self.observations.insert(Observation { epoch, ..one });
                    }
                    _ => {}
                }
            }
        }
        self
    }

    /// In pieces. What baselines learn comes first, so that no match is told as new that is not. What is of one window
    /// comes together, so that a finding is told whole and not record by record.
    fn into_steps(mut self) -> Vec<Step> {
        self.matches.sort_by(|one, next| (&one.rule_id, &one.shard).cmp(&(&next.rule_id, &next.shard)));
        let observations = self.observations.into_iter().map(MatchMessage::Observation);
        let mut messages = observations.chain(self.matches.into_iter().map(MatchMessage::Match)).peekable();
        let mut steps = Vec::new();
        while messages.peek().is_some() {
            let messages = messages.by_ref().take(STEP_MESSAGES_MAX).collect();
            steps.push(Step { messages, ..Step::default() });
        }
        match steps.last_mut() {
            Some(last) => last.records = self.records,
            None => steps.push(Step { records: self.records, ..Step::default() }),
        }
        steps
    }
}

/// Where the partitions of a topic end now.
pub(super) async fn ends(log: &dyn Log, topic: Topic) -> Result<Vec<u64>, LogError> {
    let mut ends = Vec::new();
    for partition in 0..log.partitions() {
        ends.push(log.end(topic, partition).await?);
    }
    Ok(ends)
}

/// How far the archive is, once it has committed all records before these offsets.
pub(super) async fn archived(log: &dyn Log, ends: &[u64]) -> Result<Option<Vec<u64>>, LogError> {
    let mut archived = Vec::with_capacity(ends.len());
    for (partition, end) in (0..).zip(ends) {
        let at = log.committed(Consumer::Archive, Topic::Records, partition).await?;
        archived.push(at);
        if at >= *end {
            continue;
        }
        // Offsets are not dense in every log: nothing may lie between.
        let first = log.read(Topic::Records, partition, at, ReadLimit { messages: 1, bytes: 0 }).await?;
        if first.first().is_some_and(|message| message.offset < *end) {
            return Ok(None);
        }
    }
    Ok(Some(archived))
}

/// Whether correlate has more to take in than it should.
async fn is_behind(log: &dyn Log) -> Result<bool, LogError> {
    for partition in 0..log.partitions() {
        let end = log.end(Topic::Matches, partition).await?;
        if end.saturating_sub(log.committed(Consumer::Correlate, Topic::Matches, partition).await?) > BACKLOG_MAX {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
pub(super) mod tests;
