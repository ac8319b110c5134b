//! The effects that every service shares: the log, the clock, configuration, metrics, HTTP for operators, shutdown.

pub mod clock;
pub mod config;
pub mod failpoint;
pub mod http;
pub mod log;
pub mod metrics;
pub mod shutdown;
