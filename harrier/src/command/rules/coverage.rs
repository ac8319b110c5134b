//! `harrier rules coverage`: what each rule can see of a tenant, from the archive.

use std::collections::BTreeMap;
use std::io::Write;

use anyhow::{Context, ensure};
use archive::sql::Sql;
use chrono::{DateTime, TimeDelta, Utc};
use detect::rule::{Rule, RuleSet};
use detect::sight::{Seen, Sight, State, sight};
use futures::StreamExt;
use investigate::activity::{self, Extent, Mailbox};
use runtime::config::Config;
use schemas::Event;
use schemas::tenant::Tenant;
use schemas::text::escape_controls;

use crate::cli::{Global, RulesCoverage};
use crate::exit::Outcome;
use crate::show::{ProgressLine, grouped};

/// How much is looked at unless it is said.
const PERIOD_DAYS: i64 = 30;

/// Most records that are looked into for the fields they have, the newest days first: some seconds.
const SAMPLED_MAX: usize = 200_000;

/// Most mailboxes named.
const MAILBOXES_SHOWN_MAX: usize = 10;

/// One tenant's stretch of time and what the rules see of it.
struct Report<'r> {
    tenant: Tenant,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    records: u64,
    operations: usize,
    mailboxes: Vec<Mailbox>,
    rules: Vec<(&'r Rule, Sight)>,
}

pub async fn run(
    global: &Global,
    config: &Config,
    rules: &RuleSet,
    options: &RulesCoverage,
) -> anyhow::Result<Outcome> {
    let sql = Sql::over(crate::store::to_read(config).await?);
    let mut extents = activity::extents(&sql).await?;
    extents.retain(|extent| options.tenant.as_ref().is_none_or(|tenant| *tenant == extent.tenant));
    ensure!(
        !extents.is_empty(),
        "the archive has no records of {}",
        match &options.tenant {
            Some(tenant) => tenant.as_str(),
            None => "any tenant",
        }
    );
    ensure!(
        !options.layer || extents.len() == 1,
        "a layer is of one tenant: choose with --tenant {}",
        extents.iter().map(|extent| extent.tenant.as_str()).collect::<Vec<_>>().join(" or ")
    );
    let mut out = std::io::stdout().lock();
    for extent in extents {
        let report = report(global, (&sql, config), rules, options, extent).await?;
        match options {
            RulesCoverage { layer: true, .. } => writeln!(out, "{:#}", layer(&report))?,
            RulesCoverage { json: true, .. } => lines(&mut out, &report)?,
            _ => tell(&mut out, &report, options.all)?,
        }
    }
    Ok(Outcome::Done)
}

async fn report<'r>(
    global: &Global,
    (sql, config): (&Sql, &Config),
    rules: &'r RuleSet,
    options: &RulesCoverage,
    extent: Extent,
) -> anyhow::Result<Report<'r>> {
    let Extent { tenant, first, last } = extent;
    // A record may say that it is of the far future.
    let to = options.until.unwrap_or(last.min(Utc::now()));
    let from = options.since.unwrap_or(to - TimeDelta::days(PERIOD_DAYS));
    let mut seen = Seen::new(first, to);
    if config.rules.places_file.is_some() {
        seen.note_places();
    }
    let activity = activity::of(sql, &tenant, from, to).await?;
    activity.operations.iter().for_each(|one| seen.add(&one.workload, &one.operation, one.records));
    activity.feeds.into_iter().for_each(|feed| seen.note_feed(&feed.feed, feed.is_collected, feed.trouble));
    sample(global, sql, &tenant, (from, to), &mut seen).await?;
    let rules = rules.rules().iter().filter(|rule| rule.generates).map(|rule| (&**rule, sight(rules, rule, &seen)));
    Ok(Report {
        tenant,
        from,
        to,
        records: activity.operations.iter().map(|one| one.records).sum(),
        operations: activity.operations.len(),
        mailboxes: activity.mailboxes,
        rules: rules.collect(),
    })
}

/// Looks into records of the newest days, until there are enough of every operation.
async fn sample(
    global: &Global,
    sql: &Sql,
    tenant: &Tenant,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    seen: &mut Seen,
) -> anyhow::Result<()> {
    let records = sql.records().await?;
    let mut days = records.days().await?;
    days.retain(|day| day.tenant == *tenant && day.day >= from.date_naive() && day.day <= to.date_naive());
    let (mut line, mut looked) = (ProgressLine::new(global.quiet), 0);
    for day in days.iter().rev() {
        line.set(&format!("{tenant} {}: {} records looked into", day.day, grouped(looked as u64)));
        let mut batches = std::pin::pin!(records.of(day).await?);
        while let Some(batch) = batches.next().await {
            for record in batch? {
                seen.sample(Event::read(&record).context("a row of the archive holds no record")?);
                looked += 1;
            }
            if looked >= SAMPLED_MAX || seen.is_sampled() {
                return Ok(());
            }
        }
    }
    Ok(())
}

