//! What is past its time goes, nothing else does, and every answer can say so.

use archive::delta::{Changes, DeltaTable, Operation, Outcome};
use archive::history::Past;
use archive::retention::{Hold, Kept, Retention, Retired};
use archive::signer::{PUBLIC_KEY_FILE, PublicKey};
use archive::sql::Sql;
use archive::table::{EVENTS, MAIL_ITEMS, SIGN_INS};
use archive::verify::{Kind, Report, Verifier};
use chrono::{DateTime, NaiveDate, Utc};
use schemas::history::History;

use crate::world::{Place, World, moment, record};

on_each_store! {
    days_past_their_time_go_and_the_archive_says_from_when_it_is_kept,
    days_under_a_hold_stay,
    a_commit_that_takes_out_more_than_it_may_is_named,
}

async fn world(place: Place) -> World {
    let world = World::on(place);
    for day in 10..14 {
        let records = [1, 2].map(|number| record(&format!("{day}-{number}"), &format!("2026-11-{day}T10:00:00")));
        world.records(0, &records.each_ref().map(|text| (text.as_str(), 'a'))).await;
    }
    world.drain().await;
    world
}

fn day(day: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 11, day).unwrap()
}

/// Noon of a day in November.
fn noon(day: u32) -> DateTime<Utc> {
    moment(&format!("2026-11-{day}T12:00:00Z"))
}

fn kept() -> Kept {
    Kept { table: "events", tenant: "t1".into(), since: day(12) }
}

async fn days(world: &World) -> Vec<String> {
    let lines = world.lines("SELECT DISTINCT date_part('day', event_time) AS day FROM events ORDER BY 1").await;
    lines.iter().map(|line| line.chars().filter(char::is_ascii_digit).collect()).collect()
}

async fn verified(world: &World) -> Report {
    let keys = vec![PublicKey::read(&world.folder.join(PUBLIC_KEY_FILE)).unwrap()];
    Verifier { store: world.store(), keys, heads: Vec::new(), now: Utc::now() }.run().await.unwrap()
}

async fn days_past_their_time_go_and_the_archive_says_from_when_it_is_kept(place: Place) {
    let world = world(place).await;
    let retention = Retention::new([(&EVENTS, 10), (&MAIL_ITEMS, 10), (&SIGN_INS, 10)], Vec::new());
    assert_eq!(retention.retire(&world.store(), noon(20)).await.unwrap(), []);
    assert_eq!(Sql::over(world.store()).retained().await.unwrap(), []);
    assert_eq!(Past::new(world.store()).snapshot("log", &[]).await.unwrap().kept_since(), None);
    let gone = retention.retire(&world.store(), noon(22)).await.unwrap();
    let expected = Retired { table: "events", tenant: "t1".into(), since: day(12), files: 2, rows: 4 };
    assert_eq!(gone, [expected]);
    assert_eq!(days(&world).await, ["12", "13"]);
    assert_eq!(Sql::over(world.store()).retained().await.unwrap(), [kept()]);
    assert_eq!(retention.retire(&world.store(), noon(22)).await.unwrap(), []);

    let past = Past::new(world.store());
    assert_eq!(past.snapshot("log", &[]).await.unwrap().kept_since(), Some(day(12)));

    // A record that comes late for a day that is gone goes as well, and what is kept stays what it was.
    let late = record("late", "2026-11-10T10:00:00");
    world.records(1, &[(&late, 'a')]).await;
    world.drain().await;
    assert_eq!(days(&world).await, ["10", "12", "13"]);
    assert_eq!(retention.retire(&world.store(), noon(21)).await.unwrap().len(), 1);
    assert_eq!(days(&world).await, ["12", "13"]);
    assert_eq!(Sql::over(world.store()).retained().await.unwrap(), [kept()]);

    let report = verified(&world).await;
    assert!(report.is_whole(), "{:?}", report.faults);
    let events = report.tables.iter().find(|table| table.name == "events").unwrap();
    assert_eq!((events.retired_files, events.retired_rows), (3, 5));
}

async fn days_under_a_hold_stay(place: Place) {
    let world = world(place).await;
    let hold = |tenant: &str| Hold { tenant: tenant.parse().unwrap(), from: day(11), until: day(12) };
    let held = Retention::new([(&EVENTS, 1)], vec![hold("t1"), hold("t2")]);
    held.retire(&world.store(), noon(30)).await.unwrap();
    assert_eq!(days(&world).await, ["11", "12"]);
    let others = Retention::new([(&EVENTS, 1)], vec![hold("t2")]);
    others.retire(&world.store(), noon(30)).await.unwrap();
    assert_eq!(days(&world).await, Vec::<String>::new());
    assert!(verified(&world).await.is_whole());
}

async fn a_commit_that_takes_out_more_than_it_may_is_named(place: Place) {
    let world = world(place).await;
    let mut delta = DeltaTable::open(world.store(), &EVENTS).await.unwrap();
    let newest = delta.snapshot().files.keys().next_back().unwrap().clone();
    let number = |day: NaiveDate| u64::try_from(chrono::Datelike::num_days_from_ce(&day)).unwrap();
    let changes = Changes {
        operation: Operation::Delete,
        remove: vec![newest.clone()],
        positions: vec![("retention/t1".to_owned(), 0, number(day(13)))],
        ..Changes::default()
    };
    assert_eq!(delta.commit(changes, noon(22)).await.unwrap(), Outcome::Committed);
    let report = verified(&world).await;
    assert_eq!(report.faults.first().map(|fault| &fault.kind), Some(&Kind::RemovesKept { path: newest }));
}
