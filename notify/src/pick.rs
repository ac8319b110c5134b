//! What a sink sends next. Pure: reads the tables, writes a draft.
//!
//! # The storm brake
//!
//! At most [`STORM_MESSAGES_MAX`] findings go out one by one in [`STORM_WINDOW`], the most severe first. Whatever is
//! due beyond that goes into a digest that says so and names every one of them; what comes after the digest waits for
//! room, or for the next digest one window later. Nothing is dropped, and nothing waits for more than a window.

use std::collections::HashSet;

use chrono::{DateTime, NaiveDate, Utc};
use schemas::tenant::Tenant;

use crate::body::{self, Context};
use crate::digest::{Digest, FINDINGS_MAX};
use crate::entry::{Attempt, Entry, Failure, How, Next};
use crate::heads::DayHeads;
use crate::outbox::{Draft, STORM_MESSAGES_MAX, STORM_WINDOW, Table};
use crate::plan::{UNKNOWN_TENANT, dead_letter, urgency};
use crate::sinks::Outgoing;

/// One delivery under way.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub outgoing: Outgoing,
    pub what: What,
    /// What no second delivery may go out for meanwhile, so that a receiver sees the revisions in order.
    pub key: String,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    Finding(Attempt),
    Digest(String),
    /// The heads of the archive, of a day.
    Heads(NaiveDate),
}

/// How a delivery ended, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Delivered,
    Again,
    Dead,
}

/// Chooses at most `limit` deliveries and begins them in the draft.
pub(crate) fn pick(
    draft: &mut Draft<'_>,
    sink: usize,
    table: &Table,
    in_flight: &HashSet<String>,
    room: Room,
    now: DateTime<Utc>,
) -> Vec<Flight> {
    let mut flights = Vec::new();
    let due = |digest: &&Digest| digest.due_at() <= now && !in_flight.contains(&digest.id);
    for digest in table.digests.values().filter(due).take(room.limit) {
        flights.push(begin_digest(draft, sink, digest));
    }
    let mut candidates = candidates(table, in_flight, now);
    candidates.sort_by_key(|(level, since, entry)| (*level, *since, &entry.finding_id));
    let mut keys = HashSet::new();
    let singles = room.limit.saturating_sub(flights.len()).min(room.singles);
    for (_, _, entry) in candidates.iter().take(singles) {
        // Two rows share a key only while one goes on for the other.
        if keys.insert(entry.dedup_key.as_str())
            && let Some(flight) = begin(draft, sink, entry, now)
        {
            flights.push(flight);
        }
    }
    let braked = room.singles == 0 && table.last_storm.is_none_or(|last| last + STORM_WINDOW <= now);
    if braked && flights.is_empty() {
        let stormed: Vec<&Entry> = candidates.iter().map(|(_, _, entry)| *entry).collect();
        collect(draft, sink, &stormed, now);
    }
    // Last: they must not take the place of anything that was found.
    let due = |heads: &&DayHeads| heads.due_at().is_some_and(|at| at <= now) && !in_flight.contains(&heads.id());
    let left = room.limit.saturating_sub(flights.len());
    flights.extend(table.heads.values().filter(due).take(left).map(|heads| begin_heads(draft, sink, heads)));
    flights
}

/// How much may be begun: messages in all, and findings one by one before the brake bites.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub limit: usize,
    pub singles: usize,
}

impl Room {
    pub(crate) fn of(table: &mut Table, limit: usize, flying: usize, paced: bool, now: DateTime<Utc>) -> Room {
        let singles =
            if paced { STORM_MESSAGES_MAX.saturating_sub(table.sent_lately(now) + flying) } else { usize::MAX };
        Room { limit, singles }
    }
}

type Candidate<'a> = (std::cmp::Reverse<schemas::finding::Level>, DateTime<Utc>, &'a Entry);

fn candidates<'a>(table: &'a Table, in_flight: &HashSet<String>, now: DateTime<Utc>) -> Vec<Candidate<'a>> {
    let mut found = Vec::new();
    for entry in table.waiting.iter().filter_map(|id| table.entries.get(id)) {
        let Some(waiting) = &entry.waiting else { continue };
        if entry.due_at().is_some_and(|at| at <= now) && !in_flight.contains(&entry.dedup_key) {
            found.push((urgency(waiting.finding.rule.level), waiting.since, entry));
        }
    }
    found
}

