//! Which rules a record leaves in the running.
//!
//! Nearly every rule about Microsoft 365 names the operations it speaks of, and a record has one. So the rules are kept
//! by operation, and a record is only asked about those of its own and about the rules that name none. Within an
//! operation they are kept by what the record must hold besides ([`witness`](crate::rule::witness)): all texts that rules
//! ask of one field are looked for at once, whatever their number.
//!
//! A rule may have several of these. Which says most is guessed from the texts at first; then it is measured on what comes,
//! and the index is made anew ([`measured`]).
//!
//! The index may leave a rule in that does not hold; it never takes one out that does: a record whose operation is not
//! one text, as it should be, is asked about all of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use ipnet::IpNet;
use schemas::path::{AtTop, Scalar};
use schemas::{Event, field};

use crate::rule::condition::{Detection, OperationName};
use crate::rule::pattern::{fold_into, fold_text};
use crate::rule::predicate::{Field, Subject, address};
use crate::rule::witness::{Needle, Witness};

mod measured;
mod search;

use measured::Measuring;
use search::Search;

/// How many values most fields have at most, and how long they are: so that room for them is asked for once.
const VALUES: usize = 8;
const VALUE_BYTES: usize = 256;

/// Detections by what a record must be for them to hold. Detections are named by their position.
#[derive(Debug)]
pub(crate) struct Index {
    count: usize,
    /// By what their texts say.
    guessed: Places,
    /// By what records say; once there is one, the other is asked no more.
    measured: OnceLock<Places>,
    /// None once it has ended.
    measuring: Mutex<Option<Measuring>>,
    /// Records that were asked about before it ended.
    asked: AtomicUsize,
}

/// Where each detection is found.
#[derive(Debug, Default)]
struct Places {
    /// Those that name no operation.
    any_operation: Bucket,
    by_operation: HashMap<String, OfOperation>,
}

/// Detections that name one operation: either as it is written, folded, or in the form that is compared.
#[derive(Debug, Default)]
struct OfOperation {
    written: Bucket,
    key: Bucket,
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
    networks: Networks,
    /// By the text with which a value begins, and whether that is all of it.
    beginnings: HashMap<(String, bool), Vec<usize>>,
    /// By the text that is somewhere in it.
    texts: HashMap<String, Vec<usize>>,
    /// Made by the first record of the operation: most operations that rules name never come.
    search: OnceLock<Search>,
}

/// Networks, by the length of their prefix: an address is looked up once for each length that there is.
#[derive(Debug, Default)]
struct Networks {
    lengths: Vec<u8>,
    detections: HashMap<IpNet, Vec<usize>>,
}

impl Networks {
    fn add(&mut self, network: IpNet, position: usize) {
        if !self.lengths.contains(&network.prefix_len()) {
            self.lengths.push(network.prefix_len());
        }
        self.detections.entry(network).or_default().push(position);
    }

    fn each(&self, text: &str, mut found: impl FnMut(&[usize])) {
        let Some(address) = (if self.lengths.is_empty() { None } else { address(text) }) else { return };
        // An IPv4 address has no prefix of more than 32 bits.
        for network in self.lengths.iter().filter_map(|length| IpNet::new(address, *length).ok()) {
            self.detections.get(&network.trunc()).into_iter().for_each(|detections| found(detections));
        }
    }
}

/// What is known of a detection before it is asked.
#[derive(Debug)]
struct Known {
    /// None where it names no operation.
    operations: Option<BTreeSet<OperationName>>,
    /// None where nothing is known.
    witness: Option<Witness>,
}

