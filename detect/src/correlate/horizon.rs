//! State that expires, and late records that are judged all the same: beyond the horizon the archive is the state.
//!
//! The guarantee: what stands is a function of the set of matches, whatever was forgotten and when.
//!
//! Only operators whose look-back is short forget ([`look_back`]): those that compare with a history of months keep it.
//! For the others let `reach` be the look-back and `horizon` the latest moment that members were ever forgotten by:
//!
//! * A member is forgotten if it lies more than `reach` before the horizon, and not within `reach` of an episode that
//!   ends later than that. So nothing at or after the horizon can touch anything that is not whole: its windows, what
//!   they are compared with and the episodes they join lie within `reach`. What is *hot* is whole.
//! * Findings' records stay. They tell where the *cold* episodes lie, and no revision is given twice. Of a group without
//!   members nothing else stays.
//! * A match before the horizon is late. What lies within `reach` of it, with the whole of every episode that begins or
//!   ends there, is its *island*; [`Shard::missing`] says which time the archive must be asked for: the islands and what
//!   their windows are compared with, but for what is surely here: episodes that are hot, however large, from their first
//!   to their last member, and what lies no further than `reach` before the horizon. The members that are still here and
//!   those of the archive are together all there ever were. With them the cold episodes of the island are what they were,
//!   and the match is judged like any other.
//! * A shard with a group that grows too large may forget further than others of its rule ([`Shard::forget_early`]). Its
//!   horizon is the later of both.
//! * Then what was brought back goes again, unless a hot episode now needs it.
//! * What waits to be complete (an absence) has a horizon of its own: no later than how far it has decided; and before that
//!   it keeps what lies outside the stretches of which it knows that all is there. Somebody may say so yet: what is decided
//!   then, before the horizon, is late like a match that comes then.
//!
//! The archive may be ahead: it may hold records whose matches are still on their way here, and those of this very batch.
//! So what is brought is never taken for judged. It is looked at, and it is judged when its match arrives: a match is
//! known only if it came itself.
//!
//! A cold episode whose first or last member the archive does not give back (it was kept for less time) stays as it was
//! told; the late match is judged without it, and [`Change::incomplete`] counts it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use schemas::message::Match;
use schemas::tenant::Tenant;

use super::episode::{Episode, Verdict, restore};
use super::finding::identity;
use super::state::{About, Group, GroupId, Member, MemberKey, Record, Rows, group_id};
use super::window::{Span, earlier, later, merged, overlap, wide, within, without};
use super::{Shard, absence, aggregate, chain, same};
use crate::rule::model::{Operator, Rule};

/// What a shard may have forgotten, and what the archive has of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Past<'p> {
    /// Members before this moment may be gone. None: nothing was ever forgotten.
    pub horizon: Option<DateTime<Utc>>,
    /// The stretches of event time, both ends in them, of which everything is there, as far as anybody can say: what
    /// the completeness marks of the tenant's feeds come to, and imports that were whole.
    pub whole: &'p [(DateTime<Utc>, DateTime<Utc>)],
    /// What the archive has of the stretches that [`Shard::missing`] named, in any order; more than that does no harm.
    pub archived: &'p [Match],
}

/// How far from a match whatever it may change can lie, and what that is compared with; twice over, so that each step
/// of the way is covered from either end. None where a rule compares with a history: that is not forgotten.
pub fn look_back(rule: &Rule) -> Option<TimeDelta> {
    match &rule.operator {
        Operator::NewValue(_) | Operator::Outside | Operator::Spike(_) => return None,
        Operator::Each
        | Operator::EventCount { .. }
        | Operator::ValueCount { .. }
        | Operator::Temporal { .. }
        | Operator::TemporalOrdered(_)
        | Operator::Travel(_)
        | Operator::Aggregate(_)
        | Operator::Absence(_) => {}
    }
    let mut windows = rule.operator.timespan().checked_add(&rule.gap)?;
    if let Operator::Absence(absence) = &rule.operator {
        windows = windows.checked_add(&absence.delay)?;
    }
    for stage in &rule.stages {
        windows = windows.checked_add(&stage.operator.timespan())?;
    }
    windows.checked_mul(2)
}

