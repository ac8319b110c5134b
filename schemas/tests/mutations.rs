//! Records that are almost right: every mutation that collectors, exports and Microsoft itself have been seen to make,
//! and random ones. Whatever happens, a JSON object becomes an event: no panic, every value of its field's type, every
//! defect of a known field, and the same id as long as the id is untouched, because the id is what keeps two deliveries
//! of one record together.

mod received;

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use schemas::field::{self, Kind};
use schemas::{Event, FIELDS, Value};
use serde_json::{Value as Json, json};

#[test]
fn known_mutations_keep_the_id() {
    for (name, record) in records() {
        let original = read(&record);
        for (mutation, mutate) in MUTATIONS {
            let mut mutated = record.clone();
            mutate(&mut mutated);
            let event = read(&mutated);
            check(&event);
            if !original.id().starts_with("content:") {
                assert_eq!(event.id(), original.id(), "{name}: {mutation}");
            }
        }
    }
}

#[test]
fn harmless_mutations_change_no_value() {
    for (name, record) in records() {
        let original = read(&record);
        for (mutation, mutate) in HARMLESS {
            let mut mutated = record.clone();
            mutate(&mut mutated);
            let event = read(&mutated);
            for (index, field) in FIELDS.iter().enumerate().filter(|(_, field)| field.name != "raw") {
                let id = field::by_name(field.name).unwrap();
                assert_eq!(id.index(), index);
                let content_id = field.name == "id" && original.id().starts_with("content:");
                assert!(content_id || event.get(id) == original.get(id), "{name}: {mutation} changes {}", field.name);
            }
        }
    }
}

#[test]
fn an_operation_is_compared_without_its_trimmings() {
    for (spelling, expected) in [
        ("Add member to role.", "add member to role"),
        ("Add member to role. ", "add member to role"),
        ("ADD MEMBER TO ROLE", "add member to role"),
        ("Update application – Certificates", "update application - certificates"),
        ("Update application \u{fffd} Certificates", "update application - certificates"),
        ("Update application \u{2212} Certificates.", "update application - certificates"),
        ("..", "."),
        (".", "."),
    ] {
        let event = read(&json!({ "Operation": spelling }));
        assert_eq!(event.text(field::OPERATION_KEY), Some(expected), "{spelling}");
        assert_eq!(event.text(field::OPERATION), Some(spelling));
    }
}

