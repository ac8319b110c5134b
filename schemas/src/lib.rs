//! What the data is: the shapes that every other crate passes around, and nothing that acts.
//!
//! This crate is pure: no I/O, no clock, no async. A record enters as bytes with an [`Envelope`], becomes an
//! [`Event`] by a total function (every JSON object becomes an event plus a list of [`Defect`]s; nothing is dropped,
//! the received bytes are kept), and what the rules make of it leaves as a [`Finding`].
//!
//! One table, [`FIELDS`], drives normalisation, rule type-checking, Arrow columns and documentation, so that they
//! cannot disagree.

pub mod document;
pub mod envelope;
pub mod event;
pub mod field;
pub mod finding;
pub mod history;
pub mod incident;
pub mod json;
pub mod message;
mod normalise;
pub mod path;
mod rule_book;
pub mod tenant;
pub mod text;

pub use document::{Document, Node};
pub use envelope::Envelope;
pub use event::{Defect, Event, Value};
pub use field::{FIELDS, Field, FieldId};
pub use finding::Finding;
pub use normalise::operation::operation_key;
pub use rule_book::{RuleBook, RuleText};
