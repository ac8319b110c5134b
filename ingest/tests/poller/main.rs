//! The poller against a scripted service, into a real log.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use ingest::ledger::BlobState;
use ingest::source::management_activity::Pace;
use runtime::log::{Consumer, Lease};
use schemas::envelope::Envelope;
use schemas::message::CoverageState;
use sha2::{Digest, Sha256};

mod hostile;
mod simulated;
mod support;
mod watched;
use support::*;

fn record(id: &str) -> String {
    format!(
        r#"{{"Id":"{id}","CreationTime":"2026-11-21T10:00:00","Operation":"MailItemsAccessed","Workload":"Exchange"}}"#
    )
}

fn records(prefix: &str, count: usize) -> String {
    let records: Vec<String> = (0..count).map(|number| record(&format!("{prefix}-{number:05}"))).collect();
    format!("[{}]", records.join(","))
}

fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}-{number:05}")).collect()
}

fn is_committed(held: &Held, id: &str) -> bool {
    matches!(held.state(id), Some(BlobState::Committed { .. }))
}

#[tokio::test]
async fn pages_windows_and_odd_blobs_end_in_the_log_once_with_true_marks() {
    let folder = tempfile::tempdir().unwrap();
    let (server, log) = (Server::start().await, open(folder.path()));
    server.with(|service| service.page_size = 3);
    let mut expected = Vec::new();
    for number in 0..20 {
        // Some in windows of other days, so that pages and windows both turn.
        server.add(&format!("b${number:02}"), 1 + number * number * 20, records(&format!("r{number:02}"), 3));
        expected.extend(ids(&format!("r{number:02}"), 3));
    }
    server.add("none", 5, "[]");
    server.add("marked", 5, format!("\u{feff}[{}]", record("r20-00000")));
    expected.push("r20-00000".into());
    let bad = format!("[{},{{\"Id\":,}},17,{}]", record("r21-00000"), record("r21-00001"));
    server.add("bad", 5, bad.clone());
    expected.extend(ids("r21", 2));
    let running = run(source(&server.base()), pace(), &log);
    let newest = Utc::now();
    let held = running
        .until(&log, |held| (0..3).all(|at| held.marks(at).last().is_some_and(|mark| mark.until > newest)))
        .await;
    assert_eq!(held.ids(), expected);
    assert_eq!(server.count(is_blob), 23);
    assert_eq!(held.dead_letters.len(), 2);
    assert!(held.dead_letters.iter().any(|letter| letter.bytes == b"17" && letter.place == "blob bad, record 2"));
    let sha256 = format!("{:x}", Sha256::digest(bad.as_bytes()));
    let Some(BlobState::Committed { records, rejected, bytes, sha256: held_sha256, .. }) = held.state("bad") else {
        panic!()
    };
    assert_eq!((*records, *rejected, *bytes, held_sha256), (2, 2, bad.len() as u64, &sha256));
    held.assert_blobs_are_told();
    // In every partition, whoever reads a mark has read every record of the blobs it speaks of.
    let created: std::collections::BTreeMap<String, chrono::DateTime<Utc>> =
        server.with(|service| service.blobs.iter().map(|blob| (blob.id.clone(), blob.created)).collect());
    for partition in &held.records {
        let mut mark = None;
        for envelope in partition {
            match envelope {
                Envelope::Mark(next) => {
                    assert!(mark < Some(next.until));
                    mark = Some(next.until);
                }
                Envelope::Record(received) => assert!(mark <= Some(created[&received.origin.blob_id]), "late"),
                Envelope::Heartbeat(_) | Envelope::RulesOffered { .. } | Envelope::RulesInForce { .. } => {}
            }
        }
    }
    assert!(held.coverage.iter().all(|row| row.state == CoverageState::Complete));
    assert!(running.health.is_well());
    assert_eq!(running.metrics.poll.content_blobs.with(["t1", FEED, "fetched"]).value(), 23);
    running.stop().await;
}

