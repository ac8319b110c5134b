//! Files that a question does not need are not opened, and no row is missing for it.

use std::sync::atomic::{AtomicUsize, Ordering};

use archive::delta::DeltaTable;
use archive::sql::Sql;
use archive::store::{Counts, Reads};
use archive::table::EVENTS;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::world::World;

const DAYS: usize = 12;
const USERS: usize = 5;

/// Each day has the records of some users, an address and a session of its own, and a message.
fn record(day: usize, number: usize) -> String {
    let user = (day * 3 + number * number) % USERS;
    let session = if number.is_multiple_of(2) { format!(r#""SessionId":"s{day}","#) } else { String::new() };
    format!(
        r#"{{"CreationTime":"2026-11-{:02}T{:02}:00:00","Id":"{day}-{number}","Operation":"{}","Workload":"Exchange",
        "UserId":"U{user}@t.example","ClientIP":"198.51.100.{}",{session}
        "Item":{{"InternetMessageId":"<m{}@t.example>"}}}}"#,
        day + 1,
        number * 4 % 24,
        if number.is_multiple_of(3) { "Send" } else { "Create" },
        day * 2 + number % 2,
        day * 4 + number,
    )
}

/// A file for each day.
async fn archived() -> World {
    let world = World::new();
    for day in 0..DAYS {
        let records: Vec<String> = (0..4).map(|number| record(day, number)).collect();
        world.records(0, &records.iter().map(|text| (text.as_str(), 'a')).collect::<Vec<_>>()).await;
    }
    world.drain().await;
    let delta = DeltaTable::open(world.store(), &EVENTS).await.unwrap();
    assert_eq!(delta.snapshot().files.len(), DAYS);
    world
}

fn counted(world: &World) -> (Sql, Counts) {
    let (store, counts) = world.store().counted();
    (Sql::over(store), counts)
}

async fn ask(sql: &Sql, counts: &Counts, query: &str) -> (Vec<String>, Reads) {
    counts.take();
    let bytes = sql.query_ndjson(query, &[]).await.unwrap_or_else(|error| panic!("{query}: {error}"));
    let mut rows: Vec<String> = String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect();
    rows.sort();
    (rows, counts.take())
}

#[tokio::test]
async fn a_point_question_opens_the_files_that_hold_it_and_reads_nothing_of_others_twice() {
    let world = archived().await;
    let (sql, counts) = counted(&world);
    // The condition, its rows, and the files that hold them: asked the second time, nothing else is opened.
    for (condition, rows, files) in [
        ("session_id = 's7'", 2, 1),
        ("client_ip = '198.51.100.9'", 2, 1),
        ("id = '3-1'", 1, 1),
        ("id IN ('3-1', '4-2', 'none')", 2, 2),
        ("id = '3-1' OR session_id = 's7'", 3, 2),
        ("array_has(internet_message_ids, '<m9@t.example>')", 1, 1),
        ("user_id = 'nobody@t.example'", 0, 0),
        ("day = DATE '2026-11-03'", 4, 1),
        ("event_time >= '2026-11-10T00:00:00Z' AND event_time < '2026-11-11T00:00:00Z'", 4, 1),
        ("event_time < '2026-11-01T00:00:00Z'", 0, 0),
        ("day > DATE '2026-11-04' AND session_id = 's7'", 2, 1),
        ("session_id = 's7' AND id = '3-1'", 0, 0),
    ] {
        let query = format!("SELECT id, raw FROM events WHERE {condition}");
        let (first, _) = ask(&sql, &counts, &query).await;
        let (second, reads) = ask(&sql, &counts, &query).await;
        assert_eq!((first.len(), reads.files.len()), (rows, files), "{condition}: {reads:?}");
        assert_eq!(first, second);
        // Of what is known already nothing is read: the log says that nothing came, and footers are kept.
        assert_eq!(reads.tables.iter().map(String::as_str).collect::<Vec<_>>(), ["events"], "{condition}");
        // The next commit, and the copy that would have it if it had been deleted.
        assert_eq!(reads.log_reads, 2, "{condition}");
    }
}

