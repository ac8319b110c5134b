//! From records to findings: the rule language, the matcher, windows and baselines, and the two services that run them.
//!
//! Everything but [`service`] is pure: no clock, no I/O. Findings are a function of the *set* of records, so any order
//! of arrival, any batching and any restart give the same ones.

pub mod correlate;
pub mod rule;