#[tokio::test]
async fn a_truncated_blob_is_never_done_and_is_fetched_again() {
    let folder = tempfile::tempdir().unwrap();
    let (server, log) = (Server::start().await, open(folder.path()));
    let body = records("r", 5_000);
    // Broken off within a record, behind one, and behind the last one: where only the closing bracket is missing.
    let boundary = body.rfind(",{").unwrap();
    for length in [body.len() / 2, boundary, body.len() - 1] {
        server.script(is_blob, Reply::Truncated(length));
    }
    server.add("long", 5, body.clone());
    let running = run(source(&server.base()), pace(), &log);
    // At any moment: committed only with all of its records.
    let held = running
        .until(&log, |held| {
            let mut ids = held.ids();
            ids.dedup();
            assert!(!is_committed(held, "long") || ids.len() == 5_000, "committed with {} records", ids.len());
            assert!(
                is_committed(held, "long")
                    || held.marks(0).iter().all(|mark| mark.until < Utc::now() - TimeDelta::minutes(4))
            );
            is_committed(held, "long")
        })
        .await;
    let Some(BlobState::Committed { records, bytes, sha256, .. }) = held.state("long") else { panic!() };
    assert_eq!((*records, *bytes), (5_000, body.len() as u64));
    assert_eq!(*sha256, format!("{:x}", Sha256::digest(body.as_bytes())));
    assert_eq!(server.count(is_blob), 4);
    let mut ids = held.ids();
    assert!(ids.len() > 5_000, "chunks are committed as they come: {}", ids.len());
    ids.dedup();
    assert_eq!(ids, self::ids("r", 5_000));
    running.stop().await;
}

#[tokio::test]
async fn a_body_that_ends_well_formed_but_short_of_its_length_or_shape_is_not_a_blob() {
    let folder = tempfile::tempdir().unwrap();
    let (server, log) = (Server::start().await, open(folder.path()));
    server.add("b", 5, records("r", 2));
    for body in [
        "[{\"Id\":\"x\"",
        "[]]",
        "[] []",
        "{\"error\":{\"code\":\"AF50000\",\"message\":\"\"}}",
        "<html>",
        "[{\"Id\":\"y\"}] x",
    ] {
        server.script(is_blob, Reply::Status(200, body.into()));
    }
    let running = run(source(&server.base()), pace(), &log);
    let held = running.until(&log, |held| is_committed(held, "b")).await;
    assert_eq!(server.count(is_blob), 7);
    assert_eq!(held.ids(), ids("r", 2));
    running.stop().await;
}

#[tokio::test]
async fn an_empty_body_is_asked_for_again_and_believed_when_it_comes_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let (server, log) = (Server::start().await, open(folder.path()));
    server.add("once", 5, records("r", 2));
    server.add("always", 6, "");
    for _ in 0..2 {
        server.script(|seen| seen.path.ends_with("/once"), Reply::Status(200, String::new()));
    }
    let running = run(source(&server.base()), pace(), &log);
    let held = running
        .until(&log, |held| is_committed(held, "once") && matches!(held.state("always"), Some(BlobState::Gone { .. })))
        .await;
    assert_eq!(held.ids(), ids("r", 2));
    assert_eq!(server.count(is_blob), 6);
    assert_eq!(held.coverage.iter().filter(|row| row.state == CoverageState::Missing).count(), 1);
    held.assert_blobs_are_told();
    assert_eq!(running.metrics.poll.content_blobs.with(["t1", FEED, "gone"]).value(), 1);
    running.stop().await;
}

#[tokio::test]
async fn a_start_that_fails_is_tried_again_soon_and_the_metrics_say_how_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let (server, log) = (Server::start().await, open(folder.path()));
    server.with(|service| service.subscribed.clear());
    server.add("b", 5, records("r", 1));
    for (status, body) in [(503, String::new()), (403, refusal("AF429")), (401, String::new())] {
        server.script(|seen| seen.path.ends_with("/start"), Reply::Status(status, body));
    }
    // As at the real service, where the first look at the subscriptions was the last for ten minutes.
    let slow = Pace { start_interval: TimeDelta::minutes(15), subscriptions_interval: TimeDelta::hours(1), ..pace() };
    let running = run(source(&server.base()), slow, &log);
    running.until(&log, |held| is_committed(held, "b")).await;
    assert_eq!(server.count(|seen| seen.path.ends_with("/start")), 4);
    assert_eq!(running.metrics.api.subscription_enabled.with(["t1", FEED]).value(), 1.0);
    let requests = |code| running.metrics.api.requests.with(["t1", "management", code]).value();
    assert_eq!((requests("429"), requests("403")), (1, 0));
    running.stop().await;
}

