//! `harrier run --role sql`: the archive for PostgreSQL clients, until SIGTERM or Ctrl-C.
//!
//! A process of its own, which `--role all` does not include: a question may take gigabytes and every core, and must not take
//! them from those that collect and judge. It needs no log, no rules and no right to write; it reads what is in the archive.

use std::sync::Arc;

use archive::sql::Sql;
use archive::sql::postgres::Door;
use runtime::config::Config;
use runtime::http::{Operators, Readiness};
use runtime::metrics::Metrics;
use runtime::shutdown;

use super::run::stop_signal;
use crate::exit::{ConfigurationError, Outcome};
use crate::services::REVISION;

pub async fn run(config: Config, metrics: Arc<Metrics>) -> anyhow::Result<Outcome> {
    if config.postgres.users.is_empty() {
        tracing::warn!(event = "postgres_without_users", "every user of this machine may read the archive");
    }
    let sql = Sql::over(crate::store::to_read(&config).await?);
    let door = Door::bind(sql, &config.postgres, metrics.clone()).await.map_err(|error| {
        if error.is_configuration() { ConfigurationError(error.to_string()).into() } else { anyhow::Error::from(error) }
    })?;
    let readiness = Readiness::default();
    let part = readiness.part("postgres");
    part.ready();
    let (trigger, shutdown) = shutdown::channel();
    let operators = Operators { metrics, readiness, revision: REVISION };
    let server = runtime::http::serve(config.postgres.http_listen, operators, shutdown.clone()).await?;
    let stop = stop_signal()?;
    tracing::info!(event = "started", http = %server.address(), postgres = %door.address());
    let mut serving = tokio::spawn(door.run(shutdown));
    tokio::select! {
        stopped = stop => stopped?,
        // It serves until it is told to end: this is a defect.
        ended = &mut serving => return Err(ended.map_or_else(Into::into, |()| anyhow::anyhow!("the door has closed"))),
    }
    part.not_ready("stopping");
    tracing::info!(event = "stopping");
    trigger.stop();
    serving.await?;
    server.finished().await;
    Ok(Outcome::Done)
}