/// Most members of a group that are forgotten early in one step: a row each, and a step stays short.
const FORGOTTEN_AT_ONCE: usize = if cfg!(test) { 3 } else { 20_000 };

/// What is judged late in each group.
type Late<'m> = BTreeMap<GroupId, LateOf<'m>>;

#[derive(Debug, Default)]
struct LateOf<'m> {
    matches: Vec<&'m Match>,
    /// Of members that wait, and are decided now.
    decided: Vec<DateTime<Utc>>,
}

impl LateOf<'_> {
    fn times(&self) -> Vec<DateTime<Utc>> {
        self.matches.iter().map(|matched| matched.event_time).chain(self.decided.iter().copied()).collect()
    }
}

/// Where the set has come to be whole.
#[derive(Debug, Default)]
pub(super) struct Grown {
    /// All of it, in order and disjoint.
    pub whole: Vec<Span>,
    /// Where triggers lie that what is new of it may decide.
    pub near: Vec<Span>,
}

/// What was brought back for what is late in one group.
#[derive(Debug)]
pub(super) struct Island {
    /// When that is.
    late: Vec<DateTime<Utc>>,
    cores: Vec<Span>,
    brought: Vec<MemberKey>,
}

/// By group; and how many cold episodes the archive did not give back.
#[derive(Debug, Default)]
pub(super) struct Thawed {
    islands: BTreeMap<GroupId, Island>,
    pub incomplete: u64,
}

impl Shard {
    /// The stretches of time, both ends inside, that the archive must be asked for before these matches can be applied.
    /// None if nothing that may be forgotten is near them.
    pub fn missing(&self, rule: &Rule, past: &Past<'_>, matches: &[Match]) -> Vec<(DateTime<Utc>, DateTime<Utc>)> {
        let (Some(reach), Some(horizon)) = (look_back(rule), self.horizon(rule, past.horizon)) else {
            return Vec::new();
        };
        let none = BTreeMap::new();
        let cut = earlier(horizon, reach);
        let spans = self.late(rule, horizon, matches, &self.grown(rule, past)).into_iter().flat_map(|(id, late)| {
            let told = self.told.get(&id).unwrap_or(&none);
            let records = self.groups.get(&id).map_or(told, |group| &group.records);
            // What is hot is whole, however large; what is near it may have been forgotten before it was there.
            let hot = records.values().filter(|record| is_standing(rule, record) && record.end >= cut);
            let mut here: Vec<Span> = hot.map(hull).collect();
            here.push(Span { start: cut, end: DateTime::<Utc>::MAX_UTC });
            without(&widened(&cores(rule, records, &late.times(), reach), reach), &merged(here))
        });
        merged(spans.collect()).into_iter().map(|span| (span.start, span.end)).collect()
    }

