//! Which rules a record leaves in the running.
//!
//! Nearly every rule about Microsoft 365 names the operations it speaks of, and a record has one. So the rules are kept
//! by operation, and a record is only asked about those of its own and about the rules that name none. Within an
//! operation they are kept by what the record must hold besides ([`witness`](crate::rule::witness)): all texts that rules
//! ask of one field are looked for at once, whatever their number.
//!
//! The index may leave a rule in that does not hold; it never takes one out that does: a record whose operation is not
//! one text, as it should be, is asked about all of them.

use std::collections::HashMap;
use std::sync::OnceLock;

use aho_corasick::AhoCorasick;
use schemas::path::Scalar;
use schemas::{Event, field};

use crate::rule::condition::{Detection, OperationName};
use crate::rule::pattern::{fold, fold_text};
use crate::rule::predicate::{Field, Subject};
use crate::rule::witness::Needle;

/// Detections by what a record must be for them to hold. Detections are named by their position.
#[derive(Debug, Default)]
pub(crate) struct Index {
    count: usize,
    /// Those that name no operation.
    any_operation: Bucket,
    /// By the operation as written, folded.
    by_operation: HashMap<String, Bucket>,
    /// By the operation in the form that is compared.
    by_key: HashMap<String, Bucket>,
}

/// Detections by what a record must hold.
#[derive(Debug, Default)]
struct Bucket {
    /// Those of which nothing is known.
    always: Vec<usize>,
    fields: Vec<FieldNeedles>,
}

/// What is looked for in one field.
#[derive(Debug)]
struct FieldNeedles {
    field: Field,
    /// Those that ask for any value.
    value: Vec<usize>,
    /// By the text that they ask for.
    texts: HashMap<String, Vec<usize>>,
    /// Made by the first record of the operation: most operations that rules name never come.
    search: OnceLock<Search>,
}

/// How texts are looked for.
#[derive(Debug)]
enum Search {
    /// One after the other.
    Each(Vec<(String, Vec<usize>)>),
    /// At once; the detections by the number of the text.
    Together(AhoCorasick, Vec<Vec<usize>>),
}

/// From so many texts on, looking for all at once is quicker.
const TOGETHER_MIN: usize = 8;

/// What is left in the running, each once.
struct Candidates {
    is_in: Vec<bool>,
    positions: Vec<usize>,
}

impl Candidates {
    fn add(&mut self, positions: &[usize]) {
        for &position in positions {
            if !std::mem::replace(&mut self.is_in[position], true) {
                self.positions.push(position);
            }
        }
    }
}

impl Index {
    pub(crate) fn new<'d>(detections: impl Iterator<Item = &'d Detection>) -> Index {
        let mut index = Index::default();
        for (position, detection) in detections.enumerate() {
            index.count = position + 1;
            let witness = detection.witness();
            let add = |bucket: &mut Bucket| match &witness {
                None => bucket.always.push(position),
                Some(alternatives) => {
                    alternatives.iter().for_each(|(field, needle)| bucket.add(field, needle, position))
                }
            };
            match detection.operations() {
                None => add(&mut index.any_operation),
                Some(names) => {
                    for name in names {
                        let (map, name) = match name {
                            OperationName::Written(name) => (&mut index.by_operation, name),
                            OperationName::Key(name) => (&mut index.by_key, name),
                        };
                        add(map.entry(name).or_default());
                    }
                }
            }
        }
        index
    }

    /// The detections that may hold for a record, each once.
    pub(crate) fn candidates(&self, event: &Event) -> Vec<usize> {
        let Some(operation) = event.record().get("Operation").and_then(schemas::Node::as_str) else {
            return (0..self.count).collect();
        };
        let mut candidates = Candidates { is_in: vec![false; self.count], positions: Vec::new() };
        let key = fold_text(event.text(field::OPERATION_KEY).unwrap_or_default());
        let found = [self.by_operation.get(&fold_text(operation)), self.by_key.get(&key)];
        for bucket in found.into_iter().flatten().chain([&self.any_operation]) {
            bucket.candidates(event, &mut candidates);
        }
        candidates.positions
    }
}

impl Bucket {
    fn add(&mut self, field: &Field, needle: &Needle, position: usize) {
        let at = self.fields.iter().position(|known| known.field == *field).unwrap_or_else(|| {
            let (value, texts) = (Vec::new(), HashMap::new());
            self.fields.push(FieldNeedles { field: field.clone(), value, texts, search: OnceLock::new() });
            self.fields.len() - 1
        });
        match needle {
            Needle::Value => self.fields[at].value.push(position),
            Needle::Text(text) => self.fields[at].texts.entry(text.clone()).or_default().push(position),
        }
    }

    fn candidates(&self, event: &Event, candidates: &mut Candidates) {
        candidates.add(&self.always);
        let (mut values, mut folded) = (Vec::new(), String::new());
        for field in &self.fields {
            values.clear();
            field.field.select(Subject::Record(event), &mut values);
            for value in values.iter().filter(|value| **value != Scalar::Null) {
                candidates.add(&field.value);
                folded.clear();
                folded.extend(value.to_text().chars().map(fold));
                field.search.get_or_init(|| Search::new(&field.texts)).each(&folded, |found| candidates.add(found));
            }
        }
    }
}

impl Search {
    fn new(texts: &HashMap<String, Vec<usize>>) -> Search {
        let each = || texts.iter().map(|(text, detections)| (text.clone(), detections.clone())).collect();
        if texts.len() < TOGETHER_MIN {
            return Search::Each(each());
        }
        match AhoCorasick::new(texts.keys()) {
            Ok(automaton) => Search::Together(automaton, texts.values().cloned().collect()),
            // More texts than an automaton can hold.
            Err(_) => Search::Each(each()),
        }
    }

    fn each(&self, value: &str, mut found: impl FnMut(&[usize])) {
        match self {
            Search::Each(texts) => {
                texts.iter().filter(|(text, _)| value.contains(text)).for_each(|(_, detections)| found(detections));
            }
            Search::Together(automaton, detections) => {
                automaton.find_overlapping_iter(value).for_each(|at| found(&detections[at.pattern().as_usize()]));
            }
        }
    }
}
