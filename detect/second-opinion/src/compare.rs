//! Which records harrier, rsigma and sigma-rust select with the same rules, and why they differ.
//!
//! Every rule that harrier takes from the files is asked of every record by harrier (with its index, and naively), by
//! rsigma and by sigma-rust. Beside the records of the file there are some made for each rule ([`made`](crate::made)),
//! because few rules select an ordinary record. A difference is explained if the question, changed in what the
//! explanation names, has harrier's answer ([`question`](crate::question)), or if the rule's logsource does not speak of
//! the record. One that is not explained is a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use detect::matcher::Matcher;
use detect::rule::{Rule, RuleSet, Source, Tuning};
use rsigma_eval::{Engine, JsonEvent};
use rsigma_parser::SigmaRule;
use schemas::Event;
use schemas::envelope::Received;
use schemas::message::MatchMessage;
use serde_json::{Map, Value};

use crate::made::{Chance, Model};
use crate::question::{self, CHANGES, Names};
use crate::speed;

/// Records of the file that are asked about.
const RECORDS: usize = 100_000;

/// Records that are made for each rule.
const MADE: usize = 500;

const LOGSOURCE: &str = "other engines are not told which records a logsource speaks of";
const UNEXPLAINED: &str = "NOT EXPLAINED";

/// Why an engine does not load a rule: what its error contains.
const NOT_LOADED: &[(&str, &str)] = &[];

const ENGINES: [&str; 2] = ["rsigma 0.23", "sigma-rust 0.7"];

/// A rule in every engine.
struct Asked {
    ours: std::sync::Arc<Rule>,
    parsed: SigmaRule,
    /// rsigma with this rule only.
    rsigma: Result<Engine, String>,
    sigma_rust: Result<sigma_rust::Rule, String>,
    /// How many records harrier selects, then each engine.
    counts: [usize; 3],
    /// By engine and explanation.
    differences: BTreeMap<(usize, String), Difference>,
}

#[derive(Default)]
struct Difference {
    only_ours: usize,
    only_theirs: usize,
    /// The first one: its line, and what the rule's fields are in it.
    example: String,
}

/// Rules that mean the same by the same names: they are asked of one view of a record.
struct Group {
    means: BTreeMap<String, Vec<String>>,
    names: Names,
    rsigma: Engine,
    /// By position.
    rules: Vec<usize>,
}

pub fn run(records: &str, paths: &[String]) -> ExitCode {
    let texts: Vec<String> = speed::read(paths).into_iter().filter(speed::is_taken).collect();
    let sources = texts.iter().enumerate().map(|(at, text)| Source { file: format!("{at}.yml"), text: text.clone() });
    let set = RuleSet::load(sources.collect(), &Tuning::default()).expect("rules that load alone load together");
    let mut asked: Vec<Asked> = texts.iter().filter_map(|text| ask(text, &set)).collect();
    let groups = groups(&asked);
    let matcher = Matcher::new(set, BTreeMap::new());
    let text = std::fs::read_to_string(records).expect("a file of records");
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).take(RECORDS).collect();
    let made = made(&asked, &lines);
    let (mut compared, mut refused, mut indexed) = (0, 0, true);
    for (line, text) in lines.iter().copied().chain(made.iter().map(String::as_str)).enumerate() {
        let received = Received { origin: speed::origin(), bytes: text.as_bytes().to_vec() };
        let Ok(event) = Event::read(&received) else {
            refused += 1;
            continue;
        };
        compared += 1;
        let (fast, naive) = (ours(&matcher, &event, Matcher::matches), ours(&matcher, &event, Matcher::naive));
        if fast != naive {
            indexed = false;
            println!("line {}: harrier's index and its naive evaluator differ: {fast:?}, {naive:?}", line + 1);
        }
        let record: Value = serde_json::from_str(text).expect("JSON");
        for group in &groups {
            compare(group, &mut asked, &record, &event, &naive, line + 1);
        }
    }
    println!(
        "{} groups; {} records of the file, {} made, of which {refused} are no records",
        groups.len(),
        lines.len(),
        made.len()
    );
    let explained = report(&asked, compared);
    if explained && indexed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A file with one rule; others are left out.
