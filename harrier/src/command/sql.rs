//! `harrier sql`: the archive in SQL, read-only.

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use archive::sql::named::{NamedQuery, PARAMETERS, QUERIES};
use archive::sql::output::{Format, Output};
use archive::sql::{Limits, QueryError, Rows, Sql};
use chrono::{DateTime, Utc};
use futures::StreamExt;
use schemas::text::escape_controls;

use crate::cli::{self, Global};
use crate::exit::Outcome;

/// Rows of a table for people, which is held whole to be aligned. The other formats are written as they come.
const TABLE_ROWS_MAX: u64 = 100_000;

pub async fn run(global: &Global, options: &cli::Sql) -> anyhow::Result<Outcome> {
    if let Some(name) = &options.queries {
        return list(name);
    }
    let format = format(options.format);
    let limits = Limits {
        time: Duration::from_secs(options.timeout_secs),
        rows: (format == Format::Table).then_some(TABLE_ROWS_MAX),
        ..Limits::default()
    };
    if let Some(name) = &options.named {
        let query = found(name)?;
        let parameters = options.query.iter().chain(&options.parameters).map(|text| parameter(text));
        let parameters = parameters.collect::<anyhow::Result<Vec<_>>>()?;
        return ask(&super::archive(global).await?.with_limits(limits), query, &parameters, format).await;
    }
    let query = match (&options.query, &options.file) {
        (Some(query), _) => query.clone(),
        (None, Some(file)) => {
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?
        }
        (None, None) => {
            let (sql, config) = (super::archive(global).await?.with_limits(limits), crate::services::config(global)?);
            return super::shell::run(&sql, &config.data_dir, format).await;
        }
    };
    print(&super::archive(global).await?.with_limits(limits), &query, format).await
}

/// Runs a query and prints its answer on stdout.
pub async fn print(sql: &Sql, query: &str, format: Format) -> anyhow::Result<Outcome> {
    write(sql.query(query).await?, format, std::io::stdout()).await?;
    Ok(Outcome::Done)
}

/// Asks a named query. What the answer rests on and cannot show goes to stderr, beside it.
pub async fn ask(
    sql: &Sql,
    query: &'static NamedQuery,
    parameters: &[(String, String)],
    format: Format,
) -> anyhow::Result<Outcome> {
    let rows = write(sql.ask(query, parameters, cli::moment).await?, format, std::io::stdout()).await?;
    let time = |name: &str| parameters.iter().find(|(given, _)| given == name).map(|(_, text)| cli::moment(text));
    let since = time("since").and_then(Result::ok).unwrap_or(DateTime::UNIX_EPOCH);
    let until = time("until").and_then(Result::ok).unwrap_or_else(Utc::now);
    if rows == 0 {
        eprintln!(
            "\nNothing was found. With no findings about the account, say who the intruder is: ip=... or session=..."
        );
    }
    eprintln!("\n{}\nCovers {}\nCannot see {}", query.question(), query.covers(), query.cannot_see());
    eprintln!("This answer rests on:");
    for line in investigate::coverage::statement(sql, since, until).await? {
        eprintln!("  {line}");
    }
    Ok(Outcome::Done)
}

/// Writes an answer; how many rows it has.
pub async fn write(mut rows: Rows, format: Format, out: impl Write + Send) -> anyhow::Result<u64> {
    let mut output = Output::new(format, rows.schema(), std::io::BufWriter::new(out))?;
    while let Some(batch) = rows.next().await {
        output.write(&batch.map_err(QueryError::from)?)?;
    }
    let written = output.rows;
    output.finish()?;
    Ok(written)
}

pub fn list(name: &str) -> anyhow::Result<Outcome> {
    let mut out = std::io::stdout().lock();
    if !name.is_empty() {
        write!(out, "{}", found(name)?.text())?;
        return Ok(Outcome::Done);
    }
    for query in QUERIES {
        writeln!(out, "{}: {}", query.name, query.question())?;
        writeln!(out, "    covers {}\n    cannot see {}\n", query.covers(), query.cannot_see())?;
    }
    writeln!(out, "Parameters:")?;
    for parameter in PARAMETERS {
        let needed = if parameter.default.is_none() { " (needed)" } else { "" };
        writeln!(out, "    {}=...{needed}: {}", parameter.name, parameter.doc)?;
    }
    writeln!(out, "\nAsk one: harrier sql --query intruder user=alice@contoso.example since=7d")?;
    Ok(Outcome::Done)
}

pub fn found(name: &str) -> anyhow::Result<&'static NamedQuery> {
    let names = || QUERIES.iter().map(|query| query.name).collect::<Vec<_>>().join(", ");
    NamedQuery::find(name)
        .with_context(|| format!("there is no query named {}; there are {}", escape_controls(name), names()))
}

pub fn parameter(text: &str) -> anyhow::Result<(String, String)> {
    let (name, value) =
        text.split_once('=').with_context(|| format!("{} is not of the form NAME=VALUE", escape_controls(text)))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// The format of this name.
pub fn format_named(name: &str) -> Option<Format> {
    <cli::Format as clap::ValueEnum>::from_str(name, true).ok().map(self::format)
}

fn format(format: cli::Format) -> Format {
    match format {
        cli::Format::Table => Format::Table,
        cli::Format::Json => Format::Json,
        cli::Format::Ndjson => Format::Ndjson,
        cli::Format::Csv => Format::Csv,
        cli::Format::Parquet => Format::Parquet,
    }
}
