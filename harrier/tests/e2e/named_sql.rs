//! `harrier sql --query`: the questions of an incident, asked of a played takeover whose truth is known.

use serde_json::Value;

use crate::binary::{Harrier, Ran};
use crate::sample::{self, joined, lines};

const NAMES: [&str; 8] = ["intruder", "entry", "when", "accounts", "taken", "messages", "launched", "left_behind"];

/// How many rows of an answer are kept to compare with: of hundreds of messages the first say enough.
const GOLDEN_ROWS: usize = 20;

fn ask(harrier: &Harrier, name: &str, parameters: &[&str]) -> Ran {
    harrier.run([&["sql", "--format", "ndjson", "--query", name], parameters].concat())
}

fn rows(ran: &Ran) -> Vec<Value> {
    assert_eq!(ran.code, Some(0), "{ran}");
    let mut rows: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for row in &mut rows {
        // The moment of the import.
        row.as_object_mut().unwrap().remove("received_time");
    }
    rows
}

#[test]
fn a_takeover_is_told_question_by_question() {
    let harrier = Harrier::new();
    let world = sample::world(11);
    let file = harrier.file("records.jsonl", joined(&lines(&world)));
    harrier.import(&[file], &["--domains", "contoso.example"]);
    let user = format!("user={}", world.story.victim.to_uppercase());
    let mut wrong = Vec::new();
    for name in NAMES {
        let ran = ask(&harrier, name, &[&user]);
        let told: String = rows(&ran).iter().take(GOLDEN_ROWS).map(|row| format!("{row}\n")).collect();
        // Where the file lay is another place each time.
        let told = told.replace(&harrier.path("records.jsonl").display().to_string(), "records.jsonl");
        assert!(ran.stderr.contains("Cannot see") && ran.stderr.contains("This answer rests on"), "{ran}");
        let path = format!("{}/tests/e2e/named_sql/{name}.ndjson", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &told).unwrap();
        }
        if std::fs::read_to_string(&path).unwrap_or_default() != told {
            wrong.push(format!("{path}:\n{told}"));
        }
    }
    assert!(wrong.is_empty(), "UPDATE_GOLDEN=1 writes what is told now\n{}", wrong.concat());

    // The truth, from the story and not from the answers.
    let step = |name: &str| &world.story.steps.iter().find(|step| step.name == name).unwrap().record_ids;
    let launched = rows(&ask(&harrier, "launched", &[&user]));
    let sent = launched.iter().filter(|row| row["what"] == "Send" && row["whose"] == "intruder");
    let sent: u64 = sent.map(|row| row["items"].as_u64().unwrap()).sum();
    assert_eq!(sent, step("send_burst").len() as u64);
    let accounts = rows(&ask(&harrier, "accounts", &[&user]));
    let second = harrier.rows(&format!("SELECT user_id FROM events WHERE id = '{}'", step("second_account")[0]));
    assert_eq!(accounts[0]["user_id"], second[0]["user_id"], "the one signed in to comes first");
    let left = rows(&ask(&harrier, "left_behind", &[&user]));
    for name in ["hide_rule", "forward_rule", "mailbox_forwarding", "consent"] {
        let told = |id: &String| left.iter().any(|row| row["event_id"] == id.as_str());
        assert!(step(name).iter().any(told), "{name}");
    }
    // Given the address, the same is told without any finding; given another, nothing is.
    let given =
        [&user, "ip=203.0.113.77", "since=2026-11-20T00:00:00Z", "until=2026-11-21T00:00:00Z", "tenant=contoso"];
    assert_eq!(rows(&ask(&harrier, "launched", &given)), launched);
    let nobody = ask(&harrier, "launched", &[&user, "ip=192.0.2.250"]);
    assert!(rows(&nobody).is_empty() && nobody.stderr.contains("Nothing was found"), "{nobody}");
    let moments = rows(&ask(&harrier, "when", &[&user]));
    let signed_in = moments.iter().find(|row| row["moment"] == "first successful sign-in").unwrap();
    let session = format!("session={}", signed_in["session_id"].as_str().unwrap());
    assert_eq!(rows(&ask(&harrier, "launched", &[&user, &session])), launched);
}

#[test]
fn parameters_are_values_and_what_is_wrong_with_them_is_said() {
    let harrier = Harrier::new();
    let file = harrier.file("records.jsonl", joined(&[sample::sign_in(1)]));
    harrier.import(&[file], &[]);
    for hostile in ["user=' OR 1=1 --", "user=x'; DROP TABLE events; --", "user=$tenant", "user=\u{1b}[2J"] {
        assert!(rows(&ask(&harrier, "intruder", &[hostile])).is_empty(), "{hostile}");
    }
    for (parameters, complaint) in [
        (vec![], "needs user="),
        (vec!["user=a", "user=b"], "twice"),
        (vec!["user=a", "usr=b"], "no parameter"),
        (vec!["user=a", "since=yesterday"], "since"),
        (vec!["user"], "NAME=VALUE"),
    ] {
        let ran = ask(&harrier, "intruder", &parameters);
        assert!(ran.code == Some(1) && ran.stderr.contains(complaint), "{parameters:?} {ran}");
    }
    let ran = ask(&harrier, "intrudr", &["user=a"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("left_behind"), "{ran}");
    let listed = harrier.run(["sql", "--queries"]);
    assert!(NAMES.iter().all(|name| listed.stdout.contains(&format!("{name}: "))), "{listed}");
    assert!(harrier.run(["sql", "--queries", "taken"]).stdout.contains("FROM mail_items"));
    // What a parameter is for a named query is a mistake after a plain one.
    assert_eq!(harrier.run(["sql", "SELECT 1", "user=a"]).code, Some(2));
}
