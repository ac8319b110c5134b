//! Correlation: matches and observations in, revisions of findings out.
//!
//! The guarantee: **what stands is a function of the set** of matches and observations. No order of arrival, no
//! batching, no duplicate and no restart changes it. This module is pure: no clock, no I/O, no randomness.
//!
//! * A *member* is (event time, event id, content) with the rule that selected it. Operators count distinct event ids;
//!   a member that is known changes nothing and emits nothing.
//! * A *satisfied window* is a set of members with latest - earliest <= timespan for which the operator's condition
//!   holds; what it covers is its *span*.
//! * An *episode* is a maximal chain of satisfied spans of one group key that overlap or lie at most the rule's gap
//!   apart. Its members are the standing members between the chain's first and last moment.
//! * A *finding* is an episode as it is told: see [`finding`] for identity and revisions.
//!
//! Each operator is one file and one line in [`judge`](Shard::apply). Counts and sequences can only be made truer by more
//! records, and keep nothing but episodes ([`window`]), also where they look at other correlations ([`chain`]) or records
//! of a sequence have a value in common ([`same`]).
//! `absence` waits until it is known that nothing more comes, which [`Past::whole`] says.
//! `new_value`, `outside` and `spike` compare with a history that a late record may change, and `aggregate` asks what
//! more records may make false; they judge again exactly what a record may have turned.
//!
//! Cost of a batch: proportional to the neighbourhoods (±timespan) of its members, a logarithm of the state, and for
//! each changed finding the at most [`EVIDENCE_MAX`](schemas::finding::EVIDENCE_MAX) ids it names.
//!
//! Members expire, because what comes late is judged from the archive: see [`horizon`]. Of a hot group most are numbers in
//! buckets: see [`crowd`].

mod absence;
mod aggregate;
mod chain;
mod crowd;
mod each;
mod episode;
mod event_count;
mod finding;
mod horizon;
mod new_value;
mod outside;
mod ratio;
mod same;
mod spike;
mod state;
mod summary;
mod temporal;
mod temporal_ordered;
#[cfg(test)]
mod tests;
mod travel;
mod triggers;
mod value_count;
mod window;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use schemas::finding::Finding;
use schemas::message::{Match, Observation};

pub use self::crowd::CROWD_MAX;
pub use self::horizon::{Past, look_back};
#[cfg(test)]
pub(crate) use self::state::member_row;
pub use self::state::{DamagedState, DamagedStateKind};
pub(crate) use self::state::{is_record_row, row_day};

use self::episode::Verdict;
use self::finding::Context;
use self::state::{
    About, Group, GroupId, Groups, Member, MemberKey, Members, Record, Rows, Sightings, fold, group_id, value_hash,
};
use self::summary::Told;
use self::triggers::{Judged, Learnt, Triggers};
use self::window::{Span, earlier, undecided};
use crate::rule::model::{Operator, Rule};

/// Most members of one group key that are kept whole; there may be [`CROWD_MAX`] more of which numbers are kept. At about
/// 500 bytes a member this is half a gigabyte: more is an attack on us or a rule that groups by nothing. What is refused is
/// counted in [`Change::limited`] and noted in the group's findings.
pub const GROUP_MEMBERS_MAX: usize = 1_000_000;

/// Most values and days that the baseline of one shard keeps. At some 130 bytes each it is a quarter of a gigabyte: somebody
/// shows a value of his own making with every record. What is seen beyond it is not learnt, counted in
/// [`Change::unlearnt`], and findings say that there was more.
pub const SIGHTINGS_MAX: usize = 2_000_000;

/// All state of one (tenant, rule, shard). It serves one meaning of a rule: another meaning needs a shard of its own. What
/// has been told goes on: the findings of the meaning before are known, and are revised or superseded, not told again.
#[derive(Clone, Debug)]
pub struct Shard {
    groups: Groups,
    sightings: Sightings,
    /// Where `absence` has decided: stretches that are disjoint and in order.
    whole: Vec<Span>,
    /// How far members were forgotten before others of the rule: see [`Shard::forget_early`].
    early: Option<DateTime<Utc>>,
    /// What was told of groups that have no member: by another meaning of the rule, or before members were forgotten.
    told: BTreeMap<GroupId, BTreeMap<String, Record>>,
    /// Derived; kept by `new_value` and `outside`.
    triggers: Triggers,
    /// Whether what is derived has been built: that needs the rule, which a load does not have.
    ready: bool,
    /// Groups of which something derived is out of date, because members were forgotten.
    stale: BTreeSet<GroupId>,
    members_max: usize,
    sightings_max: usize,
    crowd_from: usize,
}

