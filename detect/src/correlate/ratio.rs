//! `ratio`: how much of what happened was of some of the rules, in percent: sign-ins that failed among all, deleted mail
//! among what was read.
//!
//! Both sides sum the heaviest weight of each distinct event id, as counts do; an id that several rules selected is part of
//! the whole once, and of the part if one of the named rules selected it. Below `floor` in all nothing is said: three of
//! three are a hundred percent and mean nothing. More records may make it false as well as true: see
//! [`aggregate`](super::aggregate), whose windows these are.

use super::event_count::Weights;
use super::state::Member;
use super::window::Tally;
use crate::rule::model::Ratio;

/// The two sums of a window.
pub(super) struct Shared<'a> {
    ratio: &'a Ratio,
    part: Weights<'a>,
    whole: Weights<'a>,
}

impl<'a> Shared<'a> {
    pub fn of(ratio: &'a Ratio) -> Shared<'a> {
        Shared { ratio, part: Weights::default(), whole: Weights::default() }
    }

    fn is_part(&self, member: &Member) -> bool {
        self.ratio.of.iter().any(|name| **name == *member.name)
    }

    pub fn push(&mut self, member: &'a Member) {
        self.whole.push(member);
        if self.is_part(member) {
            self.part.push(member);
        }
    }

    pub fn pop(&mut self, member: &'a Member) {
        self.whole.pop(member);
        if self.is_part(member) {
            self.part.pop(member);
        }
    }

    /// A hundred times the part, and the whole; none while the whole is too little.
    pub fn percent(&self) -> Option<(i128, i128)> {
        let (part, whole) = (self.part.amount(), self.whole.amount());
        let number = |amount: u128| i128::try_from(amount).ok();
        if whole < u128::from(self.ratio.floor.max(1)) {
            return None;
        }
        Some((number(part)?.checked_mul(100)?, number(whole)?))
    }
}
