use schemas::finding::SCHEMA;
use schemas::message::ArchiveHead;

use super::*;
use crate::outbox::{Outbox, WAITING_MAX};
use crate::samples::{finding, start};

fn message(offset: u64, finding: &Finding) -> (u32, Message) {
    let value = serde_json::to_vec(&FindingMessage::Finding(Box::new(finding.clone()))).unwrap();
    (0, Message { offset, value })
}

fn take(outbox: &mut Outbox, sink: &Sink, findings: &[Finding]) {
    let batch: Vec<(u32, Message)> = (0..).zip(findings).map(|(offset, finding)| message(offset, finding)).collect();
    let mut draft = outbox.draft();
    take_batch(&mut draft, std::slice::from_ref(sink), &batch, start());
    let changes = draft.finish();
    outbox.apply(changes);
}

fn deliver(outbox: &mut Outbox, id: &str) {
    let mut draft = outbox.draft();
    let mut entry = draft.entry(0, id).unwrap().clone();
    let attempt = entry.begin(start()).unwrap();
    entry.settle(&attempt, &Ok(()), start());
    draft.put(0, entry);
    let changes = draft.finish();
    outbox.apply(changes);
}

fn superseded(id: &str, by: &str) -> Finding {
    Finding { status: Status::Superseded, superseded_by: Some(by.into()), ..finding(id, 2) }
}

/// Every entry: id, key, and what waits.
fn rows(outbox: &Outbox) -> Vec<String> {
    let row = |entry: &Entry| {
        let waiting = entry.waiting.as_ref().map(|waiting| waiting.finding.revision);
        let kind = entry.kind().map(|kind| kind.as_str());
        format!("{} {} {waiting:?} {kind:?}", entry.finding_id, entry.dedup_key)
    };
    outbox.tables[0].entries.values().map(row).collect()
}

#[test]
fn the_successor_takes_the_key_in_either_order() {
    let sink = Sink::new("soc", "stdout");
    for order in [["old", "new"], ["new", "old"]] {
        let mut outbox = Outbox::new(vec!["soc".into()]);
        take(&mut outbox, &sink, &[finding("a", 1)]);
        deliver(&mut outbox, "a");
        for which in order {
            let finding = if which == "old" { superseded("a", "b") } else { finding("b", 1) };
            take(&mut outbox, &sink, &[finding]);
        }
        assert_eq!(rows(&outbox), ["a a None None", "b a Some(1) Some(\"finding.updated\")"], "{order:?}");
        // Both know each other by one incident.
        let incidents: Vec<_> = outbox.tables[0].entries.values().map(|entry| entry.incident_id.clone()).collect();
        assert_eq!(incidents[0], incidents[1]);
    }
}

#[test]
fn a_successor_that_has_gone_out_already_leaves_the_old_one_to_be_closed() {
    let sink = Sink::new("soc", "stdout");
    let mut outbox = Outbox::new(vec!["soc".into()]);
    take(&mut outbox, &sink, &[finding("a", 1), finding("b", 1)]);
    deliver(&mut outbox, "a");
    deliver(&mut outbox, "b");
    take(&mut outbox, &sink, &[superseded("a", "b")]);
    assert_eq!(rows(&outbox), ["a a Some(2) Some(\"finding.closed\")", "b b None None"]);
}

#[test]
fn a_finding_that_stands_again_has_a_key_of_its_own() {
    let sink = Sink::new("soc", "stdout");
    let mut outbox = Outbox::new(vec!["soc".into()]);
    take(&mut outbox, &sink, &[finding("a", 1)]);
    deliver(&mut outbox, "a");
    take(&mut outbox, &sink, &[superseded("a", "b"), finding("b", 1), finding("a", 3)]);
    assert_eq!(rows(&outbox), ["a a_3 Some(3) Some(\"finding.created\")", "b a Some(1) Some(\"finding.updated\")"]);
}

#[test]
fn a_finding_that_names_itself_or_a_circle_ends_nothing() {
    let sink = Sink::new("soc", "stdout");
    let mut outbox = Outbox::new(vec!["soc".into()]);
    take(&mut outbox, &sink, &[finding("a", 1)]);
    deliver(&mut outbox, "a");
    take(&mut outbox, &sink, &[superseded("a", "a")]);
    assert_eq!(rows(&outbox), ["a a Some(2) Some(\"finding.closed\")"]);
    let mut outbox = Outbox::new(vec!["soc".into()]);
    take(&mut outbox, &sink, &[finding("a", 1)]);
    deliver(&mut outbox, "a");
    take(&mut outbox, &sink, &[superseded("a", "b"), superseded("b", "a")]);
    assert_eq!(rows(&outbox), ["a a None None", "b a Some(2) Some(\"finding.closed\")"]);
}

