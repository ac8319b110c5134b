//! Steps that are not atomic: what the fault bench must notice. Nothing happens here unless a test asks for it by
//! `HARRIER_BREAK`.

use super::{Committed, Txn};
use crate::failpoint::is_broken;

/// The halves that a step is taken in where its atomicity is switched off.
pub(super) fn halves(txn: &Txn) -> Option<[Txn; 2]> {
    let offsets_first = is_broken("offsets-before-outputs");
    if !offsets_first && !is_broken("output-outside-the-transaction") {
        return None;
    }
    if txn.outputs.is_empty() || txn.inputs.is_empty() && txn.state.is_empty() {
        return None;
    }
    let outputs = Txn { outputs: txn.outputs.clone(), lease: txn.lease.clone(), ..Txn::default() };
    let position = Txn { outputs: Vec::new(), ..txn.clone() };
    Some(if offsets_first { [position, outputs] } else { [outputs, position] })
}

/// What both halves together have put out.
pub(super) fn whole(mut first: Committed, second: Committed) -> Committed {
    first.ranges.extend(second.ranges);
    first
}
