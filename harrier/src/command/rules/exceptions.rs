//! `harrier rules exceptions`: what is agreed to be no finding, by whom, until when, and what it has taken from its rule.
//!
//! Counted over the archive, so that a restart forgets nothing and an exception made today is held against what was there
//! before it: one that takes nothing is not needed any more, and one that takes much hides much. What is counted is what
//! the exception takes now, whatever was in force when the records came; one that has expired takes what is of its time.

use std::io::Write;

use archive::sql::Sql;
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use detect::matcher::Matcher;
use detect::rule::{Exception, Written};
use futures::StreamExt;
use runtime::config::Config;
use schemas::Event;
use schemas::text::escape_controls;

use crate::cli::{Global, RulesExceptions};
use crate::exit::Outcome;
use crate::services;
use crate::show::{ProgressLine, grouped};

/// Days before the end that are looked at, if nobody says.
const PERIOD_DAYS: i64 = 30;

/// What one exception has taken.
#[derive(Clone, Default)]
struct Taken {
    records: u64,
    last: Option<DateTime<Utc>>,
}

pub async fn run(global: &Global, config: &Config, options: &RulesExceptions) -> anyhow::Result<Outcome> {
    let domains = config.tenants.iter().map(|tenant| (tenant.name.clone(), tenant.domains.clone()));
    let matcher = services::matcher(config, services::rules(config)?, domains.collect())?;
    let until = options.until.unwrap_or_else(Utc::now);
    let since = options.since.unwrap_or(until - TimeDelta::days(PERIOD_DAYS));
    let exceptions = matcher.rules().exceptions();
    let mut taken = vec![Taken::default(); exceptions.len()];
    let (mut records, mut covered) = (0, Vec::new());
    if !exceptions.is_empty() {
        let sql = Sql::over(crate::store::to_read(config).await?);
        records = count(global, &sql, options, (&matcher, since, until), &mut taken).await?;
        covered = investigate::coverage::statement(&sql, since, until).await?;
    }
    let file = config.rules.tuning_file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    let today = Utc::now().date_naive();
    let mut out = std::io::stdout().lock();
    for (exception, taken) in exceptions.iter().zip(&taken) {
        if options.json {
            writeln!(out, "{}", json(exception, taken, today))?;
        } else {
            tell(&mut out, &file, exception, taken, today)?;
        }
    }
    if !options.json {
        let span = format!("{} to {} UTC", since.format("%F %T"), until.format("%F %T"));
        writeln!(out, "{} exceptions; {} records of {span} looked at", exceptions.len(), grouped(records))?;
        // Of what was not collected nothing can be said to have been taken.
        for sentence in covered {
            writeln!(out, "covers    {sentence}")?;
        }
    }
    Ok(Outcome::Done)
}

/// Asks the rules of every record of the time. How many there were.
async fn count(
    global: &Global,
    sql: &Sql,
    options: &RulesExceptions,
    (matcher, since, until): (&Matcher, DateTime<Utc>, DateTime<Utc>),
    taken: &mut [Taken],
) -> anyhow::Result<u64> {
    let records = sql.records().await?;
    let mut days = records.days().await?;
    days.retain(|day| {
        options.tenant.as_ref().is_none_or(|tenant| *tenant == day.tenant)
            && (since.date_naive()..=until.date_naive()).contains(&day.day)
    });
    let (mut line, mut looked, mut found) = (ProgressLine::new(global.quiet), 0, Vec::new());
    for day in &days {
        line.set(&format!("{} {}: {} records looked at", day.tenant, day.day, grouped(looked)));
        let mut batches = std::pin::pin!(records.of(day).await?);
        while let Some(batch) = batches.next().await {
            for received in &batch? {
                let event = Event::read(received)?;
                if !(since..until).contains(&event.time()) {
                    continue;
                }
                looked += 1;
                for number in matcher.matches(&event, &mut found).excepted {
                    let Some(taken) = taken.get_mut(number) else { continue };
                    taken.records += 1;
                    taken.last = taken.last.max(Some(event.time()));
                }
                found.clear();
            }
        }
    }
    Ok(looked)
}

fn has_expired(exception: &Exception, today: NaiveDate) -> bool {
    exception.expires.is_some_and(|last| last < today)
}

fn tell(
    out: &mut impl Write,
    file: &str,
    exception: &Exception,
    taken: &Taken,
    today: NaiveDate,
) -> std::io::Result<()> {
    let Written { key, values, more } = exception.written();
    let more = if *more > 0 { format!(" and {more} more") } else { String::new() };
    let asked = format!("{}  {key}: {}{more}", exception.rule, values.join(", "));
    writeln!(out, "{}:{}: {}", escape_controls(file), exception.line(), escape_controls(&asked))?;
    writeln!(out, "    {}", escape_controls(&format!("{}: {}", exception.owner, exception.reason)))?;
    let expires = match exception.expires {
        None => "never expires".to_owned(),
        Some(last) if has_expired(exception, today) => format!("expired, last day {last}"),
        Some(last) => format!("last day {last}"),
    };
    match taken.last {
        None => writeln!(out, "    {expires}; took nothing"),
        Some(last) => {
            let last = last.format("%F %T");
            writeln!(out, "    {expires}; took {} records, the last of {last} UTC", grouped(taken.records))
        }
    }
}

fn json(exception: &Exception, taken: &Taken, today: NaiveDate) -> serde_json::Value {
    let Written { key, values, .. } = exception.written();
    serde_json::json!({
        "rule": exception.rule,
        "line": exception.line(),
        "field": key,
        "value": values,
        "owner": exception.owner,
        "reason": exception.reason,
        "expires": exception.expires,
        "expired": has_expired(exception, today),
        "records": taken.records,
        "last": taken.last,
    })
}
