//! What an answer rests on.

use std::collections::BTreeMap;

use archive::sql::Sql;
use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::error::Error;
use crate::rows;

#[derive(Deserialize)]
struct Row {
    tenant: String,
    feed: String,
    window_start: DateTime<Utc>,
    window_end: DateTime<Utc>,
    state: String,
    #[serde(default)]
    reason: String,
}

/// Sentences on what was collected between two moments, one a feed; never empty.
pub async fn statement(sql: &Sql, from: DateTime<Utc>, to: DateTime<Utc>) -> Result<Vec<String>, Error> {
    let text = "SELECT tenant, feed, window_start, window_end, state, reason FROM coverage ORDER BY tenant, feed, window_start";
    let rows: Vec<Row> = rows::query(sql, text, &[]).await?;
    let gone = sql.retained().await?.into_iter().filter(|kept| from.date_naive() < kept.since).map(|kept| {
        let (table, tenant) = (kept.table, schemas::text::escape_controls(&kept.tenant));
        format!(
            "{tenant}: {table} of before {} were past their time and are gone, but for days under a hold",
            kept.since
        )
    });
    let mut told: Vec<String> = gone.collect();
    let mut feeds: BTreeMap<(String, String), Vec<Row>> = BTreeMap::new();
    for row in rows.into_iter().filter(|row| row.window_start <= to && row.window_end >= from) {
        feeds.entry((row.tenant.clone(), row.feed.clone())).or_default().push(row);
    }
    if feeds.is_empty() {
        let nothing = "nothing is known to have been collected for this time: an empty answer is not a clean one";
        told.push(nothing.to_owned());
    }
    told.extend(feeds.into_iter().map(|((tenant, feed), rows)| sentence(&tenant, &feed, &rows)));
    Ok(told)
}

fn sentence(tenant: &str, feed: &str, rows: &[Row]) -> String {
    let tenant = schemas::text::escape_controls(tenant);
    let feed = schemas::text::escape_controls(feed);
    let weak: Vec<&Row> = rows.iter().filter(|row| row.state != "complete").collect();
    let until = rows.iter().filter(|row| row.state == "complete").map(|row| row.window_end).max();
    match (until, weak.first()) {
        (Some(until), None) => {
            format!("{tenant} {feed}: complete for what Microsoft listed up to {}", until.format("%F %T UTC"))
        }
        (_, Some(first)) => {
            let more = if weak.len() > 1 { format!(" (and {} more stretches)", weak.len() - 1) } else { String::new() };
            let span = format!("{} to {}", first.window_start.format("%F %T"), first.window_end.format("%F %T UTC"));
            format!("{tenant} {feed}: {} {span}: {}{more}", first.state, schemas::text::escape_controls(&first.reason))
        }
        (None, None) => format!("{tenant} {feed}: nothing is known"),
    }
}
