//! What is erased is gone, signed for, and nothing else is; beside writing and compacting as well.

use std::time::Duration;

use archive::archiver::Settings;
use archive::compactor::{Compactor, Plan};
use archive::delta::{Changes, DeltaTable, Erasure, Operation, Outcome};
use archive::erasure::{Decision, Eraser, Share, Subject};
use archive::retention::Hold;
use archive::signer::{PUBLIC_KEY_FILE, PublicKey};
use archive::table::EVENTS;
use archive::verify::{Kind, Report, Verifier};
use archive::{Error, Store};
use chrono::{NaiveDate, Utc};
use runtime::clock::Clock;
use runtime::log::{To, Topic};
use runtime::metrics::Metrics;
use runtime::shutdown;
use schemas::Finding;
use schemas::message::FindingMessage;

use crate::archiver::finding;
use crate::world::{Place, World, json};

on_each_store! {
    the_rows_of_one_go_and_those_of_others_are_as_they_were,
    replaced_files_are_deleted_when_it_is_asked_for_and_all_others_stay,
    a_finding_that_is_erased_does_not_come_back_with_the_next,
    an_erasure_that_takes_other_rows_than_it_says_is_named,
    days_under_a_hold_and_files_that_were_altered_are_refused,
}

fn day(day: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(2026, 11, day).unwrap()
}

/// A message that somebody opens in somebody's mailbox.
fn opened(id: &str, day: u32, user: &str, owner: &str) -> String {
    format!(
        r#"{{"CreationTime":"2026-11-{day}T10:00:00","Id":"{id}","Operation":"MailItemsAccessed","RecordType":50,"Workload":"Exchange","UserId":"{user}@x.example","MailboxOwnerUPN":"{owner}@x.example","Folders":[{{"Path":"\\Inbox","FolderItems":[{{"InternetMessageId":"<{id}@x>"}}]}}]}}"#
    )
}

/// Four days of three users, of which one reads another's mail.
async fn world(place: Place) -> World {
    let world = World::on(place);
    for day in 10..14 {
        let texts: Vec<String> = [("ann", "ann"), ("bob", "bob"), ("bob", "ann"), ("joann", "joann")]
            .iter()
            .map(|(user, owner)| opened(&format!("{day}-{user}-{owner}"), day, user, owner))
            .collect();
        world.records(day % 2, &texts.iter().map(|text| (text.as_str(), 'a')).collect::<Vec<_>>()).await;
    }
    world.drain().await;
    world
}

fn subject(users: &[&str], mailboxes: &[&str], from: Option<NaiveDate>, until: Option<NaiveDate>) -> Subject {
    let names = |names: &[&str]| names.iter().map(|name| format!("{name}@X.example")).collect::<Vec<_>>();
    Subject::new("t1".parse().unwrap(), &names(users), &names(mailboxes), from, until)
}

fn decision() -> Decision {
    Decision { reason: "request 17".into(), by: "the officer".into() }
}

async fn erase(store: Store, subject: &Subject) -> Result<Vec<Share>, Error> {
    Eraser::new(store, Vec::new()).erase(subject, &decision(), Utc::now()).await
}

fn rows(shares: &[Share], table: &str) -> u64 {
    shares.iter().find(|share| share.table == table).unwrap().rows
}

async fn verified(world: &World) -> Report {
    let keys = vec![PublicKey::read(&world.folder.join(PUBLIC_KEY_FILE)).unwrap()];
    Verifier { store: world.unsigned_store(), keys, heads: Vec::new(), now: Utc::now() }.run().await.unwrap()
}

