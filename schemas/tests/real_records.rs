//! Every real record of the test data passes through [`Event::read`] without loss, and what is odd about it is known.

mod received;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use schemas::{Event, FIELDS, Value, field};

/// Files of the folder that hold other things than audit records: rows of Entra's own logs and of message trace.
const OTHER_SHAPES: &[&str] = &["attack-lab-2021-entra-", "entra-", "messagetrace-"];

/// The defects of real audit records: file, field, kind, how many, and why they are right.
const EXPECTED: &[(&str, &str, &str, usize, &str)] = &[
    ("elastic-beats-o365", "client_ip", "unreadable", 3, "host names"),
    ("elastic-beats-o365", "operation", "missing", 15, "records cut down to their address"),
    ("elastic-integrations-o365", "client_ip", "unreadable", 3, "host names"),
    ("elastic-integrations-o365", "id", "missing", 1, "a record cut down to a server name"),
    ("elastic-integrations-o365", "operation", "missing", 16, "records cut down to their address"),
    ("msticpy-officeactivity-random", "logon_type", "unreadable", 2, "anonymised by force: 4b1b8"),
    ("wazuh-tests", "client_ip", "unreadable", 127, "the word sanitized"),
    ("wazuh-tests", "event_time", "missing", 1, "a line of a collector about itself"),
    ("wazuh-tests", "id", "missing", 1, "a line of a collector about itself"),
    ("wazuh-tests", "operation", "missing", 100, "records cut down to their type"),
];

#[test]
fn real_records_are_read_without_loss() {
    let Some(folder) = received::real_data() else { return };
    let mut defects: BTreeMap<(String, &str, &str), usize> = BTreeMap::new();
    let mut read = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let is_audit = !OTHER_SHAPES.iter().any(|prefix| name.starts_with(prefix));
        for line in fs::read_to_string(&path).unwrap().lines() {
            let event = received::read(line.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error}"));
            let parsed: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(event.record().to_json(), parsed, "{name}: the parsed record holds all of it");
            assert!(!event.id().is_empty());
            check_values(&event);
            read += 1;
            for defect in event.defects().filter(|_| is_audit) {
                *defects.entry((name.clone(), defect.field, defect.kind.as_str())).or_default() += 1;
            }
        }
    }
    println!("{read} records read");
    let expected = EXPECTED.iter().map(|&(file, field, kind, count, _)| ((file.to_owned(), field, kind), count));
    assert_eq!(defects, expected.collect());
}

/// What every reader of an event may rely on.
fn check_values(event: &Event) {
    let text = |id| event.text(id).unwrap_or_default();
    for id in [field::USER_ID, field::OPERATION_KEY, field::SESSION_ID, field::APP_ID, field::MAILBOX_OWNER] {
        assert_eq!(text(id), text(id).trim().to_lowercase(), "{}", id.field().name);
    }
    if let Some(address) = event.text(field::CLIENT_IP) {
        let parsed: std::net::IpAddr = address.parse().unwrap();
        assert_eq!(parsed.to_string(), address);
    }
    if let Value::TextList(targets) = event.get(field::FORWARD_TARGETS) {
        assert!(targets.iter().all(|target| target.contains('@')));
    }
    let known: BTreeSet<&str> = FIELDS.iter().map(|field| field.name).collect();
    assert!(event.defects().all(|defect| known.contains(defect.field)));
}
