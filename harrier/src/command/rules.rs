//! `harrier rules`: check, test, list and publish.

use std::io::Write;

use detect::rule_test;
use schemas::text::escape_controls;

use crate::cli::{Global, Rules, RulesAction};
use crate::exit::Outcome;
use crate::services;

pub async fn run(global: &Global, options: &Rules) -> anyhow::Result<Outcome> {
    let config = services::config(global)?;
    let rules = services::rules(&config)?;
    if matches!(options.action, RulesAction::Publish) {
        let book = services::rule_book(&config)?;
        detect::service::offer(&*services::open_log(&config)?, &book, true).await?;
        println!(
            "{} rules, set {}: detectors change to them when they come to this place in the log",
            rules.rules().len(),
            book.name()
        );
        return Ok(Outcome::Done);
    }
    let mut out = std::io::stdout().lock();
    match &options.action {
        RulesAction::Publish => {}
        RulesAction::Check => writeln!(out, "{} rules loaded, no problems", rules.rules().len())?,
        RulesAction::List => {
            for rule in rules.rules().iter().filter(|rule| rule.generates) {
                let (level, name, title) =
                    (rule.level.as_str(), escape_controls(&rule.name), escape_controls(&rule.title));
                writeln!(out, "{level:13}  {name:40}  {title}  ({})", escape_controls(&rule.file))?;
            }
        }
        RulesAction::Test { rule } => {
            let outcome = rule_test::run(&rules, rule.as_deref());
            for failure in &outcome.failures {
                writeln!(out, "{}", rule_test::printable(failure))?;
            }
            for name in &outcome.untested {
                writeln!(out, "note: rule {} lacks a test that finds or one that does not", escape_controls(name))?;
            }
            let (failed, held) = (outcome.failures.len(), outcome.tests - outcome.failures.len());
            writeln!(
                out,
                "{held} tests hold, {failed} do not; each ran in {} orders of arrival",
                rule_test::Delivery::ALL.len()
            )?;
            if let (Some(rule), 0) = (rule, outcome.tests) {
                anyhow::bail!("there is no test of a rule {}", escape_controls(rule));
            }
            return Ok(if failed == 0 { Outcome::Done } else { Outcome::Incomplete });
        }
    }
    Ok(Outcome::Done)
}
