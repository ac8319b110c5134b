//! A rule whose condition is negated, or cannot be met, fails its own tests or those of a rule that refers to it.
//!
//! Without this a rule may carry tests that pass for another reason: what is tested is then the fixture.

use std::collections::BTreeSet;

use detect::rule::{RuleSet, Source, Tuning};
use detect::rule_test;

/// One document of one file.
struct Document {
    file: &'static str,
    text: &'static str,
    name: String,
    /// Names of rules it refers to.
    refers: Vec<String>,
}

fn documents() -> Vec<Document> {
    let of_file = |(file, text): &(&'static str, &'static str)| {
        let file = *file;
        let documents = text.split("\n---\n").map(move |text| Document {
            file,
            text,
            name: value(text, "name").unwrap_or_else(|| panic!("{file}: a document without a name")),
            refers: ["  rules", "x-learn"]
                .iter()
                .filter_map(|key| value(text, key))
                .flat_map(|list| names(&list))
                .collect(),
        });
        documents.collect::<Vec<_>>()
    };
    rules::pack().iter().flat_map(of_file).collect()
}

fn value(text: &str, key: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

fn names(list: &str) -> Vec<String> {
    list.trim_matches(['[', ']']).split(',').map(|name| name.trim().to_owned()).collect()
}

/// Files that hold what these names refer to, and what that refers to.
fn closure(documents: &[Document], file: &'static str) -> BTreeSet<&'static str> {
    let mut files = BTreeSet::from([file]);
    loop {
        let wanted: BTreeSet<&String> = documents
            .iter()
            .filter(|document| files.contains(document.file))
            .flat_map(|document| &document.refers)
            .collect();
        let more = documents.iter().filter(|document| wanted.contains(&document.name)).map(|document| document.file);
        let more: Vec<_> = more.filter(|file| !files.contains(file)).collect();
        if more.is_empty() {
            return files;
        }
        files.extend(more);
    }
}

/// The document with a condition that says the contrary, or that nothing can meet.
fn broken(document: &str) -> String {
    let mut out = Vec::new();
    let mut in_correlation = false;
    let (mut is_condition, mut done) = (false, false);
    for line in document.lines() {
        if !line.starts_with([' ', '#']) {
            if is_condition {
                out.push("    )".to_owned());
            }
            (in_correlation, is_condition) = (line.starts_with("correlation:"), false);
        }
        let changed = match line.trim_start().split_once(':') {
            Some(("condition", condition)) if !in_correlation && line.starts_with("  condition") => {
                done = true;
                match condition.trim() {
                    ">-" => {
                        is_condition = true;
                        "  condition: >-\n    not (".to_owned()
                    }
                    condition => format!("  condition: not ({condition})"),
                }
            }
            Some(("gte", bound)) if in_correlation => {
                done = true;
                let bound: u64 = bound.trim().parse().unwrap();
                line.replace(&format!("gte: {bound}"), &format!("gte: {}", bound * 10_000))
            }
            // All its rules in the other order.
            Some(("rules", list)) if in_correlation && document.contains("type: temporal_ordered") => {
                done = true;
                let mut names = names(list.trim());
                names.reverse();
                format!("  rules: [{}]", names.join(", "))
            }
            Some(("timespan", _)) if document.contains("type: temporal\n") || reads_backwards(document) => {
                done = true;
                "  timespan: 1s".to_owned()
            }
            _ => line.to_owned(),
        };
        out.push(changed);
    }
    if is_condition {
        out.push("    )".to_owned());
    }
    if reads_backwards(document) {
        out.retain(|line| !line.starts_with("  x-pause:"));
    }
    // Baselines have no condition: nobody is known for so long, nothing is so much, and no place is so far.
    let add = [
        ("type: x_new_value", "x-min-days", 300),
        ("type: x_spike", "x-floor", 900_000_000),
        ("type: x_travel", "x-distance", 90_000),
    ];
    for (kind, key, number) in add {
        if document.contains(kind) {
            out.retain(|line| {
                !line.trim_start().starts_with(&format!("{key}:")) && !line.trim_start().starts_with("x-cold-floor:")
            });
            let place = out.iter().position(|line| line.starts_with("falsepositives:")).unwrap();
            out.insert(place, format!("{key}: {number}"));
            if key == "x-floor" {
                out.insert(place, format!("x-cold-floor: {number}"));
            }
            done = true;
        }
    }
    assert!(done, "nothing to negate in\n{document}");
    out.join("\n")
}

/// Whether a sequence is the same in the other order.
fn reads_backwards(document: &str) -> bool {
    let names = value(document, "  rules").map(|list| names(&list)).unwrap_or_default();
    document.contains("type: temporal_ordered") && names.iter().eq(names.iter().rev())
}

/// Whether some test notices: of the document itself, or of a rule that refers to it.
fn is_noticed(document: &Document, documents: &[Document]) -> bool {
    let referring = documents.iter().filter(|other| other.refers.contains(&document.name)).map(|other| other.file);
    // Its own file first: it is the likeliest to notice.
    let mut homes = vec![document.file];
    for file in referring {
        if !homes.contains(&file) {
            homes.push(file);
        }
    }
    homes.into_iter().any(|home| fails(home, documents, Some(document)))
}

/// Whether a test of this file fails when one document is broken.
fn fails(home: &'static str, documents: &[Document], broken_one: Option<&Document>) -> bool {
    fails_with(home, documents, broken_one.map(|document| (document, broken(document.text))))
}

/// The same, with a document in other words.
fn fails_with(home: &'static str, documents: &[Document], changed: Option<(&Document, String)>) -> bool {
    let files = closure(documents, home);
    let texts = rules::pack().iter().filter(|(file, _)| files.contains(file));
    let source = |(file, text): &(&str, &str)| {
        let changed_here = changed.as_ref().filter(|(document, _)| document.file == *file);
        let text = changed_here.map_or((*text).to_owned(), |(one, other)| text.replace(one.text, other));
        Source { file: (*file).to_owned(), text }
    };
    let rules =
        RuleSet::load(texts.map(source).collect(), &Tuning::default()).unwrap_or_else(|errors| panic!("{errors}"));
    let mut tested = documents.iter().filter(|other| other.file == home);
    tested.any(|other| !rule_test::hold_as_written(&rules, &other.name))
}

/// Only the files that a rule needs are loaded, and each test runs once, as written, until one fails: that results do not
/// depend on order is asked elsewhere.
#[test]
fn a_rule_with_a_broken_condition_fails_its_tests() {
    let documents = documents();
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let survived: Vec<String> = std::thread::scope(|scope| {
        let judge = |worker| {
            let documents = &documents;
            scope.spawn(move || {
                let mine = documents.iter().skip(worker).step_by(workers);
                let survived = mine.filter(|document| !is_noticed(document, documents));
                survived.map(|document| format!("{} of {}", document.name, document.file)).collect::<Vec<_>>()
            })
        };
        let judges: Vec<_> = (0..workers).map(judge).collect();
        judges.into_iter().flat_map(|judge| judge.join().unwrap()).collect()
    });
    assert!(survived.is_empty(), "no test notices that these are broken:\n{}", survived.join("\n"));
}

/// What is noticed above is the change, and not that some file is missing.
#[test]
fn a_rule_that_is_left_as_it_is_passes_its_tests_with_only_the_files_it_needs() {
    let documents = documents();
    for (file, _) in rules::pack() {
        assert!(!fails(file, &documents, None), "{file} without any change");
    }
}

/// What joins the records of a sequence, and what it waits for, is tested like a condition.
#[test]
fn a_sequence_without_its_value_or_its_pause_fails_its_tests() {
    let documents = documents();
    let mut survived = Vec::new();
    let mut asked = 0;
    for document in &documents {
        for key in ["  x-same:", "  x-pause:"].into_iter().filter(|key| document.text.contains(*key)) {
            let lines: Vec<&str> = document.text.lines().filter(|line| !line.starts_with(key)).collect();
            asked += 1;
            if !fails_with(document.file, &documents, Some((document, lines.join("\n")))) {
                survived.push(format!("{} without {key}", document.name));
            }
        }
    }
    assert!(asked > 0 && survived.is_empty(), "of {asked} these hold all the same: {survived:?}");
}
