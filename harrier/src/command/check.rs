//! `harrier check`: configuration, rules, secrets and sinks, all problems at once, nothing started.

use crate::cli::Global;
use crate::exit::{ConfigurationError, Outcome};
use crate::services;

pub fn run(global: &Global) -> anyhow::Result<Outcome> {
    let config = services::config(global)?;
    let mut problems = Vec::new();
    for warning in &config.warnings {
        println!("warn  {warning}");
    }
    println!("ok    configuration");
    match services::rules(&config) {
        Ok(rules) => println!("ok    rules: {} loaded", rules.rules().len()),
        Err(error) => problems.push(error.to_string()),
    }
    for secret in config.secrets() {
        match secret.read() {
            Ok(_) => println!("ok    secret"),
            Err(error) => problems.push(error.to_string()),
        }
    }
    match super::run::sinks(&config) {
        Ok(sinks) => match notify::check(&sinks, &runtime::clock::Clock::system()) {
            Ok(()) => println!("ok    sinks: {}", sinks.len()),
            Err(errors) => problems.extend(errors.iter().map(ToString::to_string)),
        },
        Err(error) => problems.push(format!("{error:#}")),
    }
    if problems.is_empty() {
        return Ok(Outcome::Done);
    }
    for problem in &problems {
        println!("FAIL  {problem}");
    }
    let plural = if problems.len() == 1 { "problem" } else { "problems" };
    Err(ConfigurationError(format!("{} {plural}", problems.len())).into())
}
