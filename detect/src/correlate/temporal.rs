//! `temporal`: at least so many distinct member rules in a window, in any order. One event may speak for every member
//! rule that selected it, as in Sigma.

use chrono::TimeDelta;

use super::state::{Member, Members};
use super::value_count::Times;
use super::window::{Span, Tally, sweep};

pub(super) fn satisfied(members: &Members, anchors: Vec<Span>, at_least: usize, timespan: TimeDelta) -> Vec<Span> {
    anchors.into_iter().flat_map(|anchors| sweep::<Names>(members, anchors, timespan, at_least as u128)).collect()
}

#[derive(Default)]
pub(super) struct Names<'a> {
    times: Times<'a>,
}

impl<'a> Tally<'a> for Names<'a> {
    fn push(&mut self, member: &'a Member) {
        self.times.push(&member.name);
    }

    fn pop(&mut self, member: &'a Member) {
        self.times.pop(&member.name);
    }

    fn amount(&self) -> u128 {
        self.times.distinct()
    }
}
