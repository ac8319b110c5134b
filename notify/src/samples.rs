//! Findings for tests.

use chrono::{DateTime, Utc};
use schemas::finding::{Entity, Finding, Level, NextStep, RuleReference, SCHEMA, Status};

pub fn time(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

/// When the tests begin.
pub fn start() -> DateTime<Utc> {
    time("2026-11-22T10:00:00Z")
}

/// A finding an hour old, with one event for each revision.
pub fn finding(id: &str, revision: u32) -> Finding {
    Finding {
        schema: SCHEMA.to_owned(),
        tenant: "contoso".parse().unwrap(),
        id: id.to_owned(),
        revision,
        status: Status::Open,
        superseded_by: None,
        rule: RuleReference {
            id: "inbox-rule-hides-mail".into(),
            version: "0123456789ab".into(),
            title: "Inbox rule hides mail".into(),
            level: Level::High,
            attack: vec!["T1564.008".into()],
            false_positives: vec!["People who sort newsletters".into()],
            answers: vec!["how".into(), "left_behind".into()],
        },
        reason: "Rule '.' made from 203.0.113.77 moves mail with 'invoice' to RSS Feeds".into(),
        entity: "j.doe@contoso.example".into(),
        entities: vec![
            Entity { kind: "user".into(), id: "j.doe@contoso.example".into() },
            Entity { kind: "session".into(), id: format!("session-of-{id}") },
        ],
        first_event: time("2026-11-22T09:00:00Z"),
        last_event: time("2026-11-22T09:10:00Z"),
        event_count: u64::from(revision),
        evidence: (0..revision).map(|n| format!("event-{n}")).collect(),
        fields: [("client_ip".to_owned(), vec!["203.0.113.77".to_owned()])].into(),
        notes: vec![],
        next: vec![NextStep { text: "Remove the rule".into(), command: Some("Remove-InboxRule -Identity '.'".into()) }],
        created: time("2026-11-22T09:20:00Z"),
        updated: time("2026-11-22T09:30:00Z"),
        notify: true,
        incident_id: None,
    }
}

pub const HOSTILE: [&str; 9] = [
    "<!channel> <https://evil.example|click>",
    "a\r\nInjected: header\r\n\r\n{\"type\":\"finding.created\"}",
    "\u{1b}[2J\u{1b}]0;title\u{7}",
    "\u{9b}31m\u{7f}\u{85}",
    "txt.\u{202e}exe.\u{2066}bidi\u{2069}",
    "\0null\u{2028}line\u{2029}paragraph\u{feff}",
    "=cmd|' /C calc'!A0 | \\ \" ' % ${jndi:ldap://x}",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "\u{10ffff}\u{fffd}👩‍💻",
];

/// A finding for every hostile text in every place a text can be, and the same at 40 kB.
pub fn hostile_findings() -> Vec<Finding> {
    let long = HOSTILE.iter().map(|text| text.repeat(40_000 / text.len()));
    let texts = HOSTILE.iter().map(|text| (*text).to_owned()).chain(long);
    texts
        .enumerate()
        .map(|(number, text)| {
            let mut finding = finding(&format!("hostile{number}"), 1);
            finding.reason.clone_from(&text);
            finding.rule.title.clone_from(&text);
            finding.entity.clone_from(&text);
            finding.entities.push(Entity { kind: "address".into(), id: text.clone() });
            finding.evidence = vec![text.clone()];
            finding.fields.insert(text.clone(), vec![text.clone()]);
            finding.notes.push(text.clone());
            finding.next.push(NextStep { text: text.clone(), command: Some(text) });
            finding
        })
        .collect()
}
