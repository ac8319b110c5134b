//! What a batch of findings means for the outbox: which sinks want which, what goes into a digest, and under which key
//! an episode goes on. Pure: reads a draft, writes a draft.
//!
//! # One key for one episode
//!
//! A late record can give an episode another id. The old finding is then `superseded` (or `merged`) and names its
//! successor. For each sink:
//!
//! | the old one | the successor | what the receiver sees |
//! |---|---|---|
//! | has reached it, or may have | has not | the successor as an update under the old `dedup_key`, with `previous_id` |
//! | has reached it, or may have | has too | the old one is closed and names its successor |
//! | has not | either | nothing of the old one |
//!
//! The two findings may come in either order, and in different batches; only if the successor has gone out before the
//! old one's end is known are there two alerts, of which one is closed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use runtime::log::Message;
use schemas::finding::{Finding, Level, Status};
use schemas::message::{
    ArchiveHeads, DEAD_LETTER_BYTES_MAX, DEAD_LETTER_PREFIX_BYTES, DeadLetter, FindingMessage, WholeBytes,
};
use schemas::tenant::Tenant;
use sha2::{Digest as _, Sha256};

use crate::entry::{Entry, How};
use crate::heads::DayHeads;
use crate::outbox::Draft;
use crate::settings::Sink;

/// The tenant that is named where none can be: of messages that cannot be read, and of what speaks of no tenant.
pub(crate) const UNKNOWN_TENANT: &str = "unknown";

/// Takes a batch in: messages of the findings topic, each with its partition. Returns when the
/// newest heartbeat among them was sent.
pub(crate) fn take_batch(
    draft: &mut Draft<'_>,
    sinks: &[Sink],
    batch: &[(u32, Message)],
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    let mut heartbeat = None;
    let mut findings: Vec<(u32, Finding)> = Vec::with_capacity(batch.len());
    for (partition, message) in batch {
        match serde_json::from_slice::<FindingMessage>(&message.value) {
            Ok(FindingMessage::Finding(finding)) => findings.push((*partition, *finding)),
            Ok(FindingMessage::ArchiveHeads(heads)) => offer_heads(draft, sinks, &heads, *partition, now),
            Ok(FindingMessage::Heartbeat(beat)) => heartbeat = heartbeat.max(Some(beat.sent)),
            Err(error) => reject(draft, *partition, message, &error, now),
        }
    }
    for (partition, finding) in &findings {
        draft.incidents.take(finding, *partition, now);
    }
    for (partition, finding) in &findings {
        for (index, sink) in sinks.iter().enumerate() {
            offer(draft, (index, sink), finding, *partition, now);
        }
    }
    assign_incidents(draft);
    let tenants: BTreeSet<&Tenant> = findings.iter().map(|(_, finding)| &finding.tenant).collect();
    tenants.into_iter().for_each(|tenant| draft.incidents.evict(tenant));
    heartbeat
}

/// The heads of a day, for the sinks that ask for them. Days that have ended and are not the newest are forgotten.
fn offer_heads(draft: &mut Draft<'_>, sinks: &[Sink], heads: &ArchiveHeads, partition: u32, now: DateTime<Utc>) {
    for (index, _) in sinks.iter().enumerate().filter(|(_, sink)| sink.archive_heads) {
        if DayHeads::is_news(heads, draft.newest_heads(index), now.date_naive()) {
            draft.put_heads(index, DayHeads::new(heads, partition, now));
            draft.forget_ended_heads(index);
        }
    }
}

/// One finding, one sink.
fn offer(draft: &mut Draft<'_>, (index, sink): (usize, &Sink), finding: &Finding, partition: u32, now: DateTime<Utc>) {
    let wanted = finding.rule.level >= sink.min_level;
    let mut entry = match draft.entry(index, &finding.id) {
        Some(entry) if finding.revision <= entry.seen_revision => return,
        Some(entry) => entry.clone(),
        // Nobody has been told of it, and nobody is to be.
        None if !wanted || !finding.notify || !finding.status.stands() => return,
        None => Entry::new(&finding.tenant, &finding.id, partition, now),
    };
    if entry.continued_by.is_some() && finding.status.stands() {
        // It stands again although another goes on under its key: an episode of its own, which needs a key of its own.
        let seen_revision = entry.seen_revision;
        entry = Entry::new(&finding.tenant, &finding.id, entry.partition, now);
        entry.dedup_key = format!("{}_{}", finding.id, finding.revision);
        entry.seen_revision = seen_revision;
    }
    match (&finding.superseded_by, finding.status) {
        (_, Status::Superseded | Status::Merged) if entry.continued_by.is_some() => {
            entry.seen_revision = finding.revision
        }
        (Some(successor), Status::Superseded | Status::Merged) if entry.reached() && *successor != finding.id => {
            hand_over(draft, index, &mut entry, finding, successor, now);
        }
        _ => match digest_reason(draft, (index, sink), &entry, finding, now) {
            Some(how) => list(draft, index, &mut entry, finding, how, now),
            None if wanted || !finding.status.stands() => entry.offer(finding, now),
            None => entry.seen_revision = finding.revision,
        },
    }
    draft.put(index, entry);
}