#[test]
fn damaged_bytes_are_refused_or_read() {
    for (name, record) in records() {
        let bytes = record.to_string().into_bytes();
        for cut in 0..bytes.len().min(200) {
            assert!(received::read(&bytes[..bytes.len() - 1 - cut]).is_err(), "{name}: half an object is no record");
        }
        for at in (0..bytes.len()).step_by(7) {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x15;
            if let Ok(event) = received::read(&damaged) {
                check(&event);
            }
        }
    }
    for text in ["", "[]", "null", "\"x\"", "[{}]", "{} {}"] {
        assert!(received::read(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn lists_are_cut_at_their_limit_and_say_so() {
    let items: Vec<Json> = (0..10_050).map(|n| json!({ "InternetMessageId": format!("<{n}@x>") })).collect();
    let targets: Vec<String> = (0..1_050).map(|n| format!("{n:05}@dropbox.example")).collect();
    let event = read(&json!({
        "Operation": "HardDelete", "Id": "1", "CreationTime": "2026-03-04T08:00:00",
        "AffectedItems": items, "Parameters": [{"Name": "ForwardTo", "Value": targets.join(";")}],
    }));
    let length = |id| match event.get(id) {
        Value::TextList(list) => list.len(),
        _ => 0,
    };
    assert_eq!((length(field::INTERNET_MESSAGE_IDS), length(field::FORWARD_TARGETS)), (10_000, 1_000));
    assert_eq!(event.get(field::ITEM_COUNT), &Value::Integer(10_050));
    let defects: Vec<_> = event.defects().map(|defect| (defect.field, defect.kind.as_str())).collect();
    assert_eq!(defects, [("internet_message_ids", "truncated"), ("forward_targets", "truncated")]);
}

type Mutation = (&'static str, fn(&mut Json));

const MUTATIONS: &[Mutation] = &[
    ("no address", |record| drop(record.as_object_mut().map(|record| record.shift_remove("ClientIP")))),
    ("an empty address", |record| record["ClientIP"] = json!("")),
    ("a null address", |record| record["ClientIP"] = Json::Null),
    ("loopback", |record| record["ClientIP"] = json!("::1")),
    ("a mapped address", |record| record["ClientIP"] = json!("::ffff:203.0.113.77")),
    ("an address with port", |record| record["ClientIP"] = json!("203.0.113.77:1")),
    ("an IPv6 address with port", |record| record["ClientIP"] = json!("[2001:db8::1]:1")),
    ("the record type as text", |record| record["RecordType"] = json!("2")),
    ("a time with Z", |record| suffix(record, "CreationTime", "Z")),
    ("a time with decimals", |record| suffix(record, "CreationTime", ".1234567Z")),
    ("five days late", |record| record["CreationTime"] = json!("2026-02-27T00:00:00")),
    ("parameters as text", |record| record["Parameters"] = json!("-Name \"x\" -ForwardTo \"drop@example.net\"")),
    ("entries without value", |record| each_entry(record, &mut |entry| drop(entry.shift_remove("Value")))),
    ("an upper-case user", |record| upper(record, "UserId")),
    ("a space behind the operation", |record| suffix(record, "Operation", " ")),
    ("a full stop behind the operation", |record| suffix(record, "Operation", ".")),
    ("a localised folder", |record| record["Folder"] = json!({ "Path": "\\Éléments supprimés" })),
    ("numbers as floats", |record| floats(record)),
    ("nothing but the id", |record| *record = json!({ "Id": record["Id"] })),
];

/// Mutations after which the record says the same.
const HARMLESS: &[Mutation] = &[
    ("numbers as floats", floats),
    ("keys in another order", |record| {
        if let Json::Object(map) = record {
            *map = std::mem::take(map).into_iter().rev().collect();
        }
    }),
    ("an upper-case id", |record| upper(record, "Id")),
    ("a padded session", |record| suffix(record, "SessionId", " ")),
    ("an unknown key", |record| record["NewIn2027"] = json!([{ "a": { "b": null } }])),
];

fn suffix(record: &mut Json, key: &str, with: &str) {
    if let Some(Json::String(text)) = record.get_mut(key) {
        text.push_str(with);
    }
}

fn upper(record: &mut Json, key: &str) {
    if let Some(Json::String(text)) = record.get_mut(key) {
        *text = text.to_uppercase();
    }
}

fn each_entry(record: &mut Json, change: &mut dyn FnMut(&mut serde_json::Map<String, Json>)) {
    for list in record.as_object_mut().into_iter().flat_map(|record| record.values_mut()).filter_map(Json::as_array_mut)
    {
        list.iter_mut().filter_map(Json::as_object_mut).for_each(&mut *change);
    }
}

fn floats(node: &mut Json) {
    match node {
        Json::Number(number) => *node = json!(number.as_f64()),
        Json::Array(items) => items.iter_mut().for_each(floats),
        // An id that is a number is unreadable, and its place is taken by the content.
        Json::Object(members) => members.iter_mut().filter(|(key, _)| *key != "Id").for_each(|(_, node)| floats(node)),
        _ => {}
    }
}

fn records() -> Vec<(String, Json)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|file| file.extension().is_some_and(|extension| extension == "json"))
        .map(|file| (file.display().to_string(), serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap()))
        .collect()
}

fn read(record: &Json) -> Event {
    received::read(record.to_string().as_bytes()).unwrap()
}

/// What every event promises.
fn check(event: &Event) {
    assert!(!event.id().is_empty());
    for field in FIELDS.iter().filter(|field| field.name != "raw") {
        let value = event.get(field::by_name(field.name).unwrap());
        let fits = match (field.kind, value) {
            (_, Value::Null) => true,
            (Kind::Text, Value::Text(text)) => !text.is_empty(),
            (Kind::TextList, Value::TextList(list)) => !list.is_empty(),
            (Kind::Integer, Value::Integer(_)) | (Kind::Boolean, Value::Boolean(_)) | (Kind::Time, Value::Time(_)) => {
                true
            }
            _ => false,
        };
        assert!(fits, "{} holds {value:?}", field.name);
    }
    for defect in event.defects() {
        assert!(FIELDS.iter().any(|field| field.name == defect.field));
    }
}

/// JSON of any shape, made of the names and texts that the readers look for.
fn any_json() -> impl Strategy<Value = Json> {
    let names = prop::sample::select(vec![
        "Id",
        "Name",
        "Value",
        "Key",
        "NewValue",
        "Recipients",
        "ActionType",
        "ActionS",
        "Type",
        "InternetMessageId",
        "FolderItems",
        "SessionId",
        "UserAgent",
        "ForwardTo",
        "RuleActions",
        "ServerRule",
        "MailAccessType",
        "a.b",
    ]);
    let texts = prop::sample::select(vec![
        "",
        "<null>",
        "Not Available",
        "::1",
        "[::1",
        "1.2.3.4:",
        "New-InboxRule",
        "a\\b",
        "x@y",
        "\"@",
        "@[",
        "{\"Recipients\":[\"a@b\"]}",
        "[\"{\\\"ActionType\\\":\\\"Forward\\\"}\"]",
        "-ForwardTo (\"a@b\",",
        "Forward",
        "2026-03-04T08:00:00",
        "2026-03-04T08:00:00.",
        "9999-12-31T23:59:59-23:59",
        "1e400",
        "–.",
        "Sync",
        "é",
        "Delegated",
    ]);
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(|float| json!(float)),
        texts.prop_map(Json::from),
        "\\PC{0,12}".prop_map(Json::from),
    ];
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::vec((names.clone(), inner), 0..4)
                .prop_map(|members| members.into_iter().map(|(name, node)| (name.to_owned(), node)).collect()),
        ]
    })
}

/// The first key of every source of every field: where random values have an effect.
fn source_keys() -> Vec<&'static str> {
    let sources = FIELDS.iter().flat_map(|field| field.sources).map(|source| source.split('.').next().unwrap());
    sources.chain(["ErrorNumber", "LogonError", "ResultStatus"]).filter(|key| *key != "Id").collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_value_at_any_source_is_read(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((prop::sample::select(source_keys()), any_json()), 1..6),
    ) {
        let records = records();
        let (_, record) = which.get(&records);
        let id = read(record).id().to_owned();
        let mut mutated = record.clone();
        for (key, node) in changes {
            mutated[key] = node;
        }
        let event = read(&mutated);
        check(&event);
        prop_assert!(id.starts_with("content:") || event.id() == id);
        prop_assert_eq!(read(&mutated), event);
    }
}