    /// Drops the members that nothing from `horizon` on needs, but for those whose row is `kept`. Returns the rows to
    /// delete. `reach`: the [`look_back`] of the shard's rule.
    pub fn forget(
        &mut self,
        reach: TimeDelta,
        horizon: DateTime<Utc>,
        kept: impl Fn(&[u8]) -> bool,
    ) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let cut = earlier(self.whole.last().map_or(horizon, |last| horizon.min(last.end)), reach);
        let undecided = undecided(&self.whole, reach);
        let mut rows = Rows::default();
        let mut chains = Vec::new();
        for (id, group) in &mut self.groups {
            let mut needed = needed(&group.records, cut, reach);
            needed.extend(&undecided);
            let old = group.members.range(..MemberKey::first_at(cut)).map(|(key, _)| *key);
            let gone: Vec<MemberKey> = old
                .filter(|key| !needed.iter().any(|span| span.contains(key.time)))
                .filter(|key| !kept(&super::state::member_row(*id, key.time, key.tie)))
                .collect();
            for key in &gone {
                group.members.remove(key);
                rows.no_member(*id, *key);
            }
            let crowd = group.crowd.forget(cut, |time, thin| {
                !needed.iter().any(|span| span.contains(time)) && !kept(&super::state::thin_row(*id, time, thin))
            });
            crowd.into_iter().for_each(|(time, thin)| rows.no_thin(*id, time, thin));
            if !gone.is_empty() {
                let Group { members, windows, .. } = &mut **group;
                windows.retain(|anchor, _| within(members, Span::at(*anchor)).next().is_some());
                chains.push(*id);
            }
            group.episodes.retain(|_, episode| episode.end >= cut);
            if is_empty(group) {
                rows.no_group(*id);
            }
        }
        for (id, group) in self.groups.extract_if(.., |_, group| is_empty(group)) {
            if !group.records.is_empty() {
                self.told.insert(id, group.records);
            }
        }
        // What else is derived needs the rule.
        self.stale.extend(chains);
        rows.into_vec()
    }

    /// How many members the largest group has that are kept whole. Cost: the number of groups.
    pub fn largest(&self) -> usize {
        self.groups.values().map(|group| group.members.len()).max().unwrap_or_default()
    }

    /// By which horizon the largest group may forget early: a quarter of its members are younger. None if that brings little.
    /// Cost: its members.
    pub fn early_horizon(&self, rule: &Rule) -> Option<DateTime<Utc>> {
        let reach = look_back(rule).filter(|_| self.may_forget(rule))?;
        let members = &self.groups.values().max_by_key(|group| group.members.len())?.members;
        let (young, _) = members.iter().rev().nth(members.len() / 4)?;
        let old = members.range(..MemberKey::first_at(earlier(young.time, reach)));
        (old.count() >= members.len() / 8).then_some(young.time)
    }

    /// The horizon up to which one step goes on the way to `horizon`, where the one before came to `done`.
    pub fn early_step(&self, reach: TimeDelta, done: Option<DateTime<Utc>>, horizon: DateTime<Utc>) -> DateTime<Utc> {
        let from = done.map_or(DateTime::<Utc>::MIN_UTC, |done| earlier(done, reach));
        let largest = self.groups.values().max_by_key(|group| group.members.len());
        let last = largest.and_then(|group| group.members.range(MemberKey::first_at(from)..).nth(FORGOTTEN_AT_ONCE));
        // With all of its moment, so that each step comes further.
        let step = last.map(|(key, _)| later(later(key.time, reach), TimeDelta::nanoseconds(1)));
        step.map_or(horizon, |step| step.min(horizon))
    }

    /// Forgets as [`Shard::forget`] does, this shard alone. Returns the rows to delete, and to write.
    pub fn forget_early(
        &mut self,
        reach: TimeDelta,
        horizon: DateTime<Utc>,
        kept: impl Fn(&[u8]) -> bool,
    ) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        let mut gone = self.forget(reach, horizon, kept);
        // Also if no member went: what is cold now was let go.
        if self.early < Some(horizon) {
            self.early = Some(horizon);
            let mut rows = Rows::default();
            rows.early(horizon);
            gone.extend(rows.into_vec());
        }
        gone
    }

    /// Whether anything is ever forgotten of a shard of this rule: not of an absence that has decided nothing yet.
    pub fn may_forget(&self, rule: &Rule) -> bool {
        self.horizon(rule, Some(DateTime::<Utc>::MAX_UTC)).is_some()
    }

    /// The horizon as it is for this shard: what an absence has not decided yet must be whole when it is.
    pub fn horizon(&self, rule: &Rule, horizon: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
        let horizon = horizon.max(self.early);
        match &rule.operator {
            Operator::Absence(_) => Some(horizon?.min(self.whole.last()?.end)),
            _ => horizon,
        }
    }

    /// The first day of which a member is here.
    pub fn first_day(&self) -> Option<NaiveDate> {
        let first =
            |group: &Group| group.members.keys().next().map(|key| key.time).into_iter().chain(group.crowd.first());
        self.groups.values().flat_map(|group| first(group)).map(|time| time.date_naive()).min()
    }

    /// Whose it is; not known while it is empty.
    pub fn tenant(&self) -> Option<&Tenant> {
        self.groups.values().next().map(|group| &group.about.tenant)
    }

    /// Where the set is known to be whole with what is said now, and where triggers may be decided for that.
    pub(super) fn grown(&self, rule: &Rule, past: &Past<'_>) -> Grown {
        let Operator::Absence(parameters) = &rule.operator else { return Grown::default() };
        let told = past.whole.iter().filter(|(start, end)| start <= end);
        let told = told.map(|(start, end)| Span { start: *start, end: *end });
        let whole = merged(self.whole.iter().copied().chain(told).collect());
        let near = absence::grown(parameters, &self.whole, &whole);
        Grown { whole, near }
    }

    /// The matches that came before the horizon, and are not known; and the members there that are decided now.
    fn late<'m>(&self, rule: &Rule, horizon: DateTime<Utc>, matches: &'m [Match], grown: &Grown) -> Late<'m> {
        let mut late = Late::new();
        if let Operator::Absence(parameters) = &rule.operator {
            let before = Span { start: DateTime::<Utc>::MIN_UTC, end: earlier(horizon, TimeDelta::nanoseconds(1)) };
            for (id, group) in &self.groups {
                let spans = grown.near.iter().map(|span| Span { end: span.end.min(before.end), ..*span });
                let waited = |(key, member): &(&MemberKey, &Member)| {
                    let waits = |whole: &[Span]| absence::is_waiting(parameters, whole, (**key, *member));
                    !member.brought && waits(&self.whole) && !waits(&grown.whole)
                };
                let members = spans.flat_map(|span| within(&group.members, span));
                let decided: Vec<DateTime<Utc>> = members.filter(waited).map(|(key, _)| key.time).collect();
                if !decided.is_empty() {
                    late.entry(*id).or_default().decided = decided;
                }
            }
        }
        for matched in matches.iter().filter(|matched| matched.event_time < horizon) {
            let id = group_id(&matched.group);
            let is_known = |group: &Group| {
                let key = MemberKey::of(matched);
                group.members.get(&key).is_some_and(|member| !member.brought) || group.crowd.has(key, &matched.event_id)
            };
            if !self.groups.get(&id).is_some_and(|group| is_known(group)) {
                late.entry(id).or_default().matches.push(matched);
            }
        }
        late
    }

    /// Brings back what is needed for the late matches among these, and for what is decided late: see [`Shard::grown`].
    pub(super) fn thaw(
        &mut self,
        rule: &Rule,
        past: &Past<'_>,
        (matches, grown): (&[Match], &Grown),
        rows: &mut Rows,
    ) -> Thawed {
        let mut thawed = Thawed::default();
        let (Some(horizon), Some(reach)) = (past.horizon, look_back(rule)) else { return thawed };
        let late = self.late(rule, horizon, matches, grown);
        if late.is_empty() {
            return thawed;
        }
        let mut archived: BTreeMap<GroupId, Vec<&Match>> = BTreeMap::new();
        for matched in past.archived.iter().filter(|matched| matched.event_time < horizon) {
            let id = group_id(&matched.group);
            if late.contains_key(&id) {
                archived.entry(id).or_default().push(matched);
            }
        }
        let cut = earlier(horizon, reach);
        for (id, late) in late {
            let group = match (self.groups.entry(id), late.matches.first()) {
                (Entry::Occupied(group), _) => group.into_mut(),
                // What waits is in its group.
                (Entry::Vacant(_), None) => continue,
                (Entry::Vacant(place), Some(first)) => {
                    let about = About::of(first);
                    rows.group(id, &about);
                    let records = self.told.remove(&id).unwrap_or_default();
                    place.insert(Box::new(Group { records, ..Group::new(about) }))
                }
            };
            let cores = cores(rule, &group.records, &late.times(), reach);
            let arriving: BTreeSet<MemberKey> = late.matches.iter().map(|matched| MemberKey::of(matched)).collect();
            let asked = widened(&cores, reach);
            let mut brought = Vec::new();
            for matched in archived.remove(&id).unwrap_or_default() {
                let key = MemberKey::of(matched);
                let is_here = group.members.contains_key(&key) || group.crowd.has(key, &matched.event_id);
                if !is_here && asked.iter().any(|span| span.contains(key.time)) {
                    group.members.insert(key, Box::new(Member { brought: true, ..Member::of(matched) }));
                    brought.push(key);
                }
            }
            // What was told may have been told with what arrives now. That something is absent was told before it came:
            // any trigger may have stood.
            derive(group, rule, &self.whole);
            if let Operator::Absence(parameters) = &rule.operator {
                absence::let_all_stand(group, parameters);
            }
            thawed.incomplete += revive(group, rule, &cores, cut);
            let before = group.members.len();
            for key in &arriving {
                group.members.remove(key);
            }
            brought.retain(|key| !arriving.contains(key));
            if group.members.len() < before || matches!(rule.operator, Operator::Absence(_)) {
                derive(group, rule, &self.whole);
            }
            thawed.islands.insert(id, Island { late: late.times(), cores, brought });
        }
        thawed
    }

    /// Lets what was brought back go again, but for what is hot now.
    pub(super) fn cool(&mut self, rule: &Rule, horizon: Option<DateTime<Utc>>, thawed: Thawed, rows: &mut Rows) {
        let (Some(horizon), Some(reach)) = (horizon, look_back(rule)) else { return };
        let cut = earlier(horizon, reach);
        for (id, island) in thawed.islands {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let needed = needed(&group.records, cut, reach);
            let mut again: BTreeSet<DateTime<Utc>> = BTreeSet::new();
            for key in island.brought {
                if !needed.iter().any(|span| span.contains(key.time)) {
                    group.members.remove(&key);
                } else if let Some(member) = group.members.get(&key) {
                    rows.member(id, key, member);
                    again.extend(group.episode_at(key.time));
                }
            }
            group.episodes.retain(|_, episode| episode.end >= cut);
            derive(group, rule, &self.whole);
            // What is hot may have been summed up with what has gone, or without what came: it is to be what a restart
            // makes of it.
            for core in island.cores {
                again.extend(group.episodes.range(core.start..=core.end).map(|(start, _)| *start));
            }
            for start in again {
                let Some(Episode { end, id, .. }) = group.episodes.remove(&start) else { continue };
                let hot = restore(group, rule, Span { start, end }, &id);
                group.episodes.insert(start, hot);
            }
        }
    }

    /// Builds what is derived of groups that have lost members.
    pub(super) fn refresh(&mut self, rule: &Rule) {
        for id in std::mem::take(&mut self.stale) {
            if let Some(group) = self.groups.get_mut(&id).filter(|_| is_derived(rule)) {
                derive(group, rule, &self.whole);
            }
        }
    }
}

