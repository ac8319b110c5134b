//! The archiver against a real log: every admitted record once, whatever is cut off when.

use std::sync::Arc;
use std::time::Duration;

use archive::archiver::{Archiver, Settings};
use archive::sql::Sql;
use runtime::clock::Clock;
use runtime::log::embedded::Embedded;
use runtime::log::{Consumer, Log, To, Topic};
use runtime::metrics::Metrics;
use runtime::shutdown;
use schemas::Finding;
use schemas::finding::{Entity, Level, RuleReference, Status};
use schemas::message::{DeadLetter, FindingMessage};

use crate::world::{Place, World, json, moment, record};

on_each_store! {
    admitted_records_and_variants_are_rows_and_their_bytes_come_back,
    nothing_is_doubled_when_an_archiver_ends_without_saying_so,
    findings_are_replaced_revisions_are_kept_and_evidence_is_written_once,
    dead_letters_keep_any_bytes,
    a_log_that_does_not_belong_to_the_archive_is_refused_and_nothing_is_skipped,
    who_is_asked_to_end_does_not_wait_for_those_who_go_on_writing,
}

pub fn finding(id: &str, revision: u32, evidence: &[&str]) -> Finding {
    Finding {
        schema: schemas::finding::SCHEMA.into(),
        tenant: "t1".parse().unwrap(),
        id: id.into(),
        revision,
        status: Status::Open,
        superseded_by: None,
        rule: RuleReference {
            id: "r".into(),
            version: "v".into(),
            title: "T".into(),
            level: Level::High,
            attack: vec!["T1564.008".into()],
            false_positives: vec![],
            answers: vec![],
        },
        reason: format!("revision {revision}"),
        entity: "a".into(),
        entities: vec![Entity { kind: "session".into(), id: "s".into() }],
        first_event: moment("2026-11-22T09:00:00Z"),
        last_event: moment("2026-11-22T09:00:00Z"),
        event_count: evidence.len() as u64,
        evidence: evidence.iter().map(|&id| id.to_owned()).collect(),
        fields: Default::default(),
        notes: vec![],
        next: vec![],
        created: moment("2026-11-22T10:00:00Z"),
        updated: moment("2026-11-22T10:00:00Z"),
        notify: true,
        incident_id: None,
    }
}

async fn admitted_records_and_variants_are_rows_and_their_bytes_come_back(place: Place) {
    let world = World::on(place);
    let (a, b, c) =
        (record("a", "2026-11-21T10:00:00"), record("b", "2026-11-22T10:00:00"), record("c", "2026-11-22T11:00:00"));
    world.records(0, &[(&a, 'a'), (&a, 'd'), (&b, 'v')]).await;
    world.records(1, &[(&c, 'a'), ("not json", 'r')]).await;
    world.drain().await;
    let rows = world
        .lines("SELECT id, CAST(day AS VARCHAR) AS day, param(raw, 'ForwardTo') AS f FROM events ORDER BY id")
        .await;
    assert_eq!(
        rows,
        [
            r#"{"id":"a","day":"2026-11-21","f":"x@y.example"}"#,
            r#"{"id":"b","day":"2026-11-22","f":"x@y.example"}"#,
            r#"{"id":"c","day":"2026-11-22","f":"x@y.example"}"#
        ]
    );
    let raw = world.lines("SELECT raw FROM events WHERE id = 'a'").await;
    let raw: serde_json::Value = serde_json::from_str(&raw[0]).unwrap();
    assert_eq!(raw["raw"], a.as_str());
    assert_eq!(world.log.committed(Consumer::Archive, Topic::Records, 0).await.unwrap(), 3);
}

