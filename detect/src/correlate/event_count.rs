//! `event_count`: the weights of the distinct event ids in a window sum to at least so much.
//!
//! Where variants of one id lie in the same window, the heaviest counts: a choice that arrival order cannot change and
//! that another variant can only raise.

use std::collections::HashMap;

use chrono::TimeDelta;

use super::state::{Member, Members};
use super::window::{Span, Tally, sweep};

pub(super) fn satisfied(members: &Members, anchors: Vec<Span>, at_least: u64, timespan: TimeDelta) -> Vec<Span> {
    anchors.into_iter().flat_map(|anchors| sweep::<Weights>(members, anchors, timespan, u128::from(at_least))).collect()
}

/// The weight of each id in the window. Looked up, never walked: the map's order reaches no result.
#[derive(Default)]
pub(super) struct Weights<'a> {
    of_id: HashMap<&'a str, Slot>,
    total: u128,
}

/// One id's weights: nearly always a single one, so the list stays unallocated.
struct Slot {
    heaviest: u64,
    others: Vec<u64>,
}

impl<'a> Tally<'a> for Weights<'a> {
    fn push(&mut self, member: &'a Member) {
        let weight = member.weight;
        match self.of_id.get_mut(&*member.event_id) {
            None => {
                self.of_id.insert(&member.event_id, Slot { heaviest: weight, others: Vec::new() });
                self.total += u128::from(weight);
            }
            Some(slot) => {
                let lighter = weight.min(slot.heaviest);
                self.total += u128::from(weight.max(slot.heaviest) - slot.heaviest);
                slot.heaviest = weight.max(slot.heaviest);
                slot.others.push(lighter);
            }
        }
    }

    fn pop(&mut self, member: &'a Member) {
        let Some(slot) = self.of_id.get_mut(&*member.event_id) else { return };
        if member.weight != slot.heaviest {
            if let Some(at) = slot.others.iter().position(|weight| *weight == member.weight) {
                slot.others.swap_remove(at);
            }
            return;
        }
        self.total -= u128::from(slot.heaviest);
        match slot.others.iter().enumerate().max_by_key(|(_, weight)| **weight).map(|(at, _)| at) {
            None => {
                self.of_id.remove(&*member.event_id);
            }
            Some(at) => {
                slot.heaviest = slot.others.swap_remove(at);
                self.total += u128::from(slot.heaviest);
            }
        }
    }

    fn amount(&self) -> u128 {
        self.total
    }
}
