//! `each`: every match is a finding; those nearer than the gap are one. Each member is a satisfied span of its own.

use super::state::MemberKey;
use super::window::Span;

pub(super) fn satisfied(fresh: &[MemberKey]) -> Vec<Span> {
    fresh.iter().map(|key| Span::at(key.time)).collect()
}
