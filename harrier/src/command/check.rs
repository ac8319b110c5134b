//! `harrier check`: configuration, rules, secrets, sinks, and at Microsoft each tenant's credential, permissions and
//! feeds: all problems at once, nothing started and nothing changed.

use ingest::preflight::{Subject, Verdict};
use runtime::config::{Config, TenantConfig};

use crate::cli::{Check, Global};
use crate::exit::{ConfigurationError, Outcome};
use crate::services;

pub async fn run(global: &Global, options: &Check) -> anyhow::Result<Outcome> {
    let config = services::config(global)?;
    let mut problems = here(&config);
    if !options.offline {
        problems += in_the_store(&config).await;
        for tenant in &config.tenants {
            problems += at_microsoft(tenant).await?;
        }
    }
    if problems == 0 {
        return Ok(Outcome::Done);
    }
    let plural = if problems == 1 { "problem" } else { "problems" };
    Err(ConfigurationError(format!("{problems} {plural}")).into())
}

/// What can be seen on this machine. How many problems there are.
fn here(config: &Config) -> usize {
    let mut problems = Vec::new();
    for warning in &config.warnings {
        println!("warn  {warning}");
    }
    println!("ok    configuration");
    match services::rules(config) {
        Ok(rules) => println!("ok    rules: {} loaded", rules.rules().len()),
        Err(error) => problems.push(error.to_string()),
    }
    for secret in config.secrets() {
        match secret.read() {
            Ok(_) => println!("ok    secret"),
            Err(error) => problems.push(error.to_string()),
        }
    }
    match super::run::sinks(config) {
        Ok(sinks) => match notify::check(&sinks, &runtime::clock::Clock::system()) {
            Ok(()) => println!("ok    sinks: {}", sinks.len()),
            Err(errors) => problems.extend(errors.iter().map(ToString::to_string)),
        },
        Err(error) => problems.push(format!("{error:#}")),
    }
    for problem in &problems {
        println!("FAIL  {problem}");
    }
    problems.len()
}

/// Whether the archive's object store can be read, if it has one. Nothing is put there: that is for whoever writes.
async fn in_the_store(config: &Config) -> usize {
    let Some(store) = &config.archive.store else { return 0 };
    match archive::Store::find(config).await {
        Ok(_) => println!("ok    archive: {store}"),
        Err(archive::Error::NoArchive { .. }) => println!("ok    archive: {store}, with nothing in it yet"),
        Err(error) => {
            println!("FAIL  archive: {store}: {error}");
            return 1;
        }
    }
    0
}

/// What Microsoft says of a tenant. How many problems there are.
async fn at_microsoft(tenant: &TenantConfig) -> anyhow::Result<usize> {
    let Some(access) = &tenant.access else { return Ok(0) };
    let Some(source) = super::run::unchecked_source(tenant)? else { return Ok(0) };
    let credential_file = access.credential.files().next().map(ToString::to_string).unwrap_or_default();
    let graph = access.endpoints.graph.parse().ok();
    println!("\n{} ({}, {})", tenant.name, access.tenant_id, tenant.cloud.as_str());
    let subject = Subject { source, cloud: tenant.cloud, graph, credential_file };
    let points = ingest::preflight::check(&subject, chrono::Utc::now()).await;
    for point in &points {
        print!("{}", point.lines());
    }
    Ok(points.iter().filter(|point| point.verdict == Verdict::Fail).count())
}
