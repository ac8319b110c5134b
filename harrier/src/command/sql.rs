//! `harrier sql`: the archive in SQL, read-only.

use std::io::Write;
use std::time::Duration;

use anyhow::Context;
use archive::sql::Limits;
use archive::sql::output::{Format, Output};
use futures::StreamExt;

use crate::cli::{self, Global};
use crate::exit::Outcome;

/// Rows of a table for people, which is held whole to be aligned. The other formats are written as they come.
const TABLE_ROWS_MAX: u64 = 100_000;

pub async fn run(global: &Global, options: &cli::Sql) -> anyhow::Result<Outcome> {
    let query = match (&options.query, &options.file) {
        (Some(query), _) => query.clone(),
        (None, Some(file)) => {
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?
        }
        (None, None) => anyhow::bail!("no query"),
    };
    let format = format(options.format);
    let limits = Limits {
        time: Duration::from_secs(options.timeout_secs),
        rows: (format == Format::Table).then_some(TABLE_ROWS_MAX),
        ..Limits::default()
    };
    print(&super::archive(global)?.with_limits(limits), &query, format).await
}

/// Runs a query and prints its answer on stdout.
pub async fn print(sql: &archive::sql::Sql, query: &str, format: Format) -> anyhow::Result<Outcome> {
    let mut rows = sql.query(query).await?;
    let out = std::io::BufWriter::new(std::io::stdout());
    let mut output = Output::new(format, rows.schema(), out)?;
    while let Some(batch) = rows.next().await {
        output.write(&batch.map_err(archive::sql::QueryError::from)?)?;
    }
    output.finish()?;
    std::io::stdout().flush()?;
    Ok(Outcome::Done)
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
