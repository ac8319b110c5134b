//! `value_count`: at least so many distinct values in a window. Values are compared folded; ids play no part, because a
//! value seen twice is one value however many records say it.

use std::collections::HashMap;

use chrono::TimeDelta;

use super::state::{Member, Members};
use super::window::{Span, Tally, sweep};

pub(super) fn satisfied(members: &Members, anchors: Vec<Span>, at_least: u64, timespan: TimeDelta) -> Vec<Span> {
    anchors.into_iter().flat_map(|anchors| sweep::<Values>(members, anchors, timespan, u128::from(at_least))).collect()
}

#[derive(Default)]
pub(super) struct Values<'a> {
    times: Times<'a>,
}

impl<'a> Tally<'a> for Values<'a> {
    fn push(&mut self, member: &'a Member) {
        member.values.iter().for_each(|value| self.times.push(value));
    }

    fn pop(&mut self, member: &'a Member) {
        member.values.iter().for_each(|value| self.times.pop(value));
    }

    fn amount(&self) -> u128 {
        self.times.distinct()
    }
}

/// How often each text is in the window. Looked up, never walked: the map's order reaches no result.
#[derive(Default)]
pub(super) struct Times<'a> {
    of_text: HashMap<&'a str, usize>,
}

impl<'a> Times<'a> {
    pub fn push(&mut self, text: &'a str) {
        *self.of_text.entry(text).or_default() += 1;
    }

    pub fn pop(&mut self, text: &'a str) {
        if let Some(times) = self.of_text.get_mut(text) {
            *times -= 1;
            if *times == 0 {
                self.of_text.remove(text);
            }
        }
    }

    pub fn distinct(&self) -> u128 {
        self.of_text.len() as u128
    }
}