async fn the_rows_of_one_go_and_those_of_others_are_as_they_were(place: Place) {
    let world = world(place).await;
    let all = "SELECT * FROM events ORDER BY id";
    let before = world.lines(all).await;
    let kept = |lines: &[String], gone: &dyn Fn(&str) -> bool| -> Vec<String> {
        lines.iter().filter(|line| !gone(line)).cloned().collect()
    };
    // Somebody's acts of two days.
    let ann = subject(&["ann"], &[], Some(day(11)), Some(day(12)));
    let eraser = Eraser::new(world.store(), Vec::new());
    let looked = eraser.look(&ann).await.unwrap();
    assert_eq!(world.lines(all).await, before, "looking changes nothing");
    let gone = eraser.erase(&ann, &decision(), Utc::now()).await.unwrap();
    assert_eq!(gone, looked);
    assert_eq!((rows(&gone, "events"), rows(&gone, "mail_items")), (2, 2));
    let is_gone = |line: &str| line.contains("\"id\":\"11-ann-ann\"") || line.contains("\"id\":\"12-ann-ann\"");
    assert_eq!(world.lines(all).await, kept(&before, &is_gone));
    // And all that was done in their mailbox, by whomever.
    let mailbox = subject(&[], &["ann"], None, None);
    let gone = erase(world.store(), &mailbox).await.unwrap();
    assert_eq!((rows(&gone, "events"), rows(&gone, "mail_items")), (6, 6));
    let is_gone = |line: &str| line.contains("-ann\"");
    assert_eq!(world.lines(all).await, kept(&before, &is_gone));
    let items = world.lines("SELECT event_id FROM mail_items ORDER BY 1").await;
    assert_eq!(items.len(), 8, "{items:?}");
    assert!(erase(world.store(), &mailbox).await.unwrap().iter().all(|share| share.rows == 0), "nothing is left of it");

    let report = verified(&world).await;
    assert!(report.is_whole(), "{:?}", report.faults);
    let events = report.tables.iter().find(|table| table.name == "events").unwrap();
    let told: Vec<_> = events.erased.iter().map(|(_, erasure)| (erasure.rows, erasure.chosen_by.clone())).collect();
    assert_eq!(told, [(2, vec!["user".to_owned()]), (6, vec!["mailbox".to_owned()])]);
    // No commit says whom.
    for entry in std::fs::read_dir(world.folder.join("archive/events/_delta_log")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains("ann"), "{text}");
    }
    // What is left can be merged and read on.
    let plan = Plan { files_min: 2, rests_after: Duration::ZERO };
    Compactor::new(world.store(), Clock::system(), Metrics::new("test"), plan).all().await.unwrap();
    assert_eq!(world.lines(all).await, kept(&before, &is_gone));
    assert!(verified(&world).await.is_whole());
}

async fn replaced_files_are_deleted_when_it_is_asked_for_and_all_others_stay(place: Place) {
    let world = world(place).await;
    // Merged lately: the files that were merged hold the person as well.
    let more = opened("10-late", 10, "ann", "ann");
    world.records(0, &[(&more, 'a')]).await;
    world.drain().await;
    let plan = Plan { files_min: 2, rests_after: Duration::ZERO };
    Compactor::new(world.store(), Clock::system(), Metrics::new("test"), plan).all().await.unwrap();
    let ann = subject(&["ann"], &["ann"], None, None);
    erase(world.store(), &ann).await.unwrap();
    // Under way, and named by no commit yet: it stays.
    let pending =
        world.folder.join("archive/events/tenant=t1/day=2026-11-10/h-00000000000000000000000000000000.parquet");
    std::fs::write(&pending, "pending").unwrap();
    let gone = Eraser::new(world.store(), Vec::new()).purge(&ann.tenant).await.unwrap();
    assert!(gone >= 8, "{gone}");
    assert!(pending.exists());
    std::fs::remove_file(&pending).unwrap();
    let mut left = 0;
    for table in ["events", "mail_items"] {
        let table = archive::table::TABLES.iter().copied().find(|known| known.name == table).unwrap();
        let delta = DeltaTable::open(world.store(), table).await.unwrap();
        let live: Vec<_> = delta
            .snapshot()
            .files
            .keys()
            .map(|path| world.folder.join("archive").join(table.name).join(path))
            .collect();
        let there = parquet_files(&world.folder.join("archive").join(table.name).join("tenant=t1"));
        assert_eq!(there.len(), live.len(), "{there:?}");
        assert!(live.iter().all(|path| there.contains(path)));
        left += there.len();
    }
    assert!(left > 0);
    assert!(verified(&world).await.is_whole());
    assert_eq!(world.lines("SELECT id FROM events").await.len(), 8);
}

fn parquet_files(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(parquet_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "parquet") {
            found.push(path);
        }
    }
    found
}

