//! `temporal_ordered` with `x-same`: the records of some steps have a value in common, though the group is about another.
//!
//! For each value there is a sequence of its own: the records of the sharing steps that have it, and all records of the
//! free steps. A chain is one of [`temporal_ordered`] in there. So a session that was seen before its user's password was
//! reset, and is seen after it, is a chain, and two sessions, one before and one after, are none.
//!
//! A record of a sharing step stands (is counted and shown) once it lies in the span of a chain of one of its values,
//! else a finding about one session would tell of all others its user had at that time; records of free steps stand
//! always, and are told where they lie in an episode. More records can only add chains and make their spans longer, so
//! nothing is ever taken back, and what stands is a function of the set.
//!
//! Cost: a record of a sharing step looks at those of its own values, and at those of free steps, within one timespan of
//! it; one of a free step at each value that was seen within a timespan of it, so free steps are for what is rare. The
//! first step shares (the rule language asks for it): what a chain may begin with is then one value's and not everybody's.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;

use super::episode::Verdict;
use super::state::{Group, Member, MemberKey, Members};
use super::temporal_ordered::{places, spans};
use super::window::{Span, earlier, later, neighbourhoods};
use crate::rule::model::Sequence;

/// The members of one group, by what they share. Derived.
#[derive(Clone, Debug, Default)]
pub(super) struct ByValue {
    shared: BTreeMap<Box<str>, BTreeSet<MemberKey>>,
    free: BTreeSet<MemberKey>,
}

pub(super) fn judge(group: &mut Group, sequence: &Sequence, fresh: &[MemberKey]) -> Verdict {
    let Group { members, by_value, .. } = group;
    let (touched, mut joined) = by_value.take_in(members, sequence, fresh);
    let mut satisfied = Vec::new();
    for (value, fresh) in touched {
        let Some(shared) = by_value.shared.get(&value) else { continue };
        for anchors in neighbourhoods(&fresh, sequence.timespan) {
            let reach = Span { start: anchors.start, end: later(anchors.end, sequence.timespan) };
            let inside = merged(members, within(shared, reach), within(&by_value.free, reach));
            let found = spans(&places(inside.into_iter(), sequence), anchors, sequence.timespan);
            for key in found.iter().flat_map(|span| within(shared, *span)) {
                if let Some(member) = members.get_mut(key).filter(|member| !member.stands) {
                    member.stands = true;
                    joined.push(*key);
                }
            }
            satisfied.extend(found);
        }
    }
    joined.sort_unstable();
    Verdict { satisfied, joined, ..Verdict::default() }
}

/// Builds everything from the members: after a load.
pub(super) fn prepare(group: &mut Group, sequence: &Sequence) {
    let keys: Vec<MemberKey> = group.members.keys().copied().collect();
    judge(group, sequence, &keys);
}

/// New members, in order, by the value whose chains they may be in.
type Touched = BTreeMap<Box<str>, Vec<MemberKey>>;

impl ByValue {
    /// Puts new members in their places. Returns whose chains they may be in, and those that stand whatever the chains.
    fn take_in(
        &mut self,
        members: &mut Members,
        sequence: &Sequence,
        fresh: &[MemberKey],
    ) -> (Touched, Vec<MemberKey>) {
        let (mut touched, mut free) = (Touched::new(), Vec::new());
        for key in fresh {
            let Some(member) = members.get_mut(key) else { continue };
            if !sequence.shares(&member.name) {
                free.push(*key);
                continue;
            }
            member.stands = false;
            for value in &member.values {
                self.shared.entry(value.clone()).or_default().insert(*key);
                touched.entry(value.clone()).or_default().push(*key);
            }
        }
        for key in &free {
            let around = around(*key, sequence.timespan);
            for (value, _) in self.shared.iter().filter(|(_, keys)| within(keys, around).next().is_some()) {
                touched.entry(value.clone()).or_default().push(*key);
            }
        }
        touched.values_mut().for_each(|keys| keys.sort_unstable());
        self.free.extend(&free);
        (touched, free)
    }
}

fn around(key: MemberKey, timespan: TimeDelta) -> Span {
    Span { start: earlier(key.time, timespan), end: later(key.time, timespan) }
}

fn within(keys: &BTreeSet<MemberKey>, span: Span) -> impl Iterator<Item = &MemberKey> {
    // A range from later to earlier would panic; no span here is one.
    let end = span.end.max(span.start);
    keys.range(MemberKey::first_at(span.start)..=MemberKey::last_at(end))
}

/// The members of two sets of keys, in order.
fn merged<'a>(
    members: &'a Members,
    shared: impl Iterator<Item = &'a MemberKey>,
    free: impl Iterator<Item = &'a MemberKey>,
) -> Vec<(&'a MemberKey, &'a Member)> {
    let all = shared.chain(free).filter_map(|key| members.get_key_value(key));
    let mut all: Vec<_> = all.map(|(key, member)| (key, &**member)).collect();
    all.sort_unstable_by_key(|(key, _)| **key);
    all
}