impl Thawed {
    /// What more records can make false is judged anew all over the island: what stood there was told with records that
    /// are judged only now, or without them.
    pub(super) fn doubt(&self, rule: &Rule, groups: &super::Groups, verdicts: &mut BTreeMap<GroupId, Verdict>) {
        if !matches!(rule.operator, Operator::Aggregate(_) | Operator::Absence(_)) {
            return;
        }
        for (id, island) in &self.islands {
            let Some(group) = groups.get(id) else { continue };
            let verdict = verdicts.entry(*id).or_default();
            for core in &island.cores {
                verdict
                    .withdrawn
                    .extend(group.episodes.range(core.start..=core.end).map(|(start, _)| Span::at(*start)));
            }
            // What arrives of an absence is judged one by one.
            let Operator::Aggregate(parameters) = &rule.operator else { continue };
            for time in &island.late {
                let near = Span { start: earlier(*time, parameters.timespan), end: later(*time, parameters.timespan) };
                verdict.satisfied.extend(aggregate::standing(group, near));
            }
        }
    }
}

/// Builds what is kept beside members and episodes.
fn derive(group: &mut Group, rule: &Rule, whole: &[Span]) {
    if !rule.stages.is_empty() {
        group.chain = chain::Chain::default();
        chain::prepare(group, rule);
    } else if let Operator::Aggregate(parameters) = &rule.operator {
        group.windows.clear();
        aggregate::prepare(group, parameters);
    } else if let Operator::TemporalOrdered(sequence) = &rule.operator
        && sequence.is_shared()
    {
        group.by_value = same::ByValue::default();
        same::prepare(group, sequence);
    } else if let Operator::Absence(parameters) = &rule.operator {
        absence::prepare(group, parameters, whole);
    }
}

