//! The real binary from the outside: its command line, its files, its exit codes, and what a kill leaves behind.
//!
//! One test binary, which links neither the archive nor the log: everything is asked of `harrier` itself, so that only
//! what a user can see counts. Loopback only, ports of the system's choosing, and every wait has an end.

// The lint spares tests, but not the functions that they share.
#![allow(clippy::unwrap_used, clippy::panic)]

mod bad_input;
mod binary;
mod compose;
mod door;
mod erase;
mod first_rule;
mod heads;
mod import;
#[cfg(feature = "kafka")]
mod kafka;
mod kill;
mod named_sql;
mod object_store;
mod operate;
mod others_read_it;
mod places;
mod rule_schema;
mod rules;
mod sample;
mod service;
mod setup;
mod sinks;
mod sql;
mod watch;
