//! The rule pack, judged by a month of five hundred people and ten attacks among them.
//!
//! The month is played through all of detection in memory ([`detect::offline`]): once without the stories, for what the
//! pack says of ordinary days, and with them once for each way of delivery. The answers are compared, because the order
//! of arrival must not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;

use chrono::TimeDelta;
use detect::matcher::Matcher;
use detect::offline::Offline;
use detect::rule::{RuleSet, Source, Tuning};
use schemas::finding::{Finding, Level};
use schemas::tenant::Tenant;
use simulate::{Month, Record, Tale};

use crate::record::imported;

/// Findings nearer than this that share a person, a session, an application or a group are one incident.
const INCIDENT_GAP: TimeDelta = TimeDelta::hours(24);
/// Arrivals that are judged together, as a detector under load does it.
const STEP_RECORDS: usize = 500;

/// How long records are on their way.
#[derive(Clone, Copy, Debug)]
enum Delivery {
    Hour,
    Day,
    /// Most within half an hour, some within a day, a few after three.
    Mixed,
}

impl Delivery {
    const ALL: [Delivery; 3] = [Delivery::Hour, Delivery::Day, Delivery::Mixed];

    /// Seconds, from a number that is as good as a throw of dice.
    fn delay(self, throw: u64) -> i64 {
        let within = |seconds: u64| (throw / 100 % seconds) as i64;
        match (self, throw % 100) {
            (Delivery::Hour, _) | (Delivery::Mixed, 0..70) => within(3_600),
            (Delivery::Day, _) | (Delivery::Mixed, 70..97) => within(86_400),
            (Delivery::Mixed, _) => within(3 * 86_400),
        }
    }
}

/// Plays the month of this seed; with `write`, leaves its records there as JSON lines. Quick is one play, for whoever is
/// at work on a rule: then what is ordinary is what names no record of a story.
pub fn run(seed: u64, quick: bool, list: bool, write: Option<&Path>) -> anyhow::Result<()> {
    let month = Month::new(seed);
    if let Some(file) = write {
        return save(&month, file);
    }
    let pack = rules::pack().iter().map(|(file, text)| Source { file: (*file).into(), text: (*text).into() });
    let rules = RuleSet::load(pack.collect(), &Tuning::default()).map_err(|errors| anyhow::anyhow!("{errors}"))?;
    println!("seed {seed}, {} rules", rules.rules().len());
    if quick {
        let findings = play(&rules, &month, Some(Delivery::Hour))?;
        let told: BTreeSet<&String> =
            month.tales().iter().flat_map(|tale| &tale.steps).flat_map(|step| &step.record_ids).collect();
        let (stories, ordinary): (Vec<Finding>, Vec<Finding>) =
            findings.into_iter().partition(|finding| finding.evidence.iter().any(|id| told.contains(id)));
        report_ordinary(&ordinary, list);
        report_stories(month.tales(), &stories, list);
        return Ok(());
    }
    report_ordinary(&play(&rules, &month, None)?, list);
    let mut first: Option<BTreeSet<String>> = None;
    for delivery in Delivery::ALL {
        let findings = play(&rules, &month, Some(delivery))?;
        let found: BTreeSet<String> = findings.iter().map(summary).collect();
        match &first {
            None => {
                report_stories(month.tales(), &findings, list);
                first = Some(found);
            }
            Some(first) => {
                let other = first.symmetric_difference(&found).count();
                println!("delivery {delivery:?}: {} findings, {other} differ from delivery Hour", findings.len());
                anyhow::ensure!(other == 0, "findings depend on the order of arrival");
            }
        }
    }
    Ok(())
}

/// What must not depend on delivery.
fn summary(finding: &Finding) -> String {
    format!("{} {} {} {:?}", finding.rule.id, finding.id, finding.reason, finding.evidence)
}

/// All findings that stand at the end; without a delivery the stories are left out.
fn play(rules: &RuleSet, month: &Month, delivery: Option<Delivery>) -> anyhow::Result<Vec<Finding>> {
    let tenant: Tenant = "t1".parse()?;
    let domains = BTreeMap::from([(tenant.clone(), vec![month.domain().to_owned()])]);
    let matcher = Matcher::new(rules.clone(), domains);
    let mut offline = Offline::new(rules, &matcher);
    // Records on their way, by the second of their arrival.
    let mut coming: BTreeMap<(i64, u64), Record> = BTreeMap::new();
    for day in 0..Month::DAYS {
        let records = month.day(day);
        let evening = records.last().map_or(0, |record| record.created.timestamp());
        for record in records.into_iter().filter(|record| delivery.is_some() || !record.malicious) {
            let throw = schemas::json::key_hash(&[&record.id]) as u64;
            let delay = delivery.unwrap_or(Delivery::Hour).delay(throw);
            coming.insert((record.created.timestamp() + delay, throw), record);
        }
        let later = coming.split_off(&(evening, 0));
        feed(&mut offline, &tenant, std::mem::replace(&mut coming, later))?;
    }
    feed(&mut offline, &tenant, coming)?;
    let mut findings: Vec<Finding> = offline.standing().cloned().collect();
    findings.sort_by(|one, other| (one.first_event, &one.id).cmp(&(other.first_event, &other.id)));
    Ok(findings)
}

