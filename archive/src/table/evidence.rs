//! `evidence`: which records a finding rests on.

use schemas::message::Topic;

use super::{Column, Kind, Row, Table, text};

pub static EVIDENCE: Table = Table {
    name: "evidence",
    doc: "Which records a finding rests on: joins findings.id to events.id within a tenant. A finding that was retracted or superseded keeps its rows.",
    columns,
    partition_columns: &["tenant"],
    statistics: &[],
    bloom_filters: &["finding_id", "event_id"],
    topic: Topic::Findings,
    sorted_by: &["finding_id", "event_id"],
    rows_of_event: None,
};

fn columns() -> Vec<Column> {
    vec![
        Column::new("finding_id", Kind::Text, "findings.id."),
        Column::new("tenant", Kind::Text, "The tenant's name."),
        Column::new("event_id", Kind::Text, "events.id; a finding names at most 10,000."),
    ]
}

pub(crate) fn row<'a>(finding_id: &'a str, tenant: &'a str, event_id: &'a str) -> Row<'a> {
    vec![text(finding_id), text(tenant), text(event_id)]
}