#[test]
fn above_the_limit_findings_wait_in_a_digest() {
    let sink = Sink::new("soc", "stdout");
    let mut outbox = Outbox::new(vec!["soc".into()]);
    let findings: Vec<Finding> =
        (0..WAITING_MAX).map(|n| Finding { entities: vec![], ..finding(&format!("{n}"), 1) }).collect();
    for part in findings.chunks(2_000) {
        take(&mut outbox, &sink, part);
    }
    assert_eq!(outbox.tables[0].waiting.len(), WAITING_MAX);
    take(&mut outbox, &sink, &[finding("more", 1), finding("0", 2)]);
    assert_eq!(outbox.tables[0].waiting.len(), WAITING_MAX);
    let digests: Vec<_> = outbox.tables[0].digests.values().collect();
    assert_eq!((digests.len(), digests[0].count, digests[0].findings[0].as_str()), (1, 1, "more_1_open"));
}

#[test]
fn a_dead_letter_that_is_too_large_keeps_its_beginning_and_its_hash() {
    let tenant: Tenant = "contoso".parse().unwrap();
    let letter =
        dead_letter(tenant, "sink:soc", SCHEMA.into(), "no".into(), vec![b'x'; DEAD_LETTER_BYTES_MAX + 1], start());
    assert_eq!(letter.bytes.len(), DEAD_LETTER_PREFIX_BYTES);
    assert_eq!(letter.whole.unwrap().length, DEAD_LETTER_BYTES_MAX as u64 + 1);
}

fn heads(day: i64, commits: u64) -> ArchiveHeads {
    let head = ArchiveHead { table: "events".into(), version: commits - 1, commits, head: format!("{commits:064x}") };
    ArchiveHeads { taken: start() + chrono::TimeDelta::days(day), public_key: None, heads: vec![head] }
}

/// Offers them on a day, and returns the days of which there is a row.
fn offered(outbox: &mut Outbox, sink: &Sink, today: i64, heads: ArchiveHeads) -> Vec<String> {
    let now = start() + chrono::TimeDelta::days(today);
    let value = serde_json::to_vec(&FindingMessage::ArchiveHeads(heads)).unwrap();
    let mut draft = outbox.draft();
    take_batch(&mut draft, std::slice::from_ref(sink), &[(0, Message { offset: 0, value })], now);
    let changes = draft.finish();
    outbox.apply(changes);
    outbox.tables[0].heads.keys().map(ToString::to_string).collect()
}

#[test]
fn heads_are_told_once_a_day_when_they_are_others_to_sinks_that_ask() {
    let mut outbox = Outbox::new(vec!["soc".into()]);
    let mut sink = Sink::new("soc", "stdout");
    assert!(offered(&mut outbox, &sink, 0, heads(0, 1)).is_empty(), "nobody has asked");
    sink.archive_heads = true;
    assert_eq!(offered(&mut outbox, &sink, 0, heads(0, 1)), ["2026-11-22"]);
    assert_eq!(offered(&mut outbox, &sink, 0, heads(0, 2)), ["2026-11-22"], "the day is told");
    assert_eq!(offered(&mut outbox, &sink, 1, heads(1, 1)), ["2026-11-22"], "nothing has changed");
    // One that waits stays when the next day comes, and one that has ended is known by the newest alone.
    assert_eq!(offered(&mut outbox, &sink, 2, heads(2, 3)), ["2026-11-22", "2026-11-24"]);
    outbox.tables[0].heads.values_mut().for_each(|heads| heads.ended = true);
    assert_eq!(offered(&mut outbox, &sink, 3, heads(3, 4)), ["2026-11-25"]);
    assert_eq!(offered(&mut outbox, &sink, 3, heads(1, 9)), ["2026-11-25"], "a day that is past");
    assert_eq!(outbox.tables[0].queue_length(), 1);
    let empty = ArchiveHeads { heads: Vec::new(), ..heads(9, 1) };
    assert_eq!(offered(&mut outbox, &sink, 9, empty), ["2026-11-25"]);
    let row = outbox.tables[0].heads.values().next().unwrap();
    let body: serde_json::Value = serde_json::from_slice(&row.body()).unwrap();
    assert_eq!((body["type"].as_str(), body["data"]["id"].as_str()), (Some("archive.heads"), Some(row.id().as_str())));
    assert_eq!(body["data"]["heads"][0]["head"], format!("{:064x}", 4));
}

#[test]
fn a_clock_that_was_ahead_once_does_not_silence_the_days_until_then() {
    let mut outbox = Outbox::new(vec!["soc".into()]);
    let sink = Sink { archive_heads: true, ..Sink::new("soc", "stdout") };
    assert_eq!(offered(&mut outbox, &sink, 30, heads(30, 1)), ["2026-12-22"]);
    assert_eq!(offered(&mut outbox, &sink, 1, heads(1, 2)), ["2026-11-23", "2026-12-22"]);
    assert_eq!(offered(&mut outbox, &sink, 2, heads(2, 3)), ["2026-11-23", "2026-11-24", "2026-12-22"]);
}
