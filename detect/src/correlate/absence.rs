//! `absence`: what was to follow and did not: auditing switched off and not on again within the hour.
//!
//! A match of a rule that is waited on (a *trigger*, at t) stands if no match of an expected rule of its group lies in
//! [t, t + timespan] and everything up to t + timespan + delay is known to be there: the tenant's completeness marks say
//! so, and nothing else can. Until then it is undecided and silent. So what stands is a function of the set and of how
//! far it is complete, and as completeness only ever grows, of the set alone in the end. A record that comes after all
//! takes the finding back.
//!
//! What is decided expires like the members of windows. What the archive gives back for a late match may hold an expected
//! record whose own match is still on its way, so nothing that is brought back says what was told: a late match judges all
//! episodes near it anew.
//!
//! How far the shard has decided is kept in a row: who loads it must not take for told what was never told. When that
//! moves, the triggers between are decided; a batch costs those, and the neighbourhoods of its expected records.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::episode::Verdict;
use super::state::{Group, GroupId, Groups, Member, MemberKey, Members};
use super::window::{Span, earlier, later, within};
use crate::rule::model::Absence;

/// Builds what stands from the members: after a load.
pub(super) fn prepare(group: &mut Group, rule: &Absence, complete: Option<DateTime<Utc>>) {
    let keys: Vec<MemberKey> = group.members.keys().copied().collect();
    for key in keys {
        let stands = stands(&group.members, rule, complete, key);
        if let Some(member) = group.members.get_mut(&key) {
            member.stands = stands;
        }
    }
}

/// Lets every trigger stand: what may have been told at some time.
pub(super) fn let_all_stand(group: &mut Group, rule: &Absence) {
    group.members.values_mut().for_each(|member| member.stands = !is_expected(rule, member));
}

/// Judges what arrived, and what is decided now that the set is complete up to `complete.1` and was up to `complete.0`.
pub(super) fn judge(
    groups: &mut Groups,
    rule: &Absence,
    arrivals: &BTreeMap<GroupId, Vec<MemberKey>>,
    complete: (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
) -> BTreeMap<GroupId, Verdict> {
    let mut verdicts = BTreeMap::new();
    for (id, group) in groups {
        let fresh = arrivals.get(id).map_or(&[][..], Vec::as_slice);
        let verdict = of_group(group, rule, fresh, complete);
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
    (before, now): (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
) -> Option<Verdict> {
    let mut again: BTreeSet<MemberKey> = fresh.iter().copied().collect();
    for key in fresh {
        if group.members.get(key).is_some_and(|member| is_expected(rule, member)) {
            let reach = Span { start: earlier(key.time, rule.timespan), end: key.time };
            again.extend(within(&group.members, reach).map(|(key, _)| *key));
        }
    }
    if let Some(now) = now.filter(|_| now > before) {
        let wait = rule.wait();
        let start = before.map_or(DateTime::<Utc>::MIN_UTC, |before| earlier(before, wait));
        let decided = Span { start, end: earlier(now, wait) };
        if decided.start <= decided.end {
            again.extend(within(&group.members, decided).map(|(key, _)| *key));
        }
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

fn stands(members: &Members, rule: &Absence, complete: Option<DateTime<Utc>>, key: MemberKey) -> bool {
    let is_trigger = members.get(&key).is_some_and(|member| !is_expected(rule, member));
    let is_decided = complete.is_some_and(|complete| later(key.time, rule.wait()) <= complete);
    let followed = Span { start: key.time, end: later(key.time, rule.timespan) };
    is_trigger && is_decided && !within(members, followed).any(|(_, member)| is_expected(rule, member))
}
