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
    #[error("no broken tenant is called {given:?}; there are {}", broken_names())]
    UnknownBroken { given: String },
    #[error("no fault is called {given:?}; there are all and {}", fault_names())]
    UnknownFault { given: String },
}

fn broken_names() -> String {
    crate::Broken::ALL.map(|(_, name)| name).join(", ")
}

fn fault_names() -> String {
    let names: Vec<String> = crate::Fault::all().map(|fault| fault.to_string()).collect();
    names.join(", ")
}
