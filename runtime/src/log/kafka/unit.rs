//! Units of ownership: what one process at a time works on, and the one writer of its state and offsets.

use super::topics::SLOTS;
use crate::log::{Consumer, Input, Lease};

/// A partition of the consumer's input; for those who are elected or spread by number, a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Unit {
    pub consumer: Consumer,
    pub slot: u32,
}

/// Partitions of `offsets` for those who are elected: notify and archive.
pub(super) const OFFSETS_EXTRA: u32 = 2;

/// Whether a consumer's units are the partitions of its input; else they are slots.
pub(super) fn by_partition(consumer: Consumer) -> bool {
    matches!(consumer, Consumer::Match | Consumer::Correlate)
}

impl Unit {
    pub fn of_lease(lease: &Lease) -> Unit {
        let slot = if by_partition(lease.consumer) { lease.partition } else { lease.partition % SLOTS };
        Unit { consumer: lease.consumer, slot }
    }

    /// Notify and archive have one process that reads all partitions: it holds the first slot.
    pub fn of_input(input: &Input) -> Unit {
        let slot = if by_partition(input.consumer) { input.partition } else { 0 };
        Unit { consumer: input.consumer, slot }
    }

    /// Where its offsets are kept; pollers have none.
    pub fn offsets_partition(self, partitions: u32) -> Option<u32> {
        match self.consumer {
            Consumer::Match => Some(self.slot),
            Consumer::Correlate => Some(partitions + self.slot),
            Consumer::Notify if self.slot == 0 => Some(2 * partitions),
            Consumer::Archive if self.slot == 0 => Some(2 * partitions + 1),
            Consumer::Notify | Consumer::Archive | Consumer::Poll | Consumer::Search => None,
        }
    }
}
