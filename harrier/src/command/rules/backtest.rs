//! `harrier rules backtest`: the archive judged again, and what is different from what stands there, or from what other
//! rules find.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use detect::backtest::{Difference, ENTRIES_MAX, difference, reach};
use detect::matcher::Matcher;
use detect::offline::Offline;
use futures::StreamExt;
use runtime::config::Config;
use schemas::tenant::Tenant;
use schemas::text::escape_controls;
use schemas::{Event, Finding};

use crate::cli::{Backtest, Global};
use crate::exit::Outcome;
use crate::services;
use crate::show::{ProgressLine, grouped};

/// Most findings shown under each heading; `--json` has them all.
const SHOWN_MAX: usize = 20;

/// What was read.
#[derive(Default)]
struct Read {
    records: u64,
    first: Option<DateTime<Utc>>,
    last: Option<DateTime<Utc>>,
}

pub async fn run(global: &Global, options: &Backtest) -> anyhow::Result<Outcome> {
    let config = services::config(global)?;
    let new = matcher(&config, options)?;
    let old = options.against.as_ref().map(|path| {
        let mut config = config.clone();
        config.rules.paths = vec![path.clone()];
        matcher(&config, options)
    });
    let old = old.transpose()?;
    let sql = archive::sql::Sql::over(crate::store::to_read(&config).await?);
    let judges: Vec<&Matcher> = [Some(&new), old.as_ref()].into_iter().flatten().collect();
    let (mut found, read) = judge(global, options, &sql, &judges).await?;
    let against_rules = found.len() > 1;
    let olds = match found.pop() {
        Some(olds) if against_rules => olds,
        // Only one was judged: what stands in the archive is the other.
        last => {
            found.extend(last);
            investigate::findings::standing(&sql)
                .await?
                .into_iter()
                .filter(|finding| wanted(options, finding))
                .collect()
        }
    };
    let difference = difference(olds, found.pop().unwrap_or_default(), !against_rules);
    let mut out = std::io::stdout().lock();
    if options.json {
        json(&mut out, &difference)?;
        return Ok(Outcome::Done);
    }
    let span = |time: Option<DateTime<Utc>>| time.map_or("-".to_owned(), |time| time.format("%F %T").to_string());
    let rules = new.rules().rules().len();
    writeln!(
        out,
        "judged    {} records, {} to {} UTC, {rules} rules",
        grouped(read.records),
        span(read.first),
        span(read.last)
    )?;
    let other = match &options.against {
        Some(path) => format!("the rules in {}", escape_controls(&path.display().to_string())),
        None => "what stands in the archive".to_owned(),
    };
    writeln!(out, "against   {other}")?;
    tell(&mut out, &difference)?;
    let (from, to) =
        (options.since.or(read.first).unwrap_or_default(), options.until.or(read.last).unwrap_or_default());
    for sentence in investigate::coverage::statement(&sql, from, to).await? {
        writeln!(out, "covers    {sentence}")?;
    }
    Ok(Outcome::Done)
}

fn matcher(config: &Config, options: &Backtest) -> anyhow::Result<Matcher> {
    let mut domains: BTreeMap<Tenant, Vec<String>> =
        config.tenants.iter().map(|tenant| (tenant.name.clone(), tenant.domains.clone())).collect();
    if let Some(tenant) = &options.tenant {
        domains.entry(tenant.clone()).or_default().extend(options.domains.iter().cloned());
    }
    Ok(services::matcher(config, services::rules(config)?, domains)?)
}

/// Whether a finding begins in the time that was asked for.
fn wanted(options: &Backtest, finding: &Finding) -> bool {
    options.tenant.as_ref().is_none_or(|tenant| *tenant == finding.tenant)
        && options.since.is_none_or(|since| finding.first_event >= since)
        && options.until.is_none_or(|until| finding.first_event < until)
}

