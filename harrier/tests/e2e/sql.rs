//! `harrier sql`: read-only, in every format, and nothing an attacker wrote acts on who reads it.

use serde_json::Value;

use crate::binary::Harrier;
use crate::sample::{forwarding_rule, joined, sign_in};

fn with_rule(extra: &[String]) -> Harrier {
    let harrier = Harrier::new();
    let mut lines = vec![forwarding_rule(1, "2026-11-20T10:00:00Z".parse().unwrap())];
    lines.extend_from_slice(extra);
    let file = harrier.file("records.jsonl", joined(&lines));
    harrier.import(&[file], &["--domains", "contoso.example"]);
    harrier
}

/// Statements come on stdin as well, each ended by a semicolon; the first that fails ends the rest.
#[test]
fn statements_on_stdin_are_asked_one_after_the_other() {
    let harrier = with_rule(&[]);
    let ask = |text: &str| {
        let mut command = crate::binary::command();
        let file = std::fs::File::open(harrier.file("statements.sql", text)).unwrap();
        command.args(["sql", "--format", "ndjson", "--data-dir"]).arg(harrier.data_dir()).stdin(file);
        crate::binary::finish(&mut command)
    };
    let ran = ask("SELECT 1 AS a; SELECT ';' AS b -- the end;\n;\n\nSELECT 2 AS c");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "{\"a\":1}\n{\"b\":\";\"}\n{\"c\":2}\n"), "{ran}");
    let ran = ask("SELECT 1 AS a; SELECT nothing; SELECT 2 AS b");
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), "{\"a\":1}\n"), "{ran}");
    assert_eq!(ask(" ; ").code, Some(1));
    assert!(!harrier.data_dir().join("sql_history").exists(), "nobody typed");
}

#[test]
fn whatever_would_change_something_is_refused() {
    let harrier = with_rule(&[]);
    let out = harrier.path("out.csv");
    let before = harrier.events();
    for statement in [
        "CREATE TABLE t AS SELECT 1".to_owned(),
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'".to_owned(),
        "CREATE VIEW v AS SELECT 1".to_owned(),
        "DROP TABLE events".to_owned(),
        "INSERT INTO events SELECT * FROM events".to_owned(),
        "DELETE FROM events".to_owned(),
        "UPDATE events SET raw = ''".to_owned(),
        format!("COPY (SELECT 1) TO '{}'", out.display()),
        format!("COPY events TO '{}' STORED AS PARQUET", out.display()),
        "SET datafusion.execution.batch_size = 1".to_owned(),
        "BEGIN".to_owned(),
        "PREPARE p AS SELECT 1".to_owned(),
        "SELECT 1; DROP TABLE events".to_owned(),
    ] {
        let ran = harrier.run(["sql", statement.as_str()]);
        assert_eq!(ran.code, Some(1), "{statement}\n{ran}");
        assert!(ran.stdout.is_empty(), "{statement}\n{ran}");
        assert_eq!(ran.stderr.lines().count(), 1, "{statement}\n{ran}");
    }
    assert!(!out.exists());
    // Files of the host are not tables.
    let ran = harrier.run(["sql", "SELECT * FROM '/etc/passwd'"]);
    assert_eq!(ran.code, Some(1), "{ran}");
    assert_eq!(harrier.events(), before);
}

#[test]
fn describe_says_what_the_columns_mean() {
    let harrier = with_rule(&[]);
    let rows = harrier.rows("DESCRIBE events");
    let raw = rows.iter().find(|row| row["column_name"] == "raw").unwrap();
    assert!(raw["description"].as_str().unwrap().contains("received"), "{raw}");
    for row in &rows {
        assert!(!row["description"].as_str().unwrap().is_empty(), "{row}");
    }
    let names: Vec<&str> = rows.iter().map(|row| row["column_name"].as_str().unwrap()).collect();
    for name in [
        "tenant",
        "id",
        "event_time",
        "received_time",
        "source",
        "record_type",
        "record_type_name",
        "workload",
        "operation",
        "outcome",
        "user_id",
        "mailbox_owner",
        "client_ip",
        "session_id",
        "token_id",
        "app_id",
        "object_id",
        "user_agent",
        "raw",
    ] {
        assert!(names.contains(&name), "{name}: scripts rely on it");
    }
}

