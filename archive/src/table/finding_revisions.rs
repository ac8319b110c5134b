//! `finding_revisions`: every revision of every finding, append-only: what was known when.

use schemas::Finding;
use schemas::message::Topic;

use super::{Row, Table, findings};

pub static FINDING_REVISIONS: Table = Table {
    name: "finding_revisions",
    doc: "Every revision of every finding, append-only: what was known when.",
    columns: findings::columns,
    partition_columns: &["tenant"],
    statistics: &["first_event"],
    bloom_filters: &["id"],
    topic: Topic::Findings,
    sorted_by: &["updated", "id", "revision"],
    rows_of_event: None,
};

/// The columns are those of `findings`.
pub(crate) fn row(finding: &Finding) -> Row<'_> {
    findings::row(finding)
}
