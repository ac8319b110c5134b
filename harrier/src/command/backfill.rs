//! `harrier backfill`: records older than the feeds reach, and what a feed has lost, from the audit search of Graph;
//! through every stage, to the end.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use ingest::source::audit_search::{Pace, Report, Search, search};
use runtime::config::TenantConfig;
use runtime::metrics::Metrics;
use runtime::shutdown;

use crate::cli::{Backfill, Global};
use crate::exit::{ConfigurationError, Outcome};
use crate::services::{Core, Services, config};
use crate::show::{ProgressLine, grouped};

/// How long Audit (Standard) keeps records. With Premium, `--since` reaches further.
const SINCE_DEFAULT: TimeDelta = TimeDelta::days(180);

/// The feeds have the last seven days; one of them is searched as well, for what is on its way.
const UNTIL_DEFAULT: TimeDelta = TimeDelta::days(6);

pub async fn run(global: &Global, options: &Backfill, metrics: Arc<Metrics>) -> anyhow::Result<Outcome> {
    let core = Core::open(config(global)?, &[], metrics)?;
    core.check_archive().await?;
    let what = what(&core.config.tenants, options, core.clock.now())?;
    let mut services = Services::new();
    // It runs beside the services of this configuration: rules that they have replaced meanwhile are not brought back.
    services.begin_intake(&core, false).await?;
    let (trigger, shutdown) = shutdown::channel();
    // Ctrl-C ends the searching; what was found is judged and archived, and the next run goes on from there.
    let stopper = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            trigger.stop();
        }
    });
    let mut line = ProgressLine::new(global.quiet);
    line.set(&format!("searching {} .. {}", what.from.format("%F"), what.until.format("%F")));
    let mut told = |report: &Report, left: usize| {
        line.set(&format!("{} records, {} windows done, {left} to go", grouped(report.records), report.windows_done));
    };
    let work =
        search(&what, Pace::default(), core.log.clone(), &core.clock, core.metrics.clone(), &shutdown, &mut told);
    let searched = services.until(work).await?;
    line.clear();
    stopper.abort();
    services.end_intake(&core).await?;
    let report = searched?;
    println!("records found      {:>12}", grouped(report.records));
    println!("not readable       {:>12}", grouped(report.rejected));
    println!("windows complete   {:>12}", grouped(report.windows_done));
    println!("  known before     {:>12}", grouped(report.windows_known));
    println!("windows missing    {:>12}", grouped(report.windows_missing));
    eprintln!("next: harrier sql \"SELECT * FROM coverage WHERE feed = 'audit_search' AND state <> 'complete'\"");
    Ok(if report.windows_missing > 0 || report.rejected > 0 { Outcome::Incomplete } else { Outcome::Done })
}

fn what(tenants: &[TenantConfig], options: &Backfill, now: DateTime<Utc>) -> anyhow::Result<Search> {
    let wrong = |text: String| ConfigurationError(text);
    let mut reached = tenants.iter().filter(|tenant| tenant.access.is_some());
    let tenant = match &options.tenant {
        Some(name) => reached.find(|tenant| tenant.name == *name),
        None => reached.next().filter(|_| reached.next().is_none()),
    };
    let tenant = tenant.ok_or_else(|| wrong("--tenant must name one of the configuration's tenants".to_owned()))?;
    if !tenant.cloud.has_audit_search() {
        return Err(wrong(format!("cloud {} has no audit search", tenant.cloud.as_str())).into());
    }
    let source = super::run::unchecked_source(tenant)?;
    let (Some(source), Some(access)) = (source, &tenant.access) else {
        return Err(wrong("the tenant only imports".to_owned()).into());
    };
    let (from, until) = (options.since.unwrap_or(now - SINCE_DEFAULT), options.until.unwrap_or(now - UNTIL_DEFAULT));
    if from >= until {
        return Err(wrong(format!("--since {from} is not before --until {until}")).into());
    }
    let audience = tenant.cloud.hosts().graph.to_owned();
    Ok(Search { source, graph: access.endpoints.graph.parse()?, audience, from, until, notify: options.notify })
}
