//! What rsigma says of the conformance rules, where it says something else than harrier, and why.
//!
//! ```text
//! HARRIER_SECOND_OPINION=/tmp/asked.jsonl cargo test -p detect --test conformance asked
//! cargo run --manifest-path detect/second-opinion/Cargo.toml -- /tmp/asked.jsonl
//! ```
//! Each line asked is a rule file and every record of all conformance files, with harrier's answers. A difference that
//! [`EXPLAINED`] does not name is an error.
//!
//! `second-opinion --speed RECORDS.jsonl 10 100 1000` says how fast the engines are ([`speed`]), and `--compare RECORDS.jsonl
//! RULES...` which records they select with rules that were written for other engines ([`compare`]).

mod compare;
mod made;
mod question;
mod speed;

use std::collections::BTreeMap;
use std::process::ExitCode;

use rsigma_eval::{Engine, JsonEvent};
use serde_json::Value;

/// Why the two differ: the beginning of the rule's name, and what the difference contains. The decisions are those of
/// `rules/README.md`.
const EXPLAINED: &[(&str, &str, &str)] = &[
    (
        "",
        r#""A":[{"B""#,
        "a path that ends at objects has all values inside them, as rules for flattened records expect",
    ),
    (
        "",
        r#""A":{"B""#,
        "a path that ends at objects has all values inside them, as rules for flattened records expect",
    ),
    ("", "Missing required field 'title'", "lists and dialects are harrier's documents"),
    ("conditions/upper_case", "does not load", "keywords of a condition in upper case are harrier's leniency"),
    (
        "filters/",
        "",
        "decision 6: rsigma joins a filter's condition with and, harrier excludes; it also compares the logsource",
    ),
    ("logsources/", "", "rsigma is not told the record's logsource, and does not translate other people's fields"),
    ("modifiers/base64offset", "", "rsigma keeps a last letter that depends on what follows the text"),
    ("modifiers/cidr", "does not load", "an address by itself is a network of one"),
    ("modifiers/day", "-1", "rsigma reads a number as seconds since 1970; records have their times as text"),
    ("modifiers/month", "-1", "rsigma reads a number as seconds since 1970; records have their times as text"),
    (
        "modifiers/exists",
        "null",
        "Sigma 2.1: exists asks for presence, whatever the value; rsigma takes null for absent",
    ),
    ("modifiers/fieldref", "null", "null equals nothing"),
    ("modifiers/neq", "", "decision 3: harrier lets neq hold for an absent field, rsigma does not"),
    (
        "modifiers/time_part_with_comparison",
        "does not load",
        "Sigma lets a part of a time be compared; rsigma knows only equality",
    ),
    ("values/boolean", "yes", "rsigma takes yes for true"),
    ("values/keywords", "14242", "decision 15: keywords are looked for in numbers as well"),
    ("values/keywords_all", "", "each keyword is looked for inside any value; rsigma asks one value to be all of them"),
    (
        "values/member_",
        "",
        "array matching is Sigma 3 (SEP 212), and rsigma's only with sigma-version: 3; selectors are harrier's",
    ),
    ("values/name_value_arrays", "", "name/value arrays by name are harrier's"),
    ("values/old_and_new_value", "", "name/value arrays by name are harrier's"),
    ("values/null", "[]", "decision 2: an empty list is null"),
];

/// As harrier itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, records, what @ ..] = arguments.as_slice() {
        match mode.as_str() {
            "--speed" => return speed::run(records, what),
            "--compare" => return compare::run(records, what),
            _ => {}
        }
    }
    let Some(path) = std::env::args().nth(1) else {
        eprintln!("usage: second-opinion FILE");
        return ExitCode::from(2);
    };
    let asked = std::fs::read_to_string(&path).expect("a file of questions");
    let (mut same, mut unexplained) = (0_usize, 0_usize);
    let mut differing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in asked.lines() {
        let asked: Value = serde_json::from_str(line).expect("JSON");
        let name = asked["case"].as_str().expect("a name").to_owned();
        let answers = asked["answers"].as_array().expect("answers");
        let engine = match engine(asked["rule"].as_str().expect("a rule")) {
            Ok(engine) => engine,
            Err(error) => {
                differing.entry(name).or_default().push(format!("does not load: {error}"));
                continue;
            }
        };
        for answer in answers {
            let (record, ours) = (&answer[0], answer[1].as_bool().expect("yes or no"));
            let theirs = !engine.evaluate(&JsonEvent::borrow(record)).is_empty();
            if theirs == ours {
                same += 1;
            } else {
                differing.entry(name.clone()).or_default().push(format!("harrier {ours}, rsigma {theirs}: {record}"));
            }
        }
    }
    println!("{same} answers are the same");
    let limit = if std::env::args().any(|argument| argument == "--all") { usize::MAX } else { 1 };
    for (name, differences) in &differing {
        println!("\n{name}: {} differ", differences.len());
        let mut by_reason: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
        for difference in differences {
            let explains =
                |(beginning, part, _): &&(&str, &str, &str)| name.starts_with(beginning) && difference.contains(part);
            let reason = EXPLAINED.iter().find(explains).map(|(.., reason)| *reason);
            unexplained += usize::from(reason.is_none());
            by_reason.entry(reason.unwrap_or("NOT EXPLAINED")).or_default().push(difference);
        }
        for (reason, differences) in by_reason {
            println!("  {} {reason}", differences.len());
            differences.iter().take(limit).for_each(|difference| println!("      {difference}"));
        }
    }
    if unexplained == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn engine(rule: &str) -> Result<Engine, String> {
    let collection = rsigma_parser::parse_sigma_yaml(rule).map_err(|error| error.to_string())?;
    if let Some(error) = collection.errors.first() {
        return Err(format!("{error:?}"));
    }
    let mut engine = Engine::new();
    engine.add_collection(&collection).map_err(|error| error.to_string())?;
    Ok(engine)
}
