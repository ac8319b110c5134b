//! `harrier status`: how complete each feed is, from the ledger in the log. Asks nobody, and harrier need not run.

use chrono::{DateTime, Utc};
use ingest::ledger::Ledger;
use ingest::status::{Delay, FeedStatus, Standing};
use schemas::tenant::Tenant;
use schemas::text::escape_controls;

use crate::cli::{Global, Status};
use crate::exit::Outcome;
use crate::services;
use crate::show::grouped;

/// A time, as people read it.
const TIME: &str = "%Y-%m-%d %H:%M:%S";

pub async fn run(global: &Global, options: &Status) -> anyhow::Result<Outcome> {
    let config = services::config(global)?;
    let now = Utc::now();
    // A log is not made by asking for it.
    let log = if services::has_log(&config) { Some(services::open_log(&config)?) } else { None };
    let is_asked_for = |name: &Tenant| options.tenant.as_ref().is_none_or(|only| only == name);
    let asked: Vec<_> = config
        .tenants
        .iter()
        .filter(|tenant| is_asked_for(&tenant.name))
        .filter_map(|tenant| Some((&tenant.name, tenant.access.as_ref()?)))
        .collect();
    let names: Vec<&Tenant> = asked.iter().map(|(name, _)| *name).collect();
    let ledgers = match &log {
        Some(log) => Ledger::look(&**log, &names).await?,
        None => vec![Ledger::default(); names.len()],
    };
    let mut tenants = Vec::new();
    for ((name, access), ledger) in asked.into_iter().zip(&ledgers) {
        let content_types: Vec<String> = access.content_types.iter().map(|known| known.as_str().to_owned()).collect();
        tenants.push((name.to_string(), ingest::status::of(ledger, &content_types, now)));
    }
    let needs_attention = tenants.iter().flat_map(|(_, feeds)| feeds).any(|feed| feed.standing.needs_attention());
    if options.json {
        println!("{}", serde_json::to_string_pretty(&json(&tenants, now))?);
    } else {
        print!("{}", screen(&tenants, now));
    }
    // For scripts: 0 only where every feed is complete or on its way.
    Ok(if needs_attention || tenants.is_empty() { Outcome::Incomplete } else { Outcome::Done })
}

fn json(tenants: &[(String, Vec<FeedStatus>)], now: DateTime<Utc>) -> serde_json::Value {
    let tenants: Vec<_> =
        tenants.iter().map(|(name, feeds)| serde_json::json!({"tenant": name, "feeds": feeds})).collect();
    serde_json::json!({"time": now, "tenants": tenants})
}

fn screen(tenants: &[(String, Vec<FeedStatus>)], now: DateTime<Utc>) -> String {
    if tenants.is_empty() {
        return "No tenant of the configuration is collected: nothing is known.\n".to_owned();
    }
    let head =
        ["TENANT", "FEED", "IS", "COMPLETE UP TO (UTC)", "BEHIND", "BACKLOG", "NEXT TRY", "MICROSOFT TOOK", "WE TOOK"];
    let mut rows = vec![head.map(str::to_owned)];
    for (tenant, feed) in each(tenants) {
        rows.push([
            tenant.clone(),
            feed.content_type.clone(),
            feed.standing.as_str().to_owned(),
            feed.complete_until.map_or("never".to_owned(), |until| until.format(TIME).to_string()),
            feed.complete_until.map_or("-".to_owned(), |until| length((now - until).num_seconds())),
            grouped(feed.backlog),
            feed.next_try.map_or("-".to_owned(), |at| match (at - now).num_seconds() {
                ..=0 => "now".to_owned(),
                seconds => format!("in {}", length(seconds)),
            }),
            delay(feed.microsoft_delay),
            delay(feed.own_delay),
        ]);
    }
    let mut text = table(&rows);
    for (tenant, feeds) in tenants {
        text.push_str(&kept(tenant, feeds));
    }
    for (tenant, feed) in each(tenants) {
        text.push_str(&missing(tenant, feed));
    }
    text
}

/// What keeps feeds, said once for all that it keeps.
fn kept(tenant: &str, feeds: &[FeedStatus]) -> String {
    let mut text = String::new();
    for (standing, why) in [
        (Standing::Unknown, "never collected. Is `harrier run` running? `harrier check` says what it needs"),
        (
            Standing::Stale,
            "not listed for an hour or more. Is `harrier run` running? What became available meanwhile can be had for \
             seven days",
        ),
        (
            Standing::Disabled,
            "the subscription is disabled, and what becomes available meanwhile is lost to the feed: `harrier check` \
             says how to start it",
        ),
    ] {
        let names: Vec<&str> =
            feeds.iter().filter(|feed| feed.standing == standing).map(|feed| feed.content_type.as_str()).collect();
        if !names.is_empty() {
            text.push_str(&format!("\n{tenant} {}: {why}\n", names.join(", ")));
        }
    }
    text
}

fn each(tenants: &[(String, Vec<FeedStatus>)]) -> impl Iterator<Item = (&String, &FeedStatus)> {
    tenants.iter().flat_map(|(tenant, feeds)| feeds.iter().map(move |feed| (tenant, feed)))
}

/// What is missing of a feed, line by line.
fn missing(tenant: &str, feed: &FeedStatus) -> String {
    if feed.missing.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{tenant} {} is missing:\n", feed.content_type);
    for missing in &feed.missing {
        let can = match missing.in_feed_until {
            Some(until) => format!("tried again until {}", until.format(TIME)),
            None => format!("`harrier backfill` may find it until {}", missing.in_search_until.format("%Y-%m-%d")),
        };
        let (available, reason) = (missing.available.format(TIME), escape_controls(&missing.reason));
        text.push_str(&format!("  content of {available}: {reason}; {can}\n"));
    }
    if feed.missing_more > 0 {
        text.push_str(&format!("  and {} more\n", grouped(feed.missing_more)));
    }
    text
}

fn delay(delay: Option<Delay>) -> String {
    delay.map_or("-".to_owned(), |delay| {
        format!("{} (at most {})", length(delay.median_seconds), length(delay.longest_seconds))
    })
}

/// A length of time in its two largest units.
fn length(seconds: i64) -> String {
    let seconds = seconds.max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        for (seconds, text) in [(-5, "0s"), (59, "59s"), (61, "1m"), (3_660, "1h01m"), (90_000, "1d01h")] {
            assert_eq!(length(seconds), text);
        }
    }
}
