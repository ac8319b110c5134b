//! Which rules a record's operation leaves in the running.
//!
//! Nearly every rule about Microsoft 365 names the operations it speaks of, and a record has one. So the rules are kept
//! by operation, and a record is only asked about those of its own and about the rules that name none. The index may
//! leave a rule in that does not hold; it never takes one out that does: a record whose operation is not one text, as
//! it should be, is asked about all of them.

use std::collections::{BTreeSet, HashMap};

use schemas::{Event, field};

use crate::rule::condition::{Detection, OperationName};
use crate::rule::pattern::fold_text;

/// Detections by the operations they can only hold for. Detections are named by their position.
#[derive(Debug, Default)]
pub(crate) struct OperationIndex {
    count: usize,
    /// Those that name no operation.
    always: Vec<usize>,
    /// By the operation as written, folded.
    by_operation: HashMap<String, Vec<usize>>,
    /// By the operation in the form that is compared.
    by_key: HashMap<String, Vec<usize>>,
}

impl OperationIndex {
    pub(crate) fn new<'d>(detections: impl Iterator<Item = &'d Detection>) -> OperationIndex {
        let mut index = OperationIndex::default();
        for (position, detection) in detections.enumerate() {
            index.count = position + 1;
            match detection.operations() {
                None => index.always.push(position),
                Some(names) => {
                    for name in names {
                        let (map, name) = match name {
                            OperationName::Written(name) => (&mut index.by_operation, name),
                            OperationName::Key(name) => (&mut index.by_key, name),
                        };
                        map.entry(name).or_default().push(position);
                    }
                }
            }
        }
        index
    }

    /// The detections that may hold for a record, each once.
    pub(crate) fn candidates(&self, event: &Event) -> BTreeSet<usize> {
        let Some(operation) = event.record().get("Operation").and_then(schemas::Node::as_str) else {
            return (0..self.count).collect();
        };
        let mut candidates: BTreeSet<usize> = self.always.iter().copied().collect();
        let key = fold_text(event.text(field::OPERATION_KEY).unwrap_or_default());
        for found in [self.by_operation.get(&fold_text(operation)), self.by_key.get(&key)].into_iter().flatten() {
            candidates.extend(found);
        }
        candidates
    }
}
