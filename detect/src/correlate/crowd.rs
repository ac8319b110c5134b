//! Hot groups: what lies deep inside an episode is counted, not kept.
//!
//! # The guarantee
//!
//! What stands, and every word of it, is what it would be if all members were kept. A member that comes again is known.
//!
//! # Why that can be
//!
//! Where more members can only make a condition truer, an episode stays; what a finding tells of it is how many ids it
//! has, their weight, its ends, the first ids and the first values. A member is *deep* if it lies further than the
//! timespan from both ends of its episode: every window that holds it lies inside the episode, and is decided. So of a
//! deep member that is neither among the first ids nor where a shown value first appears, only its moment, its id and its
//! weight will ever be asked for again. In place of [`Member`] with its texts these are three numbers in the bucket of
//! the moment: with what the episode's summary has of the id about 80 bytes by their sizes, instead of 500.
//!
//! Conditions that more members can make false need each member, and so do sequences that share a value, travel and
//! correlations of correlations: their groups have [`GROUP_MEMBERS_MAX`](super::GROUP_MEMBERS_MAX) and no crowd.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use schemas::json::key_hash;

use super::episode::Episode;
use super::state::{Group, GroupId, Member, MemberKey, Rows};
use super::window::{Span, earlier, later};
use crate::rule::model::{Operator, Rule};

/// Members from which a group is hot. Below, what could be saved is less than ten megabytes.
pub(super) const CROWD_FROM: usize = 20_000;

/// Most deep members of a group of which only numbers are kept: at about 80 bytes half a gigabyte, like those that are
/// kept whole.
pub const CROWD_MAX: usize = 6_000_000;

/// Most members of a group that become numbers in one batch: two rows each, and a step stays short.
const THINNED_AT_ONCE: usize = if cfg!(test) { 7 } else { 10_000 };

/// What is left of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Thin {
    /// Of the event id.
    pub id: u64,
    /// Half of the member's own.
    pub tie: u64,
    pub weight: u64,
}

impl Thin {
    fn of(key: MemberKey, member: &Member) -> Thin {
        Thin { id: id_hash(&member.event_id), tie: half(key.tie), weight: member.weight }
    }
}

/// Names an event id among those of one group: two of a million are alike once in forty million groups.
pub(super) fn id_hash(event_id: &str) -> u64 {
    half(key_hash(&["id", event_id]))
}

fn half(hash: u128) -> u64 {
    (hash >> 64) as u64
}

/// The deep members of a group, by moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Crowd {
    buckets: BTreeMap<DateTime<Utc>, Vec<Thin>>,
    len: usize,
}

impl Crowd {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn first(&self) -> Option<DateTime<Utc>> {
        self.buckets.keys().next().copied()
    }

    pub fn insert(&mut self, time: DateTime<Utc>, thin: Thin) {
        let bucket = self.buckets.entry(time).or_default();
        if let Err(at) = bucket.binary_search(&thin) {
            bucket.insert(at, thin);
            self.len += 1;
        }
    }

    /// Whether a member is one of them. Looks at the bucket only: no hash is taken where there is none.
    pub fn has(&self, key: MemberKey, event_id: &str) -> bool {
        let Some(bucket) = self.buckets.get(&key.time) else { return false };
        let (id, tie) = (id_hash(event_id), half(key.tie));
        let at = bucket.partition_point(|thin| (thin.id, thin.tie) < (id, tie));
        bucket.get(at).is_some_and(|thin| (thin.id, thin.tie) == (id, tie))
    }

    pub fn within(&self, span: Span) -> impl Iterator<Item = (DateTime<Utc>, &Thin)> {
        // A range from later to earlier would panic; such a span holds nothing.
        let range = (span.start <= span.end).then(|| self.buckets.range(span.start..=span.end));
        range.into_iter().flatten().flat_map(|(time, bucket)| bucket.iter().map(|thin| (*time, thin)))
    }

    /// Takes out what lies before `cut` and `goes`.
    pub fn forget(
        &mut self,
        cut: DateTime<Utc>,
        goes: impl Fn(DateTime<Utc>, Thin) -> bool,
    ) -> Vec<(DateTime<Utc>, Thin)> {
        let mut gone = Vec::new();
        for (time, bucket) in self.buckets.range_mut(..cut) {
            gone.extend(bucket.extract_if(.., |thin| goes(*time, *thin)).map(|thin| (*time, thin)));
        }
        self.len -= gone.len();
        for (time, _) in &gone {
            if self.buckets.get(time).is_some_and(Vec::is_empty) {
                self.buckets.remove(time);
            }
        }
        gone
    }
}

/// How far from the ends of an episode a member of this rule is deep; none where every member may be asked for again.
fn depth(rule: &Rule) -> Option<TimeDelta> {
    match &rule.operator {
        _ if !rule.stages.is_empty() => None,
        Operator::TemporalOrdered(sequence) if sequence.is_shared() => None,
        Operator::Each
        | Operator::EventCount { .. }
        | Operator::ValueCount { .. }
        | Operator::Temporal { .. }
        | Operator::TemporalOrdered(_) => Some(rule.operator.timespan()),
        _ => None,
    }
}

/// Makes numbers of what is deep in the episodes that a batch has touched, of a group that is hot. What the batch itself
/// brought stays until the next: cost by batch is what the one before has brought.
pub(super) fn thin(
    rule: &Rule,
    (id, group): (GroupId, &mut Group),
    crowd_from: usize,
    fresh: &[MemberKey],
    rows: &mut Rows,
) {
    let Some(depth) = depth(rule).filter(|_| group.members.len() > crowd_from) else { return };
    let starts: BTreeSet<DateTime<Utc>> = fresh.iter().filter_map(|key| group.episode_at(key.time)).collect();
    let mut thinned = Vec::new();
    for (start, episode) in starts.iter().filter_map(|start| Some((*start, group.episodes.get(start)?))) {
        let room = THINNED_AT_ONCE.min(CROWD_MAX.saturating_sub(group.crowd.len())).saturating_sub(thinned.len());
        let deep = deep(group, start, episode, depth).filter(|key| fresh.binary_search(key).is_err());
        thinned.extend(deep.take(room));
    }
    for key in thinned {
        let Some(member) = group.members.remove(&key) else { continue };
        let thin = Thin::of(key, &member);
        group.crowd.insert(key.time, thin);
        rows.no_member(id, key);
        rows.thin(id, key.time, thin);
    }
}

/// The members of an episode that nothing will ask for but as numbers.
fn deep<'g>(
    group: &'g Group,
    start: DateTime<Utc>,
    episode: &'g Episode,
    depth: TimeDelta,
) -> impl Iterator<Item = MemberKey> + 'g {
    let from = episode.summary.named_until().map(|named| named.max(later(start, depth)));
    let until = MemberKey::first_at(earlier(episode.end, depth));
    let shown = episode.summary.shown_at();
    let range = from.map(MemberKey::last_at).filter(|from| *from < until).map(|from| from..until);
    let members = range.into_iter().flat_map(|range| group.members.range(range));
    // What was brought has not come itself: it must be seen when it does.
    let members = members.filter(move |(key, member)| !member.brought && !shown.contains(key));
    members.map(|(key, _)| *key)
}

#[cfg(test)]
mod tests;
