//! Findings to people and systems.
//!
//! [`run`] consumes the findings topic into an outbox, a row for each sink and finding, and delivers from it: at least
//! once, each revision under one `webhook-id` for all attempts, the revisions of a finding in order, and all that
//! belongs to one episode under one `dedup_key`. A sink that is slow or down holds up nothing but itself; what waits
//! for it survives `kill -9`; what it will never take ends in the dead letters with its reason.
//!
//! | module | what |
//! |---|---|
//! | `service` | leading, reading, committing |
//! | `plan` | what a batch of findings means for the outbox (pure) |
//! | `entry` | one row: states, schedule, failure classes (pure) |
//! | `pick` | what goes out next, the storm brake, how a delivery ends (pure) |
//! | `outbox` | the rows in memory, and drafts of steps |
//! | `deliver` | a sink at work |
//! | `sinks` | a file for each kind |
//! | `body`, `digest` | what a receiver reads (pure) |
//! | `heads` | the heads of the archive, once a day (pure) |
//! | `incidents` | which incident a finding is told under (pure) |
//! | `guard`, `signature` | what a webhook needs to be safe |

mod body;
mod deliver;
mod digest;
mod entry;
mod guard;
mod heads;
mod incidents;
mod outbox;
mod pick;
mod plan;
#[cfg(test)]
mod samples;
mod service;
mod settings;
mod signature;
mod sinks;

pub use body::{BODY_BYTES_MAX, Context, Kind, body, webhook_id};
pub use entry::{Failure, FailureClass};
pub use service::{Error, TestError, check, run, test};
pub use settings::{Address, SigningSecret, Sink, SinkError, SinkErrorKind, TIMEOUT_DEFAULT};
pub use sinks::kinds;
