//! Where audit records come from. A source is one file or folder here.

pub mod audit_search;
mod health;
mod heartbeat;
pub mod management_activity;

pub use health::Health;
pub use heartbeat::{INTERVAL as HEARTBEAT_INTERVAL, beat};
