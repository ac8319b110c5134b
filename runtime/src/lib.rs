//! The effects that every service shares: the log, the clock, configuration, metrics, logging, HTTP for operators,
//! shutdown.

pub mod clock;
pub mod config;
pub mod failpoint;
pub mod http;
pub mod log;
pub mod logging;
pub mod metrics;
pub mod shutdown;