#[test]
fn a_query_reads_parameters_by_name_from_text_or_a_file() {
    let harrier = with_rule(&[]);
    let query = "SELECT param(raw, 'ForwardTo') AS target, param(raw, 'Nothing') AS nothing FROM events";
    let rows = harrier.rows(query);
    assert_eq!(rows[0]["target"], "drop1@evil.example");
    assert_eq!(rows[0]["nothing"], Value::Null);
    let file = harrier.file("query.sql", query);
    let ran = harrier.run(["sql", "--format", "ndjson", "-f", file.to_str().unwrap()]);
    assert_eq!(serde_json::from_str::<Value>(&ran.stdout).unwrap(), rows[0], "{ran}");
    let ran = harrier.run(["sql", "SELECT nothing FROM events"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("nothing"), "{ran}");
    // Nothing on stdin either.
    assert_eq!(harrier.run(["sql"]).code, Some(1));
}

#[test]
fn every_format_gives_the_same_rows() {
    let harrier = with_rule(&[sign_in(1), sign_in(2)]);
    let query = "SELECT id, operation, event_time FROM events ORDER BY id";
    let print = |format: &str| harrier.run(["sql", "--format", format, query]);
    let rows = harrier.rows(query);
    assert_eq!(rows.len(), 3);
    let json: Value = serde_json::from_str(&print("json").stdout).unwrap();
    assert_eq!(json.as_array().unwrap(), &rows);
    let csv = print("csv").stdout;
    let csv: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(csv[0], ["id", "operation", "event_time"]);
    let table = print("table").stdout;
    assert!(table.lines().next().unwrap().contains("event_time (UTC)"), "{table}");
    assert_eq!(table.lines().count(), 2 + rows.len());
    for (row, number) in rows.iter().zip(0..) {
        let id = row["id"].as_str().unwrap();
        assert_eq!(csv[number + 1][0], id);
        assert!(table.lines().nth(number + 2).unwrap().starts_with(id), "{table}");
    }
    let empty = harrier.run(["sql", "--format", "json", "SELECT id FROM events WHERE id = 'none'"]);
    assert_eq!((empty.code, empty.stdout.trim()), (Some(0), "[]"), "{empty}");
}

#[test]
fn what_an_attacker_writes_does_not_act_on_the_reader() {
    let hostile = |number: u32, name: &str| {
        let name = serde_json::to_string(name).unwrap();
        sign_in(number).replace("\"app\"", &name)
    };
    let names = [
        "\u{1b}[2J\u{1b}]0;owned\u{7}",
        "=HYPERLINK(\"http://evil.example\")",
        "+1+1",
        "-1+1",
        "@SUM(1)",
        "\t=1",
        "\u{202e}gpj.exe",
        "a\r\nb",
    ];
    let lines: Vec<String> = (10..).zip(names).map(|(number, name)| hostile(number, name)).collect();
    let harrier = with_rule(&lines);
    let query = "SELECT object_id FROM events WHERE operation = 'UserLoggedIn' ORDER BY id";
    let exact: Vec<Value> = harrier.rows(query).iter().map(|row| row["object_id"].clone()).collect();
    assert_eq!(exact, names, "programs get the value as it is");
    for format in ["table", "json", "ndjson"] {
        let shown = harrier.run(["sql", "--format", format, query]).stdout;
        let acts = |c: char| c != '\n' && c.is_control() || format == "table" && c == '\u{202e}';
        assert!(!shown.contains(acts), "{format}: {shown:?}");
    }
    let table = harrier.run(["sql", query]).stdout;
    assert!(table.contains(r"\x1b[2J") && table.contains(r"\u{202e}gpj.exe") && table.contains(r"a\r\nb"), "{table}");

    let csv = harrier.run(["sql", "--format", "csv", query]).stdout;
    assert!(!csv.contains(|c: char| c != '\n' && c.is_control() || c == '\u{202e}'), "{csv:?}");
    for formula in ["=HYPERLINK", "+1+1", "-1+1", "@SUM(1)", "\\t=1"] {
        let at = csv.find(formula).unwrap_or_else(|| panic!("{formula:?} in {csv:?}"));
        assert_eq!(csv[..at].chars().last(), Some('\''), "{formula:?} in {csv:?}");
    }
    // Everything else that prints values: the timeline, findings and dead letters.
    let timeline = harrier.run(["timeline", "user10@contoso.example"]);
    assert!(timeline.code == Some(0) && !timeline.stdout.contains('\u{1b}'), "{timeline}");
    let missing = harrier.run(["findings", "show", "\u{1b}[2J"]);
    assert!(missing.code == Some(1) && !missing.stderr.contains('\u{1b}'), "{missing}");
    let unknown = harrier.run(["sql", "SELECT \"\u{1b}[2J\" FROM events"]);
    assert!(unknown.code == Some(1) && !unknown.stderr.contains('\u{1b}'), "{unknown}");
}

#[test]
fn without_an_archive_one_is_told_so() {
    let harrier = Harrier::new();
    let ran = harrier.run(["sql", "SELECT 1"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("there is no archive"), "{ran}");
    assert!(!harrier.data_dir().exists(), "a question makes nothing");
}