impl Places {
    /// `seen`: how many records had an alternative of a witness, by the detection and its place in the witness.
    fn new(detections: &[Known], seen: impl Fn(usize, usize) -> u64) -> Places {
        let mut places = Places::default();
        for (position, known) in detections.iter().enumerate() {
            let best = known.witness.as_ref().map(|witness| witness.best(&|place| seen(position, place)));
            let add = |bucket: &mut Bucket| match &best {
                None => bucket.always.push(position),
                Some(alternatives) => {
                    alternatives.iter().for_each(|(field, needle)| bucket.add(field, needle, position))
                }
            };
            match &known.operations {
                None => add(&mut places.any_operation),
                Some(names) => {
                    for name in names {
                        let (OperationName::Written(text) | OperationName::Key(text)) = name;
                        let of_operation = places.by_operation.entry(text.clone()).or_default();
                        add(match name {
                            OperationName::Written(_) => &mut of_operation.written,
                            OperationName::Key(_) => &mut of_operation.key,
                        });
                    }
                }
            }
        }
        places
    }
}

impl Index {
    pub(crate) fn new<'d>(detections: impl Iterator<Item = &'d Detection>) -> Index {
        let known = |detection: &Detection| Known { operations: detection.operations(), witness: detection.witness() };
        let detections: Vec<Known> = detections.map(known).collect();
        Index {
            count: detections.len(),
            guessed: Places::new(&detections, |_, _| 0),
            measured: OnceLock::new(),
            measuring: Mutex::new(Measuring::new(detections)),
            asked: AtomicUsize::new(0),
        }
    }

    /// Where detections are found now.
    fn places(&self, event: &Event) -> &Places {
        if let Some(measured) = self.measured.get() {
            return measured;
        }
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        // Who finds another at it leaves this record out.
        if asked.is_multiple_of(measured::EVERY)
            && let Ok(mut measuring) = self.measuring.try_lock()
            && let Some(open) = measuring.as_mut()
        {
            open.take_in(event);
            if open.is_enough() {
                self.end_measuring(&mut measuring);
            }
        }
        self.measured.get().unwrap_or(&self.guessed)
    }

    /// Measures these records, and asks by what they say from then on.
    pub(crate) fn measure<'e>(&self, events: impl Iterator<Item = &'e Event>) {
        let mut measuring = self.measuring.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = measuring.as_mut() {
            events.for_each(|event| open.take_in(event));
        }
        self.end_measuring(&mut measuring);
    }

    fn end_measuring(&self, measuring: &mut Option<Measuring>) {
        if let Some(done) = measuring.take() {
            self.measured.get_or_init(|| done.places());
        }
    }

    /// The detections that may hold for a record, each once, in order.
    pub(crate) fn candidates(&self, event: &Event) -> Vec<usize> {
        let Some(operation) = event.record().get("Operation").and_then(schemas::Node::as_str) else {
            return (0..self.count).collect();
        };
        let places = self.places(event);
        let mut probe = Probe::new(event, self.count);
        fold_into(operation, &mut probe.folded);
        let written = places.by_operation.get(&probe.folded);
        let key = if is_key_when_folded(operation) {
            written
        } else {
            places.by_operation.get(&fold_text(event.text(field::OPERATION_KEY).unwrap_or_default()))
        };
        let found = [written.map(|found| &found.written), key.map(|found| &found.key), Some(&places.any_operation)];
        found.into_iter().flatten().for_each(|bucket| bucket.ask(&mut probe));
        probe.found.each_once()
    }
}

/// Whether what is compared of an operation is what is written, folded: nearly always, and then nothing need be made of
/// it. Other forms lose what stands around them, and dashes of other kinds.
fn is_key_when_folded(operation: &str) -> bool {
    let ends = [operation.bytes().next(), operation.bytes().next_back()];
    let is_plain = |end: Option<u8>| end.is_some_and(|end| end > b' ' && end != b'.');
    operation.is_ascii() && ends.into_iter().all(is_plain)
}

/// One record that is asked about, and room for what is looked at, kept from one field to the next.
struct Probe<'e> {
    event: &'e Event,
    values: Vec<Scalar<'e>>,
    folded: String,
    found: Found,
}

