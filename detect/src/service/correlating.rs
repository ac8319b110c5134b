//! Correlate: windows, baselines and episodes of one partition of `matches`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use runtime::clock::Clock;
use runtime::log::{Consumer, Input, Log, Message, Output, ReadLimit, StateChange, To, Topic, Txn};
use runtime::metrics::Metrics;
use schemas::Finding;
use schemas::envelope::Heartbeat;
use schemas::json::key_hash;
use schemas::message::{FindingMessage, Match, MatchMessage, Observation};
use schemas::tenant::Tenant;

use super::Error;
use super::layout::{Found, Layout, Place};
use super::partitions::Worker;
use super::rule_books::{Compiler, Editions};
use crate::correlate::Shard;
use crate::rule::Rule;
use crate::{shard_key, told_key};

/// Most shards held in memory by one partition, about 1.5 kB each, and most members, episodes and sightings in them,
/// about 500 bytes each. Those used longest ago are dropped and read again when needed, which costs a search on every
/// day since the shard's first: there is room for the users of a large tenant beside the sessions that never come back.
const SHARDS_MAX: usize = 30_000;
const ENTRIES_MAX: usize = 400_000;

/// What one step takes when it lags behind. Its rows lie all over the state, so a page of it is written once a step: more
/// messages a step, fewer pages. At about a kilobyte each, 8 MiB of messages at most.
const STEP: ReadLimit = ReadLimit { messages: 8_000, bytes: 8 * 1024 * 1024 };

pub(super) struct CorrelateWorker {
    partition: u32,
    compiler: Arc<Compiler>,
    /// None until the first step.
    editions: Option<Editions>,
    metrics: Arc<Metrics>,
    /// For a metric only; nothing that decides a finding looks at it.
    clock: Clock,
    shards: HashMap<Place, Held>,
    /// None until the first step.
    layout: Option<Layout>,
    batch: u64,
}

struct Held {
    shard: Shard,
    /// The first day of which it has rows.
    first_day: Option<u16>,
    used: u64,
    /// What it adds to the gauge of entries held.
    entries: usize,
}

/// What came for one shard in one batch.
struct News {
    /// As the newest of the sets has it that it came from. State is named after what a rule means, so they mean the same.
    rule: Arc<Rule>,
    epoch: u64,
    matches: Vec<Match>,
    observations: Vec<Observation>,
}

/// All that came in one batch, by shard.
type NewsOf = BTreeMap<(String, Place), News>;

/// What came for a shard of this rule.
fn news_of<'n>(news: &'n mut NewsOf, tenant: &Tenant, rule: &Arc<Rule>, epoch: u64, shard: &str) -> &'n mut News {
    let place = Place { shard: shard_key(tenant, rule, shard), told: told_key(tenant, rule, shard) };
    let entry = news.entry((rule.id.clone(), place));
    let news =
        entry.or_insert_with(|| News { rule: rule.clone(), epoch, matches: Vec::new(), observations: Vec::new() });
    if news.epoch < epoch {
        (news.rule, news.epoch) = (rule.clone(), epoch);
    }
    news
}

impl CorrelateWorker {
    pub(super) fn new(partition: u32, compiler: Arc<Compiler>, metrics: Arc<Metrics>, clock: Clock) -> CorrelateWorker {
        let (editions, layout) = (None, None);
        CorrelateWorker { partition, compiler, editions, metrics, clock, shards: HashMap::new(), layout, batch: 0 }
    }

    /// Sorts messages by the shard they are for.
    fn sort(&self, log: &dyn Log, editions: &mut Editions, messages: &[Message]) -> Result<Sorted, Error> {
        let mut sorted = Sorted::default();
        for message in messages {
            let damaged =
                || Error::Message { topic: Topic::Matches.name(), partition: self.partition, offset: message.offset };
            match MatchMessage::decode(&message.value).map_err(|_| damaged())? {
                MatchMessage::Match(found) => {
                    let rule = editions.rule(found.epoch, &found.rule_id).ok_or_else(damaged)?;
                    if editions.is_replaced(found.epoch, rule) {
                        continue;
                    }
                    let news = news_of(&mut sorted.news, &found.tenant, rule, found.epoch, &found.shard);
                    news.matches.push(found);
                }
                MatchMessage::Observation(seen) => {
                    let rule = editions.rule(seen.epoch, &seen.rule_id).ok_or_else(damaged)?;
                    if editions.is_replaced(seen.epoch, rule) {
                        continue;
                    }
                    let news = news_of(&mut sorted.news, &seen.tenant, rule, seen.epoch, &seen.shard);
                    news.observations.push(seen);
                }
                // Nothing waits for completeness yet: every operator is decided by the records that are there.
                MatchMessage::Mark(mark) => {
                    self.metrics.engine.watermark.with([mark.tenant.as_str()]).set_time(mark.until)
                }
                MatchMessage::Heartbeat(sent) => sorted.heartbeat = Some(sent),
                MatchMessage::Rules(rules) => editions.add(rules, &mut sorted.state)?,
                MatchMessage::Followed(followed) => {
                    editions.followed(&followed, log.partitions(), &mut sorted.state);
                }
            }
        }
        Ok(sorted)
    }

