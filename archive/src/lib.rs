//! From the log to Parquet that any engine reads, and SQL over it.
//!
//! [`Archiver`](archiver::Archiver) writes; [`Sql`](sql::Sql) reads, also while another process writes. Nothing but this crate knows arrow and
//! datafusion.

pub mod archiver;
pub mod compactor;
mod content;
pub mod delta;
pub mod erasure;
mod error;
mod file;
pub mod heads;
pub mod history;
pub mod retention;
mod rows;
pub mod signer;
pub mod sql;
pub mod store;
pub mod table;
pub mod verify;

pub use error::Error;
pub use store::Store;
