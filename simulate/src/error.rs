//! What can go wrong before a world is served; afterwards things only go wrong on purpose.

use std::net::SocketAddr;

/// Each message names what was given and what would have been right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("no scenario is called {given:?}; there are quiet and takeover")]
    UnknownScenario { given: String },
    #[error("no fault is called {given:?}; there are all and {}", names())]
    UnknownFault { given: String },
}

fn names() -> String {
    let names: Vec<String> = crate::Fault::all().map(|fault| fault.to_string()).collect();
    names.join(", ")
}
