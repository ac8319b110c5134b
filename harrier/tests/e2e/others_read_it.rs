//! The archive belongs to whoever has it: DuckDB, the Delta library, pandas and polars read the same rows without us.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::binary::Harrier;
use crate::sample::{self, joined, lines};

/// Each with its columns in an order and form that every engine prints alike.
const QUERIES: [&str; 5] = [
    "SELECT tenant, operation, count(*) AS n FROM events GROUP BY tenant, operation ORDER BY tenant, operation",
    "SELECT id, user_id, client_ip, raw FROM events ORDER BY id",
    "SELECT id, tenant, status, title, event_count, reason FROM findings ORDER BY id",
    "SELECT f.id, e.event_id, v.operation FROM findings f JOIN evidence e ON e.finding_id = f.id \
     JOIN events v ON v.id = e.event_id AND v.tenant = e.tenant ORDER BY f.id, e.event_id",
    "SELECT CAST(day AS VARCHAR) AS day, count(DISTINCT user_id) AS users, sum(length(raw)) AS characters \
     FROM events GROUP BY day ORDER BY day",
];

/// The first Python that can import what the script uses; the test is skipped without one.
fn python() -> Option<&'static str> {
    ["python3", "python"].into_iter().find(|python| {
        let mut command = Command::new(python);
        command
            .args(["-c", "import duckdb, deltalake, pyarrow.dataset, pandas, polars"])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    })
}

#[test]
fn duckdb_the_delta_library_pandas_and_polars_give_the_same_answers() {
    let Some(python) = python() else {
        println!("skipped: no python3 with duckdb, deltalake, pyarrow, pandas and polars");
        return;
    };
    let harrier = Harrier::new();
    // Two imports: findings are replaced, and files that have left the table lie beside those that are in it.
    let lines = lines(&sample::world(11));
    for (name, part) in [("a.jsonl", &lines[..lines.len() / 2]), ("b.jsonl", &lines[lines.len() / 2..])] {
        let file = harrier.file(name, joined(part));
        harrier.import(&[file], &["--domains", "contoso.example"]);
    }
    let expected: Vec<Vec<Value>> = QUERIES.iter().map(|query| harrier.rows(query)).collect();
    assert!(expected.iter().all(|rows| !rows.is_empty()), "{expected:?}");

    let queries = harrier.file("queries.json", serde_json::to_string(&QUERIES).unwrap());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/others_read_it.py");
    for engine in ["duckdb", "deltalake", "pandas", "polars"] {
        let output = Command::new(python)
            .arg(script)
            .args([engine.as_ref(), harrier.data_dir().join("archive").as_os_str(), queries.as_os_str()])
            .output()
            .unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{engine}: {stderr}");
        let answers: Vec<Vec<Value>> = serde_json::from_slice(&output.stdout).unwrap();
        for ((query, answer), expected) in QUERIES.iter().zip(&answers).zip(&expected) {
            assert_eq!(answer, expected, "{engine}: {query}");
        }
    }
}