/// The archiver holds every finding in memory and writes all of a tenant anew.
async fn a_finding_that_is_erased_does_not_come_back_with_the_next(place: Place) {
    let world = World::on(place);
    let put = |finding: Finding| json(Topic::Findings, To::Key(1), &FindingMessage::Finding(Box::new(finding)));
    let of = |id: &str, entity: &str| Finding { entity: entity.into(), ..finding(id, 1, &[id]) };
    let (trigger, shutdown) = shutdown::channel();
    let archiver = world.archiver(Settings { flush_interval: Duration::ZERO, ..Settings::default() });
    let ids = || async { world.lines("SELECT id FROM findings ORDER BY id").await };
    let playing = async {
        let until = |count: usize| {
            let (world, ids) = (&world, &ids);
            async move {
                let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
                // Evidence is written last of what findings make: then nothing of them is still held.
                while ids().await.len() != count || world.lines("SELECT finding_id FROM evidence").await.len() != count
                {
                    assert!(tokio::time::Instant::now() < deadline, "{:?}", ids().await);
                    world.log.wait(Duration::from_millis(20)).await;
                }
            }
        };
        world.put(vec![put(of("f1", "ann@x.example")), put(of("f2", "joann@x.example"))]).await;
        until(2).await;
        let gone = erase(world.store(), &subject(&["ann"], &[], None, None)).await.unwrap();
        assert_eq!(rows(&gone, "findings"), 1);
        world.put(vec![put(of("f3", "bob@x.example"))]).await;
        until(2).await;
        trigger.stop();
    };
    let (ended, ()) = tokio::join!(archiver.run(shutdown), playing);
    ended.unwrap();
    assert_eq!(ids().await, [r#"{"id":"f2"}"#, r#"{"id":"f3"}"#]);
    assert_eq!(world.lines("SELECT id FROM finding_revisions ORDER BY id").await.len(), 2);
    assert_eq!(world.lines("SELECT finding_id FROM evidence").await.len(), 2);
    assert!(verified(&world).await.is_whole());
}

async fn an_erasure_that_takes_other_rows_than_it_says_is_named(place: Place) {
    let world = world(place).await;
    let mut delta = DeltaTable::open(world.store(), &EVENTS).await.unwrap();
    let path = delta.snapshot().files.keys().next().unwrap().clone();
    // Signed, and still not true: whoever has the key takes out a whole file and says that it was a row.
    let erasure = Erasure {
        reason: "r".into(),
        by: "b".into(),
        chosen_by: vec!["user".into()],
        from: None,
        until: None,
        rows: 1,
        content: "0".repeat(64),
    };
    let changes =
        |erasure| Changes { operation: Operation::Erase, remove: vec![path.clone()], erasure, ..Changes::default() };
    assert_eq!(delta.commit(changes(Some(erasure)), Utc::now()).await.unwrap(), Outcome::Committed);
    let report = verified(&world).await;
    assert_eq!(report.faults[0].kind, Kind::ErasesOther, "{}", report.faults[0]);
    let next = delta.snapshot().files.keys().next().unwrap().clone();
    let silent = Changes { operation: Operation::Erase, remove: vec![next], ..Changes::default() };
    delta.commit(silent, Utc::now()).await.unwrap();
    assert_eq!(verified(&world).await.faults.len(), 2, "nothing is said of what is gone");
}

async fn days_under_a_hold_and_files_that_were_altered_are_refused(place: Place) {
    let world = world(place).await;
    let hold = |tenant: &str| Hold { tenant: tenant.parse().unwrap(), from: day(12), until: day(13) };
    let eraser = Eraser::new(world.store(), vec![hold("t2"), hold("t1")]);
    let all = subject(&["ann"], &[], None, None);
    assert!(
        matches!(eraser.erase(&all, &decision(), Utc::now()).await, Err(Error::Held { from, .. }) if from == day(12))
    );
    let before = subject(&["ann"], &[], None, Some(day(11)));
    assert_eq!(rows(&eraser.erase(&before, &decision(), Utc::now()).await.unwrap(), "events"), 2);
    // Another's rows under the name of a file: nothing of it is signed for again.
    let delta = DeltaTable::open(world.store(), &EVENTS).await.unwrap();
    let files: Vec<_> = delta.snapshot().files.keys().filter(|path| path.contains("day=2026-11-1")).cloned().collect();
    let file = |path: &str| world.folder.join("archive/events").join(path);
    let of_day = |day: &str| files.iter().find(|path| path.contains(day)).unwrap();
    let other = std::fs::read(file(of_day("day=2026-11-13"))).unwrap();
    std::fs::write(file(of_day("day=2026-11-12")), other).unwrap();
    let refused = erase(world.store(), &all).await.unwrap_err();
    assert!(matches!(refused, Error::Altered { .. } | Error::Store(_)), "{refused}");
}
