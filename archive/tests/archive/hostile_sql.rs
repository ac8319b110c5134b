//! Queries that mean harm, or were written in haste: refused, or ended within their limits. Nothing is changed, no file
//! outside the archive is read, and the process lives.

use std::time::{Duration, Instant};

use archive::sql::{Limits, Sql};

use crate::world::{World, record};

/// Statements that are refused before anything runs.
pub const REFUSED: [&str; 25] = [
    "CREATE TABLE x AS SELECT * FROM events",
    "CREATE VIEW events AS SELECT 1",
    "CREATE SCHEMA s",
    "CREATE DATABASE d",
    "CREATE FUNCTION f() RETURNS INT RETURN 1",
    "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'",
    "CREATE UNBOUNDED EXTERNAL TABLE x STORED AS PARQUET LOCATION '/'",
    "DROP TABLE events",
    "DROP VIEW IF EXISTS events",
    "TRUNCATE TABLE events",
    "ALTER TABLE events ADD COLUMN x INT",
    "INSERT INTO events SELECT * FROM events",
    "INSERT OVERWRITE events SELECT * FROM events",
    "UPDATE events SET raw = ''",
    "DELETE FROM events",
    "MERGE INTO events USING events e ON true WHEN MATCHED THEN DELETE",
    "COPY (SELECT 1) TO '/tmp/harrier-must-not-exist.csv'",
    "SET datafusion.runtime.memory_limit = '1T'",
    "RESET datafusion.execution.batch_size",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "BEGIN",
    "SELECT 1; DROP TABLE events",
    "EXPLAIN ANALYZE DELETE FROM events",
    "",
];

/// Ways to a file of the machine.
pub const FILES: [&str; 8] = [
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM \"/etc/passwd\"",
    "SELECT * FROM 'file:///etc/passwd'",
    "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_parquet('/etc/passwd')",
    "SELECT read_file('/etc/passwd')",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT * FROM 'archive://files/../../etc/passwd'",
];

/// Work without an end, or an answer without one.
pub const ENDLESS: [&str; 6] = [
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n FROM t) SELECT * FROM t",
    "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b, generate_series(1, 1000000) c",
    "SELECT a.value, b.value FROM generate_series(1, 1000000) a JOIN generate_series(1, 1000000) b ON a.value <> b.value",
    "SELECT * FROM generate_series(1, 1000000000000)",
    "SELECT array_agg(value) FROM generate_series(1, 100000000000)",
];

/// Few words that make a value larger than any machine.
const EXPANDING: [&str; 18] = [
    "SELECT unnest(generate_series(1, 100000000000))",
    "SELECT array_length(range(0, 100000000000))",
    "SELECT array_length(range(0, 1000000000)), id FROM events",
    "SELECT unnest(generate_series(TIMESTAMP '1900-01-01', TIMESTAMP '2100-01-01', INTERVAL '1 millisecond'))",
    "SELECT levenshtein(repeat('x', 1000000), repeat('y', 1000000))",
    "SELECT length(regexp_replace(repeat('x', 1000000), '.', repeat('y', 100000), 'g'))",
    "SELECT array_length(array_repeat('x', 100000000000))",
    "SELECT array_length(array_repeat(array_repeat(1, 100000), 10000000))",
    "SELECT array_length(array_resize([1], 100000000000))",
    "SELECT length(repeat('x', 100000000000))",
    "SELECT length(repeat(repeat('x', 10000000), 10000000))",
    "SELECT length(lpad('x', 100000000000, 'y'))",
    "SELECT length(rpad('x', 2000000000, 'y'))",
    "SELECT length(replace(repeat('x', 1000000), 'x', repeat('y', 1000000)))",
    "SELECT length(replace(raw, '\"', repeat('y', 30000000))) FROM events",
    "SELECT length(string_agg(repeat('x', 1000000), '')) FROM generate_series(1, 1000000)",
    "SELECT array_length(array_agg(repeat('x', 1000000))) FROM generate_series(1, 1000000)",
    "SELECT length(array_to_string(array_repeat(repeat('x', 100000), 1000000), ''))",
];

fn limited(world: &World) -> Sql {
    let limits = Limits {
        memory_bytes: 64 * 1024 * 1024,
        spill_bytes: 64 * 1024 * 1024,
        time: Duration::from_millis(1_500),
        rows: Some(100_000),
    };
    Sql::over(world.store()).with_limits(limits)
}

