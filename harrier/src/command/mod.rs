//! The commands, one file each.

mod archive;
mod backfill;
mod check;
mod dead_letters;
mod demo;
mod door;
mod findings;
mod import;
mod init;
mod rules;
mod run;
mod shell;
mod simulate;
mod sink;
mod sql;
mod status;
mod timeline;
mod watch;

use std::sync::Arc;

use runtime::logging::{self, Form, Verbosity};
use runtime::metrics::Metrics;

use crate::cli::{Cli, Command, Global};
use crate::exit::{ConfigurationError, Outcome};
use crate::services::REVISION;

/// Threads for reading the log, parsing and judging: they are busy while they work, and more of them than cores only
/// divide the caches. A few beyond, because a reader of files waits while others work.
const BLOCKING_THREADS_MAX: usize = 8;

/// Runs the command that was asked for.
pub fn run(cli: Cli) -> anyhow::Result<Outcome> {
    if let Some(refusal) = runtime::failpoint::refusal() {
        return Err(ConfigurationError(refusal).into());
    }
    let metrics = Metrics::new(REVISION);
    let verbosity = verbosity(&cli);
    logging::init(verbosity, Form::of_stderr(), &metrics)?;
    let executor =
        tokio::runtime::Builder::new_multi_thread().max_blocking_threads(BLOCKING_THREADS_MAX).enable_all().build()?;
    executor.block_on(dispatch(cli, metrics))
}

/// Services log what they do; commands that answer a question only log what is wrong.
fn verbosity(cli: &Cli) -> Verbosity {
    match (&cli.command, cli.global.quiet, cli.global.verbose) {
        (_, true, _) => Verbosity::Quiet,
        (_, _, true) => Verbosity::Verbose,
        (Command::Run(_) | Command::Simulate(_), ..) => Verbosity::Normal,
        _ => Verbosity::Quiet,
    }
}

async fn dispatch(cli: Cli, metrics: Arc<Metrics>) -> anyhow::Result<Outcome> {
    let Cli { global, command } = cli;
    match command {
        Command::Demo(options) => demo::run(&global, &options, metrics).await,
        Command::Run(options) => run::run(&global, &options, metrics).await,
        Command::Import(options) => import::run(&global, &options, metrics).await,
        Command::Backfill(options) => backfill::run(&global, &options, metrics).await,
        Command::Sql(options) => sql::run(&global, &options).await,
        Command::Archive(options) => archive::run(&global, &options, metrics).await,
        Command::Findings(options) => findings::run(&global, &options).await,
        Command::Timeline(options) => timeline::run(&global, &options).await,
        Command::Rules(options) => rules::run(&global, &options).await,
        Command::Watch(options) => watch::run(&global, &options).await,
        Command::Check(options) => check::run(&global, &options).await,
        Command::Status(options) => status::run(&global, &options).await,
        Command::Init(options) => init::run(&global, &options).await,
        Command::DeadLetters(options) => dead_letters::run(&global, &options).await,
        Command::Sink(options) => sink::run(&global, &options).await,
        Command::Simulate(options) => simulate::run(&options).await,
    }
}

/// SQL over the archive, wherever the configuration has it.
async fn archive(global: &Global) -> anyhow::Result<::archive::sql::Sql> {
    Ok(::archive::sql::Sql::over(crate::store::to_read(&crate::services::config(global)?).await?))
}