fn ask(text: &str, set: &RuleSet) -> Option<Asked> {
    let collection = rsigma_parser::parse_sigma_yaml(text).expect("a rule that rsigma reads");
    let [parsed] = collection.rules.as_slice() else { return None };
    let ours = set.get(parsed.id.as_deref()?)?.clone();
    ours.detection()?;
    let mut engine = Engine::new();
    let added = engine.add_collection(&collection);
    Some(Asked {
        ours,
        rsigma: added.map(|()| engine).map_err(|error| error.to_string()),
        parsed: parsed.clone(),
        sigma_rust: sigma_rust::rule_from_yaml(text).map_err(|error| error.to_string()),
        counts: [0; 3],
        differences: BTreeMap::new(),
    })
}

fn groups(asked: &[Asked]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (position, rule) in asked.iter().enumerate() {
        let asks = &rule.ours.detection().expect("a detection").asks;
        let fits = |group: &&mut Group| {
            asks.iter().all(|one| group.means.get(&one.name).is_none_or(|means| *means == one.means))
        };
        if !groups.iter_mut().any(|group| fits(&group)) {
            let (means, names, rules) = (BTreeMap::new(), Names::new(), Vec::new());
            groups.push(Group { means, names, rsigma: Engine::new(), rules });
        }
        let group = groups.iter_mut().find(fits).expect("a group");
        for one in asks {
            if group.means.insert(one.name.clone(), one.means.clone()).is_none() {
                group.names.push((one.name.clone(), question::paths(one)));
            }
        }
        if rule.rsigma.is_ok() {
            group.rsigma.add_rule(&rule.parsed).expect("a rule that rsigma takes");
        }
        group.rules.push(position);
    }
    groups
}

/// The ids of the rules that select a record.
fn ours(
    matcher: &Matcher,
    event: &Event,
    ask: impl Fn(&Matcher, &Event, &mut Vec<MatchMessage>) -> Vec<String>,
) -> BTreeSet<String> {
    let mut found = Vec::new();
    ask(matcher, event, &mut found);
    let id = |message: MatchMessage| match message {
        MatchMessage::Match(found) => Some(found.rule_id),
        _ => None,
    };
    found.into_iter().filter_map(id).collect()
}

/// Records for each rule, as lines.
fn made(asked: &[Asked], lines: &[&str]) -> Vec<String> {
    let mut made = Vec::new();
    for (position, rule) in asked.iter().enumerate() {
        let detection = rule.ours.detection().expect("a detection");
        let model =
            Model { parsed: &rule.parsed, asks: &detection.asks, workloads: detection.logsource_workloads() };
        let mut chance = Chance(position as u64);
        for number in 0..MADE {
            let base = lines.get((position * MADE + number) % lines.len().max(1)).copied().unwrap_or("{}");
            let base: Value = serde_json::from_str(base).expect("JSON");
            made.push(model.record(&base, &mut chance).to_string());
        }
    }
    made
}

/// Asks the rules of a group of one record.
fn compare(group: &Group, asked: &mut [Asked], record: &Value, event: &Event, ours: &BTreeSet<String>, line: usize) {
    let view = question::view(record, event, &group.names);
    let found = group.rsigma.evaluate(&JsonEvent::borrow(&view));
    let rsigma: BTreeSet<String> = found.into_iter().filter_map(|found| found.header.rule_id).collect();
    let sigma_rust_event = sigma_rust::Event::try_from(view.clone()).expect("an event");
    for position in &group.rules {
        let rule = &mut asked[*position];
        let ours = ours.contains(&rule.ours.id);
        let theirs = [
            rule.rsigma.as_ref().ok().map(|_| rsigma.contains(&rule.ours.id)),
            rule.sigma_rust.as_ref().ok().map(|theirs| theirs.is_match(&sigma_rust_event)),
        ];
        rule.counts[0] += usize::from(ours);
        for (engine, theirs) in theirs.into_iter().enumerate() {
            let Some(theirs) = theirs else { continue };
            rule.counts[engine + 1] += usize::from(theirs);
            if theirs != ours {
                let reason = reason(rule, engine, event, view.as_object().expect("an object"), ours);
                let difference = rule.differences.entry((engine, reason)).or_default();
                difference.only_ours += usize::from(ours);
                difference.only_theirs += usize::from(theirs);
                if difference.example.is_empty() {
                    difference.example = example(line, &rule.ours, &view);
                }
            }
        }
    }
}

