//! `harrier timeline`: what happened around someone or something.

use std::io::Write;

use archive::sql::Sql;
use investigate::timeline::{Question, print, timeline};

use crate::cli::{Global, Timeline};
use crate::exit::Outcome;

pub async fn run(global: &Global, options: &Timeline) -> anyhow::Result<Outcome> {
    let question = Question { value: options.value.clone(), since: options.since, until: options.until };
    show(&super::archive(global).await?, &question, options.json).await
}

/// Asks and prints on stdout.
pub async fn show(sql: &Sql, question: &Question, json: bool) -> anyhow::Result<Outcome> {
    let timeline = timeline(sql, question).await?;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(&timeline)?)?;
    } else {
        write!(out, "{}", print(&timeline))?;
    }
    Ok(Outcome::Done)
}
