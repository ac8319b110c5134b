//! Correlate: windows, baselines and episodes of one partition of `matches`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use runtime::clock::Clock;
use runtime::log::{Consumer, Input, Lease, Log, Message, Output, ReadLimit, StateChange, To, Topic, Txn};
use runtime::metrics::Metrics;
use schemas::Finding;
use schemas::envelope::Heartbeat;
use schemas::history::History;
use schemas::json::key_hash;
use schemas::message::{FindingMessage, Match, MatchMessage, Observation, Passed};
use schemas::tenant::Tenant;

use super::awaiting::{Awaiting, Due};
use super::crowded::{self, CROWDED_FROM, Crowded};
use super::forgetting::{Forgetting, Piece, meaning_key};
use super::layout::{self, Day, Expiry, Found, Layout, Place, Root, Slice};
use super::partitions::Worker;
use super::rule_books::{Compiler, Editions};
use super::thawing::{self, Ask};
use super::{Error, GROUP_MEMBERS, IMPORTED_STRETCHES, LATE_INCOMPLETE, LATE_MEMBERS, SIGHTINGS};
use crate::correlate::{Past, Shard, look_back, row_day};
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

/// What a step takes in addition where records are late: it reads the archive, and the more it asks for, the less often.
/// An import of old records is thousands of late matches a step.
const LATE_STEP: ReadLimit = ReadLimit { messages: 32_000, bytes: 32 * 1024 * 1024 };

pub(super) struct CorrelateWorker {
    partition: u32,
    compiler: Arc<Compiler>,
    /// None until the first step.
    known: Option<Known>,
    metrics: Arc<Metrics>,
    /// For a metric only; nothing that decides a finding looks at it.
    clock: Clock,
    shards: HashMap<Place, Held>,
    /// None until the first step.
    layout: Option<Layout>,
    /// The archive, for late matches.
    history: Option<Arc<dyn History>>,
    /// Members of a group from which on it forgets early.
    crowded_from: usize,
    batch: u64,
}

struct Held {
    shard: Shard,
    root: Root,
    used: u64,
    /// What it adds to the gauge of entries held.
    entries: usize,
}

/// What came for one shard in one batch.
struct News {
    /// As the newest of the sets has it that it came from. State is named after what a rule means, so they mean the same.
    rule: Arc<Rule>,
    epoch: u64,
    tenant: Tenant,
    meaning: u128,
    matches: Vec<Match>,
    observations: Vec<Observation>,
    /// Where the set is whole, for a rule that waits for that.
    whole: Vec<(DateTime<Utc>, DateTime<Utc>)>,
}

/// All that came in one batch, by shard.
type NewsOf = BTreeMap<(String, Place), News>;

impl News {
    /// Of nothing yet.
    fn new(tenant: &Tenant, rule: &Arc<Rule>, epoch: u64) -> News {
        News {
            rule: rule.clone(),
            epoch,
            tenant: tenant.clone(),
            meaning: meaning_key(tenant, rule),
            matches: Vec::new(),
            observations: Vec::new(),
            whole: Vec::new(),
        }
    }

    /// Whether some of it is of a time that may be forgotten; of a shard that is not in memory, as far as can be seen.
    fn is_late(&self, forgetting: &Forgetting, held: Option<&Held>) -> bool {
        let horizon = forgetting.horizon(self.meaning);
        let horizon = held.map_or(horizon, |held| held.shard.horizon(&self.rule, horizon));
        horizon.is_some_and(|horizon| self.matches.iter().any(|matched| matched.event_time < horizon))
    }
}

/// What came for a shard of this rule.
fn news_of<'n>(news: &'n mut NewsOf, tenant: &Tenant, rule: &Arc<Rule>, epoch: u64, shard: &str) -> &'n mut News {
    let place = Place { shard: shard_key(tenant, rule, shard), told: told_key(tenant, rule, shard) };
    let entry = news.entry((rule.id.clone(), place));
    let news = entry.or_insert_with(|| News::new(tenant, rule, epoch));
    if news.epoch < epoch {
        (news.rule, news.epoch) = (rule.clone(), epoch);
    }
    news
}