/// Gives the key of a finding that has reached the sink to its successor, or closes it where that has its own.
fn hand_over(
    draft: &mut Draft<'_>,
    sink: usize,
    entry: &mut Entry,
    finding: &Finding,
    successor: &str,
    now: DateTime<Utc>,
) {
    let known = draft.entry(sink, successor);
    if known.is_some_and(|known| known.reached() || known.continued_by.is_some()) {
        entry.offer(finding, now);
        return;
    }
    let mut heir = match known {
        Some(known) => known.clone(),
        None => Entry::new(&finding.tenant, successor, entry.partition, now),
    };
    entry.seen_revision = finding.revision;
    heir.inherit(entry, now);
    if let Some(incident_id) = &heir.incident_id {
        draft.incidents.fix(&heir.tenant, successor, incident_id);
    }
    draft.put(sink, heir);
}

/// Why a finding goes into a digest instead of a message of its own. What has gone out by itself goes on by itself: an
/// episode that grows for longer than `max_age` is still the same alert.
fn digest_reason(
    draft: &Draft<'_>,
    (index, sink): (usize, &Sink),
    entry: &Entry,
    finding: &Finding,
    now: DateTime<Utc>,
) -> Option<How> {
    let eligible = finding.status.stands() && finding.notify && finding.rule.level >= sink.min_level;
    if !eligible || entry.reached_singly() {
        return None;
    }
    if sink.max_age.is_some_and(|max_age| now - finding.first_event > max_age) {
        return Some(How::Old);
    }
    (entry.waiting.is_none() && draft.is_backlogged(index)).then_some(How::Backlog)
}

fn list(draft: &mut Draft<'_>, sink: usize, entry: &mut Entry, finding: &Finding, how: How, now: DateTime<Utc>) {
    if entry.is_news(finding) {
        let mut digest = draft.open_digest(sink, finding, how, entry.partition, now);
        digest.add(finding);
        draft.put_digest(sink, digest);
        entry.list(finding, how, now);
    }
    entry.seen_revision = finding.revision;
}

/// Fixes the incident of everything that has come to wait and has none.
fn assign_incidents(draft: &mut Draft<'_>) {
    let mut wanting: BTreeMap<Tenant, Vec<(usize, Entry)>> = BTreeMap::new();
    for (sink, entry) in draft.changed_waiting() {
        if entry.incident_id.is_none() {
            wanting.entry(entry.tenant.clone()).or_default().push((sink, entry));
        }
    }
    for (tenant, entries) in wanting {
        let mut ids: Vec<String> = entries.iter().map(|(_, entry)| entry.finding_id.clone()).collect();
        ids.sort();
        ids.dedup();
        let assigned: HashMap<String, String> = draft.incidents.assign(&tenant, &ids);
        for (sink, mut entry) in entries {
            entry.incident_id = assigned.get(&entry.finding_id).cloned();
            draft.put(sink, entry);
        }
    }
}

/// A message that is not a finding: our own fault, or a damaged log. Kept, and passed over.
fn reject(draft: &mut Draft<'_>, partition: u32, message: &Message, error: &serde_json::Error, now: DateTime<Utc>) {
    let place = format!("findings/{partition}/{}", message.offset);
    tracing::error!(event = "finding_unreadable", place, error = %error);
    let named = serde_json::from_slice::<serde_json::Value>(&message.value).ok();
    let named = named.and_then(|value| value.get("tenant")?.as_str()?.parse::<Tenant>().ok());
    let Some(tenant) = named.or_else(|| UNKNOWN_TENANT.parse().ok()) else { return };
    let reason = format!("not a finding: {error}");
    draft.dead_letter(&dead_letter(tenant, "notify", place, reason, message.value.clone(), now));
}

/// A dead letter, cut where it is too large.
pub(crate) fn dead_letter(
    tenant: Tenant,
    source: &str,
    place: String,
    reason: String,
    mut bytes: Vec<u8>,
    received: DateTime<Utc>,
) -> DeadLetter {
    let whole = (bytes.len() > DEAD_LETTER_BYTES_MAX).then(|| WholeBytes {
        length: bytes.len() as u64,
        sha256: Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
    });
    if whole.is_some() {
        bytes.truncate(DEAD_LETTER_PREFIX_BYTES);
    }
    DeadLetter { tenant, source: source.to_owned(), place, reason, received, bytes, whole }
}

/// Highest first: what goes out while there is room.
pub(crate) fn urgency(level: Level) -> std::cmp::Reverse<Level> {
    std::cmp::Reverse(level)
}

#[cfg(test)]
mod tests;
