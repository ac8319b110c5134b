//! `harrier sink test`: whether a sink takes what it is sent.

use crate::cli::{Global, Sink, SinkAction};
use crate::exit::{ConfigurationError, Outcome};
use crate::services;

pub async fn run(global: &Global, options: &Sink) -> anyhow::Result<Outcome> {
    let SinkAction::Test { name } = &options.action;
    let sinks = super::run::sinks(&services::config(global)?)?;
    let Some(sink) = sinks.iter().find(|sink| sink.name == *name) else {
        let known: Vec<&str> = sinks.iter().map(|sink| sink.name.as_str()).collect();
        return Err(
            ConfigurationError(format!("there is no sink of that name; there are: {}", known.join(", "))).into()
        );
    };
    notify::test(sink, &runtime::clock::Clock::system()).await?;
    println!("{} took the message", sink.name);
    Ok(Outcome::Done)
}
