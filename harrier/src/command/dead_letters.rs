//! `harrier dead-letters`: what could not be used.

use archive::sql::output::Format;

use crate::cli::{DeadLetters, DeadLettersAction, Global};
use crate::exit::Outcome;

pub async fn run(global: &Global, options: &DeadLetters) -> anyhow::Result<Outcome> {
    let DeadLettersAction::List { limit } = options.action;
    let query = format!(
        "SELECT received_time, tenant, source, place, reason, length FROM dead_letters ORDER BY received_time DESC, place LIMIT {limit}"
    );
    super::sql::print(&super::archive(global).await?, &query, Format::Table).await
}