impl<'e> Probe<'e> {
    fn new(event: &'e Event, count: usize) -> Probe<'e> {
        let (values, folded) = (Vec::with_capacity(VALUES), String::with_capacity(VALUE_BYTES));
        Probe { event, values, folded, found: Found { positions: Vec::new(), count } }
    }
}

/// The detections that a record may make hold. A record may say the same text a million times: they are no more than twice
/// as many as there are.
struct Found {
    positions: Vec<usize>,
    /// How many detections there are.
    count: usize,
}

impl Found {
    #[inline]
    fn add(&mut self, positions: &[usize]) {
        self.positions.extend_from_slice(positions);
        if self.positions.len() > 2 * self.count {
            self.sort();
        }
    }

    fn sort(&mut self) {
        self.positions.sort_unstable();
        self.positions.dedup();
    }

    fn each_once(mut self) -> Vec<usize> {
        self.sort();
        self.positions
    }
}

impl Bucket {
    fn add(&mut self, field: &Field, needle: &Needle, position: usize) {
        let at = self.fields.iter().position(|known| known.field == *field).unwrap_or_else(|| {
            self.fields.push(FieldNeedles {
                field: field.clone(),
                value: Vec::new(),
                networks: Networks::default(),
                beginnings: HashMap::new(),
                texts: HashMap::new(),
                search: OnceLock::new(),
            });
            self.fields.len() - 1
        });
        let needles = &mut self.fields[at];
        match needle {
            Needle::Value => needles.value.push(position),
            Needle::Network(network) => needles.networks.add(*network, position),
            Needle::Text(text) => needles.texts.entry(text.clone()).or_default().push(position),
            Needle::Beginning { text, is_all } => {
                needles.beginnings.entry((text.clone(), *is_all)).or_default().push(position);
            }
        }
    }

    /// Adds its candidates.
    fn ask(&self, probe: &mut Probe<'_>) {
        probe.found.add(&self.always);
        self.fields.iter().for_each(|field| field.ask(probe));
    }
}

impl FieldNeedles {
    fn ask(&self, probe: &mut Probe<'_>) {
        match self.field.at_top(probe.event) {
            AtTop::Nothing => {}
            AtTop::Text(text) => self.ask_text(text, &mut probe.folded, &mut probe.found),
            AtTop::Other => self.ask_all(probe),
        }
    }

    fn ask_all(&self, probe: &mut Probe<'_>) {
        let Probe { event, values, folded, found } = probe;
        values.clear();
        self.field.select(Subject::Record(event), values);
        for value in values.iter().filter(|value| **value != Scalar::Null) {
            match value {
                Scalar::Text(text) => self.ask_text(text, folded, found),
                // Addresses are texts, so this is in no network.
                other => {
                    found.add(&self.value);
                    self.look_for_texts(&other.to_text(), folded, found);
                }
            }
        }
    }

    fn ask_text(&self, text: &str, folded: &mut String, found: &mut Found) {
        found.add(&self.value);
        self.networks.each(text, |detections| found.add(detections));
        self.look_for_texts(text, folded, found);
    }

    fn look_for_texts(&self, text: &str, folded: &mut String, found: &mut Found) {
        if self.texts.is_empty() && self.beginnings.is_empty() {
            return;
        }
        let search = self.search.get_or_init(|| Search::new(&self.beginnings, &self.texts));
        let found = |detections: &[usize]| found.add(detections);
        if self.texts.is_empty() && text.is_ascii() {
            return search.each_beginning(text, found);
        }
        folded.clear();
        fold_into(text, folded);
        search.each(folded, found);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_again_and_again_takes_no_more_room() {
        let mut found = Found { positions: Vec::new(), count: 3 };
        for _ in 0..100_000 {
            found.add(&[2, 0]);
        }
        assert!(found.positions.capacity() < 20);
        assert_eq!(found.each_once(), [0, 2]);
    }
}
