//! The archive's door for PostgreSQL clients, with the clients that analysts have: psql, psycopg, and what tools in Java
//! speak through, pgjdbc.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::binary::{Harrier, command, finish};
use crate::sample::{self, joined, lines};
use crate::service::Service;

const PASSWORD: &str = "correct-horse-battery-staple";

/// An archive with records and findings, and a configuration beside it.
fn archived(postgres: &str) -> (Harrier, PathBuf) {
    let harrier = Harrier::new();
    let file = harrier.file("a.jsonl", joined(&lines(&sample::world(11))));
    harrier.import(&[file], &["--domains", "contoso.example"]);
    harrier.file("password", PASSWORD);
    let listen = "listen = \"127.0.0.1:0\"\nhttp_listen = \"127.0.0.1:0\"";
    let user = "[[postgres.user]]\nname = \"anna\"\npassword_file = \"password\"";
    let config =
        harrier.file("harrier.toml", format!("data_dir = \"data\"\n[postgres]\n{listen}\n{postgres}\n{user}\n"));
    (harrier, config)
}

/// A client's command, with the connection in its environment.
fn client(program: &str, door: &Service) -> Command {
    let started = door.event("started").unwrap();
    let address = started["postgres"].as_str().unwrap();
    let (host, port) = address.rsplit_once(':').unwrap();
    let mut command = Command::new(program);
    let environment = [("PGHOST", host), ("PGPORT", port), ("PGUSER", "anna"), ("PGPASSWORD", PASSWORD)];
    command.envs(environment).env("PGDATABASE", "harrier").env_remove("PGSSLMODE");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn psql_signs_in_over_tls_lists_describes_and_asks() {
    if !works("psql", &["--version"]) || !works("openssl", &["version"]) {
        println!("skipped: no psql, or no openssl to make a certificate");
        return;
    }
    let (harrier, config) = archived("tls_certificate_file = \"door.pem\"\ntls_key_file = \"door.key\"");
    let (certificate, key) = (harrier.path("door.pem"), harrier.path("door.key"));
    let mut made = Command::new("openssl");
    made.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    made.args(["-subj", "/CN=harrier", "-addext", "subjectAltName=IP:127.0.0.1"]);
    made.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    assert!(made.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let door = Service::start_as(&config, "sql");
    let psql = |arguments: &[&str], sslmode: &str| {
        let mut command = client("psql", &door);
        command.env("PGSSLMODE", sslmode).env("PGSSLROOTCERT", &certificate).args(["-X", "-A", "-t"]).args(arguments);
        finish(&mut command)
    };
    let asked = |query: &str| {
        let ran = psql(&["-c", query], "verify-full");
        // That there is none of something is said on stderr.
        assert!(ran.code == Some(0) && !ran.stderr.contains("ERROR"), "{query}\n{ran}");
        ran.stdout
    };
    assert_eq!(asked("SELECT count(*) FROM events").trim(), harrier.number("SELECT count(*) FROM events").to_string());
    assert!(asked("\\dt").contains("public|events|table|harrier\n"));
    assert!(asked("\\d events").contains("\nevent_time|timestamp with time zone|||\n"));
    assert!(asked("\\d+ evidence").contains("event_id|text||||extended|"));
    for listing in ["\\l", "\\dn", "\\du", "\\d", "\\dv", "\\di", "\\df", "\\dT", "\\dx", "\\dt+"] {
        asked(listing);
    }
    assert!(asked("SELECT version()").starts_with("PostgreSQL 15"));
    assert_eq!(asked("SHOW server_encoding").trim(), "UTF8");
    assert!(asked("BEGIN; SELECT 1; COMMIT").contains("\n1\n"));

    for (query, code) in
        [("DROP TABLE events", "25006"), ("COPY events TO '/tmp/x'", "25006"), ("SET role = x", "42704")]
    {
        let ran = psql(&["-v", "VERBOSITY=verbose", "-c", query], "verify-full");
        assert!(ran.code == Some(1) && ran.stderr.contains(code), "{query}\n{ran}");
    }
    // Neither in the clear nor with another password.
    let ran = psql(&["-c", "SELECT 1"], "disable");
    assert!(ran.code == Some(2) && ran.stderr.contains("without TLS"), "{ran}");
    let mut command = client("psql", &door);
    let ran = finish(command.env("PGPASSWORD", "wrong-horse").args(["-c", "SELECT 1"]));
    assert!(ran.code == Some(2) && ran.stderr.contains("the password is wrong"), "{ran}");

    assert!(door.metric("harrier_postgres_queries_total", &["result=\"answered\""]) > 20.0);
    assert_eq!(door.get("/readyz").0, 200);
    let said = door.stderr();
    assert!(said.contains("SELECT count(*) FROM events") && said.contains("\"user\":\"anna\""), "{said}");
    assert!(!said.contains(PASSWORD) && !said.contains("wrong-horse"), "{said}");
    assert_eq!(door.terminate(), Some(0));
}

#[test]
fn psycopg_reads_what_is_archived_as_text_and_in_binary() {
    let Some(python) = ["python3", "python"].into_iter().find(|python| works(python, &["-c", "import psycopg"])) else {
        println!("skipped: no python3 with psycopg");
        return;
    };
    let (harrier, config) = archived("");
    let door = Service::start_as(&config, "sql");
    let ran = finish(client(python, &door).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/door.py")));
    assert_eq!(ran.code, Some(0), "{ran}\n{}", door.stderr());
    let answers: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(answers["text"], answers["binary"]);
    let expected = harrier.rows("SELECT id, user_id, raw FROM events ORDER BY id");
    let answers = answers["text"].as_array().unwrap();
    assert_eq!(answers.len(), expected.len());
    for (row, expected) in answers.iter().zip(&expected) {
        assert_eq!((&row[0], &row[1], &row[7]), (&expected["id"], &expected["user_id"], &expected["raw"]));
    }
    assert_eq!(door.terminate(), Some(0));
}

/// Where CI puts the driver.
const DRIVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/jdbc");

#[test]
fn the_java_driver_lists_describes_and_asks() {
    let driver = std::fs::read_dir(DRIVERS).into_iter().flatten().find_map(|file| Some(file.ok()?.path()));
    let Some(driver) = driver.filter(|_| works("javac", &["-version"])) else {
        println!("skipped: no Java development kit, or no driver in {DRIVERS}");
        return;
    };
    let (harrier, config) = archived("");
    let door = Service::start_as(&config, "sql");
    let mut java = client("java", &door);
    java.arg("-cp").arg(driver).arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/Door.java"));
    let ran = finish(&mut java);
    assert_eq!(ran.code, Some(0), "{ran}\n{}", door.stderr());
    let answers: Vec<(&str, &str)> = ran.stdout.lines().map(|line| line.split_once('\t').unwrap()).collect();
    let answer = |name: &str| -> Vec<&str> {
        answers.iter().filter(|(known, _)| *known == name).map(|(_, answer)| *answer).collect()
    };
    assert_eq!(answer("schemas"), ["[information_schema, pg_catalog, public]"]);
    assert_eq!(answer("catalogs"), ["[harrier]"]);
    let tables =
        harrier.rows("SELECT table_name FROM information_schema.tables WHERE table_type = 'BASE TABLE' ORDER BY 1");
    let tables: Vec<&str> = tables.iter().map(|table| table["table_name"].as_str().unwrap()).collect();
    assert_eq!(answer("tables"), [format!("[{}]", tables.join(", "))]);
    let columns = harrier.rows("DESCRIBE blobs");
    let columns: Vec<&str> = columns.iter().map(|column| column["column_name"].as_str().unwrap()).collect();
    assert_eq!(answer("columns"), [format!("[{}]", columns.join(", "))]);
    assert!(answer("types")[0].contains("timestamptz"), "{}", answer("types")[0]);
    assert!(answer("data types")[0].contains("timestamp with time zone, "), "{}", answer("data types")[0]);
    // What an archive has none of is an empty list, not an error.
    for nothing in ["primary keys", "indexes", "imported keys", "exported keys", "procedures", "functions", "best row"]
    {
        assert_eq!(answer(nothing), ["[]"], "{nothing}");
    }
    let query = "SELECT id, event_time, day FROM events WHERE operation = 'New-InboxRule' ORDER BY id";
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_owned();
    let expected: Vec<String> = harrier
        .rows(query)
        .iter()
        .map(|row| format!("{} {} {}", text(row, "id"), text(row, "event_time"), text(row, "day")))
        .collect();
    assert!(!expected.is_empty());
    for time in 1..=8 {
        assert_eq!(answer(&format!("asked {time}")), expected, "{time}");
    }
    let count = harrier.number("SELECT count(*) FROM events").to_string();
    assert_eq!(answer("by sevens"), [count.as_str()]);
    assert_eq!(answer("at most five"), ["5"]);
    assert_eq!((answer("write"), answer("too long")), (vec!["25006"], vec!["57014"]));
    for well in ["type info", "table types", "after all"] {
        assert_eq!(answer(well), ["true"], "{well}");
    }
    assert_eq!(door.terminate(), Some(0));
}

#[test]
fn the_door_is_not_opened_to_the_network_without_a_guard() {
    let harrier = Harrier::new();
    harrier.file("password", PASSWORD);
    let user = "[[postgres.user]]\nname = \"anna\"\npassword_file = \"password\"\n";
    for guard in ["", user] {
        let text = format!("[postgres]\nlisten = \"0.0.0.0:0\"\nhttp_listen = \"127.0.0.1:0\"\n{guard}");
        let config = harrier.file("harrier.toml", text);
        let ran = finish(command().args(["run", "--role", "sql", "--config"]).arg(config));
        assert_eq!(ran.code, Some(78), "{ran}");
        assert!(ran.stderr.contains("harrier.toml:2:10: `listen` is open to the network"), "{ran}");
        assert!(!ran.stderr.contains(PASSWORD), "{ran}");
    }
    // Loopback, with a certificate that is not there: not in the clear instead.
    let (_harrier, config) = archived("tls_certificate_file = \"none.pem\"\ntls_key_file = \"password\"");
    let ran = finish(command().args(["run", "--role", "sql", "--config"]).arg(config));
    assert!(ran.code == Some(78) && ran.stderr.contains("none.pem") && !ran.stderr.contains(PASSWORD), "{ran}");
}