fn begin(draft: &mut Draft<'_>, sink: usize, entry: &Entry, now: DateTime<Utc>) -> Option<Flight> {
    let mut entry = entry.clone();
    let bytes = body_of(&entry)?;
    let attempt = entry.begin(now)?;
    let outgoing = Outgoing { id: attempt.webhook_id.clone(), body: bytes };
    let key = entry.dedup_key.clone();
    draft.put(sink, entry);
    Some(Flight { outgoing, what: What::Finding(attempt), key })
}

fn body_of(entry: &Entry) -> Option<Vec<u8>> {
    let context = Context {
        kind: entry.kind()?,
        incident_id: entry.incident_id.as_deref(),
        dedup_key: &entry.dedup_key,
        previous_id: entry.previous_id.as_deref(),
    };
    Some(body::body(&entry.waiting.as_ref()?.finding, &context))
}

fn begin_digest(draft: &mut Draft<'_>, sink: usize, digest: &Digest) -> Flight {
    let mut digest = digest.clone();
    digest.sending = true;
    let (id, bytes) = (digest.id.clone(), digest.body());
    draft.put_digest(sink, digest);
    Flight { outgoing: Outgoing { id: id.clone(), body: bytes }, what: What::Digest(id.clone()), key: id }
}

fn begin_heads(draft: &mut Draft<'_>, sink: usize, heads: &DayHeads) -> Flight {
    let begun = DayHeads { sending: true, ..heads.clone() };
    draft.put_heads(sink, begun);
    let (id, body) = (heads.id(), heads.body());
    Flight { outgoing: Outgoing { id: id.clone(), body }, what: What::Heads(heads.day()), key: id }
}

/// Puts what is due into digests, as many as it takes to name every finding.
fn collect(draft: &mut Draft<'_>, sink: usize, stormed: &[&Entry], now: DateTime<Utc>) {
    let mut tenants: Vec<&Tenant> = stormed.iter().map(|entry| &entry.tenant).collect();
    tenants.sort();
    tenants.dedup();
    for tenant in tenants {
        let of_tenant: Vec<&Entry> = stormed.iter().copied().filter(|entry| entry.tenant == *tenant).collect();
        for part in of_tenant.chunks(FINDINGS_MAX) {
            let mut digest: Option<Digest> = None;
            for entry in part {
                let Some(waiting) = &entry.waiting else { continue };
                let finding = &waiting.finding;
                let digest =
                    digest.get_or_insert_with(|| draft.new_digest(sink, finding, How::Storm, entry.partition, now));
                digest.add(finding);
                let mut listed = (*entry).clone();
                listed.list(finding, How::Storm, now);
                draft.put(sink, listed);
            }
            if let Some(digest) = digest {
                draft.put_digest(sink, digest);
            }
        }
    }
}

/// Takes in how a delivery ended; what is dead becomes a dead letter in the same step.
pub(crate) fn settle(
    draft: &mut Draft<'_>,
    (sink, name): (usize, &str),
    flight: &Flight,
    answer: &Result<(), Failure>,
    now: DateTime<Utc>,
) -> Ended {
    match &flight.what {
        What::Finding(attempt) => settle_finding(draft, (sink, name), attempt, answer, now),
        What::Digest(id) => settle_digest(draft, (sink, name), id, answer, now),
        What::Heads(day) => settle_heads(draft, (sink, name), *day, answer, now),
    }
}

fn settle_finding(
    draft: &mut Draft<'_>,
    (sink, name): (usize, &str),
    attempt: &Attempt,
    answer: &Result<(), Failure>,
    now: DateTime<Utc>,
) -> Ended {
    let Some(mut entry) = holder(draft, sink, &attempt.finding_id).cloned() else { return Ended::Again };
    // The row has to be read before it is given up: its body is what the dead letter holds.
    let body = body_of(&entry);
    let reason = entry.settle(attempt, answer, now);
    let ended = match (&reason, answer) {
        (Some(reason), _) => {
            bury(draft, name, &mut entry, body, reason, now);
            Ended::Dead
        }
        (None, Ok(())) => Ended::Delivered,
        (None, Err(_)) => Ended::Again,
    };
    draft.put(sink, entry);
    ended
}

/// The row that holds a finding's key now: another may have gone on for it while it was under way.
fn holder<'a>(draft: &'a Draft<'_>, sink: usize, finding_id: &str) -> Option<&'a Entry> {
    let mut entry = draft.entry(sink, finding_id)?;
    let mut passed = HashSet::new();
    while let Some(next) = &entry.continued_by
        && passed.insert(next.as_str())
        && let Some(heir) = draft.entry(sink, next)
    {
        entry = heir;
    }
    Some(entry)
}