#[tokio::test]
async fn what_comes_between_two_questions_is_in_the_second() {
    let world = archived().await;
    let (sql, counts) = counted(&world);
    let query = "SELECT id FROM events WHERE session_id = 's1'";
    assert_eq!(ask(&sql, &counts, query).await.0.len(), 2);
    let late = record(1, 0).replace(r#""Id":"1-0""#, r#""Id":"late""#);
    world.records(1, &[(&late, 'a')]).await;
    world.drain().await;
    assert_eq!(ask(&sql, &counts, query).await.0.len(), 3);
}

#[tokio::test]
async fn a_list_of_tables_and_a_query_without_one_read_no_log() {
    let world = archived().await;
    let (sql, counts) = counted(&world);
    for query in ["SELECT table_name FROM information_schema.tables", "SELECT 1", "SELECT * FROM generate_series(1, 3)"]
    {
        let (rows, reads) = ask(&sql, &counts, query).await;
        assert!(!rows.is_empty());
        assert_eq!(reads, Reads::default(), "{query}");
    }
    let (_, reads) = ask(&sql, &counts, "SELECT count(*) FROM findings").await;
    assert_eq!(reads.tables.into_iter().collect::<Vec<_>>(), ["findings"]);
}

/// A condition that may or may not be understood when files are left out.
fn condition() -> impl Strategy<Value = String> {
    let value = |values: Vec<String>| prop::sample::select(values);
    let users = || value((0..=USERS).map(|user| format!("u{user}@t.example")).collect());
    let ids = || value((0..DAYS).flat_map(|day| (0..5).map(move |number| format!("{day}-{number}"))).collect());
    let sessions = || value((0..=DAYS).map(|day| format!("s{day}")).collect());
    let days = || (1..=DAYS + 1).prop_map(|day| format!("2026-11-{day:02}"));
    let leaf = prop_oneof![
        users().prop_map(|user| format!("user_id = '{user}'")),
        users().prop_map(|user| format!("'{user}' <> user_id")),
        users().prop_map(|user| format!("user_id >= '{user}'")),
        users().prop_map(|user| format!("lower(user_id) = '{user}'")),
        ids().prop_map(|id| format!("id = '{id}'")),
        prop::collection::vec(ids(), 1..30).prop_map(|ids| format!("id IN ('{}')", ids.join("', '"))),
        prop::collection::vec(ids(), 1..6).prop_map(|ids| format!("id NOT IN ('{}')", ids.join("', '"))),
        sessions().prop_map(|session| format!("session_id = '{session}'")),
        sessions().prop_map(|session| format!("coalesce(session_id, '{session}') = '{session}'")),
        Just("session_id IS NULL".to_owned()),
        Just("session_id = NULL".to_owned()),
        (0..DAYS * 4).prop_map(|message| format!("array_has(internet_message_ids, '<m{message}@t.example>')")),
        (0..DAYS * 2).prop_map(|host| format!("client_ip = '198.51.100.{host}'")),
        days().prop_map(|day| format!("day = DATE '{day}'")),
        days().prop_map(|day| format!("day < DATE '{day}'")),
        days().prop_map(|day| format!("event_time > '{day}T08:00:00Z'")),
        days().prop_map(|day| format!("event_time <= '{day}T00:00:00Z'")),
        Just("operation = 'Send'".to_owned()),
        Just("tenant = 't1'".to_owned()),
        Just("tenant = 't2'".to_owned()),
        users().prop_map(|user| format!("user_id IN (SELECT u FROM (SELECT '{user}' AS u) q)")),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("({one} AND {other})")),
            (inner.clone(), inner.clone()).prop_map(|(one, other)| format!("({one} OR {other})")),
            inner.prop_map(|one| format!("NOT ({one})")),
        ]
    })
}

/// The oracle reads every file.
#[test]
fn no_row_is_missing_whatever_is_asked() {
    let executor = tokio::runtime::Runtime::new().unwrap();
    let world = executor.block_on(archived());
    let (sql, counts) = counted(&world);
    let all = sql.clone().leaving_nothing_out();
    let left_out = AtomicUsize::new(0);
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(150);
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&condition(), |condition| {
        let query = format!("SELECT id FROM events WHERE {condition}");
        let (expected, read) = executor.block_on(ask(&all, &counts, &query));
        let (rows, needed) = executor.block_on(ask(&sql, &counts, &query));
        left_out.fetch_add(read.files.len().saturating_sub(needed.files.len()), Ordering::Relaxed);
        prop_assert_eq!(rows, expected, "{}", query);
        Ok(())
    });
    outcome.unwrap();
    // A test of the test: there was something to leave out.
    let left_out = left_out.into_inner();
    assert!(left_out > cases as usize / 2, "{left_out} files were left out in {cases} questions");
}