async fn nothing_is_doubled_when_an_archiver_ends_without_saying_so(place: Place) {
    let world = World::on(place);
    for round in 0..5 {
        let text = record(&format!("r{round}"), "2026-11-22T10:00:00");
        world.records(round % 2, &[(&text, 'a')]).await;
        // One archiver is cut off in the middle of whatever it does; another goes on from what is committed.
        let (trigger, shutdown) = shutdown::channel();
        let settings = Settings { flush_interval: Duration::ZERO, ..Settings::default() };
        let archiver = world.archiver(settings);
        let cut_off = tokio::time::timeout(Duration::from_millis(u64::from(round) * 3), archiver.run(shutdown)).await;
        drop((cut_off, trigger));
    }
    // The lease of the last one has to run out or be taken over by name; a restart is a new process with a new name.
    world.log.trim(moment("2000-01-01T00:00:00Z")).await.unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while world.lines("SELECT id FROM events").await.len() < 5 {
        assert!(tokio::time::Instant::now() < deadline, "the rows did not come");
        world.drain().await;
    }
    let rows = world.lines("SELECT id FROM events ORDER BY id").await;
    assert_eq!(rows, (0..5).map(|round| format!(r#"{{"id":"r{round}"}}"#)).collect::<Vec<_>>());
}

async fn findings_are_replaced_revisions_are_kept_and_evidence_is_written_once(place: Place) {
    let world = World::on(place);
    let put = |finding: Finding| json(Topic::Findings, To::Key(1), &FindingMessage::Finding(Box::new(finding)));
    world.put(vec![put(finding("f1", 1, &["a"])), put(finding("f2", 1, &["z"]))]).await;
    world.drain().await;
    // A new archiver starts from the tables.
    world.put(vec![put(finding("f1", 2, &["a", "b"]))]).await;
    world.drain().await;
    let retracted = Finding { status: Status::Retracted, ..finding("f2", 2, &["z"]) };
    world.put(vec![put(finding("f1", 3, &["a", "b", "c"])), put(retracted)]).await;
    world.drain().await;
    let rows = world.lines("SELECT id, revision, status, incident_id IS NULL AS alone FROM findings ORDER BY id").await;
    assert_eq!(
        rows,
        [
            r#"{"id":"f1","revision":3,"status":"open","alone":false}"#,
            r#"{"id":"f2","revision":2,"status":"retracted","alone":true}"#
        ]
    );
    assert_eq!(world.lines("SELECT id, revision FROM finding_revisions").await.len(), 5);
    let evidence = world.lines("SELECT finding_id, event_id FROM evidence ORDER BY 1, 2").await;
    assert_eq!(evidence.len(), 4, "{evidence:?}");
}

async fn dead_letters_keep_any_bytes(place: Place) {
    let world = World::on(place);
    let letter = DeadLetter {
        tenant: "t1".parse().unwrap(),
        source: "import".into(),
        place: "f:1".into(),
        reason: "not JSON".into(),
        received: moment("2026-11-22T10:00:00Z"),
        bytes: b"\xff\x00{".to_vec(),
        whole: None,
    };
    world.put(vec![json(Topic::DeadLetters, To::Key(0), &letter)]).await;
    world.drain().await;
    let rows = world.lines("SELECT place, encode(bytes, 'hex') AS bytes, length FROM dead_letters").await;
    assert_eq!(rows, [r#"{"place":"f:1","bytes":"ff007b","length":3}"#]);
}

#[tokio::test]
async fn sql_reads_and_never_writes() {
    let world = World::new();
    world.records(0, &[(&record("a", "2026-11-22T10:00:00"), 'a')]).await;
    world.drain().await;
    let sql = Sql::over(world.store());
    for query in [
        "CREATE TABLE x AS SELECT 1",
        "DROP TABLE events",
        "INSERT INTO events SELECT * FROM events",
        "COPY (SELECT 1) TO '/tmp/harrier-must-not-exist.csv'",
        "CREATE EXTERNAL TABLE x STORED AS PARQUET LOCATION '/etc'",
        "SET datafusion.execution.batch_size = 1",
        "DELETE FROM events",
    ] {
        assert!(sql.query(query).await.is_err(), "{query}");
    }
    assert!(!std::path::Path::new("/tmp/harrier-must-not-exist.csv").exists());
    let described = sql.collect("describe events;").await.unwrap();
    assert_eq!(described[0].num_rows(), archive::table::EVENTS.columns().len());
    let value = [("user", "x' OR '1'='1")];
    assert!(sql.query_ndjson("SELECT id FROM events WHERE user_id = $user", &value).await.unwrap().is_empty());
}

async fn a_log_that_does_not_belong_to_the_archive_is_refused_and_nothing_is_skipped(place: Place) {
    let world = World::on(place);
    world.records(0, &[(&record("a", "2026-11-22T10:00:00"), 'a')]).await;
    world.drain().await;
    let archiver = |log: Arc<dyn Log>| {
        Archiver::new(log, world.unsigned_store(), Clock::system(), Settings::default(), Metrics::new("test"))
    };
    let ended = || {
        let (trigger, shutdown) = shutdown::channel();
        trigger.stop();
        shutdown
    };
    let other: Arc<dyn Log> = Arc::new(Embedded::open(&world.folder.join("other.sqlite"), 2).unwrap());
    let refused = archiver(other).run(ended()).await.unwrap_err();
    assert!(matches!(refused, archive::Error::OtherLog { .. }), "{refused}");
}

async fn who_is_asked_to_end_does_not_wait_for_those_who_go_on_writing(place: Place) {
    let world = Arc::new(World::on(place));
    world.records(0, &[(&record("before", "2026-11-22T10:00:00"), 'a')]).await;
    let mut others = tokio::task::JoinSet::new();
    for partition in 0..2 {
        let world = world.clone();
        others.spawn(async move {
            for number in 0.. {
                let text = record(&format!("{partition}-{number}"), "2026-11-22T10:00:00");
                world.records(partition, &[(&text, 'a')]).await;
            }
        });
    }
    let ended = tokio::time::timeout(Duration::from_secs(60), world.drain()).await;
    assert!(others.try_join_next().is_none(), "they have stopped writing");
    others.shutdown().await;
    ended.expect("it does not end");
    assert_eq!(world.lines("SELECT id FROM events WHERE id = 'before'").await.len(), 1);
}