/// What a batch changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Rows to write, or to delete where there is no value, in key order.
    pub rows: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// New revisions, in an order that tells what ended before what continues it.
    pub findings: Vec<Finding>,
    /// Matches refused because their group is full ([`GROUP_MEMBERS_MAX`]).
    pub limited: u64,
    /// Sightings that there was no room for ([`SIGHTINGS_MAX`]).
    pub unlearnt: u64,
    /// Findings near a late match that the archive did not give back; they stay as they were told.
    pub incomplete: u64,
}

impl Default for Shard {
    fn default() -> Shard {
        Shard::from_facts(state::Facts::default())
    }
}

/// New members by group, in order.
type Arrivals = BTreeMap<GroupId, Vec<MemberKey>>;

impl Shard {
    /// Continues from the rows of earlier changes; none make an empty shard. Exactly as if it had never stopped.
    pub fn load(rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Shard, DamagedState> {
        Ok(Shard::from_facts(state::decode(rows)?))
    }

    fn from_facts(facts: state::Facts) -> Shard {
        Shard {
            groups: facts.groups,
            sightings: facts.sightings,
            whole: facts.whole,
            early: facts.early,
            told: facts.told,
            triggers: Triggers::default(),
            ready: false,
            stale: BTreeSet::new(),
            members_max: GROUP_MEMBERS_MAX,
            sightings_max: SIGHTINGS_MAX,
            crowd_from: crowd::CROWD_FROM,
        }
    }

    /// How many members, episodes and sightings are held, for a gauge. Cost: the number of groups.
    pub fn entries(&self) -> usize {
        let of_group = |group: &Group| group.members.len() + group.crowd.len() + group.records.len();
        let groups: usize = self.groups.values().map(|group| of_group(group)).sum();
        groups + self.sightings.len
    }

    /// Takes in a batch. Matches and observations that are known already change nothing.
    pub fn apply(&mut self, rule: &Rule, matches: &[Match], observations: &[Observation]) -> Change {
        self.apply_after(rule, &Past::default(), matches, observations)
    }

    /// The same where members may have been forgotten. Every batch is told the horizon: a restart needs it.
    pub fn apply_after(
        &mut self,
        rule: &Rule,
        past: &Past<'_>,
        matches: &[Match],
        observations: &[Observation],
    ) -> Change {
        let past = &Past { horizon: self.horizon(rule, past.horizon), ..*past };
        if !self.ready {
            self.prepare(rule, past.horizon);
        }
        self.refresh(rule);
        let mut rows = Rows::default();
        let grown = self.grown(rule, past);
        let thawed = self.thaw(rule, past, (matches, &grown), &mut rows);
        let learnt = self.learn(rule, observations, &mut rows);
        let (arrivals, filled, limited) = self.admit(rule, matches, &mut rows);
        let Judged { mut verdicts, settled } = self.judge(rule, &arrivals, &learnt);
        if let Operator::Absence(parameters) = &rule.operator {
            if self.whole != grown.whole {
                rows.whole(&grown.whole);
                self.whole = grown.whole;
            }
            verdicts = absence::judge(&mut self.groups, parameters, &arrivals, (&grown.near, &self.whole));
        }
        thawed.doubt(rule, &self.groups, &mut verdicts);
        for id in filled {
            // Every finding of the group now carries a warning.
            let starts = self.groups.get(&id).into_iter().flat_map(|group| group.episodes.keys().copied());
            verdicts.entry(id).or_default().touched.extend(starts);
        }
        let mut findings = Vec::new();
        for (id, verdict) in verdicts {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let turn = episode::update(group, rule, verdict);
            let fresh = arrivals.get(&id).map_or(&[][..], Vec::as_slice);
            let is_full = self.sightings.len >= self.sightings_max;
            let context = |group: &Group, told: &Told| context(rule, (&self.sightings, is_full), group, told);
            findings.extend(finding::settle(rule, (id, group), turn, fresh, context, &mut rows));
        }
        let incomplete = thawed.incomplete;
        self.cool(rule, past.horizon, thawed, &mut rows);
        for (id, fresh) in &arrivals {
            if let Some(group) = self.groups.get_mut(id) {
                crowd::thin(rule, (*id, group), self.crowd_from, fresh, &mut rows);
            }
        }
        self.let_go(settled, &arrivals, &mut rows);
        Change { rows: rows.into_vec(), findings, limited, unlearnt: learnt.refused, incomplete }
    }

    /// Builds what is derived from the rows.
    fn prepare(&mut self, rule: &Rule, horizon: Option<DateTime<Utc>>) {
        self.ready = true;
        self.stale.clear();
        // What ended before this may have lost members, and is as it was told.
        let cut = horizon.zip(look_back(rule)).map(|(horizon, reach)| earlier(horizon, reach));
        if looks_at_sightings(rule) {
            for (id, group) in &self.groups {
                group.members.iter().for_each(|(key, member)| self.triggers.insert(*id, *key, member));
            }
        }
        match &rule.operator {
            Operator::NewValue(parameters) => new_value::prepare(&mut self.groups, &self.sightings, parameters),
            Operator::Outside => outside::prepare(&mut self.groups, &self.sightings),
            Operator::Absence(parameters) => {
                self.groups.values_mut().for_each(|group| absence::prepare(group, parameters, &self.whole));
            }
            Operator::Spike(parameters) => self.groups.values_mut().for_each(|group| spike::prepare(group, parameters)),
            Operator::Aggregate(parameters) => {
                self.groups.values_mut().for_each(|group| aggregate::prepare(group, parameters));
            }
            _ if !rule.stages.is_empty() => self.groups.values_mut().for_each(|group| chain::prepare(group, rule)),
            Operator::TemporalOrdered(sequence) if sequence.is_shared() => {
                self.groups.values_mut().for_each(|group| same::prepare(group, sequence));
            }
            _ => {}
        }
        for group in self.groups.values_mut() {
            if rule.operator.least().is_some() {
                // Episodes that are not told yet have no record to begin from.
                episode::rebuild(group, rule);
                continue;
            }
            let is_whole = |record: &Record| record.is_by(rule) && cut.is_none_or(|cut| record.end >= cut);
            let standing = group.records.iter().filter(|(_, record)| record.status.stands() && is_whole(record));
            let episodes = standing.map(|(id, record)| {
                let hull = Span { start: record.start, end: record.end };
                (hull.start, episode::restore(group, rule, hull, id))
            });
            group.episodes = episodes.collect();
        }
    }

    /// Takes note of what baselines learn from; rules without one keep none of it.
    fn learn(&mut self, rule: &Rule, observations: &[Observation], rows: &mut Rows) -> Learnt {
        let mut learnt = Learnt::default();
        for observation in observations.iter().filter(|_| looks_at_sightings(rule)) {
            let value = value_hash(&fold(&observation.value));
            if self.sightings.learn((value, observation.day), self.sightings_max, &mut learnt) {
                rows.sighting(value, observation.day);
            }
        }
        learnt
    }

    /// Puts new members in their groups. Returns them, the groups that became full, and how many were refused.
    fn admit(&mut self, rule: &Rule, matches: &[Match], rows: &mut Rows) -> (Arrivals, Vec<GroupId>, u64) {
        let (mut arrivals, mut filled, mut limited) = (Arrivals::new(), Vec::new(), 0);
        for matched in matches {
            let id = group_id(&matched.group);
            let group = self.groups.entry(id).or_insert_with(|| {
                let about = About::of(matched);
                rows.group(id, &about);
                Box::new(Group { records: self.told.remove(&id).unwrap_or_default(), ..Group::new(about) })
            });
            let key = MemberKey::of(matched);
            let full = group.members.len() >= self.members_max;
            if group.crowd.has(key, &matched.event_id) {
                continue;
            }
            let Entry::Vacant(place) = group.members.entry(key) else { continue };
            if full {
                limited += 1;
                if !std::mem::replace(&mut group.about.limited, true) {
                    rows.group(id, &group.about);
                    filled.push(id);
                }
                continue;
            }
            let member = place.insert(Box::new(Member::of(matched)));
            rows.member(id, key, member);
            if looks_at_sightings(rule) {
                self.triggers.insert(id, key, member);
            }
            arrivals.entry(id).or_default().push(key);
        }
        arrivals.values_mut().for_each(|keys| keys.sort_unstable());
        (arrivals, filled, limited)
    }

    /// Drops members that nothing will make stand, and groups that have nothing else.
    fn let_go(&mut self, settled: Vec<(GroupId, MemberKey)>, arrivals: &Arrivals, rows: &mut Rows) {
        for (id, key) in settled {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let Some(member) = group.members.remove(&key) else { continue };
            self.triggers.remove(id, key, &member);
            rows.settled(id, key, arrivals.get(&id).is_some_and(|keys| keys.binary_search(&key).is_ok()));
            if horizon::is_empty(group) {
                rows.settled_group(id);
                let records = self.groups.remove(&id).map(|group| group.records).unwrap_or_default();
                if !records.is_empty() {
                    self.told.insert(id, records);
                }
            }
        }
    }

    /// The ordered list of operators.
    fn judge(&mut self, rule: &Rule, arrivals: &Arrivals, learnt: &Learnt) -> Judged {
        let seen = (&self.sightings, &self.triggers);
        match &rule.operator {
            Operator::NewValue(parameters) => {
                return new_value::judge(&mut self.groups, seen, parameters, arrivals, learnt);
            }
            Operator::Outside => return outside::judge(&mut self.groups, seen, arrivals, learnt),
            // Where it is known what is whole.
            Operator::Absence(_) => return Judged::default(),
            _ => {}
        }
        let mut verdicts = BTreeMap::new();
        for (id, fresh) in arrivals {
            let Some(group) = self.groups.get_mut(id) else { continue };
            let verdict = match &rule.operator {
                Operator::Spike(parameters) => spike::judge(group, parameters, fresh),
                Operator::Aggregate(parameters) => aggregate::judge(group, parameters, fresh),
                _ if !rule.stages.is_empty() => chain::judge(group, rule, fresh),
                Operator::TemporalOrdered(sequence) if sequence.is_shared() => same::judge(group, sequence, fresh),
                Operator::Each | Operator::NewValue(_) | Operator::Outside | Operator::Absence(_) => {
                    Verdict { satisfied: each::satisfied(fresh), joined: fresh.clone(), ..Verdict::default() }
                }
                operator => {
                    let anchors = undecided(group, fresh, operator.timespan());
                    let satisfied = satisfied(operator, &group.members, anchors);
                    Verdict { satisfied, joined: fresh.clone(), ..Verdict::default() }
                }
            };
            verdicts.insert(*id, verdict);
        }
        Judged { verdicts, settled: Vec::new() }
    }
}

/// The spans of satisfied windows with these anchors, for the operators that more records can only make truer.
fn satisfied(operator: &Operator, members: &Members, anchors: Vec<Span>) -> Vec<Span> {
    match operator {
        Operator::EventCount { at_least, timespan } => event_count::satisfied(members, anchors, *at_least, *timespan),
        Operator::ValueCount { at_least, timespan } => value_count::satisfied(members, anchors, *at_least, *timespan),
        Operator::Temporal { at_least, timespan } => temporal::satisfied(members, anchors, *at_least, *timespan),
        Operator::TemporalOrdered(sequence) => temporal_ordered::satisfied(members, anchors, sequence),
        Operator::Travel(travel) => travel::satisfied(members, anchors, travel),
        _ => Vec::new(),
    }
}

/// Whether the operator compares with observations.
fn looks_at_sightings(rule: &Rule) -> bool {
    matches!(rule.operator, Operator::NewValue(_) | Operator::Outside)
}

/// What the operator says beside the members.
fn context(rule: &Rule, (sightings, is_full): (&Sightings, bool), group: &Group, told: &Told) -> Context {
    let day = told.first.date_naive();
    let mut context = match &rule.operator {
        Operator::NewValue(_) => new_value::context(sightings, day),
        Operator::Outside => outside::context(&told.values),
        Operator::Spike(parameters) => spike::context(&group.days, parameters, day),
        Operator::Travel(_) => travel::context(&told.values),
        _ => Context::default(),
    };
    if is_full && looks_at_sightings(rule) {
        context.notes.push(format!(
            "the history is full at {} values and days: what was seen later is not known",
            sightings.len
        ));
    }
    context
}
