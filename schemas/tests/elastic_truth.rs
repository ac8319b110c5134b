//! What another parser makes of the same records, and why harrier differs.
//!
//! The peer is a parser with a test suite of 769 real records; its expectations are no part of the project, only
//! compared with. Every difference must have a reason with a name. A reason that no longer occurs fails the test as
//! well: either harrier changed its mind, or the data did, and both want to be looked at.

mod received;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use schemas::{Event, FieldId, Node, Value, field};

/// One value of one record on which the two disagree.
struct Disagreement<'a> {
    field: FieldId,
    ours: String,
    theirs: String,
    event: &'a Event,
    /// What the peer's other generation makes of the same address.
    other_generation: Option<String>,
}

impl Disagreement<'_> {
    fn raw(&self, key: &str) -> Option<&str> {
        self.event.record().get(key)?.as_str()
    }

    fn is_dlp(&self) -> bool {
        self.event.text(field::OPERATION_KEY).is_some_and(|operation| operation.starts_with("dlprule"))
    }
}

/// Why harrier differs.
struct Reason {
    name: &'static str,
    why: &'static str,
    explains: fn(&Disagreement<'_>) -> bool,
}

const REASONS: &[Reason] = &[
    Reason {
        name: "PeerAssumesSuccess",
        why: "the record does not say whether it worked, or that it is not yet done; silence is not success",
        explains: |d| {
            let undecided = d.raw("ResultStatus").is_none_or(|status| status == "InProgress");
            d.field == field::OUTCOME && d.ours == "unknown" && d.theirs == "success" && undecided
        },
    },
    Reason {
        name: "PeerTakesBlockedForFailed",
        why: "a DLP rule that blocked something has worked; the record does not say whether the user's action failed",
        explains: |d| d.field == field::OUTCOME && d.ours == "unknown" && d.theirs == "failure" && d.is_dlp(),
    },
    Reason {
        name: "PeerTrustsResultStatus",
        why: "ResultStatus of a sign-in says Success on failures and interruptions",
        explains: |d| {
            let sign_in = d.raw("Operation") == Some("UserLoginFailed");
            d.field == field::OUTCOME && sign_in && d.theirs == "success" && d.raw("ResultStatus") == Some("Success")
        },
    },
    Reason {
        name: "PeerCountsInterruptsAsFailures",
        why: "being asked for the second factor is no failure: the password was right",
        explains: |d| {
            let interrupt = d.raw("LogonError").is_some_and(|error| error.ends_with("Interrupt"));
            d.field == field::OUTCOME && d.ours == "interrupted" && d.theirs == "failure" && interrupt
        },
    },
    Reason {
        name: "PeerGenerationsDisagree",
        why: "the peer's two generations read this address in two ways, and one of them is ours",
        explains: |d| d.field == field::CLIENT_IP && d.other_generation.as_ref().is_some_and(|other| *other == d.ours),
    },
    Reason {
        name: "PeerGivesUpOnBrackets",
        why: "brackets without a port are still brackets around an address; the later generation reads them",
        explains: |d| {
            let bracketed = d.raw("ClientIP") == Some(format!("[{}]", d.ours).as_str());
            d.field == field::CLIENT_IP && d.theirs.is_empty() && bracketed
        },
    },
    Reason {
        name: "PeerKeepsThePortOfAName",
        why: "a host name is not an address, and a port without an address says nothing",
        explains: |d| d.field == field::CLIENT_PORT && d.ours.is_empty() && d.event.text(field::CLIENT_IP).is_none(),
    },
    Reason {
        name: "PeerStopsAtTheFirstField",
        why: "an unreadable ClientIPAddress does not make ClientIP beside it worthless",
        explains: |d| {
            let unreadable = d.raw("ClientIPAddress").is_some_and(|text| text.contains('('));
            let address = d.field == field::CLIENT_IP || d.field == field::CLIENT_PORT;
            address && d.theirs.is_empty() && unreadable && d.raw("ClientIP").is_some()
        },
    },
    Reason {
        name: "PeerLooksIntoParentheses",
        why: "what stands in parentheses after a server's name may be a version as well as an address",
        explains: |d| {
            let inside = format!("({})", d.theirs);
            d.field == field::CLIENT_IP && d.raw("ClientIPAddress").is_some_and(|text| text.contains(&inside))
        },
    },
    Reason {
        name: "PeerNamesWhomItIsAbout",
        why: "user_id is the actor; in DLP and alert records that is Microsoft's agent, not the person concerned",
        explains: |d| {
            let alert = d.raw("Operation") == Some("AlertEntityGenerated");
            d.field == field::USER_ID && (d.is_dlp() || alert) && Some(&d.ours) == lower(d.raw("UserId")).as_ref()
        },
    },
    Reason {
        name: "PeerPrefersYammerNumbers",
        why: "the UPN joins with every other workload, a Yammer number with none",
        explains: |d| {
            let number = d.event.record().get("ActorYammerUserId").map(|id| id.to_json().to_string());
            d.field == field::USER_ID && number.as_ref() == Some(&d.theirs)
        },
    },
];

fn lower(text: Option<&str>) -> Option<String> {
    text.map(str::to_lowercase)
}

/// One line of the peer's expectations, by the names of its columns.
type Row<'a> = BTreeMap<&'a str, &'a str>;

#[test]
fn every_difference_to_the_peer_has_a_reason() {
    let Some(folder) = received::real_data() else { return };
    let table = fs::read_to_string(folder.join("elastic-truth.tsv")).unwrap();
    let mut lines = table.lines().map(|line| line.split('\t'));
    let names: Vec<&str> = lines.next().unwrap().collect();
    let rows: Vec<Row<'_>> = lines.map(|cells| names.iter().copied().zip(cells).collect()).collect();

    let mut counts: BTreeMap<&str, usize> = REASONS.iter().map(|reason| (reason.name, 0)).collect();
    let mut unexplained = Vec::new();
    let mut compared = 0;
    for suite in ["beats", "integrations"] {
        let records = records_of(&folder, suite);
        let rows_of_suite: Vec<&Row<'_>> = rows.iter().filter(|row| row["suite"] == suite).collect();
        assert_eq!(records.len(), rows_of_suite.len(), "{suite}: one expectation for each record");
        for (record, row) in records.iter().zip(rows_of_suite) {
            let event = received::read(record.as_bytes()).unwrap();
            let id = event.record().get("Id").and_then(Node::as_str).unwrap_or_default();
            assert_eq!(id, row["Id"], "expectations stand in the order of the records");
            compared += 1;
            for disagreement in disagreements(&event, row, &rows) {
                match REASONS.iter().find(|reason| (reason.explains)(&disagreement)) {
                    Some(reason) => *counts.entry(reason.name).or_default() += 1,
                    None => unexplained.push(describe(&disagreement, row)),
                }
            }
        }
    }

    println!("{compared} records compared");
    for reason in REASONS {
        println!("{:5} {}: {}", counts[reason.name], reason.name, reason.why);
    }
    assert!(unexplained.is_empty(), "differences without a reason:\n{}", unexplained.join("\n"));
    let gone: Vec<_> = counts.iter().filter(|(_, count)| **count == 0).map(|(name, _)| name).collect();
    assert!(gone.is_empty(), "reasons that no longer occur: {gone:?}");
}

/// The suite's records in the order of its labels, which is that of its expectations.
fn records_of(folder: &Path, suite: &str) -> Vec<String> {
    let records = fs::read_to_string(folder.join(format!("elastic-{suite}-o365.jsonl"))).unwrap();
    let labels = fs::read_to_string(folder.join(format!("elastic-{suite}-o365.labels.tsv"))).unwrap();
    let records: Vec<&str> = records.lines().collect();
    let line_of = |label: &str| label.split('\t').next().and_then(|line| line.parse::<usize>().ok());
    labels.lines().filter_map(line_of).map(|line| records[line - 1].to_owned()).collect()
}

fn disagreements<'a>(event: &'a Event, row: &Row<'_>, rows: &[Row<'_>]) -> Vec<Disagreement<'a>> {
    let other_generation = rows
        .iter()
        .find(|other| {
            other["suite"] != row["suite"] && !row["ClientIP"].is_empty() && other["ClientIP"] == row["ClientIP"]
        })
        .map(|other| other["expected_source_ip"].to_owned());
    [
        (field::CLIENT_IP, row["expected_source_ip"].to_owned()),
        (field::CLIENT_PORT, row["expected_port"].to_owned()),
        (field::OUTCOME, row["expected_outcome"].to_owned()),
        (field::USER_ID, row["expected_user_id"].to_lowercase()),
    ]
    .into_iter()
    .filter_map(|(field, theirs)| {
        let ours = match event.get(field) {
            Value::Text(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            _ => String::new(),
        };
        let other_generation = other_generation.clone();
        (ours != theirs).then_some(Disagreement { field, ours, theirs, event, other_generation })
    })
    .collect()
}

fn describe(disagreement: &Disagreement<'_>, row: &Row<'_>) -> String {
    let Disagreement { field, ours, theirs, .. } = disagreement;
    format!("{} {} {}: {} is {ours:?}, theirs {theirs:?}", row["suite"], row["file"], row["n"], field.field().name)
}