fn example(line: usize, rule: &Rule, view: &Value) -> String {
    let asks = &rule.detection().expect("a detection").asks;
    let fields: Map<String, Value> =
        asks.iter().filter_map(|one| Some((one.name.clone(), view.get(&one.name)?.clone()))).collect();
    format!("line {line}: {}", Value::Object(fields))
}

/// Why an engine has another answer than harrier: the fewest explanations that together are proved.
fn reason(rule: &Asked, engine: usize, event: &Event, view: &Map<String, Value>, ours: bool) -> String {
    let detection = rule.ours.detection().expect("a detection");
    let traced = detection.trace(event);
    if !ours && traced.searches.first().is_some_and(|first| first.said == "logsource" && !first.holds) {
        return LOGSOURCE.to_owned();
    }
    let about = question::Rule { parsed: &rule.parsed, asks: &detection.asks };
    let mut sets: Vec<u32> = (1..1 << CHANGES.len()).collect();
    sets.sort_by_key(|set| set.count_ones());
    for set in sets {
        let chosen: Vec<_> = (0..CHANGES.len()).filter(|at| set & 1 << at != 0).map(|at| &CHANGES[at]).collect();
        let mut views = vec![view.clone()];
        for (_, change) in &chosen {
            views = views.iter().flat_map(|view| change(&about, view)).collect();
        }
        if views.into_iter().any(|view| selects(rule, engine, Value::Object(view))) == ours {
            let names: Vec<&str> = chosen.iter().map(|(name, _)| *name).collect();
            return names.join("; and ");
        }
    }
    UNEXPLAINED.to_owned()
}

fn selects(rule: &Asked, engine: usize, view: Value) -> bool {
    match (engine, &rule.rsigma, &rule.sigma_rust) {
        (0, Ok(rsigma), _) => !rsigma.evaluate(&JsonEvent::borrow(&view)).is_empty(),
        (_, _, Ok(theirs)) => theirs.is_match(&sigma_rust::Event::try_from(view).expect("an event")),
        _ => false,
    }
}

/// Prints a block a rule and the sum; whether everything is explained.
fn report(asked: &[Asked], records: usize) -> bool {
    let mut sum: BTreeMap<(usize, &str), (usize, BTreeSet<&str>)> = BTreeMap::new();
    let (mut pairs, mut silent) = (0, 0);
    for rule in asked {
        let [own, rsigma, sigma_rust] = rule.counts;
        println!("\n{} ({}): harrier {own}, rsigma {rsigma}, sigma-rust {sigma_rust}", rule.ours.title, rule.ours.id);
        silent += usize::from(own == 0);
        for (engine, error) in [(0, rule.rsigma.as_ref().err()), (1, rule.sigma_rust.as_ref().err())] {
            let Some(error) = error else {
                pairs += records;
                continue;
            };
            let known = NOT_LOADED.iter().find(|(part, _)| error.contains(part)).map(|(_, reason)| *reason);
            println!("  {} does not load it: {error}", ENGINES[engine]);
            sum.entry((engine, known.unwrap_or(UNEXPLAINED))).or_default().1.insert(&rule.ours.id);
        }
        for ((engine, reason), difference) in &rule.differences {
            let Difference { only_ours, only_theirs, example } = difference;
            println!("  {}: {only_ours} only harrier, {only_theirs} not harrier: {reason}", ENGINES[*engine]);
            println!("      {example}");
            let (records, rules) = sum.entry((*engine, reason.as_str())).or_default();
            *records += only_ours + only_theirs;
            rules.insert(&rule.ours.id);
        }
    }
    println!("\n{} rules, {records} records, {pairs} answers compared with harrier's", asked.len());
    println!("{silent} rules select no record in harrier");
    for ((engine, reason), (records, rules)) in &sum {
        println!("{}: {records} answers of {} rules differ: {reason}", ENGINES[*engine], rules.len());
    }
    sum.keys().all(|(_, reason)| *reason != UNEXPLAINED)
}
