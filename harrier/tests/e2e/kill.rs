//! The service, killed again and again while a tenant delivers late, twice, unordered and with faults: in the end every
//! record is in the archive once, and the findings are those of a run that nobody disturbed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::Utc;
use simulate::{Fault, Options, Pace};

use crate::binary::{Counts, Harrier, until};
use crate::sample::{Dice, joined, lines};
use crate::service::{Service, Tenant, configure};

/// The last hours of the played world arrive over this long: kills fall into the middle of deliveries.
const PLAYED_IN: Duration = Duration::from_secs(25);

const KILLS: u32 = 10;

/// Places between two effects of the archiver, each of which one kill hits exactly.
const FAILPOINTS: [&str; 2] = ["archive_before_commit:1", "archive_after_commit:1"];

/// How long all records may take to arrive once nobody kills any more. Longer than it ever takes but for one unlucky
/// blob, which meets one fault after the other and is asked for ever more rarely.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(300);

fn small_world(seed: u64) -> Options {
    let mut options = Options::new(Utc::now());
    (options.seed, options.users, options.days) = (seed, 4, 1);
    options.delivery.blob_records = 6;
    options
}

#[test]
fn ten_kills_lose_nothing_double_nothing_and_change_no_finding() {
    let mut dice = Dice::from_environment();
    let mut options = small_world(dice.below(1_000));
    options.pace = Pace::Fast { real: PLAYED_IN };
    options.faults = vec![Fault::TruncatedBody, Fault::ServerError, Fault::ExpiredToken];
    println!("world {} ends {}", options.seed, options.end.to_rfc3339());
    let harrier = Harrier::new();
    let tenant = Tenant::start(options.clone());
    tenant.subscribe(&options);
    let config = configure(&harrier, &options, tenant.fake.address(), "1s", "");

    let started = Instant::now();
    for kill in 0..KILLS {
        // The second and the fourth life end by themselves, at a named place.
        if let Some(failpoint) = (kill % 2 == 1).then(|| FAILPOINTS.get(kill as usize / 2)).flatten() {
            let code = Service::spawn(&config, Some(failpoint)).ended(Duration::from_secs(60));
            assert_eq!(code, None, "{failpoint} was reached");
            println!("{:?}: {failpoint}", started.elapsed());
            continue;
        }
        // Most are killed at work; every third while it starts.
        let at_work = kill % 3 != 2;
        let life = Duration::from_millis(dice.below(if at_work { 3_000 } else { 1_000 }));
        let mut service = if at_work { Service::start(&config) } else { Service::spawn(&config, None) };
        // Nothing to wait for: the moment is the point.
        until(life, || !service.lives());
        assert!(service.lives(), "ended by itself:\n{}", service.stderr());
        service.kill();
        let served = tenant.fake.served();
        println!(
            "{:?}: killed {life:?} after its start, at work: {at_work}; {} of {} blobs",
            started.elapsed(),
            served.blobs_fetched_once,
            served.blobs_total
        );
    }

    let world = tenant.fake.world();
    let service = Service::start(&config);
    let all = || {
        let served = tenant.fake.served();
        served.blobs_fetched_once == served.blobs_total
            && harrier.number("SELECT count(*) FROM events") >= world.records.len() as u64
            && harrier.number("SELECT count(*) FROM blobs WHERE state = 'taken'") >= served.blobs_total
    };
    let settled = until(SETTLE_TIME_MAX, all);
    println!("{:?}: all is there: {settled}; {:?}", started.elapsed(), tenant.fake.served());
    let stderr = service.stderr();
    if !settled {
        println!("{}\n{stderr}", service.get("/metrics").1);
    }
    assert_eq!(service.terminate(), Some(0), "{stderr}");
    assert!(tenant.fake.served().faults > 0, "faults were played");

    let mut missing: BTreeMap<&str, &str> =
        world.records.iter().map(|record| (record.id.as_str(), record.json.as_str())).collect();
    for (_, id, raw) in harrier.events() {
        assert_eq!(missing.remove(id.as_str()), Some(raw.as_str()), "{id} is there twice, or is none of ours");
    }
    assert!(missing.is_empty(), "{} records are missing: {:?}", missing.len(), missing.keys());
    assert_eq!(harrier.number("SELECT count(*) FROM dead_letters"), 0);
    // Every blob is there once, and no record is of another.
    let blobs = tenant.fake.served().blobs_total;
    assert_eq!(harrier.number("SELECT count(*) FROM blobs"), blobs);
    assert_eq!(harrier.number("SELECT count(DISTINCT blob_id) FROM blobs WHERE sha256 IS NOT NULL"), blobs);
    let of_none = "SELECT count(*) FROM events WHERE blob_id NOT IN (SELECT blob_id FROM blobs)";
    assert_eq!(harrier.number(of_none), 0);

    let undisturbed = Harrier::new();
    let file = undisturbed.file("records.jsonl", joined(&lines(world)));
    let (counts, _) = undisturbed.import(&[file], &["--domains", &options.domain]);
    let total = world.records.len() as u64;
    assert_eq!(counts, Counts { received: total, admitted: total, ..Counts::default() });
    let expected = undisturbed.standing();
    assert!(expected.len() >= 3, "the story is seen: {expected:#?}");
    assert_eq!(harrier.standing(), expected);
    let evidence = |harrier: &Harrier| {
        harrier.rows(
            "SELECT e.finding_id, e.event_id FROM evidence e JOIN findings f ON f.id = e.finding_id \
             WHERE f.status IN ('open', 'final') ORDER BY 1, 2",
        )
    };
    assert_eq!(evidence(&harrier), evidence(&undisturbed));
}

#[test]
fn an_end_that_is_asked_for_archives_all_that_has_been_received() {
    let options = small_world(3);
    let tenant = Tenant::start(options.clone());
    let harrier = Harrier::new();
    // An hour: only the end can have flushed.
    let config = configure(&harrier, &options, tenant.fake.address(), "1h", "");
    let service = Service::start(&config);
    let total = tenant.fake.world().records.len() as f64;
    let received = || service.metric("harrier_events_received_total", &[]);
    assert!(until(Duration::from_secs(60), || received() >= total / 2.0), "{}", service.stderr());
    // Rules have been compiled: on a busy machine that alone takes as long as an end may wait for.
    let judges = || service.metric("harrier_rule_set_epoch", &[]) == 1.0;
    assert!(until(Duration::from_secs(60), judges), "{}", service.stderr());
    assert_eq!(harrier.number("SELECT count(*) FROM events"), 0, "nothing is flushed before the end");
    let stderr = service.stderr();
    assert_eq!(service.terminate(), Some(0), "{stderr}");
    let archived = harrier.number("SELECT count(*) FROM events");
    assert!(archived as f64 >= total / 4.0, "{archived} of {total}");

    // A second life that nobody delivers to: whatever it archives was left lying by the first.
    drop(tenant);
    let service = Service::start(&config);
    let lag = || service.metric("harrier_log_consumer_lag_records", &["topic=\"records\"", "consumer=\"match\""]);
    let watched = || service.get("/metrics").1.contains("harrier_log_consumer_lag_records{");
    assert!(until(Duration::from_secs(30), || watched() && lag() == 0.0), "{}", service.get("/metrics").1);
    assert_eq!(service.terminate(), Some(0));
    assert_eq!(harrier.number("SELECT count(*) FROM events"), archived, "what was received was archived at the end");
}
