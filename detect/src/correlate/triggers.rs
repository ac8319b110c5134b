//! What `new_value` and `outside` share: single matches that stand or fall by what was seen elsewhere in the set.
//!
//! A trigger is judged when it arrives and again when a sighting could change the answer; an index from values to
//! triggers finds those, so that a sighting costs what it changes.
//!
//! What was seen stays seen. So a trigger all of whose values are known will never stand, whatever comes and in which
//! order, and nothing asks for it again: it is not kept. What is kept of a group are its findings and what waits for a
//! history, and not every match that there ever was.

use std::collections::{BTreeMap, BTreeSet};

use super::episode::Verdict;
use super::state::{GroupId, Groups, Member, MemberKey, Sightings, value_hash};
use super::window::Span;

/// Which matches look at a value: (value, match, group), in that order, so that those of a stretch of days are one range.
#[derive(Clone, Debug, Default)]
pub(super) struct Triggers(BTreeSet<(u128, MemberKey, GroupId)>);

impl Triggers {
    pub fn insert(&mut self, group: GroupId, key: MemberKey, member: &Member) {
        for value in &member.values {
            self.0.insert((value_hash(value), key, group));
        }
    }

    pub fn remove(&mut self, group: GroupId, key: MemberKey, member: &Member) {
        for value in &member.values {
            self.0.remove(&(value_hash(value), key, group));
        }
    }

    /// The matches in `span` that look at a value.
    pub fn looking_at(&self, value: u128, span: Span) -> impl Iterator<Item = (GroupId, MemberKey)> {
        let from = (value, MemberKey::first_at(span.start), GroupId::MIN);
        let until = (value, MemberKey::last_at(span.end), GroupId::MAX);
        self.0.range(from..=until).map(|(_, key, group)| (*group, *key))
    }
}

/// What a match comes to.
#[derive(Debug, PartialEq)]
pub(super) enum Judgement {
    /// It stands, for these values.
    Stands(Vec<Box<str>>),
    /// It does not stand, and may by what is seen yet.
    Waits,
    /// Nothing will make it stand.
    Settled,
}

impl Judgement {
    fn remarkable(self) -> Option<Vec<Box<str>>> {
        match self {
            Judgement::Stands(values) => Some(values),
            Judgement::Waits | Judgement::Settled => None,
        }
    }
}

/// What judging has come to.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub verdicts: BTreeMap<GroupId, Verdict>,
    /// Members that are not needed any more once the verdicts are applied.
    pub settled: Vec<(GroupId, MemberKey)>,
}

/// Judges every match of a shard: after a load.
pub(super) fn prepare(groups: &mut Groups, judge: impl Fn(&MemberKey, &Member) -> Judgement) {
    for (key, member) in groups.values_mut().flat_map(|group| &mut group.members) {
        let remarkable = judge(key, member).remarkable();
        member.stands = remarkable.is_some();
        member.remarkable = remarkable;
    }
}

/// Judges the given matches again and says what that changes.
pub(super) fn judge(
    groups: &mut Groups,
    arrivals: &BTreeMap<GroupId, Vec<MemberKey>>,
    again: BTreeSet<(GroupId, MemberKey)>,
    judge: impl Fn(&MemberKey, &Member) -> Judgement,
) -> Judged {
    let fresh: BTreeSet<_> = arrivals.iter().flat_map(|(group, keys)| keys.iter().map(|key| (*group, *key))).collect();
    let mut judged = Judged::default();
    for (group, key) in again.union(&fresh) {
        let Some(member) = groups.get_mut(group).and_then(|group| group.members.get_mut(key)) else { continue };
        let judgement = judge(key, member);
        if judgement == Judgement::Settled {
            judged.settled.push((*group, *key));
        }
        let remarkable = judgement.remarkable();
        let stood = member.stands && !fresh.contains(&(*group, *key));
        let verdict = judged.verdicts.entry(*group).or_default();
        match (stood, remarkable.is_some()) {
            (false, false) => {}
            (false, true) => {
                verdict.satisfied.push(Span::at(key.time));
                verdict.joined.push(*key);
            }
            (true, true) if member.remarkable == remarkable => verdict.touched.push(key.time),
            (true, _) => verdict.withdrawn.push(Span::at(key.time)),
        }
        member.stands = remarkable.is_some();
        member.remarkable = remarkable;
    }
    judged
}

/// The values of a match that were not seen, as `seen` says of a value's hash.
pub(super) fn unseen(member: &Member, seen: impl Fn(u128) -> bool) -> Vec<Box<str>> {
    member.values.iter().filter(|value| !seen(value_hash(value))).cloned().collect()
}

/// What a batch of observations taught: only what was not known before.
#[derive(Debug, Default)]
pub(super) struct Learnt {
    /// Value and day.
    pub sightings: Vec<(u128, chrono::NaiveDate)>,
    /// How many there was no room for.
    pub refused: u64,
    /// Values never seen before.
    pub values: BTreeSet<u128>,
    /// Days on which nothing had been seen before.
    pub days: BTreeSet<chrono::NaiveDate>,
}

impl Sightings {
    /// Takes note of a sighting; true if it is new. Beyond `most` values and days it is refused and counted.
    pub fn learn(&mut self, (value, day): (u128, chrono::NaiveDate), most: usize, learnt: &mut Learnt) -> bool {
        if self.len >= most {
            let is_known = self.days_of.get(&value).is_some_and(|days| days.contains(&day));
            learnt.refused += u64::from(!is_known);
            return false;
        }
        let days = self.days_of.entry(value).or_default();
        if days.is_empty() {
            learnt.values.insert(value);
        }
        if !days.insert(day) {
            return false;
        }
        self.len += 1;
        if self.days.insert(day) {
            learnt.days.insert(day);
        }
        learnt.sightings.push((value, day));
        true
    }
}
