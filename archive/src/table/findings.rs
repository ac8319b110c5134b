//! `findings`: one row for each finding, newest revision. The rows of a tenant are replaced in one commit.

use schemas::Finding;
use schemas::message::Topic;

use super::{Column, Kind, Row, Table, integer, optional, text, texts, time};

pub static FINDINGS: Table = Table {
    name: "findings",
    doc: "One row for each finding, newest revision.",
    columns,
    partition_columns: &["tenant"],
    statistics: &["first_event"],
    bloom_filters: &[],
    topic: Topic::Findings,
    sorted_by: &["first_event", "id"],
    rows_of_event: None,
};

/// The column that holds the finding whole, from which the archiver starts again.
pub(crate) const FINDING_COLUMN: &str = "finding";

pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::new("tenant", Kind::Text, "The tenant's name."),
        Column::new("id", Kind::Text, "The finding's id: the same in every run over the same records."),
        Column::new("revision", Kind::Integer, "Counts from 1; every change adds one."),
        Column::new("status", Kind::Text, "open, final, superseded, merged or retracted."),
        Column::new("superseded_by", Kind::Text, "The finding that took over, if one did."),
        Column::new(
            "incident_id",
            Kind::Text,
            "The incident: findings that share a session, an address and a user, or an application within 72 hours.",
        ),
        Column::new("rule_id", Kind::Text, "The rule."),
        Column::new("rule_version", Kind::Text, "Hash of the rule's meaning."),
        Column::new("title", Kind::Text, "The rule's title."),
        Column::new("level", Kind::Text, "informational, low, medium, high or critical."),
        Column::new("attack", Kind::TextList, "ATT&CK technique ids."),
        Column::new("entity", Kind::Text, "The group key as text: whom or what it is about."),
        Column::new("first_event", Kind::Time, "Event time of the first member."),
        Column::new("last_event", Kind::Time, "Event time of the last member."),
        Column::new("event_count", Kind::Integer, "Distinct records."),
        Column::new("reason", Kind::Text, "Who, what, whose, whence, when, and why that is unusual."),
        Column::new("notes", Kind::TextList, "What weakens the answer: warm-up, unknown domains, throttling."),
        Column::new("created", Kind::Time, "Received time of the record that caused the first revision."),
        Column::new("updated", Kind::Time, "Received time of the record that caused the newest revision."),
        Column::new(FINDING_COLUMN, Kind::Text, "The whole finding as JSON."),
    ]
}

pub(crate) fn row(finding: &Finding) -> Row<'_> {
    vec![
        text(finding.tenant.as_str()),
        text(&finding.id),
        integer(finding.revision.into()),
        text(finding.status.as_str()),
        optional(finding.superseded_by.as_deref()),
        optional(finding.incident_id.as_deref()),
        text(&finding.rule.id),
        text(&finding.rule.version),
        text(&finding.rule.title),
        text(finding.rule.level.as_str()),
        texts(&finding.rule.attack),
        text(&finding.entity),
        time(finding.first_event),
        time(finding.last_event),
        integer(finding.event_count),
        text(&finding.reason),
        texts(&finding.notes),
        time(finding.created),
        time(finding.updated),
        // A finding is strings, numbers and times: it always serialises.
        text(serde_json::to_string(finding).unwrap_or_default()),
    ]
}
