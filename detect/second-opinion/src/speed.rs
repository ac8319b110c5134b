//! What a record costs on one thread, from received bytes to matches, by the number of rules: harrier, rsigma and
//! sigma-rust in one run, over the same records and rules, beside the limit, which is parsing alone.
//!
//! The rules are made, in the shape that rules for Microsoft 365 have: an operation, of which a tenant has some twenty
//! that are frequent, and a value that is rare. Or they are those of files. Time is the thread's own, so that other work
//! on the machine disturbs less. All engines must find the same number of matches.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use detect::matcher::Matcher;
use detect::rule::{RuleSet, Source, Tuning};
use rsigma_eval::{Engine, JsonEvent};
use schemas::Event;
use schemas::envelope::{Origin, Received};
use serde_json::Value;

/// Operations that rules ask for, the frequent ones first.
const OPERATIONS: &[&str] = &[
    "MailItemsAccessed",
    "FileAccessed",
    "UserLoggedIn",
    "UserLoginFailed",
    "Send",
    "FileDownloaded",
    "FileModified",
    "New-InboxRule",
    "Set-Mailbox",
    "HardDelete",
    "MoveToDeletedItems",
    "SharingSet",
    "AnonymousLinkCreated",
    "Add member to role.",
    "Consent to application.",
    "MessageSent",
    "TeamsSessionStarted",
    "Set-InboxRule",
    "UpdateInboxRules",
    "Add service principal credentials.",
];

/// A file of rules has at most five hundred.
const RULES_A_FILE: usize = 500;

/// Records that are judged, the first of the file, and how often: what counts is the median round.
const RECORDS: usize = 100_000;
const ROUNDS: usize = 3;

/// sigma-rust asks every rule of every record: it is given fewer, for so many rules times records.
const SIGMA_RUST_QUESTIONS_MAX: usize = 3_000_000;

/// `what` is a number of rules to make, or files of rules.
pub fn run(records: &str, what: &[String]) -> ExitCode {
    let text = std::fs::read(records).expect("a file of records");
    let origin = origin();
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).take(RECORDS);
    let records: Vec<Received> = lines.map(|line| Received { origin: origin.clone(), bytes: line.to_vec() }).collect();
    let bytes: usize = records.iter().map(|received| received.bytes.len()).sum();
    println!(
        "{} records of {} bytes; the median of {ROUNDS} rounds, then all",
        records.len(),
        bytes / records.len().max(1)
    );
    limits(&records);
    let numbers: Option<Vec<u32>> = what.iter().map(|text| text.parse().ok()).collect();
    match numbers {
        Some(counts) => counts.iter().for_each(|count| by_rules(&count.to_string(), &made(*count), &records)),
        None => {
            let rules = read(what);
            let of = rules.len();
            // Of those that could never match a record of the audit log nobody is asked.
            let taken: Vec<String> = rules.into_iter().filter(|rule| is_taken(rule)).collect();
            by_rules(&format!("{} of {of}", taken.len()), &taken, &records);
        }
    }
    ExitCode::SUCCESS
}

/// Where records that are read from a file come from.
pub fn origin() -> Origin {
    Origin {
        tenant: "t1".parse().expect("a name"),
        source: "import".to_owned(),
        content_type: String::new(),
        blob_id: String::new(),
        received: chrono::DateTime::UNIX_EPOCH,
        notify: true,
    }
}

/// Whether harrier loads it, and a record of the audit log could match it.
pub fn is_taken(rule: &str) -> bool {
    let source = Source { file: "rule.yml".into(), text: rule.to_owned() };
    let never = |rule: &std::sync::Arc<detect::rule::Rule>| rule.detection().is_some_and(|one| one.never().is_some());
    RuleSet::load(vec![source], &Tuning::default()).is_ok_and(|rules| !rules.rules().iter().any(never))
}

