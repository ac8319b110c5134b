//! The poller against a fake tenant with each fault by itself, and with all of them: every record that can be had is
//! there, every blob is done once, and what cannot be had is named in `coverage`.
//!
//! The truth is the fake tenant's own. A fault that the fake learns gets its test here, or the last test fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use chrono::{DateTime, DurationRound, TimeDelta, Utc};
use ingest::ledger::BlobState;
use ingest::source::management_activity::{CONTENT_TYPES, Pace};
use runtime::clock::Clock;
use schemas::message::{Coverage, CoverageState};
use simulate::{FakeTenant, Fault, LostBlob, Options, Scenario, Truth};

use crate::support::*;

/// How long a poller may take to end, whatever it waits for.
const STOP_TIME_MAX: Duration = Duration::from_secs(2);

/// When the world ends: always the same, so that a seed repeats a run. The poller's clock is set by it.
const END: &str = "2026-11-22T17:52:10Z";

fn options(faults: &[Fault]) -> Options {
    let mut options = Options::new(END.parse().unwrap());
    (options.seed, options.users, options.days) = (7, 2, 4);
    options.story = Scenario::Quiet;
    options.delivery.blob_records = 8;
    options.faults = faults.to_vec();
    options.late_within = Duration::from_millis(800);
    options
}

fn hostile_pace() -> Pace {
    let millis = TimeDelta::milliseconds;
    Pace {
        poll_interval: millis(100),
        sweep_interval: millis(400),
        // What is told as complete must not be so before it is: the marks are looked at elsewhere.
        idle_timeout: millis(700),
        answer_timeout: TimeDelta::seconds(5),
        blob_timeout: TimeDelta::seconds(10),
        ..pace()
    }
}

/// Whether a row says that the second of a blob is not whole.
fn names(row: &Coverage, content_type: &str, created: DateTime<Utc>) -> bool {
    let second = created.duration_trunc(TimeDelta::seconds(1)).unwrap();
    row.state == CoverageState::Missing && row.feed == content_type && row.window_start == second
}

/// Whether everything is done that can be.
fn is_done(held: &Held, truth: &Truth, served: u64) -> bool {
    let rows: Vec<&BlobState> =
        held.ledger.blobs.values().flat_map(|rows| rows.values()).map(|row| &row.state).collect();
    let committed = rows.iter().filter(|state| matches!(state, BlobState::Committed { .. })).count() as u64;
    served == truth.blobs && committed >= truth.blobs && rows.iter().all(|state| state.is_final())
}

/// What is wanting, in words: where each feed stands, blobs that are not final, lost ones that are not named, and
/// records that are not there, with the blobs that they should have come from.
fn wanting(held: &Held, truth: &Truth) -> Vec<String> {
    let rows = || held.ledger.blobs.values().flatten();
    let states: BTreeMap<&String, &BlobState> = rows().map(|(id, row)| (id, &row.state)).collect();
    let feeds = held.ledger.feeds.iter().map(|(feed, row)| format!("{feed}: {row:?}"));
    let open = rows().filter(|(_, row)| !row.state.is_final());
    let open = open.map(|(id, row)| format!("not final: {id}: {:?}", row.state));
    let is_named = |blob: &&LostBlob| held.coverage.iter().any(|row| names(row, blob.content_type, blob.created));
    let unnamed = truth.lost_blobs.iter().filter(|blob| blob.is_listed && !is_named(blob));
    let unnamed = unnamed.map(|blob| format!("not named: {blob:?}: {:?}", states.get(&blob.id)));
    let ids: BTreeSet<String> = held.ids().into_iter().collect();
    let missing = truth.records.difference(&ids).map(|record| {
        let holders = truth.holdings.iter().filter(|(_, records)| records.contains(record));
        let holders: Vec<_> = holders.map(|(blob, _)| (blob, states.get(blob))).collect();
        format!("no record {record}, which is in {holders:?}")
    });
    feeds.chain(open).chain(unnamed).chain(missing).collect()
}

