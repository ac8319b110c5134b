//! Every blob is served twice, under two names and at two times, while processes are killed.

use super::play::Setup;
use super::{Backend, Fault, kill9};

pub const FAULT: Fault = Fault {
    name: "blobs-twice",
    backends: &[Backend::Embedded, Backend::Kafka],
    setup: |backend, kills| Setup { twice: true, ..(kill9::FAULT.setup)(backend, kills) },
    play: kill9::FAULT.play,
};
