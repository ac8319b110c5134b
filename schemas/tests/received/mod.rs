//! Records as they arrive, for tests: with the circumstances of an arrival, from text or from the folder of real data.

#![allow(dead_code, reason = "each test file uses its part")]

use std::path::PathBuf;

use schemas::Event;
use schemas::envelope::{Origin, Received};
use schemas::event::NotARecord;

/// Reads one record.
pub fn read(bytes: &[u8]) -> Result<Event, NotARecord> {
    Event::read(&received(bytes))
}

fn received(bytes: &[u8]) -> Received {
    Received {
        origin: Origin {
            tenant: "contoso".parse().unwrap(),
            source: "management_activity".to_owned(),
            content_type: "Audit.General".to_owned(),
            blob_id: "blob-1".to_owned(),
            received: "2026-11-22T00:00:00Z".parse().unwrap(),
            notify: true,
        },
        bytes: bytes.to_vec(),
    }
}

/// The folder of real records, which is no part of the project. None, with a word, where there is none.
pub fn real_data() -> Option<PathBuf> {
    let folder = std::env::var_os("HARRIER_TEST_DATA")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"), PathBuf::from);
    let there = folder.is_dir();
    if !there {
        println!("skipped: no test data");
    }
    there.then_some(folder)
}
