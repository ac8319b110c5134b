//! Which records harrier, rsigma and sigma-rust select with the same rules, and why they differ.
//!
//! Every rule that harrier takes from the files is asked of every record by harrier (with its index, and naively), by
//! rsigma and by sigma-rust. Beside the records of the file there are some made for each rule ([`made`](crate::made)),
//! because few rules select an ordinary record. A difference is explained if the question, changed in what the
//! explanation names, has harrier's answer ([`question`](crate::question)), or if the rule's logsource does not speak of
//! the record. One that is not explained is a failure.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use detect::matcher::{Aside, Matcher};
use detect::rule::{Rule, RuleSet, Source, Tuning};
use rsigma_eval::{Engine, JsonEvent};
use rsigma_parser::SigmaRule;
use schemas::Event;
use schemas::envelope::Received;
use schemas::message::MatchMessage;
use serde_json::{Map, Value};

use crate::made::{Chance, Model};
use crate::question::{self, ENGINES, EXPLANATIONS, Names};
use crate::speed;

/// Records of the file that are asked about.
const RECORDS: usize = 100_000;

/// Records that are made for each rule.
const MADE: usize = 500;

const LOGSOURCE: &str = "other engines are not told which records a logsource speaks of";
const UNEXPLAINED: &str = "NOT EXPLAINED";

/// Why an engine does not load a rule: what its error contains.
const NOT_LOADED: &[(&str, &str)] = &[];

/// A rule in every engine.
struct Asked {
    ours: std::sync::Arc<Rule>,
    parsed: SigmaRule,
    /// rsigma with this rule only.
    rsigma: Result<Engine, String>,
    sigma_rust: Result<sigma_rust::Rule, String>,
    /// How many records harrier selects, then each engine, and how many of harrier's are of the file.
    counts: [usize; 4],
    /// By engine and explanations.
    differences: BTreeMap<(usize, Vec<&'static str>), Difference>,
}

#[derive(Default)]
struct Difference {
    only_ours: usize,
    only_theirs: usize,
    /// How many of both are records of the file.
    of_file: usize,
    /// The first one: its line, and what the rule's fields are in it.
    example: String,
}

/// A record as a group of rules is asked about it.
struct Record<'e> {
    view: Value,
    event: &'e Event,
    line: usize,
    of_file: bool,
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
    let texts: Vec<String> = speed::read(paths).into_iter().filter(|text| speed::is_taken(text)).collect();
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
        let json: Value = serde_json::from_str(text).expect("JSON");
        for group in &groups {
            compare(
                group,
                &mut asked,
                &Record {
                    view: question::view(&json, &event, &group.names),
                    event: &event,
                    line: line + 1,
                    of_file: line < lines.len(),
                },
                &naive,
            );
        }
    }
    println!("{} records of the file and {} made for the rules; {refused} are no records", lines.len(), made.len());
    let explained = report(&asked, compared);
    if explained && indexed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether what rsigma makes of a rule and a record that harrier answers so is explained.
