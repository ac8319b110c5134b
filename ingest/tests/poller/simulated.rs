//! The poller against a whole fake tenant, with everything the real service does to its readers switched on.

use std::collections::BTreeSet;

use chrono::{TimeDelta, Utc};
use ingest::source::management_activity::{CONTENT_TYPES, Pace};
use schemas::message::CoverageState;
use simulate::{FakeTenant, Fault, Options, World};

use crate::support::*;

fn ids_of(world: &World) -> BTreeSet<String> {
    world.records.iter().map(|record| record.id.clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_of_a_faulty_tenant_ends_in_the_log() {
    let faults = vec![Fault::ExpiredToken, Fault::Throttle, Fault::ServerError, Fault::TruncatedBody];
    let options = Options { users: 6, days: 16, faults, ..Options::new(Utc::now()) };
    let tenant = FakeTenant::start(options.clone(), ([127, 0, 0, 1], 0).into()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let mut source = source(&format!("http://{}", tenant.address()));
    source.tenant_id = options.tenant_id.clone();
    source.client_id = options.client_id.clone();
    source.content_types = CONTENT_TYPES.map(str::to_owned).to_vec();
    let begun = Utc::now();
    // Everything is there from the start: one pass, and those that the faults ask for.
    let slow = Pace { poll_interval: TimeDelta::milliseconds(500), ..pace() };
    let running = run(source, slow, &log);
    // The marks say when all is there: for every feed, in every partition, up to after the beginning.
    let held = running
        .until(&log, |held| {
            (0..held.records.len()).all(|partition| {
                let marks = held.marks(partition);
                CONTENT_TYPES.iter().all(|name| {
                    marks.iter().rfind(|mark| mark.content_type == *name).is_some_and(|mark| mark.until > begun)
                })
            })
        })
        .await;
    let served = tenant.served();
    assert_eq!(served.blobs_fetched_once, served.blobs_total);
    let held_ids: BTreeSet<String> = held.ids().into_iter().collect();
    let expected = ids_of(tenant.world());
    assert!(expected.len() > 1_000 && held_ids == expected, "{} of {}", held_ids.len(), expected.len());
    let bytes: BTreeSet<&str> = tenant.world().records.iter().map(|record| record.json.as_str()).collect();
    let is_sent = |bytes_held: &[u8]| bytes.contains(std::str::from_utf8(bytes_held).unwrap());
    assert!(held.received().iter().all(|received| is_sent(&received.bytes)), "bytes as they were sent");
    assert!(held.dead_letters.is_empty());
    assert!(held.ledger.blobs.values().flat_map(|rows| rows.values()).all(|row| row.state.is_final()));
    assert_eq!(held.ledger.blobs.values().map(|rows| rows.len() as u64).sum::<u64>(), served.blobs_total);
    assert!(held.coverage.iter().all(|row| row.state != CoverageState::Missing));
    held.assert_blobs_are_told();
    // It has been hard.
    assert!(served.faults > 20 && served.records > expected.len() as u64, "{served:?}");
    running.stop().await;
    tenant.stop().await;
}