/// Whether what is kept beside members names some of them.
fn is_derived(rule: &Rule) -> bool {
    let is_shared =
        matches!(&rule.operator, Operator::TemporalOrdered(sequence) if rule.stages.is_empty() && sequence.is_shared());
    is_shared || !rule.stages.is_empty()
}

/// Puts the cold episodes of an island back. Returns how many the archive did not give back.
fn revive(group: &mut Group, rule: &Rule, cores: &[Span], cut: DateTime<Utc>) -> u64 {
    group.episodes.retain(|_, episode| episode.end >= cut);
    let mut incomplete = 0;
    let mut revived = Vec::new();
    for (id, record) in &group.records {
        let hull = hull(record);
        if !is_standing(rule, record) || hull.end >= cut || !cores.iter().any(|core| overlap(*core, hull)) {
            continue;
        }
        if is_whole(group, rule, hull, id) {
            revived.push((hull.start, restore(group, rule, hull, id)));
        } else {
            incomplete += 1;
        }
    }
    group.episodes.extend(revived);
    incomplete
}

/// Whether an episode's first and last members are there.
fn is_whole(group: &Group, rule: &Rule, hull: Span, id: &str) -> bool {
    let mut first =
        within(&group.members, Span::at(hull.start)).map(|(_, member)| (hull.start, member.event_id.clone()));
    first.any(|first| identity(rule, &group.about, &first) == id)
        && within(&group.members, Span::at(hull.end)).next().is_some()
}