fn tell(out: &mut impl Write, report: &Report<'_>, all: bool) -> anyhow::Result<()> {
    let Report { tenant, from, to, records, operations, .. } = report;
    writeln!(
        out,
        "{tenant}  {} to {} UTC: {} records of {operations} operations",
        from.format("%F %T"),
        to.format("%F %T"),
        grouped(*records)
    )?;
    let of = |state: State| report.rules.iter().filter(move |(_, sight)| sight.state == state);
    let counts: Vec<String> =
        State::ALL.iter().rev().map(|state| format!("{} {}", of(*state).count(), state.as_str())).collect();
    writeln!(out, "rules      {}", counts.join(", "))?;
    mailboxes(out, &report.mailboxes)?;
    for state in State::ALL {
        // What has not occurred is most of the pack on most days, and a live rule that misses something is worth a line.
        let shown = |sight: &Sight| match state {
            State::Deaf | State::Cold => true,
            State::Live => all || !sight.reasons.is_empty(),
            State::Unheard => all,
        };
        let listed: Vec<_> = of(state).filter(|(_, sight)| shown(sight)).collect();
        if listed.is_empty() {
            continue;
        }
        let part = if state == State::Live && !all { ", in part" } else { "" };
        writeln!(out, "\n{}{part}", state.as_str())?;
        for (rule, sight) in listed {
            let mut reasons = sight.reasons.iter().map(|reason| escape_controls(&reason.to_string()));
            writeln!(out, "  {:38}  {}", escape_controls(&rule.name), reasons.next().unwrap_or_default())?;
            for reason in reasons {
                writeln!(out, "  {:38}  {reason}", "")?;
            }
        }
    }
    if !all && of(State::Unheard).next().is_some() {
        writeln!(out, "\n--all lists the rules whose operations have not occurred, and those that see all they need")?;
    }
    Ok(())
}

fn mailboxes(out: &mut impl Write, mailboxes: &[Mailbox]) -> anyhow::Result<()> {
    if mailboxes.is_empty() {
        return Ok(());
    }
    let without: Vec<String> =
        mailboxes.iter().filter(|one| one.accessed == 0).map(|one| escape_controls(&one.mailbox_owner)).collect();
    write!(out, "mailboxes  {} have records, ", mailboxes.len())?;
    match without.len() {
        0 => writeln!(out, "each of them with MailItemsAccessed")?,
        count => {
            let more = count.saturating_sub(MAILBOXES_SHOWN_MAX);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let named = without[..count.min(MAILBOXES_SHOWN_MAX)].join(", ");
            writeln!(
                out,
                "{count} of them without MailItemsAccessed (what was read there is not known): {named}{more}"
            )?;
        }
    }
    Ok(())
}

fn lines(out: &mut impl Write, report: &Report<'_>) -> anyhow::Result<()> {
    for (rule, sight) in &report.rules {
        let reasons: Vec<String> = sight.reasons.iter().map(ToString::to_string).collect();
        let line = serde_json::json!({
            "tenant": report.tenant, "rule": rule.name, "state": sight.state.as_str(), "reasons": reasons,
            "from": report.from, "to": report.to,
        });
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// For each technique how many rules can see it, and each rule's state.
fn layer(report: &Report<'_>) -> serde_json::Value {
    let mut techniques: BTreeMap<&str, Vec<(&str, State)>> = BTreeMap::new();
    for (rule, sight) in &report.rules {
        for technique in &rule.attack {
            techniques.entry(technique).or_default().push((&rule.name, sight.state));
        }
    }
    let sees = |state: State| matches!(state, State::Live | State::Unheard);
    let listed: Vec<_> = techniques
        .iter()
        .map(|(technique, rules)| {
            let states: Vec<String> = rules.iter().map(|(name, state)| format!("{name}: {}", state.as_str())).collect();
            let score = rules.iter().filter(|(_, state)| sees(*state)).count();
            serde_json::json!({"techniqueID": technique, "score": score, "comment": states.join("\n"), "enabled": true})
        })
        .collect();
    let most = techniques.values().map(Vec::len).max().unwrap_or_default();
    let (from, to) = (report.from.format("%F"), report.to.format("%F"));
    serde_json::json!({
        "name": format!("harrier: {}", report.tenant),
        "versions": {"layer": "4.5", "navigator": "5.1.0", "attack": "17"},
        "domain": "enterprise-attack",
        "description": format!("What the rules can see of {} from {from} to {to}. The score is the number of rules that are \
                                live or wait for their operations; 0 is deaf.", report.tenant),
        "filters": {"platforms": ["Office Suite", "Identity Provider", "SaaS"]},
        "gradient": {"colors": ["#fdd0a2ff", "#d9e8f5ff", "#08519cff"], "minValue": 0, "maxValue": most},
        "techniques": listed,
    })
}
