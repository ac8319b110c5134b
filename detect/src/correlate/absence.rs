//! `absence`: what was to follow and did not: auditing switched off and not on again within the hour.
//!
//! A match of a rule that is waited on (a *trigger*, at t) stands if no match of an expected rule of its group lies in
//! [t, t + timespan] and everything in there is known to have come: the tenant's completeness marks say so, from when its
//! feeds were first collected until `delay` before them; and so does who imports files that hold all of a stretch. Nothing
//! else can. Until then it is undecided and silent. So what stands is a function of the set and of where it is whole, and as
//! that only ever grows, of the set alone in the end. A record that comes after all takes the finding back.
//!
//! What is decided expires like the members of windows. What the archive gives back for a late match may hold an expected
//! record whose own match is still on its way, so nothing that is brought back says what was told: a late match judges all
//! episodes near it anew.
//!
//! Where the shard has decided is kept in a row: who loads it must not take for told what was never told. When that
//! grows, the triggers there are decided; a batch costs those, and the neighbourhoods of its expected records.

use std::collections::{BTreeMap, BTreeSet};

use super::episode::Verdict;
use super::state::{Group, GroupId, Groups, Member, MemberKey, Members};
use super::window::{Span, earlier, later, within, without};
use crate::rule::model::Absence;

/// Builds what stands from the members: after a load.
pub(super) fn prepare(group: &mut Group, rule: &Absence, whole: &[Span]) {
    let keys: Vec<MemberKey> = group.members.keys().copied().collect();
    for key in keys {
        let stands = stands(&group.members, rule, whole, key);
        if let Some(member) = group.members.get_mut(&key) {
            member.stands = stands;
        }
    }
}

/// Lets every trigger stand: what may have been told at some time.
pub(super) fn let_all_stand(group: &mut Group, rule: &Absence) {
    group.members.values_mut().for_each(|member| member.stands = !is_expected(rule, member));
}

/// Where triggers are decided when the set is known to be whole in `now` and was in `before`.
pub(super) fn grown(rule: &Absence, before: &[Span], now: &[Span]) -> Vec<Span> {
    let parts = without(now, before).into_iter();
    parts.map(|span| Span { start: earlier(span.start, rule.timespan), ..span }).collect()
}

/// Judges what arrived, and what lies where something has been [`grown`] now that the set is whole in `now`.
pub(super) fn judge(
    groups: &mut Groups,
    rule: &Absence,
    arrivals: &BTreeMap<GroupId, Vec<MemberKey>>,
    (grown, now): (&[Span], &[Span]),
) -> BTreeMap<GroupId, Verdict> {
    let mut verdicts = BTreeMap::new();
    for (id, group) in groups {
        let fresh = arrivals.get(id).map_or(&[][..], Vec::as_slice);
        let verdict = of_group(group, rule, fresh, (grown, now));
        if let Some(verdict) = verdict {
            verdicts.insert(*id, verdict);
        }
    }
    verdicts
}

fn of_group(
    group: &mut Group,
    rule: &Absence,
    fresh: &[MemberKey],
    (grown, now): (&[Span], &[Span]),
) -> Option<Verdict> {
    let mut again: BTreeSet<MemberKey> = fresh.iter().copied().collect();
    for key in fresh {
        if group.members.get(key).is_some_and(|member| is_expected(rule, member)) {
            let reach = Span { start: earlier(key.time, rule.timespan), end: key.time };
            again.extend(within(&group.members, reach).map(|(key, _)| *key));
        }
    }
    for span in grown {
        again.extend(within(&group.members, *span).map(|(key, _)| *key));
    }
    if again.is_empty() {
        return None;
    }
    let fresh: BTreeSet<MemberKey> = fresh.iter().copied().collect();
    let mut verdict = Verdict::default();
    for key in again {
        let stands = stands(&group.members, rule, now, key);
        let Some(member) = group.members.get_mut(&key) else { continue };
        let stood = member.stands && !fresh.contains(&key);
        member.stands = stands;
        match (stood, stands) {
            (false, true) => {
                verdict.satisfied.push(Span::at(key.time));
                verdict.joined.push(key);
            }
            (true, false) => verdict.withdrawn.push(Span::at(key.time)),
            _ => {}
        }
    }
    Some(verdict)
}

fn is_expected(rule: &Absence, member: &Member) -> bool {
    rule.expect.iter().any(|name| **name == *member.name)
}

/// Whether a member waits for the set to be whole.
pub(super) fn is_waiting(rule: &Absence, whole: &[Span], (key, member): (MemberKey, &Member)) -> bool {
    !is_expected(rule, member) && !is_decided(rule, whole, key)
}

fn is_decided(rule: &Absence, whole: &[Span], key: MemberKey) -> bool {
    let at = whole.partition_point(|span| span.start <= key.time);
    whole[..at].last().is_some_and(|span| later(key.time, rule.timespan) <= span.end)
}

fn stands(members: &Members, rule: &Absence, whole: &[Span], key: MemberKey) -> bool {
    let is_trigger = members.get(&key).is_some_and(|member| !is_expected(rule, member));
    let followed = Span { start: key.time, end: later(key.time, rule.timespan) };
    is_trigger
        && is_decided(rule, whole, key)
        && !within(members, followed).any(|(_, member)| is_expected(rule, member))
}
