use expect_test::expect_file;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::samples::{HOSTILE, finding, hostile_findings};

fn plain(finding: &Finding) -> Context<'_> {
    Context { kind: Kind::Created, incident_id: Some("i_0011223344556677"), dedup_key: &finding.id, previous_id: None }
}

#[test]
fn a_body_is_what_the_golden_file_says() {
    let mut finding = finding("a1", 3);
    finding.event_count = 23;
    finding.evidence = (0..23).map(|n| format!("event-{n:02}")).collect();
    let context = Context { kind: Kind::Updated, previous_id: Some("a0"), dedup_key: "a0", ..plain(&finding) };
    let bytes = body(&finding, &context);
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    expect_file!["finding.json"].assert_eq(&format!("{}\n", serde_json::to_string_pretty(&value).unwrap()));
}

#[test]
fn hostile_values_stay_values() {
    for finding in hostile_findings() {
        let bytes = body(&finding, &plain(&finding));
        assert!(bytes.len() <= BODY_BYTES_MAX);
        let text = std::str::from_utf8(&bytes).unwrap();
        let acting = text.chars().find(|&c| c.is_control() || acts(c));
        assert_eq!(acting, None, "{}", finding.id);
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(value["data"]["id"], finding.id.as_str());
        if finding.reason.len() < 1_000 {
            assert_eq!(value["data"]["reason"], finding.reason.as_str());
        }
    }
    assert!(HOSTILE.len() > 5);
}

#[test]
fn what_is_too_large_is_left_out_in_order_and_said() {
    let note = |value: &Value, part: &str| {
        value["data"]["notes"].as_array().unwrap().iter().any(|note| note.as_str().unwrap().contains(part))
    };
    let parsed = |finding: &Finding| serde_json::from_slice::<Value>(&body(finding, &plain(finding))).unwrap();

    let mut large = finding("a1", 1);
    large.evidence = vec!["e".repeat(2_000); 20];
    large.event_count = 20;
    let value = parsed(&large);
    assert!(note(&value, "evidence: 0 of 20") && !note(&value, "fields"));
    assert!(value["data"]["fields"].as_object().is_some_and(|fields| !fields.is_empty()));

    large.fields.insert("Subject".into(), vec!["s".repeat(30_000)]);
    let value = parsed(&large);
    assert!(note(&value, "fields were left out") && !note(&value, "texts"));
    assert_eq!(value["data"]["reason"], large.reason.as_str());

    large.reason = "r".repeat(40_000);
    large.next[0].command = Some("c".repeat(40_000));
    let value = parsed(&large);
    assert!(note(&value, "texts and lists were cut"));
    assert_eq!(value["data"]["next"][0].get("command"), None);
}

#[test]
fn the_id_of_a_delivery_has_no_dots() {
    let mut finding = finding("a.1", 2);
    assert_eq!(webhook_id(&finding), "a-1_2_open");
    finding.status = Status::Retracted;
    assert_eq!(webhook_id(&finding), "a-1_2_retracted");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_the_values_the_body_is_small_and_valid(text in ".{0,60}", repeat in 1usize..20, count in 0usize..60) {
        let long = text.repeat(repeat);
        let mut finding = finding("a1", 1);
        finding.reason = long.clone();
        finding.rule.title = long.clone();
        finding.rule.attack = vec![long.clone(); count];
        finding.rule.false_positives = vec![long.clone(); count];
        finding.rule.answers = vec![long.clone(); count];
        finding.notes = vec![long.clone(); count];
        finding.entities = vec![Entity { kind: long.clone(), id: long.clone() }; count];
        finding.next = vec![NextStep { text: long.clone(), command: Some(long) }; count];
        let bytes = body(&finding, &plain(&finding));
        prop_assert!(bytes.len() <= BODY_BYTES_MAX, "{}", bytes.len());
        prop_assert!(serde_json::from_slice::<Value>(&bytes).is_ok());
    }
}