async fn play(faults: &[Fault]) -> (Truth, Held) {
    let options = options(faults);
    println!("seed {}, faults {faults:?}", options.seed);
    let (clock, hand) = Clock::adrift();
    hand.advance(options.end - Utc::now());
    let tenant = FakeTenant::start(options.clone(), ([127, 0, 0, 1], 0).into()).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let mut source = source(&format!("http://{}", tenant.address()));
    source.tenant_id = options.tenant_id.clone();
    source.client_id = options.client_id.clone();
    source.content_types = CONTENT_TYPES.map(str::to_owned).to_vec();
    let running = run_by(clock, source, hostile_pace(), &log);
    let begun = Instant::now();
    let listed_late = |held: &Held| {
        let truth = tenant.truth();
        let lost = truth.lost_blobs.iter().filter(|blob| blob.is_listed);
        is_done(held, &truth, tenant.served().blobs_fetched_once)
            && lost.clone().all(|blob| held.coverage.iter().any(|row| names(row, blob.content_type, blob.created)))
    };
    if let Err(held) = running.try_until(&log, listed_late).await {
        println!("{:?}, problems {:?}", tenant.served(), running.health.problems());
        panic!("not met: {:#?}", wanting(&held, &tenant.truth()));
    }
    let ended = Instant::now();
    running.stop().await;
    assert!(ended.elapsed() < STOP_TIME_MAX, "it took {:?} to end", ended.elapsed());
    let (truth, held, served) = (tenant.truth(), Held::read(&*log).await, tenant.served());
    println!("{served:?}, {:?}", begun.elapsed());
    check(&truth, &held);
    tenant.stop().await;
    (truth, held)
}

fn check(truth: &Truth, held: &Held) {
    assert!(truth.record_count > 200, "{}", truth.record_count);
    let damaged = |id: &String| id != "damaged";
    let ids: BTreeSet<String> = held.ids().into_iter().filter(damaged).collect();
    let lost: Vec<_> = truth.records.difference(&ids).collect();
    assert!(lost.is_empty(), "{} lost, {lost:?}", lost.len());
    // Records of a blob that breaks off may be there although it cannot be had whole.
    assert!(ids.iter().all(|id| truth.records.contains(id) || truth.unrecoverable.contains(id)));
    let letters: BTreeSet<(&str, &[u8])> =
        held.dead_letters.iter().map(|letter| (letter.place.as_str(), letter.bytes.as_slice())).collect();
    assert_eq!(letters.len() as u64, truth.malformed);
    // What is missing is named, and nothing else is called missing.
    let missing: BTreeSet<_> = held
        .coverage
        .iter()
        .filter(|row| row.state == CoverageState::Missing)
        .map(|row| (row.feed.clone(), row.window_start))
        .collect();
    let lost: BTreeSet<_> = truth
        .lost_blobs
        .iter()
        .map(|blob| (blob.content_type.to_owned(), blob.created.duration_trunc(TimeDelta::seconds(1)).unwrap()))
        .collect();
    assert_eq!(missing, lost);
    held.assert_blobs_are_told();
}

macro_rules! each_by_itself {
    ($($name:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let fault = stringify!($name).parse().unwrap();
                play(&[fault]).await;
            }
        )*

        #[test]
        fn every_fault_has_its_test() {
            let tested: BTreeSet<String> = [$(stringify!($name)),*].map(str::to_owned).into();
            assert_eq!(tested, Fault::all().map(|fault| fault.to_string()).collect());
        }
    };
}

each_by_itself! {
    expired_token,
    throttle,
    throttle_429,
    server_error,
    no_answer,
    reset,
    stale_page,
    free_text,
    truncated_body,
    empty_body,
    object_body,
    slow_bytes,
    gone,
    expired,
    malformed_element,
    big_blobs,
    partial_blob,
    late_listing,
    same_millisecond,
    old_duplicates,
    small_pages,
    clock_off,
    auditing_off,
    disabled,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_together() {
    let (truth, _) = play(&Fault::all().collect::<Vec<_>>()).await;
    assert!(!truth.lost_blobs.is_empty() && truth.malformed > 0);
}
