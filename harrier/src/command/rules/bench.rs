//! `harrier rules bench`: what each rule costs on records of one's own.
//!
//! A rule costs nothing for a record that the index keeps from it. For the others it is asked, and that is what is measured
//! here: how often, and for how long. So a rule that no index can help shows, and one whose index lets too much through.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use detect::matcher::Matcher;
use detect::rule::RuleSet;
use runtime::config::Config;
use schemas::Event;
use schemas::text::escape_controls;

use super::records;
use crate::exit::Outcome;
use crate::services;
use crate::show::grouped;

/// Most records of the file.
const RECORDS_MAX: usize = 500_000;

#[derive(Default)]
struct Cost {
    asked: u64,
    held: u64,
    time: Duration,
}

pub fn run(config: &Config, rules: RuleSet, file: &Path) -> anyhow::Result<Outcome> {
    let (tenant, domains) = records::tenant(config, &[])?;
    let place = escape_controls(&file.display().to_string());
    let received = records::read(file, &tenant, RECORDS_MAX).with_context(|| place.clone())?;
    let bytes: usize = received.iter().map(|record| record.bytes.len()).sum();
    let matcher = services::matcher(config, rules, BTreeMap::from([(tenant, domains)]))?;

    let began = Instant::now();
    let events: Result<Vec<Event>, _> = received.iter().map(Event::read).collect();
    let (events, reading) = (events.with_context(|| format!("{place}: a record cannot be read"))?, began.elapsed());
    let (began, mut matches) = (Instant::now(), Vec::new());
    for event in &events {
        matches.clear();
        matcher.matches(event, &mut matches);
    }
    let judging = began.elapsed();

    let mut costs: HashMap<&str, Cost> = HashMap::new();
    for event in &events {
        for rule in matcher.candidates(event) {
            let began = Instant::now();
            let holds = Matcher::holds(rule, event);
            let cost = costs.entry(&rule.name).or_default();
            cost.time += began.elapsed();
            cost.asked += 1;
            cost.held += u64::from(holds);
        }
    }
    let mut costs: Vec<(&str, Cost)> = costs.into_iter().collect();
    costs.sort_by(|(one_name, one), (other_name, other)| other.time.cmp(&one.time).then(one_name.cmp(other_name)));

    let mut out = std::io::stdout().lock();
    let rate = |time: Duration| grouped((events.len() as f64 / time.as_secs_f64().max(1e-9)) as u64);
    let rules = matcher.rules().rules().len();
    writeln!(
        out,
        "{} records of {} bytes, {rules} rules, one thread",
        grouped(events.len() as u64),
        bytes / events.len()
    )?;
    writeln!(out, "read    {:>12} records/s", rate(reading))?;
    writeln!(out, "judged  {:>12} records/s, once read", rate(judging))?;
    writeln!(out, "\n{:40}  {:>12}  {:>10}  {:>12}  {:>7}", "RULE", "ASKED", "HELD", "EACH", "SHARE")?;
    let total: Duration = costs.iter().map(|(_, cost)| cost.time).sum();
    for (name, cost) in &costs {
        let each = cost.time.as_nanos() as f64 / cost.asked.max(1) as f64;
        let share = 100.0 * cost.time.as_secs_f64() / total.as_secs_f64().max(1e-9);
        let (name, asked, held) = (escape_controls(name), grouped(cost.asked), grouped(cost.held));
        writeln!(out, "{name:40}  {asked:>12}  {held:>10}  {each:>9.0} ns  {share:>5.1} %")?;
    }
    Ok(Outcome::Done)
}