/// Judges every record of the time by each rule set. The findings that stand, one list for each.
async fn judge(
    global: &Global,
    options: &Backtest,
    sql: &archive::sql::Sql,
    judges: &[&Matcher],
) -> anyhow::Result<(Vec<Vec<Finding>>, Read)> {
    let before = judges.iter().map(|matcher| reach(matcher.rules())).max().unwrap_or_default();
    let from = options.since.and_then(|since| since.checked_sub_signed(before));
    let records = sql.records().await?;
    let mut days = records.days().await?;
    days.retain(|day| {
        options.tenant.as_ref().is_none_or(|tenant| *tenant == day.tenant)
            && from.is_none_or(|from| day.day >= from.date_naive())
            && options.until.is_none_or(|until| day.day <= until.date_naive())
    });
    let mut line = ProgressLine::new(global.quiet);
    let (mut read, mut found) = (Read::default(), vec![Vec::new(); judges.len()]);
    // Tenants share no state: when one is done, all that was kept of it is dropped.
    for days in days.chunk_by(|one, next| one.tenant == next.tenant) {
        let mut judging: Vec<Offline<'_>> =
            judges.iter().map(|matcher| Offline::new(matcher.rules(), matcher)).collect();
        let mut received = None;
        for day in days {
            line.set(&format!("{} {}: {} records judged", day.tenant, day.day, grouped(read.records)));
            let mut batches = std::pin::pin!(records.of(day).await?);
            while let Some(batch) = batches.next().await {
                let events = batch?.iter().map(Event::read).collect::<Result<Vec<Event>, _>>();
                let mut events = events.context("a row of the archive holds no record")?;
                events.retain(|event| options.until.is_none_or(|until| event.time() < until));
                judging.iter_mut().for_each(|offline| offline.feed_admitted(&events));
                received = received.max(events.iter().map(Event::received).max());
                read.records += events.len() as u64;
                read.first = read.first.into_iter().chain(events.iter().map(Event::time)).min();
                read.last = read.last.into_iter().chain(events.iter().map(Event::time)).max();
            }
            let held: usize = judging.iter().map(Offline::entries).sum();
            ensure!(
                held <= ENTRIES_MAX,
                "after {} of {} rules keep {}, and at most {} fit in memory: choose a shorter time with --since and --until",
                day.day,
                day.tenant,
                grouped(held as u64),
                grouped(ENTRIES_MAX as u64)
            );
        }
        // What the archive has is taken to be whole up to the newest receipt: the marks themselves are not in it.
        if let Some(received) = received {
            let complete = options.until.map_or(received, |until| until.min(received));
            judging.iter_mut().for_each(|offline| offline.complete(complete));
        }
        for (found, offline) in found.iter_mut().zip(&judging) {
            found.extend(offline.standing().filter(|finding| wanted(options, finding)).cloned());
        }
    }
    Ok((found, read))
}

fn json(out: &mut impl Write, difference: &Difference) -> anyhow::Result<()> {
    let mut line = |value: serde_json::Value| writeln!(out, "{value}");
    line(serde_json::json!({"kind": "same", "count": difference.same}))?;
    for finding in &difference.only_new {
        line(serde_json::json!({"kind": "only_new", "new": finding}))?;
    }
    for finding in &difference.only_old {
        line(serde_json::json!({"kind": "only_old", "old": finding}))?;
    }
    for changed in &difference.changed {
        let (fields, old, new) = (&changed.fields, &changed.old, &changed.new);
        line(serde_json::json!({"kind": "changed", "fields": fields, "old": old, "new": new}))?;
    }
    Ok(())
}

fn tell(out: &mut impl Write, difference: &Difference) -> anyhow::Result<()> {
    let Difference { same, only_old, only_new, changed } = difference;
    let counts =
        [("same", *same), ("only new", only_new.len()), ("only old", only_old.len()), ("changed", changed.len())];
    for (name, count) in counts {
        writeln!(out, "{name:10}{count}")?;
    }
    let line = |finding: &Finding| {
        let id = &finding.id[..finding.id.len().min(12)];
        format!("  {id}  {}", investigate::findings::line(finding))
    };
    for (name, findings) in [("only new", only_new), ("only old", only_old)] {
        heading(out, name, findings.len())?;
        for finding in findings.iter().take(SHOWN_MAX) {
            writeln!(out, "{}", line(finding))?;
        }
    }
    heading(out, "changed", changed.len())?;
    for changed in changed.iter().take(SHOWN_MAX) {
        writeln!(out, "{}", line(&changed.new))?;
        for field in &changed.fields {
            let value = |finding: &Finding| {
                let value = serde_json::to_value(finding).ok().and_then(|value| value.get(field).cloned());
                let text: String = value.unwrap_or_default().to_string().chars().take(200).collect();
                escape_controls(&text)
            };
            writeln!(out, "      {field}: {} became {}", value(&changed.old), value(&changed.new))?;
        }
    }
    Ok(())
}

fn heading(out: &mut impl Write, name: &str, count: usize) -> std::io::Result<()> {
    match count {
        0 => Ok(()),
        count if count > SHOWN_MAX => writeln!(out, "\n{name}, the first {SHOWN_MAX} of {count}"),
        _ => writeln!(out, "\n{name}"),
    }
}
