//! `harrier archive`: is it whole, make it compact, give a record back, take a person's data out.

mod erase;
mod heads;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use archive::compactor::{Compactor, Plan};
use archive::delta::DeltaTable;
use archive::signer::{PUBLIC_KEY_FILE, PublicKey};
use archive::table::TABLES;
use archive::verify::{Report, Verifier};
use chrono::Utc;
use runtime::clock::Clock;
use runtime::config::Config;
use runtime::metrics::Metrics;
use schemas::text::escape_controls;

use crate::cli::{self, ArchiveAction, Global};
use crate::exit::Outcome;
use crate::services;
use crate::show::grouped;

pub async fn run(global: &Global, options: &cli::Archive, metrics: Arc<Metrics>) -> anyhow::Result<Outcome> {
    let config = services::config(global)?;
    match &options.action {
        ArchiveAction::Verify { heads, public_keys } => verify(&config, heads, public_keys).await,
        ArchiveAction::Compact => compact(&config, metrics).await,
        ArchiveAction::Stats => stats(&config).await,
        ArchiveAction::Erase(options) => erase::run(&config, options).await,
        ArchiveAction::Raw { id, tenant, sha256 } => {
            let tenant = tenant.as_ref().map(|tenant| tenant.as_str());
            raw(&super::archive(global).await?, id, tenant, &sha256.to_ascii_lowercase()).await
        }
    }
}

async fn verify(config: &Config, heads: &[String], public_keys: &[PathBuf]) -> anyhow::Result<Outcome> {
    let store = crate::store::to_read(config).await?;
    let own = [config.data_dir.join(PUBLIC_KEY_FILE)];
    let files = if public_keys.is_empty() { &own[..] } else { public_keys };
    let keys = files.iter().map(|file| PublicKey::read(file)).collect::<Result<_, _>>();
    let keys = keys.context("no key to check signatures with: give one with --public-key")?;
    if public_keys.is_empty() {
        eprintln!("checked with the key beside the archive; give --public-key with a copy kept elsewhere");
    }
    let heads = heads::given(heads)?;
    let report = Verifier { store, keys, heads, now: Utc::now() }.run().await?;
    print_report(&report, std::io::stdout().lock())?;
    Ok(if report.is_whole() { Outcome::Done } else { Outcome::Incomplete })
}

fn print_report(report: &Report, mut out: impl Write) -> std::io::Result<()> {
    for fault in &report.faults {
        writeln!(out, "{fault}")?;
    }
    if report.more_faults > 0 {
        writeln!(out, "and {} more", report.more_faults)?;
    }
    for table in report.tables.iter().filter(|table| table.commits > 0) {
        let head = table.head.as_ref().map_or("none", |(_, hash)| hash.as_str());
        let mib = table.bytes as f64 / 1_048_576.0;
        writeln!(out, "{}: {} commits, {} files, {mib:.1} MiB; head {head}", table.name, table.commits, table.files)?;
        match table.fresh_since {
            Some(version) => writeln!(out, "  freshness proven up to version {version}")?,
            None => writeln!(out, "  freshness not proven")?,
        }
        if table.copied_commits > 0 {
            writeln!(out, "  the first {} commits by what they say: they were cleaned", grouped(table.copied_commits))?;
        }
        if table.retired_files > 0 {
            let (rows, files) = (grouped(table.retired_rows), grouped(table.retired_files));
            writeln!(out, "  {rows} rows in {files} files were past their time and are gone")?;
        }
        for (version, erasure) in &table.erased {
            let (rows, by, reason) =
                (grouped(erasure.rows), escape_controls(&erasure.by), escape_controls(&erasure.reason));
            writeln!(out, "  {rows} rows of a person were erased at version {version}, decided by {by}: {reason}")?;
        }
        if table.unproven_commits > 0 {
            writeln!(out, "  the first {} commits are from before harrier signed: not proven", table.unproven_commits)?;
        }
        if table.leftovers > 0 {
            writeln!(out, "  {} files that a crash has left; no reader sees them", table.leftovers)?;
        }
    }
    writeln!(out, "{}", if report.is_whole() { "whole" } else { "NOT as harrier wrote it" })
}

async fn compact(config: &Config, metrics: Arc<Metrics>) -> anyhow::Result<Outcome> {
    let store = crate::store::to_read(config).await?.signed_by(services::signer(config)?);
    // Now, whether or not something may still come.
    let plan = Plan { rests_after: std::time::Duration::ZERO, ..Plan::default() };
    let mut failures = 0;
    for (table, done) in Compactor::new(store, Clock::system(), metrics, plan).all().await? {
        failures += done.failures;
        if done.merges > 0 {
            let (files, merges) = (done.files_before, done.merges);
            let (before, after) = (done.bytes_before, done.bytes_after);
            let mut out = std::io::stdout();
            writeln!(out, "{}: {files} files of {before} bytes became {merges} of {after}", table.name)?;
        }
        if done.failures > 0 {
            eprintln!("{}: {} partitions could not be compacted; see above", table.name, done.failures);
        }
    }
    Ok(if failures == 0 { Outcome::Done } else { Outcome::Incomplete })
}

async fn stats(config: &Config) -> anyhow::Result<Outcome> {
    let store = crate::store::to_read(config).await?;
    // A reader that has seen enough ends the command, and not with a panic.
    let mut out = std::io::stdout();
    writeln!(out, "{:<18}  {:>8}  {:>8}  {:>12}  {:>14}", "table", "commits", "files", "rows", "bytes")?;
    for &table in TABLES {
        let delta = DeltaTable::open(store.clone(), table).await?;
        let snapshot = delta.snapshot();
        let (files, commits) = (snapshot.files.len(), snapshot.version.map_or(0, |version| version + 1));
        let rows: u64 = snapshot.files.values().map(archive::delta::Add::rows).sum();
        let bytes: u64 = snapshot.files.values().map(|add| add.size).sum();
        writeln!(out, "{:<18}  {commits:>8}  {files:>8}  {rows:>12}  {bytes:>14}", table.name)?;
    }
    Ok(Outcome::Done)
}

async fn raw(sql: &archive::sql::Sql, id: &str, tenant: Option<&str>, sha256: &str) -> anyhow::Result<Outcome> {
    let mut records = sql.raw(id, tenant).await?;
    records.retain(|record| record.sha256.starts_with(sha256));
    match records.as_slice() {
        [] => anyhow::bail!("no record has this id"),
        [record] => {
            std::io::stdout().write_all(&record.bytes)?;
            Ok(Outcome::Done)
        }
        several => {
            eprintln!("{} records have this id; choose with --tenant or --sha256:", several.len());
            for record in several {
                eprintln!("  --tenant {} --sha256 {}", record.tenant, record.sha256);
            }
            Ok(Outcome::Incomplete)
        }
    }
}