    /// Sees to it that these shards are in memory. All that are missing are read at once.
    async fn load(&mut self, log: &dyn Log, keys: impl Iterator<Item = Place>) -> Result<(), Error> {
        let missing: Vec<Place> = keys.filter(|key| !self.shards.contains_key(key)).collect();
        let layout = match self.layout.take() {
            Some(layout) => layout,
            None => Layout::load(log, self.partition).await?,
        };
        let found = layout.read(log, self.partition, &missing).await?;
        self.layout = Some(layout);
        for (key, Found { rows, first_day }) in missing.into_iter().zip(found) {
            self.shards.insert(key, Held { shard: Shard::load(rows)?, first_day, used: 0, entries: 0 });
        }
        Ok(())
    }

    fn put_aside(&mut self) {
        let held: usize = self.shards.values().map(|held| held.entries).sum();
        if self.shards.len() <= SHARDS_MAX && held <= ENTRIES_MAX {
            return;
        }
        // A quarter at once, so that it is not done for every batch; never what the last batch used.
        let mut used: Vec<u64> = self.shards.values().map(|held| held.used).collect();
        let quarter = used.len() / 4;
        let (_, oldest, _) = used.select_nth_unstable(quarter);
        let oldest = (*oldest).min(self.batch.saturating_sub(1));
        let metrics = &self.metrics;
        self.shards.retain(|_, held| {
            let kept = held.used > oldest;
            if !kept {
                metrics.engine.window_state_entries.add(-(held.entries as f64));
            }
            kept
        });
    }
}

/// One batch, sorted.
#[derive(Default)]
struct Sorted {
    news: NewsOf,
    heartbeat: Option<Heartbeat>,
    state: Vec<StateChange>,
}

#[async_trait]
impl Worker for CorrelateWorker {
    const CONSUMER: Consumer = Consumer::Correlate;
    const TOPIC: Topic = Topic::Matches;

    async fn step(&mut self, log: &dyn Log, from: u64) -> Result<Option<u64>, Error> {
        let messages = log.read(Topic::Matches, self.partition, from, STEP).await?;
        let Some(last) = messages.last() else { return Ok(None) };
        let next = last.offset + 1;
        self.batch += 1;
        let mut editions = match self.editions.take() {
            Some(editions) => editions,
            None => Editions::load(log, self.partition, self.compiler.clone()).await?,
        };
        let Sorted { news, heartbeat, state } = self.sort(log, &mut editions, &messages)?;
        self.editions = Some(editions);
        self.load(log, news.keys().map(|(_, key)| *key)).await?;
        let mut txn = Txn { state, ..Txn::default() };
        let (batch, partition) = (self.batch, self.partition);
        let layout = self.layout.get_or_insert_default();
        for ((_, key), news) in news {
            let Some(held) = self.shards.get_mut(&key) else { continue };
            held.used = batch;
            let change = held.shard.apply(&news.rule, &news.matches, &news.observations);
            let entries = held.shard.entries();
            let grown = entries as f64 - std::mem::replace(&mut held.entries, entries) as f64;
            self.metrics.engine.window_state_entries.add(grown);
            if change.limited > 0 {
                self.metrics.engine.limits_reached.with(["group_members"]).add(change.limited);
            }
            layout.write(partition, key, &mut held.first_day, change.rows, &mut txn.state);
            for finding in change.findings {
                delay(&self.metrics, &self.clock, &finding);
                if finding.revision == 1 {
                    self.metrics.findings.created.with([&finding.rule.id, finding.rule.level.as_str()]).inc();
                }
                let to = To::Key(key_hash(&[finding.tenant.as_str(), &finding.id]));
                txn.outputs.push(output(to, &FindingMessage::Finding(Box::new(finding))));
            }
        }
        if let Some(heartbeat) = &heartbeat {
            txn.outputs.push(output(To::Partition(0), &FindingMessage::Heartbeat(heartbeat.clone())));
        }
        txn.inputs.push(Input {
            consumer: Consumer::Correlate,
            topic: Topic::Matches,
            partition: self.partition,
            from,
            next,
        });
        log.commit(txn).await?;
        self.metrics.log.commits.with([Self::CONSUMER.name()]).inc();
        if let Some(heartbeat) = heartbeat {
            self.metrics.own.heartbeat.set(["correlate"], heartbeat.sent);
        }
        self.put_aside();
        Ok(Some(next))
    }
}

/// From the receipt of the record that caused a revision until now. Imports are not counted: nobody waits for them.
fn delay(metrics: &Metrics, clock: &Clock, finding: &Finding) {
    let delay = clock.now() - finding.updated;
    if finding.notify
        && let Ok(delay) = delay.to_std()
    {
        metrics.findings.detection_delay.observe(delay);
    }
}

impl Drop for CorrelateWorker {
    fn drop(&mut self) {
        let held: usize = self.shards.values().map(|held| held.entries).sum();
        self.metrics.engine.window_state_entries.add(-(held as f64));
    }
}

fn output(to: To, message: &FindingMessage) -> Output {
    // A finding is strings, numbers and times: it always serialises.
    Output { topic: Topic::Findings, to, value: serde_json::to_vec(message).unwrap_or_default() }
}