fn limits(records: &[Received]) {
    // A lazy value is its bytes: what is inside is passed over.
    timed("sonic-rs over the structure, all of it checked", records, |received| {
        std::hint::black_box(sonic_rs::from_slice::<sonic_rs::LazyValue<'_>>(&received.bytes).expect("JSON"));
        0
    });
    timed("sonic-rs over the structure, only quotes and brackets", records, |received| {
        // SAFETY: the line above has found every record to be JSON, and so UTF-8.
        let passed = unsafe { sonic_rs::get_unchecked(received.bytes.as_slice(), [""; 0]) };
        std::hint::black_box(passed.expect("JSON"));
        0
    });
    // It parses in place, so that the copy of the bytes is within the time.
    let (mut copy, mut buffers) = (Vec::new(), simd_json::Buffers::default());
    timed("simd-json to a tape, nothing else but a copy of the bytes", records, |received| {
        copy.clear();
        copy.extend_from_slice(&received.bytes);
        std::hint::black_box(simd_json::to_tape_with_buffers(&mut copy, &mut buffers).expect("JSON"));
        0
    });
    timed("sonic-rs to a tree, nothing else", records, |received| {
        std::hint::black_box(sonic_rs::from_slice::<sonic_rs::Value>(&received.bytes).expect("JSON"));
        0
    });
    timed("serde_json to a tree, nothing else", records, |received| {
        std::hint::black_box(serde_json::from_slice::<Value>(&received.bytes).expect("JSON"));
        0
    });
    timed("harrier's event, no rule", records, |received| {
        std::hint::black_box(Event::read(received).expect("a record"));
        0
    });
}

fn by_rules(name: &str, rules: &[String], records: &[Received]) {
    let mut set = None;
    let sources = || {
        let source = |rules: &[String]| Source { file: "rules.yml".into(), text: rules.join("\n---\n") };
        rules.chunks(RULES_A_FILE).map(source).collect()
    };
    let refused = RuleSet::load(sources(), &Tuning::default()).map(|loaded| set = Some(loaded));
    if let Err(errors) = refused {
        println!("harrier refuses them: {errors}");
    }
    if let Some(set) = set {
        let matcher = Matcher::new(set, BTreeMap::new());
        let mut found = Vec::new();
        timed(&format!("harrier, {name} rules"), records, |received| {
            found.clear();
            matcher.matches(&Event::read(received).expect("a record"), &mut found);
            found.len()
        });
    }
    let mut engine = Engine::new();
    for rule in rules {
        let parsed = rsigma_parser::parse_sigma_yaml(rule).expect("rules that rsigma reads");
        engine.add_collection(&parsed).expect("rules that rsigma takes");
    }
    timed(&format!("rsigma 0.23, {name} rules"), records, |received| {
        let value: Value = serde_json::from_slice(&received.bytes).expect("JSON");
        engine.evaluate(&JsonEvent::borrow(&value)).len()
    });
    let taken: Vec<_> = rules.iter().filter_map(|rule| sigma_rust::rule_from_yaml(rule).ok()).collect();
    let fewer = records.get(..(SIGMA_RUST_QUESTIONS_MAX / taken.len().max(1)).min(records.len())).expect("a part");
    let (taken, of, among) = (&taken, rules.len(), fewer.len());
    timed(&format!("sigma-rust 0.7, {} of {of} rules, {among} records", taken.len()), fewer, |received| {
        let event = sigma_rust::event_from_json(std::str::from_utf8(&received.bytes).expect("text")).expect("JSON");
        taken.iter().filter(|rule| rule.is_match(&event)).count()
    });
}

fn timed(what: &str, records: &[Received], mut work: impl FnMut(&Received) -> usize) {
    let (mut rates, mut matches) = (Vec::new(), 0);
    for _ in 0..ROUNDS {
        let before = thread_cpu_seconds();
        matches = records.iter().map(&mut work).sum();
        rates.push(records.len() as f64 / (thread_cpu_seconds() - before));
    }
    let all: Vec<String> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
    rates.sort_by(f64::total_cmp);
    println!("{what}: {:.0} records/s ({}), {matches} matches", rates[ROUNDS / 2], all.join(", "));
}

/// CPU time of this thread.
fn thread_cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("/proc");
    text.split(' ').next().and_then(|text| text.parse::<f64>().ok()).expect("a number") / 1e9
}

/// The rules of files and folders, one a document.
pub fn read(paths: &[String]) -> Vec<String> {
    let mut rules = Vec::new();
    for path in paths {
        let path = Path::new(path);
        if path.is_dir() {
            let entries = std::fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").path());
            let mut inside: Vec<String> = entries.map(|path| path.display().to_string()).collect();
            inside.sort();
            rules.extend(read(&inside));
        } else if path.extension().is_some_and(|extension| extension == "yml") {
            rules.push(std::fs::read_to_string(path).expect("a file of rules"));
        }
    }
    rules
}

fn made(count: u32) -> Vec<String> {
    (0..count).map(rule).collect()
}

/// A number of its own in each, so that no two ask for the same.
fn rule(number: u32) -> String {
    let operation = OPERATIONS[number as usize % OPERATIONS.len()];
    let condition = match number / OPERATIONS.len() as u32 % 8 {
        0 => format!("UserId|startswith: 'alex.maple{number}@'"),
        1 => format!("ClientIP|cidr: '100.{}.{}.0/24'", 64 + number / 256 % 64, number % 256),
        2 => format!("ClientInfoString|contains: 'Tool/{number}.'"),
        3 => format!("AffectedItems.Subject|contains: ['invoice {number}', 'payment {number}']"),
        4 => format!("ObjectId|startswith: 'https://contoso-{number}.sharepoint.example/'"),
        5 => format!("AppId: '{number:08x}-0000-4000-8000-000000000000'"),
        6 => format!("UserAgent|re: '^bot-{number}/[0-9]+'"),
        _ => format!("SourceFileName|contains|all: ['secret', '{number}']"),
    };
    format!(
        "title: Made rule {number}\nid: {number:08x}-1111-4111-8111-111111111111\nlevel: low\n\
         logsource:\n  product: m365\ndetection:\n  selection:\n    Operation: '{operation}'\n    {condition}\n  \
         condition: selection\n"
    )
}