/// Gives a waiting row up: marked dead, and a dead letter with the bytes that were not taken.
pub(crate) fn bury(
    draft: &mut Draft<'_>,
    name: &str,
    entry: &mut Entry,
    body: Option<Vec<u8>>,
    reason: &str,
    now: DateTime<Utc>,
) {
    let Some(waiting) = entry.bury(reason, now) else { return };
    let place = body::webhook_id(&waiting.finding);
    let letter = dead_letter(
        entry.tenant.clone(),
        &format!("sink:{name}"),
        place,
        reason.to_owned(),
        body.unwrap_or_default(),
        now,
    );
    draft.dead_letter(&letter);
}

fn settle_digest(
    draft: &mut Draft<'_>,
    (sink, name): (usize, &str),
    id: &str,
    answer: &Result<(), Failure>,
    now: DateTime<Utc>,
) -> Ended {
    let Some(mut digest) = draft.digest(sink, id).cloned() else { return Ended::Again };
    let Err(failure) = answer else {
        draft.remove_digest(sink, &digest);
        return Ended::Delivered;
    };
    digest.sending = false;
    match digest.tries.failed(failure, id, now) {
        Next::Again => {
            draft.put_digest(sink, digest);
            Ended::Again
        }
        Next::Dead(reason) => {
            bury_digest(draft, (sink, name), &digest, reason, now);
            Ended::Dead
        }
    }
}

fn bury_digest(
    draft: &mut Draft<'_>,
    (sink, name): (usize, &str),
    digest: &Digest,
    reason: String,
    now: DateTime<Utc>,
) {
    let source = format!("sink:{name}");
    let letter = dead_letter(digest.tenant.clone(), &source, digest.id.clone(), reason, digest.body(), now);
    draft.dead_letter(&letter);
    draft.remove_digest(sink, digest);
}

fn settle_heads(
    draft: &mut Draft<'_>,
    (sink, name): (usize, &str),
    day: NaiveDate,
    answer: &Result<(), Failure>,
    now: DateTime<Utc>,
) -> Ended {
    let Some(mut heads) = draft.heads(sink, day).cloned() else { return Ended::Again };
    heads.sending = false;
    let next = answer.as_ref().err().map(|failure| heads.tries.failed(failure, &heads.id(), now));
    let ended = match next {
        None => Ended::Delivered,
        Some(Next::Again) => Ended::Again,
        Some(Next::Dead(reason)) => {
            bury_heads(draft, name, &heads, reason, now);
            Ended::Dead
        }
    };
    heads.ended = ended != Ended::Again;
    draft.put_heads(sink, heads);
    draft.forget_ended_heads(sink);
    ended
}

/// They speak of no tenant; a dead letter names one.
fn bury_heads(draft: &mut Draft<'_>, name: &str, heads: &DayHeads, reason: String, now: DateTime<Utc>) {
    let Ok(tenant) = UNKNOWN_TENANT.parse::<Tenant>() else { return };
    draft.dead_letter(&dead_letter(tenant, &format!("sink:{name}"), heads.id(), reason, heads.body(), now));
}

/// Gives up what has waited longer than the schedule lasts at a sink that has been disabled: the tables are not to
/// grow for as long as nobody looks.
pub(crate) fn expire(
    draft: &mut Draft<'_>,
    (sink, name): (usize, &str),
    table: &Table,
    reason: &str,
    before: DateTime<Utc>,
    now: DateTime<Utc>,
) -> usize {
    let mut expired = 0;
    for entry in table.waiting.iter().filter_map(|id| table.entries.get(id)) {
        if entry.waiting.as_ref().is_some_and(|waiting| waiting.since < before) {
            let mut entry = entry.clone();
            let body = body_of(&entry);
            bury(draft, name, &mut entry, body, reason, now);
            draft.put(sink, entry);
            expired += 1;
        }
    }
    for digest in table.digests.values().filter(|digest| digest.created < before) {
        bury_digest(draft, (sink, name), digest, reason.to_owned(), now);
        expired += 1;
    }
    for heads in table.waiting_heads().filter(|heads| heads.since < before) {
        bury_heads(draft, name, heads, reason.to_owned(), now);
        draft.put_heads(sink, DayHeads { ended: true, sending: false, ..heads.clone() });
        expired += 1;
    }
    expired
}
