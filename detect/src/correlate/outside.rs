//! `outside`: what `x-outside` means where the tenant's domains are not configured. Each match stands unless all its
//! domains were observed as domains of the tenant's mailbox owners, on any day, earlier or later. A match without values
//! was decided by the matcher and stands.
//!
//! This is the one judgement that a later observation may turn: the domain of a mailbox nobody had touched yet looks
//! foreign until somebody does. The finding says so, and is retracted then.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::finding::Context;
use super::state::{GroupId, Groups, Member, MemberKey, Sightings};
use super::triggers::{self, Judged, Judgement, Learnt, Triggers, unseen};
use super::window::Span;

pub(super) fn prepare(groups: &mut Groups, sightings: &Sightings) {
    triggers::prepare(groups, |_, member| judgement(sightings, member));
}

pub(super) fn judge(
    groups: &mut Groups,
    (sightings, triggers): (&Sightings, &Triggers),
    arrivals: &BTreeMap<GroupId, Vec<MemberKey>>,
    learnt: &Learnt,
) -> Judged {
    let ever = Span { start: DateTime::<Utc>::MIN_UTC, end: DateTime::<Utc>::MAX_UTC };
    let again: BTreeSet<_> = learnt.values.iter().flat_map(|value| triggers.looking_at(*value, ever)).collect();
    triggers::judge(groups, arrivals, again, |_, member| judgement(sightings, member))
}

fn judgement(sightings: &Sightings, member: &Member) -> Judgement {
    let foreign = unseen(member, |value| sightings.days_of.contains_key(&value));
    if member.values.is_empty() || !foreign.is_empty() { Judgement::Stands(foreign) } else { Judgement::Settled }
}

/// What the findings rest on.
pub(super) fn context(told: &[String]) -> Context {
    let note = "the tenant's domains are not configured: judged by the domains of the mailbox owners seen so far";
    let notes = if told.is_empty() { Vec::new() } else { vec![note.to_owned()] };
    Context { notes, usual: String::new() }
}
