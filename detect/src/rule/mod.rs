//! The rule language: Sigma 2.1 with correlations, native, and `x-` keys for what Sigma lacks. See `rules/README.md`.
//!
//! A rule that loads cannot fail on a record: names, types, patterns and references are checked when it is loaded,
//! all problems at once, each with its file, line and column.

pub mod condition;
pub mod model;
pub mod text;

pub use model::{Kind, Member, Operator, Rule};