pub fn is_explained(rule: &str, record: &Value, ours: bool) -> bool {
    let source = Source { file: "rule.yml".to_owned(), text: rule.to_owned() };
    let set = RuleSet::load(vec![source], &Tuning::default()).expect("a rule that harrier loads");
    let asked: Vec<Asked> = ask(rule, &set).into_iter().collect();
    let bytes = record.to_string().into_bytes();
    let groups = groups(&asked);
    let event = Event::read(&Received { origin: speed::origin(), bytes });
    let (Ok(event), [group]) = (event, groups.as_slice()) else {
        return false;
    };
    let view = question::view(record, &event, &group.names);
    // To be asked with the record's values under the rule's names is enough for some.
    selects(&asked[0], 0, view.clone()) == ours
        || reason(&asked[0], 0, &event, view.as_object().expect("an object"), ours) != [UNEXPLAINED]
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
        counts: [0; 4],
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
    ask: impl Fn(&Matcher, &Event, &mut Vec<MatchMessage>) -> Aside,
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
        let model = Model { parsed: &rule.parsed, asks: &detection.asks, workloads: detection.logsource_workloads() };
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
fn compare(group: &Group, asked: &mut [Asked], record: &Record<'_>, ours: &BTreeSet<String>) {
    let Record { view, event, line, of_file } = record;
    let found = group.rsigma.evaluate(&JsonEvent::borrow(view));
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
        rule.counts[3] += usize::from(ours && *of_file);
        for (engine, theirs) in theirs.into_iter().enumerate() {
            let Some(theirs) = theirs else { continue };
            rule.counts[engine + 1] += usize::from(theirs);
            if theirs != ours {
                let reason = reason(rule, engine, event, view.as_object().expect("an object"), ours);
                let difference = rule.differences.entry((engine, reason)).or_default();
                difference.only_ours += usize::from(ours);
                difference.only_theirs += usize::from(theirs);
                difference.of_file += usize::from(*of_file);
                if difference.example.is_empty() {
                    difference.example = example(*line, &rule.ours, view);
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
fn reason(rule: &Asked, engine: usize, event: &Event, view: &Map<String, Value>, ours: bool) -> Vec<&'static str> {
    let detection = rule.ours.detection().expect("a detection");
    if let [logsource, rest @ ..] = detection.trace(event).whole.parts.as_slice()
        && logsource.said == "logsource"
        && !logsource.holds
        && rest.iter().all(|part| part.holds)
    {
        return vec![LOGSOURCE];
    }
    let about = question::Rule { parsed: &rule.parsed, asks: &detection.asks };
    let may: Vec<_> = EXPLANATIONS.iter().filter(|one| one.engines.contains(&ENGINES[engine])).collect();
    let mut sets: Vec<usize> = (1..1 << may.len()).collect();
    sets.sort_by_key(|set| set.count_ones());
    for set in sets {
        let chosen: Vec<_> = may.iter().enumerate().filter(|(at, _)| set & 1 << at != 0).map(|(_, one)| one).collect();
        let mut views = vec![view.clone()];
        for one in &chosen {
            views = views.iter().flat_map(|view| (one.change)(&about, view)).collect();
        }
        if views.into_iter().any(|view| selects(rule, engine, Value::Object(view)) == ours) {
            return chosen.iter().map(|one| one.name).collect();
        }
    }
    vec![UNEXPLAINED]
}

fn selects(rule: &Asked, engine: usize, view: Value) -> bool {
    match (engine, &rule.rsigma, &rule.sigma_rust) {
        (0, Ok(rsigma), _) => !rsigma.evaluate(&JsonEvent::borrow(&view)).is_empty(),
        (_, _, Ok(theirs)) => theirs.is_match(&sigma_rust::Event::try_from(view).expect("an event")),
        _ => false,
    }
}

/// What there is to say of an engine.
#[derive(Default)]
struct Sum<'r> {
    answers: usize,
    differ: usize,
    differ_of_file: usize,
    /// By explanation: how many differ, and of which rules.
    reasons: BTreeMap<&'static str, (usize, BTreeSet<&'r str>)>,
}

/// Prints a block a rule and the sums; whether everything is explained.
fn report(asked: &[Asked], records: usize) -> bool {
    let mut sums: [Sum<'_>; 2] = Default::default();
    let (mut silent, mut selected) = (Vec::new(), [0, 0]);
    for rule in asked {
        let [own, rsigma, sigma_rust, of_file] = rule.counts;
        selected = [selected[0] + of_file, selected[1] + own];
        println!(
            "\n{} ({}): harrier {own} ({of_file} of the file), rsigma {rsigma}, sigma-rust {sigma_rust}",
            rule.ours.title, rule.ours.id
        );
        silent.extend((own == 0).then_some(rule.ours.title.as_str()));
        for (engine, error) in [rule.rsigma.as_ref().err(), rule.sigma_rust.as_ref().err()].into_iter().enumerate() {
            let Some(error) = error else {
                sums[engine].answers += records;
                continue;
            };
            let known = NOT_LOADED.iter().find(|(part, _)| error.contains(part)).map(|(_, reason)| *reason);
            println!("  {} does not load it: {error}", ENGINES[engine]);
            sums[engine].reasons.entry(known.unwrap_or(UNEXPLAINED)).or_default().1.insert(&rule.ours.id);
        }
        for ((engine, reasons), difference) in &rule.differences {
            let Difference { only_ours, only_theirs, of_file, example } = difference;
            let why = reasons.join("; and ");
            println!("  {}: {only_ours} only harrier, {only_theirs} not harrier: {why}", ENGINES[*engine]);
            println!("      {example}");
            sums[*engine].differ += only_ours + only_theirs;
            sums[*engine].differ_of_file += of_file;
            for reason in reasons {
                let (differ, rules) = sums[*engine].reasons.entry(*reason).or_default();
                *differ += only_ours + only_theirs;
                rules.insert(&rule.ours.id);
            }
        }
    }
    let [of_file, all] = selected;
    println!("\n{} rules, {records} records: harrier selects {all}, {of_file} of them of the file", asked.len());
    println!("no record is selected with: {}", silent.join(", "));
    for (engine, Sum { answers, differ, differ_of_file, reasons }) in ENGINES.iter().zip(&sums) {
        println!("{engine}: {differ} of {answers} answers differ, {differ_of_file} of them about records of the file");
        for (reason, (differ, rules)) in reasons {
            println!("    {differ} of {} rules: {reason}", rules.len());
        }
    }
    sums.iter().all(|sum| !sum.reasons.contains_key(UNEXPLAINED))
}