#[tokio::test]
async fn silence_ends_at_each_time_limit_and_ending_waits_for_none() {
    let folder = tempfile::tempdir().unwrap();
    let (server, log) = (Server::start().await, open(folder.path()));
    server.add("b", 5, records("r", 3));
    // No head; a head and then nothing; and a body that comes, but would take for ever.
    for drip in [None, Some(Duration::from_secs(600)), Some(Duration::from_millis(20))] {
        server.script(is_blob, Reply::Drip(drip));
    }
    let millis = TimeDelta::milliseconds;
    let short = Pace { idle_timeout: millis(150), blob_timeout: millis(500), ..pace() };
    let running = run(source(&server.base()), short, &log);
    running.until(&log, |held| is_committed(held, "b")).await;
    assert_eq!(server.count(is_blob), 4);
    running.stop().await;
    // With the limits of the real service, and something in flight that never ends.
    server.script(is_list, Reply::Drip(None));
    let running = run(source(&server.base()), pace(), &log);
    let lists = server.count(is_list);
    while server.count(is_list) == lists {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let begun = std::time::Instant::now();
    running.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn throttling_refused_tokens_and_errors_of_all_kinds_end_in_an_answer() {
    let folder = tempfile::tempdir().unwrap();
    let (server, log) = (Server::start().await, open(folder.path()));
    for number in 0..10 {
        server.add(&format!("b{number}"), 5 + number, records(&format!("r{number}"), 2));
    }
    let auditing_off =
        r#"{"error":{"code":"StartSubscription [CorrId=1][AppId","message":"Tenant x does not exist."}}"#;
    for (status, body) in [
        (403, refusal("AF429")),
        (429, String::new()),
        (503, "<html>busy</html>".into()),
        (500, refusal("AF50000")),
        (401, String::new()),
        (400, auditing_off.into()),
        (400, "{'error': {'code': 'AF20020'}}".into()),
    ] {
        server.script(is_list, Reply::Status(status, body.clone()));
        server.script(is_blob, Reply::Status(status, body));
    }
    server.script(|seen| seen.path.ends_with("/token"), Reply::Status(503, String::new()));
    let running = run(source(&server.base()), pace(), &log);
    let held = running.until(&log, |held| (0..10).all(|number| is_committed(held, &format!("b{number}")))).await;
    assert_eq!(held.ids().len(), 20);
    assert!(server.with(|service| service.tokens >= 2 && service.scripts.is_empty()));
    running.until(&log, |_| running.health.is_well()).await;
    running.stop().await;
}

#[tokio::test]
async fn a_missing_subscription_is_started_and_gone_blobs_are_gaps() {
    let folder = tempfile::tempdir().unwrap();
    let (server, log) = (Server::start().await, open(folder.path()));
    server.with(|service| service.subscribed.clear());
    server.add("ok", 5, records("r", 1));
    server.add("unknown", 6, "");
    server.add("expired", 7, "");
    server.script(|seen| seen.path.ends_with("/unknown"), Reply::Status(404, refusal("AF20050")));
    server.script(|seen| seen.path.ends_with("/expired"), Reply::Status(400, refusal("AF20051")));
    let running = run(source(&server.base()), pace(), &log);
    let held = running
        .until(&log, |held| held.marks(1).last().is_some_and(|mark| mark.until > Utc::now() - TimeDelta::minutes(1)))
        .await;
    assert!(matches!(held.state("unknown"), Some(BlobState::Gone { .. })));
    assert!(matches!(held.state("expired"), Some(BlobState::Expired { .. })));
    assert_eq!(held.coverage.iter().filter(|row| row.state == CoverageState::Missing).count(), 2);
    assert_eq!(server.count(|seen| seen.path.ends_with("/start")), 1);
    assert_eq!(running.metrics.poll.content_blobs.with(["t1", FEED, "expired"]).value(), 1);
    running.stop().await;
}

#[tokio::test]
async fn the_token_is_sent_to_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let (server, thief, log) = (Server::start().await, Server::start().await, open(folder.path()));
    let elsewhere = format!("{}/api/v1.0/{TENANT_ID}/activity/feed/audit/b", thief.base());
    server.add("b", 5, records("r", 1));
    server.with(|service| service.blobs[0].uri = Some(elsewhere.clone()));
    server.script(is_list, Reply::NextPage(elsewhere.clone()));
    server.script(is_list, Reply::Redirect(elsewhere.clone()));
    server.script(is_blob, Reply::Redirect(elsewhere));
    let running = run(source(&server.base()), pace(), &log);
    let held = running.until(&log, |held| is_committed(held, "b")).await;
    assert_eq!(held.ids(), ids("r", 1));
    assert_eq!(thief.count(|_| true), 0);
    assert!(server.with(|service| service.scripts.is_empty()));
    running.stop().await;
}

#[tokio::test]
async fn a_killed_poller_loses_nothing_and_fetches_nothing_twice_that_was_done() {
    let folder = tempfile::tempdir().unwrap();
    let (server, log) = (Server::start().await, open(folder.path()));
    for number in 0..30 {
        server.add(&format!("b{number:02}"), 5 + number, records(&format!("r{number:02}"), 50));
    }
    let done = |held: &Held| (0..30).filter(|number| is_committed(held, &format!("b{number:02}"))).count();
    // A lease short enough for the next life to have it soon.
    let one_by_one = Pace { concurrency_max: 1, lease_hold: TimeDelta::milliseconds(30), ..pace() };
    let mut before = 0;
    for _ in 0..30 {
        let running = run(source(&server.base()), one_by_one.clone(), &log);
        let held = running.until(&log, |held| done(held) > before || done(held) == 30).await;
        before = done(&held);
        // Not asked to end: dropped wherever it is.
        running.task.abort();
        let _ = running.task.await;
        if before == 30 {
            break;
        }
    }
    let held = Held::read(&*log).await;
    assert_eq!(done(&held), 30);
    let mut all = held.ids();
    all.dedup();
    assert_eq!(all, (0..30).flat_map(|number| ids(&format!("r{number:02}"), 50)).collect::<Vec<_>>());
}

#[tokio::test]
async fn only_the_holder_of_the_lease_polls_and_a_lost_lease_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (server, log) = (Server::start().await, open(folder.path()));
    server.add("b", 5, records("r", 1));
    let one = run(source(&server.base()), pace(), &log);
    one.until(&log, |held| is_committed(held, "b")).await;
    // Another process: it waits, and sends nothing.
    let other = run(source(&server.base()), pace(), &log);
    let tokens = server.with(|service| service.tokens);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.with(|service| service.tokens), tokens);
    other.stop().await;
    one.stop().await;
    // Stolen from one that renews too late: what it commits from then on is refused, and it waits for its turn.
    let thief = Lease { partition: lease_number(), consumer: Consumer::Poll, owner: "thief".into() };
    let slow = run(source(&server.base()), Pace { lease_hold: TimeDelta::zero(), ..pace() }, &log);
    slow.until(&log, |held| held.marks(0).len() > 3).await;
    while !log.acquire(&thief, Duration::from_secs(30)).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let marks = Held::read(&*log).await.marks(0).len();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(Held::read(&*log).await.marks(0).len(), marks);
    log.release(&thief).await.unwrap();
    slow.until(&log, |held| held.marks(0).len() > marks).await;
    slow.stop().await;
}