pub async fn archived() -> World {
    let world = World::new();
    world.records(0, &[(&record("a", "2026-11-22T10:00:00"), 'a')]).await;
    world.drain().await;
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_would_change_or_read_anything_else_is_refused() {
    let world = archived().await;
    let sql = limited(&world);
    for query in REFUSED.into_iter().chain(FILES) {
        assert!(sql.collect(query).await.is_err(), "{query}");
    }
    assert!(!std::path::Path::new("/tmp/harrier-must-not-exist.csv").exists());
    assert_eq!(world.lines("SELECT id FROM events").await, [r#"{"id":"a"}"#]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_end_is_ended_with_one_clear_line() {
    let world = archived().await;
    let sql = limited(&world);
    for query in ENDLESS {
        let started = Instant::now();
        let error = sql.collect(query).await.expect_err(query).to_string();
        println!("{:?}: {error}", started.elapsed());
        assert!(started.elapsed() < Duration::from_secs(30), "{query}");
        assert!(error.contains("esources exhausted"), "{query}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_grows_from_few_words_is_ended_before_memory_is() {
    let world = archived().await;
    let sql = limited(&world);
    for query in EXPANDING {
        let started = Instant::now();
        let error = sql.collect(query).await.expect_err(query).to_string();
        println!("{:?}: {error}", started.elapsed());
        assert!(started.elapsed() < Duration::from_secs(30), "{query}");
        assert!(error.contains("esources exhausted"), "{query}: {error}");
    }
    // What people write, they get.
    for (query, expected) in [
        (
            "SELECT lpad('7', 3, '0') AS a, repeat('ab', 2) AS b, length(repeat('x', 1000000)) AS c",
            r#"{"a":"007","b":"abab","c":1000000}"#,
        ),
        (
            "SELECT replace(id, 'a', 'bb') AS a, regexp_replace(id, '(.)', '<\\1\\1>', 'g') AS b FROM events",
            r#"{"a":"bb","b":"<aa>"}"#,
        ),
        (
            "SELECT array_length(generate_series(1, 1000)) AS a, levenshtein('kitten', 'sitting') AS b",
            r#"{"a":1000,"b":3}"#,
        ),
        (
            "SELECT count(*) AS n FROM (SELECT unnest(generate_series(TIMESTAMP '2026-01-01', TIMESTAMP '2026-01-02', \
             INTERVAL '1 hour')))",
            r#"{"n":25}"#,
        ),
        (
            "SELECT array_to_string(array_repeat('x', 3), '-') AS a, array_resize([1], 2, 7) AS b, \
             length(array_to_string(range(0, 1000), ',')) AS c",
            r#"{"a":"x-x-x","b":[1,7],"c":3889}"#,
        ),
    ] {
        assert_eq!(world.lines(query).await, [expected], "{query}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_is_deep_or_long_costs_no_stack_and_no_process() {
    let world = archived().await;
    let sql = limited(&world);
    for depth in [20, 99, 249, 2_000, 20_000, 100_000] {
        let nested = format!("SELECT {}1{}", "(".repeat(depth), ")".repeat(depth));
        let negated = format!("SELECT {}1", "- ".repeat(depth));
        let joined = format!("SELECT 1 {}", "UNION ALL SELECT 1 ".repeat(depth));
        let added = format!("SELECT 1 {}", "+ 1 ".repeat(depth));
        let either = format!("SELECT 1 WHERE 1 = 0 {}", "OR 1 = 2 ".repeat(depth));
        let tables: Vec<String> = (0..depth).map(|table| format!("(SELECT 1) t{table}")).collect();
        let crossed = format!("SELECT 1 AS crossed FROM {}", tables.join(", "));
        let listed = format!("SELECT 1 WHERE 1 IN (2{})", ", 3".repeat(depth));
        for query in [nested, negated, joined, added, either, crossed, listed] {
            // Answered or refused: both are well.
            let answered = sql.collect(&query).await.is_ok();
            println!("{depth}: {}: answered {answered}", &query[..30]);
        }
    }
    assert!(sql.collect(&format!("SELECT '{}'", "x".repeat(2 << 20))).await.is_err());
    assert_eq!(world.lines("SELECT 1 AS one").await, [r#"{"one":1}"#]);
}