/// Whether a record is of an episode that stands, as the rule now means it.
fn is_standing(rule: &Rule, record: &Record) -> bool {
    record.status.stands() && record.is_by(rule)
}

/// Whether nothing is known of a group but what was told of it.
pub(super) fn is_empty(group: &Group) -> bool {
    group.members.is_empty() && group.crowd.is_empty() && !group.about.limited
}

fn hull(record: &Record) -> Span {
    Span { start: record.start, end: record.end }
}

/// Where members must stay: what is within `reach` of a standing episode that ends at `cut` or later.
fn needed(records: &BTreeMap<String, Record>, cut: DateTime<Utc>, reach: TimeDelta) -> Vec<Span> {
    let hot = records.values().filter(|record| record.status.stands() && record.end >= cut);
    merged(hot.map(|record| wide(hull(record), reach)).collect())
}

/// Where an absence has not decided, before the last stretch that it knows to be whole, and what it may need for that. What
/// waits for nothing knows no stretch.
fn undecided(whole: &[Span], reach: TimeDelta) -> Vec<Span> {
    let Some(last) = whole.last() else { return Vec::new() };
    let all = Span { start: DateTime::<Utc>::MIN_UTC, end: last.end };
    without(&[all], whole).into_iter().map(|span| wide(span, reach)).collect()
}

/// What is late may change: what is within `reach`, with the whole of every episode there. Episodes are disjoint, so
/// one that is taken in whole brings no other with it.
fn cores(rule: &Rule, records: &BTreeMap<String, Record>, late: &[DateTime<Utc>], reach: TimeDelta) -> Vec<Span> {
    let mut spans: Vec<Span> = late.iter().map(|time| wide(Span::at(*time), reach)).collect();
    let near = merged(spans.clone());
    let hulls = records.values().filter(|record| is_standing(rule, record)).map(hull);
    spans.extend(hulls.filter(|hull| near.iter().any(|span| overlap(*span, *hull))));
    merged(spans)
}

fn widened(spans: &[Span], reach: TimeDelta) -> Vec<Span> {
    merged(spans.iter().map(|span| wide(*span, reach)).collect())
}