/// Each time while the poller has plans for moments of the clock before.
#[tokio::test]
async fn a_clock_that_is_set_keeps_nobody_from_what_comes() {
    let folder = tempfile::tempdir().unwrap();
    let (server, log) = (Server::start().await, open(folder.path()));
    let (clock, hand) = runtime::clock::Clock::adrift();
    let running = run_by(clock, source(&server.base()), pace(), &log);
    for (number, hours) in [0, 3, -3, -3, 3].into_iter().enumerate() {
        hand.advance(TimeDelta::hours(hours));
        if number == 3 {
            // While it is slow, what has just come lies in its future.
            let before = server.count(is_list);
            running.until(&log, |_| server.count(is_list) > before + 3).await;
            continue;
        }
        let id = format!("b{number}");
        server.add(&id, 0, records(&id, 1));
        running.until(&log, |held| is_committed(held, &id)).await;
    }
    running.stop().await;
}

fn lease_number() -> u32 {
    (schemas::json::key_hash(&["t1"]) & 0x7fff_ffff) as u32
}

#[tokio::test]
async fn a_refused_configuration_is_told_without_secrets_and_only_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let (server, log) = (Server::start().await, open(folder.path()));
    server.add("b", 5, records("r", 1));
    for _ in 0..10_000 {
        server.script(
            |seen| seen.query.get("contentType").is_some_and(|name| name == "DLP.All"),
            Reply::Status(400, refusal("AF20020")),
        );
    }
    server.with(|service| assert!(service.subscribed.insert("DLP.All".into())));
    let mut two = source(&server.base());
    two.content_types.push("DLP.All".into());
    assert!(!format!("{two:?}").contains("simulated-secret"));
    let running = run(two, pace(), &log);
    running.until(&log, |held| is_committed(held, "b") && !running.health.is_well()).await;
    let problems = running.health.problems().join("\n");
    assert!(problems.contains("t1 DLP.All: HTTP 400: AF20020: there is no such content type"), "{problems}");
    assert!(!problems.contains("simulated-secret"));
    running.stop().await;
}

#[tokio::test]
async fn heartbeats_reach_every_partition() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let (trigger, shutdown) = runtime::shutdown::channel();
    let metrics = runtime::metrics::Metrics::new("test");
    let beat =
        ingest::source::beat(log.clone(), runtime::clock::Clock::system(), Duration::from_millis(1), shutdown, metrics);
    let task = tokio::spawn(beat);
    while Held::read(&*log).await.records[2].len() < 3 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    trigger.stop();
    task.await.unwrap().unwrap();
    let held = Held::read(&*log).await;
    assert!(
        held.records.iter().all(|partition| matches!(partition[0], Envelope::Heartbeat(_)) && partition.len() >= 3)
    );
}
