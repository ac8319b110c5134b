//! `coverage`: what the answers rest on, stretch by stretch and feed by feed.

use schemas::message::{Coverage, Topic};

use super::{Column, Kind, Row, Table, text, time};

pub static COVERAGE: Table = Table {
    name: "coverage",
    doc: "What has been collected, by feed and stretch of time. Where there is no row, nothing is known: empty is not clean.",
    columns,
    partition_columns: &["tenant"],
    statistics: &[],
    bloom_filters: &[],
    topic: Topic::Coverage,
    sorted_by: &["window_start", "feed"],
    rows_of_event: None,
};

fn columns() -> Vec<Column> {
    vec![
        Column::new("tenant", Kind::Text, "The tenant's name."),
        Column::new("feed", Kind::Text, "The content type, or import: and the file's name."),
        Column::new(
            "window_start",
            Kind::Time,
            "Start of the stretch: by availability for feeds, by event time for imports.",
        ),
        Column::new("window_end", Kind::Time, "End of the stretch."),
        Column::new("state", Kind::Text, "complete, partial or missing."),
        Column::new("reason", Kind::Text, "Why it is not complete."),
    ]
}

pub(crate) fn row(coverage: &Coverage) -> Row<'_> {
    vec![
        text(coverage.tenant.as_str()),
        text(&coverage.feed),
        time(coverage.window_start),
        time(coverage.window_end),
        text(coverage.state.as_str()),
        text(&coverage.reason),
    ]
}