fn feed(offline: &mut Offline<'_>, tenant: &Tenant, records: BTreeMap<(i64, u64), Record>) -> anyhow::Result<()> {
    let received: Vec<_> = records.into_values().map(|record| imported(tenant, record.json.into_bytes())).collect();
    for step in received.chunks(STEP_RECORDS) {
        offline.feed(step).map_err(|error| anyhow::anyhow!("{error}"))?;
    }
    Ok(())
}

fn report_ordinary(findings: &[Finding], list: bool) {
    let weeks = Month::DAYS as f64 / 7.0;
    let mut by_rule: BTreeMap<(Level, &str), usize> = BTreeMap::new();
    for finding in findings {
        *by_rule.entry((finding.rule.level, &finding.rule.title)).or_default() += 1;
    }
    let groups = incidents(findings);
    println!(
        "without the stories: {} incidents in {weeks:.1} weeks = {:.1} a week",
        groups.len(),
        groups.len() as f64 / weeks
    );
    for ((level, title), count) in by_rule.iter().rev() {
        println!("  {:<13} {count:>5}  {title}", level.as_str());
    }
    if list {
        for group in &groups {
            println!("  incident");
            group.iter().for_each(|finding| println!("    {} {}", finding.rule.level.as_str(), finding.reason));
        }
    }
}

fn report_stories(tales: &[Tale], findings: &[Finding], list: bool) {
    let told = |finding: &Finding, tale: &Tale| -> Vec<&'static str> {
        let has = |ids: &[String]| ids.iter().any(|id| finding.evidence.contains(id));
        tale.steps.iter().filter(|step| has(&step.record_ids)).map(|step| step.name).collect()
    };
    let mut found = 0;
    for tale in tales {
        let about: Vec<(&Finding, Vec<&str>)> = findings
            .iter()
            .map(|finding| (finding, told(finding, tale)))
            .filter(|(_, steps)| !steps.is_empty())
            .collect();
        let alerts: Vec<_> = about.iter().filter(|(finding, _)| finding.rule.level >= Level::Medium).collect();
        let all: BTreeSet<&str> = alerts.iter().flat_map(|(_, steps)| steps.iter().copied()).collect();
        let longest = alerts.iter().max_by_key(|(_, steps)| steps.len());
        found += usize::from(!alerts.is_empty());
        println!(
            "story {:<20} {} of {} steps in {} findings; the longest chain is {}",
            tale.name,
            all.len(),
            tale.steps.len(),
            alerts.len(),
            longest.map_or("none".to_owned(), |(finding, steps)| format!(
                "{} ({})",
                steps.join(", "),
                finding.rule.title
            )),
        );
        let missed: Vec<&str> = tale.steps.iter().map(|step| step.name).filter(|name| !all.contains(name)).collect();
        if !missed.is_empty() {
            println!("      not told: {}", missed.join(", "));
        }
        if list {
            for (finding, steps) in &about {
                println!("      {:<13} {}: {}", finding.rule.level.as_str(), finding.rule.title, steps.join(", "));
            }
        }
    }
    println!("{found} of {} stories found", tales.len());
}

/// Findings at medium and above, grouped by what they share.
fn incidents(findings: &[Finding]) -> Vec<Vec<&Finding>> {
    let mut groups: Vec<Vec<&Finding>> = Vec::new();
    for finding in findings.iter().filter(|finding| finding.rule.level >= Level::Medium) {
        let joined = groups.extract_if(.., |group| group.iter().any(|other| belong_together(other, finding)));
        let mut joined: Vec<&Finding> = joined.flatten().collect();
        joined.push(finding);
        groups.push(joined);
    }
    groups
}

fn belong_together(one: &Finding, other: &Finding) -> bool {
    const TELLING: [&str; 4] = ["user", "mailbox", "session", "app"];
    let near = other.first_event <= one.last_event + INCIDENT_GAP && one.first_event <= other.last_event + INCIDENT_GAP;
    let telling = |finding: &Finding| {
        let entities = finding.entities.iter().filter(|entity| TELLING.contains(&entity.kind.as_str()));
        let mut keys: BTreeSet<String> = entities.map(|entity| entity.id.clone()).collect();
        keys.insert(finding.entity.clone());
        keys
    };
    near && telling(one).intersection(&telling(other)).next().is_some()
}

fn save(month: &Month, file: &Path) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::fs::File::create(file)?);
    for day in 0..Month::DAYS {
        for record in month.day(day) {
            writeln!(out, "{}", record.json)?;
        }
    }
    Ok(out.flush()?)
}
