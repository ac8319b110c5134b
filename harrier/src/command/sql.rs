//! `harrier sql`: the archive in SQL, read-only.

use std::io::Write;

use anyhow::Context;
use archive::sql::output::{Format, Output};
use futures::StreamExt;

use crate::cli::{self, Global};
use crate::exit::Outcome;

pub async fn run(global: &Global, options: &cli::Sql) -> anyhow::Result<Outcome> {
    let query = match (&options.query, &options.file) {
        (Some(query), _) => query.clone(),
        (None, Some(file)) => {
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?
        }
        (None, None) => anyhow::bail!("no query"),
    };
    print(&super::archive(global)?, &query, format(options.format)).await
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
