//! Questions asked of the archive. Every answer says what it covers: a gap is printed beside the answer it weakens, and
//! an empty answer is never shown as a clean one.

pub mod activity;
pub mod coverage;
mod error;
pub mod findings;
mod rows;
pub mod timeline;

pub use error::Error;
