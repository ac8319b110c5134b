//! The rule language: Sigma 2.1 with correlations, native, and `x-` keys for what Sigma lacks. See `rules/README.md`.
//!
//! A rule that loads cannot fail on a record: names, types, patterns and references are checked when it is loaded,
//! all problems at once, each with its file, line and column.
//!
//! The way of a rule: text -> [`yaml`] tree with places -> `document` (one rule, unlinked) -> [`set`] (names resolved
//! across files, tuning applied) -> [`model::Rule`].

mod bounds;
pub mod condition;
mod correlation;
mod detection;
mod dialect;
mod document;
mod link;
mod lint;
mod lists;
mod logsource;
mod members;
pub mod model;
mod modifier;
mod names;
pub(crate) mod pattern;
pub(crate) mod predicate;
mod presence;
mod read;
mod report;
mod samples;
mod schema;
mod set;
pub mod text;
pub(crate) mod trace;
mod tuning;
mod value;
mod version;
pub(crate) mod witness;
mod yaml;

pub use correlation::CORRELATION_TYPES;
pub(crate) use lint::known_spelling;
pub use lint::{Note, NoteKind, notes};
pub use model::{Kind, Member, Operator, Rule};
pub use modifier::MODIFIERS;
pub use predicate::Written;
pub use presence::Never;
pub use report::{Code, Report, RuleErrors, nearest};
pub use schema::schema;
pub use set::{RuleSet, Source};
pub use tuning::{Exception, Tuning};
