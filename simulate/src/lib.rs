//! A fake Microsoft 365 tenant: ordinary office traffic, the story of an account takeover, and the Office 365
//! Management Activity API that delivers both.
//!
//! Why: the real service cannot be asked to be late, double, unordered, throttled or broken on demand, and nobody may
//! publish the records of a real attack. Here every byte follows from a seed, the truth is known
//! ([`Story`]), and everything the real service does to its readers can be switched on.
//!
//! Guarantee: equal [`Options`] give the same [`World`], byte for byte, and each unique record of the world is served
//! at least once. This crate shares no code with the readers it tests: a mistake in a shape would cancel itself out.
//!
//! ```no_run
//! # async fn play() -> Result<(), simulate::Error> {
//! let options = simulate::Options::new(chrono::Utc::now());
//! let tenant = simulate::FakeTenant::start(options, ([127, 0, 0, 1], 0).into()).await?;
//! println!("login and management: http://{}", tenant.address());
//! println!("the victim is {}", tenant.world().story.victim);
//! tenant.stop().await;
//! # Ok(())
//! # }
//! ```

mod answers;
mod assertion;
mod audit_search;
mod backlog;
mod broken;
mod counters;
mod dice;
mod error;
mod faults;
mod line;
mod month;
mod office;
mod options;
mod people;
mod records;
mod server;
mod service;
mod shelf;
mod stories;
mod takeover;
mod tokens;
mod traffic;
mod truth;
mod world;

pub use assertion::Federated;
pub use audit_search::{Searched, Searching};
pub use backlog::Backlog;
pub use broken::Broken;
pub use counters::Served;
pub use error::Error;
pub use faults::Fault;
pub use month::Month;
pub use options::{Delivery, Options, Pace, Scenario};
pub use server::FakeTenant;
pub use stories::Tale;
pub use traffic::traffic;
pub use truth::{LostBlob, Truth};
pub use world::{Record, Step, Story, World};