impl CorrelateWorker {
    pub(super) fn new(partition: u32, compiler: Arc<Compiler>, metrics: Arc<Metrics>, clock: Clock) -> CorrelateWorker {
        CorrelateWorker {
            partition,
            compiler,
            known: None,
            metrics,
            clock,
            shards: HashMap::new(),
            layout: None,
            history: None,
            crowded_from: CROWDED_FROM,
            batch: 0,
        }
    }

    /// The same with the archive: only where there is one anything is forgotten.
    pub(super) fn forgetting_into(mut self, history: &Arc<dyn History>) -> CorrelateWorker {
        self.history = Some(history.clone());
        self
    }

    /// The same with large groups that are smaller.
    #[cfg(test)]
    pub(super) fn crowded_from(mut self, members: usize) -> CorrelateWorker {
        self.crowded_from = members;
        self
    }

    /// Sorts messages by the shard they are for.
    fn sort(
        &self,
        log: &dyn Log,
        Known { editions, forgetting, awaiting, .. }: &mut Known,
        messages: &[Message],
        sorted: &mut Sorted,
    ) -> Result<(), Error> {
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
                MatchMessage::Mark(passed) => {
                    if !awaiting.passed(&passed, log.partitions(), &mut sorted.state) {
                        self.metrics.engine.limits_reached.with([IMPORTED_STRETCHES]).inc();
                    }
                    sorted.has_marks = true;
                    let Passed { partition, mark: Some(mark), .. } = passed else { continue };
                    if mark.is_of_import() {
                        continue;
                    }
                    self.metrics.engine.watermark.with([mark.tenant.as_str()]).set_time(mark.until);
                    forgetting.mark(partition, mark, &mut sorted.state);
                }
                MatchMessage::Heartbeat(sent) => sorted.heartbeat = Some(sent),
                MatchMessage::Rules(rules) => editions.add(rules, &mut sorted.state)?,
                MatchMessage::Followed(followed) => {
                    editions.followed(&followed, log.partitions(), &mut sorted.state);
                }
            }
        }
        Ok(())
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
        for (key, Found { rows, root }) in missing.into_iter().zip(found) {
            self.shards.insert(key, Held { shard: Shard::load(rows)?, root, used: 0, entries: 0 });
        }
        Ok(())
    }

    /// Applies what is not late. Returns the rest, with what it asks of the archive.
    fn take_in_time(&mut self, news: NewsOf, known: &mut Known, txn: &mut Txn) -> Vec<(Place, News, Ask)> {
        let mut late = Vec::new();
        for ((_, place), mut news) in news {
            let Some(held) = self.shards.get(&place) else { continue };
            news.whole = known.awaiting.whole(&news.tenant, &news.rule, (&known.editions, known.partitions));
            let horizon = known.forgetting.horizon(news.meaning);
            let past = Past { horizon, whole: &news.whole, archived: &[] };
            let spans = held.shard.missing(&news.rule, &past, &news.matches);
            match (spans, known.editions.matcher(news.epoch)) {
                (spans, Some(matcher)) if !spans.is_empty() => {
                    let ask = Ask { tenant: news.tenant.clone(), shard: place.shard, matcher: matcher.clone(), spans };
                    late.push((place, news, ask));
                }
                _ => self.take_in(place, news, &[], known, txn),
            }
        }
        late
    }

    /// Applies late matches with what the archive has of their time.
    async fn take_late(
        &mut self,
        log: &dyn Log,
        late: Vec<(Place, News, Ask)>,
        known: &mut Known,
        txn: &mut Txn,
    ) -> Result<(), Error> {
        let history = self.history.clone().ok_or(Error::NoHistory)?;
        let snapshot = history.snapshot(log.id(), known.forgetting.archived()).await?;
        let days = snapshot.days().await?;
        let mut rounds = vec![late];
        while let Some(mut late) = rounds.pop() {
            let asks: Vec<Ask> = late.iter().map(|(_, _, ask)| ask.clone()).collect();
            self.metrics.engine.late_lookups.inc();
            let Some(mut found) = thawing::bring(&*snapshot, &days, &asks, thawing::MEMBERS_MAX).await? else {
                if late.len() > 1 {
                    let rest = late.split_off(late.len() / 2);
                    rounds.extend([rest, late]);
                    continue;
                }
                for (place, news, _) in late {
                    self.refuse_late(place, news, known, txn);
                }
                continue;
            };
            for (place, news, _) in late {
                let mut archived = found.remove(&place.shard).unwrap_or_default();
                if runtime::failpoint::is_broken("thaw-off") {
                    archived.clear();
                }
                let horizon = known.forgetting.horizon(news.meaning);
                let horizon = self.shards.get(&place).and_then(|held| held.shard.horizon(&news.rule, horizon));
                let came = news.matches.iter().filter(|matched| horizon.is_some_and(|from| matched.event_time < from));
                self.metrics.engine.matches_late.with([news.tenant.as_str()]).add(came.count() as u64);
                self.take_in(place, news, &archived, known, txn);
            }
        }
        Ok(())
    }

    /// Late matches of a shard that needs more than can be held. Judged without it they would tell what is not so.
    fn refuse_late(&mut self, place: Place, mut news: News, known: &mut Known, txn: &mut Txn) {
        let horizon = known.forgetting.horizon(news.meaning);
        let horizon = self.shards.get(&place).and_then(|held| held.shard.horizon(&news.rule, horizon));
        let before = news.matches.len();
        news.matches.retain(|matched| horizon.is_none_or(|horizon| matched.event_time >= horizon));
        let refused = before - news.matches.len();
        // What was to be decided waits for the next that comes.
        news.whole.clear();
        self.metrics.engine.limits_reached.with([LATE_MEMBERS]).add(refused as u64);
        tracing::warn!(event = "late_matches_refused", rule = news.rule.id, tenant = news.tenant.as_str(), refused);
        self.take_in(place, news, &[], known, txn);
    }

    /// Applies what came for one shard.
    fn take_in(&mut self, place: Place, news: News, archived: &[Match], known: &mut Known, txn: &mut Txn) {
        let Known { forgetting, awaiting, crowded, .. } = known;
        let (batch, partition) = (self.batch, self.partition);
        let layout = self.layout.get_or_insert_default();
        let Some(held) = self.shards.get_mut(&place) else { return };
        held.used = batch;
        awaiting.wait_for(&news.tenant, place, &news.rule, (&news.matches, &news.whole), &mut txn.state);
        let past = Past { horizon: forgetting.horizon(news.meaning), whole: &news.whole, archived };
        let change = held.shard.apply_after(&news.rule, &past, &news.matches, &news.observations);
        let entries = held.shard.entries();
        let grown = entries as f64 - std::mem::replace(&mut held.entries, entries) as f64;
        self.metrics.engine.window_state_entries.add(grown);
        let bit = [(GROUP_MEMBERS, change.limited), (SIGHTINGS, change.unlearnt), (LATE_INCOMPLETE, change.incomplete)];
        for (limit, times) in bit {
            if times > 0 {
                self.metrics.engine.limits_reached.with([limit]).add(times);
            }
        }
        forgetting.written(&news.tenant, (news.meaning, place.shard), &news.matches, &change.rows);
        let expiry = look_back(&news.rule).filter(|_| held.shard.may_forget(&news.rule));
        let expiry = expiry.map(|reach| Expiry { told: place.told, meaning: news.meaning, reach });
        if let Some(expiry) = expiry.filter(|_| self.history.is_some()) {
            crowded.written((place, expiry), (&news.rule, &held.shard), &change.rows);
        }
        layout.write(partition, place, (&mut held.root, expiry), change.rows, &mut txn.state);
        for finding in change.findings {
            delay(&self.metrics, &self.clock, &finding);
            if finding.revision == 1 {
                self.metrics.findings.created.with([&finding.rule.id, finding.rule.level.as_str()]).inc();
            }
            let to = To::Key(key_hash(&[finding.tenant.as_str(), &finding.id]));
            txn.outputs.push(output(to, &FindingMessage::Finding(Box::new(finding))));
        }
    }

    /// Forgets what has expired of the shards of a slice. Returns how many rows were looked at.
    async fn forget(
        &mut self,
        log: &dyn Log,
        slice: Slice,
        forgetting: &mut Forgetting,
        out: &mut Vec<StateChange>,
    ) -> Result<usize, Error> {
        let Some(layout) = &self.layout else { return Ok(0) };
        let rows_of = layout.slice(log, self.partition, slice).await?;
        let names: Vec<u128> = rows_of.keys().copied().collect();
        let roots = layout.roots(log, self.partition, &names).await?;
        let expiring: Vec<(Place, Expiry)> = names
            .into_iter()
            .zip(roots)
            .filter_map(|(shard, root)| Some((Place { shard, told: root.expiry?.told }, root.expiry?)))
            .collect();
        let unheld: Vec<Place> =
            expiring.iter().map(|(place, _)| *place).filter(|place| !self.shards.contains_key(place)).collect();
        self.load(log, unheld.iter().copied()).await?;
        let (mut left, mut left_expiring) = (rows_of.values().sum::<usize>(), 0);
        let looked_at = left;
        for (place, expiry) in expiring {
            let gone = self.forget_shard(place, expiry, slice.day, forgetting, out);
            left = left.saturating_sub(gone);
            left_expiring += rows_of.get(&place.shard).map_or(0, |rows| rows.saturating_sub(gone));
        }
        for place in unheld {
            self.shards.remove(&place);
        }
        if let Some(layout) = &mut self.layout {
            out.extend(forgetting.end_slice(layout, (left, left_expiring)));
        }
        Ok(looked_at)
    }

    /// Forgets what has expired of one shard. Returns how many rows of the day went.
    fn forget_shard(
        &mut self,
        place: Place,
        expiry: Expiry,
        day: Day,
        forgetting: &mut Forgetting,
        out: &mut Vec<StateChange>,
    ) -> usize {
        let Some(held) = self.shards.get_mut(&place) else { return 0 };
        let horizon = held.shard.tenant().and_then(|tenant| forgetting.horizon_of(tenant, expiry.meaning));
        let Some(horizon) = horizon else { return 0 };
        let gone = held.shard.forget(expiry.reach, horizon, |row| forgetting.is_young(place.shard, row));
        if gone.is_empty() {
            return 0;
        }
        forgetting.forget(expiry.meaning, horizon, out);
        let days = self.forgotten(place, gone, out);
        days.into_iter().filter(|of| *of == day).count()
    }

    /// Forgets a piece of a shard that has grown large, whatever the horizon of others.
    async fn forget_early(
        &mut self,
        log: &dyn Log,
        piece: crowded::Piece,
        known: &mut Known,
        out: &mut Vec<StateChange>,
    ) -> Result<(), Error> {
        let crowded::Piece { place, expiry, horizon, done, archived } = piece;
        self.load(log, [place].into_iter()).await?;
        let Some(held) = self.shards.get_mut(&place) else { return Ok(()) };
        // It stays until the last piece is done: it is large.
        held.used = self.batch;
        if held.entries == 0 {
            held.entries = held.shard.entries();
            self.metrics.engine.window_state_entries.add(held.entries as f64);
        }
        let step = held.shard.early_step(expiry.reach, done, horizon);
        let crowded = &known.crowded;
        let gone = held.shard.forget_early(expiry.reach, step, |row| crowded.is_young(place, row));
        let members = held.shard.largest();
        known.forgetting.forget_early(archived, out);
        let gone = self.forgotten(place, gone, out).len();
        known.crowded.end_piece(place, step, (gone, members));
        Ok(())
    }

    /// What is to be committed when rows of a shard were forgotten. Returns the days of its members.
    fn forgotten(
        &mut self,
        place: Place,
        gone: Vec<(Vec<u8>, Option<Vec<u8>>)>,
        out: &mut Vec<StateChange>,
    ) -> Vec<Day> {
        let Some(held) = self.shards.get_mut(&place) else { return Vec::new() };
        let days: Vec<Day> = gone.iter().filter_map(|(row, _)| row_day(row)).map(layout::day).collect();
        self.metrics.engine.members_forgotten.add(days.len() as u64);
        // What was loaded for this alone is not counted as held.
        if held.entries > 0 {
            let now = held.shard.entries();
            let grown = now as f64 - std::mem::replace(&mut held.entries, now) as f64;
            self.metrics.engine.window_state_entries.add(grown);
        }
        Layout::delete(self.partition, place, &mut held.root, (gone, held.shard.first_day()), out);
        days
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

/// What is known beside the shards.
struct Known {
    editions: Editions,
    forgetting: Forgetting,
    awaiting: Awaiting,
    crowded: Crowded,
    /// Of `records`.
    partitions: u32,
}

impl Known {
    /// What is committed.
    async fn load(log: &dyn Log, partition: u32, compiler: Arc<Compiler>, crowded: Crowded) -> Result<Known, Error> {
        let editions = Editions::load(log, partition, compiler).await?;
        let forgetting = Forgetting::load(log, partition).await?;
        let awaiting = Awaiting::load(log, partition, &forgetting).await?;
        Ok(Known { editions, forgetting, awaiting, crowded, partitions: log.partitions() })
    }
}

/// One batch, sorted.
#[derive(Default)]
struct Sorted {
    news: NewsOf,
    heartbeat: Option<Heartbeat>,
    has_marks: bool,
    state: Vec<StateChange>,
}

impl Sorted {
    /// Lets a shard decide what it has waited for.
    fn wake(&mut self, editions: &Editions, tenant: &Tenant, due: &Due) {
        let Some((epoch, rule)) = editions.newest(&due.rule) else { return };
        self.news.entry((due.rule.clone(), due.place)).or_insert_with(|| News::new(tenant, rule, epoch));
    }
}

#[async_trait]
impl Worker for CorrelateWorker {
    const CONSUMER: Consumer = Consumer::Correlate;
    const TOPIC: Topic = Topic::Matches;

    async fn step(&mut self, log: &dyn Log, from: u64) -> Result<Option<u64>, Error> {
        let messages = log.read(Topic::Matches, self.partition, from, STEP).await?;
        let Some(last) = messages.last() else { return Ok(None) };
        let mut next = last.offset + 1;
        self.batch += 1;
        let mut known = match self.known.take() {
            Some(known) => known,
            None => Known::load(log, self.partition, self.compiler.clone(), Crowded::new(self.crowded_from)).await?,
        };
        let mut sorted = Sorted::default();
        self.sort(log, &mut known, &messages, &mut sorted)?;
        let mut news = sorted.news.iter();
        if news.any(|((_, place), news)| news.is_late(&known.forgetting, self.shards.get(place))) {
            let more = log.read(Topic::Matches, self.partition, next, LATE_STEP).await?;
            next = more.last().map_or(next, |last| last.offset + 1);
            self.sort(log, &mut known, &more, &mut sorted)?;
        }
        if sorted.has_marks {
            for (tenant, due) in known.awaiting.take_due(&known.editions, known.partitions, &mut sorted.state) {
                sorted.wake(&known.editions, &tenant, &due);
            }
        }
        let Sorted { news, heartbeat, state, .. } = sorted;
        self.load(log, news.keys().map(|(_, key)| *key)).await?;
        let mut txn = Txn { state, ..Txn::default() };
        let late = self.take_in_time(news, &mut known, &mut txn);
        if !late.is_empty() {
            self.take_late(log, late, &mut known, &mut txn).await?;
        }
        self.known = Some(known);
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

    /// A piece of what has expired.
    async fn aside(&mut self, log: &dyn Log, lease: &Lease) -> Result<bool, Error> {
        if self.history.is_none() {
            return Ok(false);
        }
        let Some(mut known) = self.known.take() else { return Ok(false) };
        let (mut state, mut piece, mut is_at_work) = (Vec::new(), Piece::new(), false);
        if let Some(piece) = known.crowded.next(log).await? {
            is_at_work = true;
            self.forget_early(log, piece, &mut known, &mut state).await?;
        }
        while let Some(layout) = &mut self.layout
            && let Some(slice) = known.forgetting.next(log, layout).await?
        {
            is_at_work = true;
            let rows = self.forget(log, slice, &mut known.forgetting, &mut state).await?;
            if !piece.has_room(rows) {
                break;
            }
        }
        self.known = Some(known);
        if !state.is_empty() {
            // If this fails the worker is made anew, with what is committed.
            log.commit(Txn { state, lease: Some(lease.clone()), ..Txn::default() }).await?;
        }
        Ok(is_at_work)
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
