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
mod proof;
mod question;
mod speed;

use std::collections::BTreeMap;
use std::process::ExitCode;

use rsigma_eval::{Engine, JsonEvent};
use serde_json::Value;

use proof::Proof;

/// When a reason is the one of a difference.
enum Why {
    /// The difference contains this.
    Contains(&'static str),
    Proved(Proof),
}

use Why::{Contains, Proved};

/// Why the two differ: the beginning of the rule's name, and how it is known. The decisions are those of `rules/README.md`.
const EXPLAINED: &[(&str, Why, &str)] = &[
    (
        "",
        Contains(r#""A":[{"B""#),
        "a path that ends at objects has all values inside them, as rules for flattened records expect",
    ),
    (
        "",
        Contains(r#""A":{"B""#),
        "a path that ends at objects has all values inside them, as rules for flattened records expect",
    ),
    ("", Contains("Missing required field 'title'"), "lists and dialects are harrier's documents"),
    (
        "conditions/upper_case",
        Contains("does not load"),
        "keywords of a condition in upper case are harrier's leniency",
    ),
    (
        "filters/",
        Proved(proof::filters_exclude),
        "decision 6: rsigma joins a filter's condition with and, harrier excludes; it also compares the logsource",
    ),
    (
        "logsources/",
        Proved(proof::logsource_or_names),
        "rsigma is not told the record's logsource, and does not translate other people's fields",
    ),
    ("modifiers/base64offset", Contains(""), "rsigma keeps a last letter that depends on what follows the text"),
    ("modifiers/cidr", Contains("does not load"), "an address by itself is a network of one"),
    ("modifiers/day", Contains("-1"), "rsigma reads a number as seconds since 1970; records have their times as text"),
    (
        "modifiers/month",
        Contains("-1"),
        "rsigma reads a number as seconds since 1970; records have their times as text",
    ),
    (
        "modifiers/exists",
        Contains("null"),
        "Sigma 2.1: exists asks for presence, whatever the value; rsigma takes null for absent",
    ),
    ("modifiers/fieldref", Contains("null"), "null equals nothing"),
    (
        "modifiers/neq",
        Proved(proof::absent_differs),
        "decision 3: harrier lets neq hold for an absent field, rsigma does not",
    ),
    (
        "modifiers/time_part_with_comparison",
        Contains("does not load"),
        "Sigma lets a part of a time be compared; rsigma knows only equality",
    ),
    ("values/boolean", Contains("yes"), "rsigma takes yes for true"),
    ("values/keywords", Contains("14242"), "decision 15: keywords are looked for in numbers as well"),
    (
        "values/keywords_all",
        Contains(""),
        "each keyword is looked for inside any value; rsigma asks one value to be all of them",
    ),
    (
        "values/member_",
        Contains(""),
        "array matching is Sigma 3 (SEP 212), and rsigma's only with sigma-version: 3; selectors are harrier's",
    ),
    ("values/name_value_arrays", Proved(proof::logsource_or_names), "name/value arrays by name are harrier's"),
    ("values/old_and_new_value", Proved(proof::logsource_or_names), "name/value arrays by name are harrier's"),
    ("values/null", Contains("[]"), "decision 2: an empty list is null"),
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
    let mut same = 0_usize;
    let mut differing: BTreeMap<String, Vec<Difference>> = BTreeMap::new();
    for line in asked.lines() {
        let asked: Value = serde_json::from_str(line).expect("JSON");
        let name = asked["case"].as_str().expect("a name");
        let (agree, differences) = differences(name, &asked);
        same += agree;
        if !differences.is_empty() {
            differing.insert(name.to_owned(), differences);
        }
    }
    println!("{same} answers are the same");
    let limit = if std::env::args().any(|argument| argument == "--all") { usize::MAX } else { 1 };
    for (name, differences) in &differing {
        println!("\n{name}: {} differ", differences.len());
        let mut by_reason: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
        for Difference { said, reason } in differences {
            by_reason.entry(reason.unwrap_or("NOT EXPLAINED")).or_default().push(said);
        }
        for (reason, differences) in by_reason {
            println!("  {} {reason}", differences.len());
            differences.iter().take(limit).for_each(|difference| println!("      {difference}"));
        }
    }
    let explained = differing.values().flatten().all(|difference| difference.reason.is_some());
    if explained { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Difference {
    said: String,
    reason: Option<&'static str>,
}

/// How many answers of a conformance rule are the same, and what the others are.
fn differences(name: &str, asked: &Value) -> (usize, Vec<Difference>) {
    let rule = asked["rule"].as_str().expect("a rule");
    let engine = match engine(rule) {
        Ok(engine) => engine,
        Err(error) => {
            let said = format!("does not load: {error}");
            let reason = reason(name, &said, &|_| false);
            return (0, vec![Difference { said, reason }]);
        }
    };
    let (mut same, mut differences) = (0, Vec::new());
    for answer in asked["answers"].as_array().expect("answers") {
        let (record, ours) = (&answer[0], answer[1].as_bool().expect("yes or no"));
        let theirs = !engine.evaluate(&JsonEvent::borrow(record)).is_empty();
        if theirs == ours {
            same += 1;
            continue;
        }
        let said = format!("harrier {ours}, rsigma {theirs}: {record}");
        let reason = reason(name, &said, &|proof| proof(rule, record, ours));
        differences.push(Difference { said, reason });
    }
    (same, differences)
}

fn reason(name: &str, said: &str, is_proved: &dyn Fn(&Proof) -> bool) -> Option<&'static str> {
    let explains = |(beginning, why, _): &&(&str, Why, &str)| {
        name.starts_with(beginning)
            && match why {
                Contains(part) => said.contains(part),
                Proved(proof) => is_proved(proof),
            }
    };
    EXPLAINED.iter().find(explains).map(|(.., reason)| *reason)
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
