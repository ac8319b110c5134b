//! `harrier rules`: check, test, list, explain, backtest, bench, coverage, exceptions, schema and publish.

mod backtest;
mod bench;
mod coverage;
mod exceptions;
mod explain;
mod records;

use std::io::Write;
use std::sync::Arc;

use detect::rule::{Exception, Rule, RuleSet};
use detect::rule_test;
use schemas::text::escape_controls;

use crate::cli::{Global, Rules, RulesAction};
use crate::exit::{BrokenRules, Outcome};
use crate::services;

pub async fn run(global: &Global, options: &Rules) -> anyhow::Result<Outcome> {
    if let RulesAction::Backtest(options) = &options.action {
        return backtest::run(global, options).await;
    }
    if matches!(options.action, RulesAction::Schema) {
        println!("{:#}", detect::rule::schema());
        return Ok(Outcome::Done);
    }
    let config = services::config(global)?;
    let rules = services::rules(&config).map_err(drawn)?;
    if let RulesAction::Explain { rule, file, domains } = &options.action {
        return explain::run(&config, rules, rule, file, domains);
    }
    if let RulesAction::Bench { file } = &options.action {
        return bench::run(&config, rules, file);
    }
    if let RulesAction::Coverage(options) = &options.action {
        return coverage::run(global, &config, &rules, options).await;
    }
    if let RulesAction::Exceptions(options) = &options.action {
        return exceptions::run(global, &config, options).await;
    }
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
        RulesAction::Publish
        | RulesAction::Schema
        | RulesAction::Explain { .. }
        | RulesAction::Bench { .. }
        | RulesAction::Backtest(_)
        | RulesAction::Coverage(_)
        | RulesAction::Exceptions(_) => {}
        RulesAction::Check => {
            // The pack's own are its authors' business.
            let pack = |note: &detect::rule::Note| rules::pack().iter().any(|(file, _)| *file == note.file);
            for note in detect::rule::notes(&rules).iter().filter(|note| !pack(note)) {
                writeln!(out, "note: {}", escape_controls(&note.to_string()))?;
            }
            let today = chrono::Utc::now().date_naive();
            let has_expired = |exception: &&Exception| exception.expires.is_some_and(|last| last < today);
            for exception in rules.exceptions().iter().filter(has_expired) {
                let told = format!("an exception of {} for {} has expired", exception.owner, exception.rule);
                writeln!(out, "note: tuning file, line {}: {}", exception.line(), escape_controls(&told))?;
            }
            let never = rules.rules().iter().filter(|rule| rule.detection().is_some_and(|one| one.never().is_some()));
            let never = match never.count() {
                0 => String::new(),
                count => format!("; {count} can never match, being about another log"),
            };
            writeln!(out, "{} rules loaded, no problems{never}", rules.rules().len())?;
        }
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

/// The rule of that id or name, or the name that is most like it.
fn named(rules: &RuleSet, name: &str) -> anyhow::Result<Arc<Rule>> {
    if let Some(rule) = rules.find(name) {
        return Ok(rule.clone());
    }
    let nearest = detect::rule::nearest(name, rules.rules().iter().map(|rule| rule.name.as_str()));
    let meant = nearest.map(|nearest| format!(": did you mean {}?", escape_controls(nearest))).unwrap_or_default();
    anyhow::bail!("there is no rule {}{meant}", escape_controls(name))
}

/// Who asks about rules is writing them.
fn drawn(error: anyhow::Error) -> anyhow::Error {
    match error.downcast() {
        Ok(errors) => BrokenRules(errors).into(),
        Err(other) => other,
    }
}
