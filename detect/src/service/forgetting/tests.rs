//! Whatever is forgotten and when, however late records come and however far the archive lags behind: what stands is what
//! the rules find in all records at once.
//!
//! Negative controls: `HARRIER_BREAK` takes one guarantee away, and the test must fail: `thaw-off` (late matches are judged
//! without the archive), `forget-unarchived` (nobody waits for it), `forget-young` (what came while it was waited for goes).

use runtime::log::{Consumer, Topic};
use schemas::envelope::Received;

use super::super::judging_again::tests::{
    Bed, Chance, NEW_ADDRESS, base, book, burst, canonical_of, found, found_complete, received,
};
use super::super::offer;
use super::*;

/// Days of the story; it is a quiet tenant whose last weeks are all there is to remember.
const DAYS: u64 = 40;

fn day(number: u64) -> chrono::NaiveDate {
    "2026-09-01".parse::<chrono::NaiveDate>().unwrap() + chrono::Days::new(number)
}

/// A record of a day: users who sign in now and then, or many times in a few minutes.
fn record(chance: &mut Chance, number: u64, of: u64) -> Received {
    let user = chance.below(3);
    let within = if chance.below(2) == 0 { 12 } else { 600 };
    let minute = chance.below(within);
    let address = if chance.below(4) == 0 { chance.below(40) } else { user };
    let operation = if chance.below(5) == 0 { "y" } else { "x" };
    let bytes = format!(
        r#"{{"Id":"{number}","CreationTime":"{}T{:02}:{:02}:00","Operation":"{operation}","UserId":"u{user}@b.example","ClientIP":"192.0.2.{address}"}}"#,
        day(of),
        8 + minute / 60,
        minute % 60
    );
    received(if user == 0 { "t1" } else { "t2" }, bytes)
}

async fn mark(bed: &Bed, tenant: &str, feed: &str, until: u64) {
    bed.mark(tenant, feed, day(until).and_time(chrono::NaiveTime::MIN).and_utc()).await;
}

/// Member rows of the state, of expiring rules and others.
async fn members(bed: &Bed) -> usize {
    let rows = bed.log.look(Store::Correlate).await.unwrap();
    rows.iter().filter(|(key, _)| key[0] == 1 && key[3 + 16] == b'm').count()
}

const SELDOM: &str = "title: Seldom\nid: seldom\nlevel: high\ncorrelation: {type: event_count, rules: [y], group-by: [user_id], timespan: 2d, condition: {gte: 2}}\n";

const MISSING: &str = "title: Missing\nid: missing\nlevel: high\ncorrelation: {type: x_absence, rules: [x, y], group-by: [user_id], timespan: 6h, x-expect: [y], x-delay: 1m}\n";

#[tokio::test]
async fn what_was_forgotten_changes_nothing() {
    let rules =
        [base("x", "x"), base("y", "y"), burst(3), SELDOM.to_owned(), MISSING.to_owned(), NEW_ADDRESS.to_owned()];
    let (mut looks, mut kept, mut all) = (0, 0, 0);
    for seed in 0..3 {
        println!("seed {seed}");
        let mut chance = Chance(seed);
        let mut bed = Bed::new();
        // In every other run groups are large before anything expires.
        bed.crowded_from = if seed % 2 == 0 { 6 } else { usize::MAX };
        bed.restart();
        offer(&bed.log, &book(&rules), false).await.unwrap();
        let mut records = Vec::new();
        for today in 0..DAYS {
            for _ in 0..1 + chance.below(8) {
                // One in six is late, by any number of days.
                let of = if chance.below(6) == 0 { chance.below(today + 1) } else { today };
                records.push(record(&mut chance, records.len() as u64, of));
                bed.put(&records[records.len() - 1..]).await;
                if chance.below(4) == 0 {
                    bed.put(&[records[chance.below(records.len() as u64) as usize].clone()]).await;
                }
                if chance.below(20) == 0 {
                    *bed.shelf.failures.lock().unwrap() = chance.below(3) as u32;
                }
                for _ in 0..chance.below(12) {
                    bed.something(&mut chance).await;
                }
            }
            mark(&bed, "t1", "Audit.Exchange", today + 1).await;
            mark(&bed, "t2", "Audit.Exchange", today + 1).await;
            // One feed lags behind the others.
            mark(&bed, "t2", "Audit.General", today.saturating_sub(1)).await;
            // Passes take many steps; now and then all that can be forgotten is.
            if today > 10 && chance.below(4) == 0 {
                *bed.shelf.failures.lock().unwrap() = 0;
                bed.settle(&mut chance).await;
            }
        }
        let (before, looked) = (members(&bed).await, *bed.shelf.looks.lock().unwrap());
        bed.settle(&mut chance).await;
        // All that was waited for is decided in the end.
        for (tenant, feed) in [("t1", "Audit.Exchange"), ("t2", "Audit.Exchange"), ("t2", "Audit.General")] {
            mark(&bed, tenant, feed, DAYS + 1).await;
        }
        bed.settle(&mut chance).await;
        let expected =
            found_complete(&book(&rules), &records, day(DAYS + 1).and_time(chrono::NaiveTime::MIN).and_utc());
        assert!(expected.values().filter(|finding| finding.rule.id == "missing").count() > 10, "seed {seed}");
        assert!(expected.len() > 20, "seed {seed}: something is found");
        assert_eq!(canonical_of(bed.standing().await), expected, "seed {seed}");
        println!("{} records, {before} and then {} members, {looked} looks", records.len(), members(&bed).await);
        (looks, kept, all) = (looks + looked, kept + members(&bed).await, all + records.len());
    }
    assert!(looks > 10, "late matches asked the archive {looks} times");
    // Each record is a member of about three rules; a quarter of all days is hot, and a baseline keeps all of it.
    assert!(kept < all * 2, "of {all} records {kept} members are left");
}

#[tokio::test]
async fn nothing_expires_without_marks_and_nothing_that_is_not_archived() {
    let rules = [base("x", "x"), burst(3)];
    let mut chance = Chance(7);
    let mut bed = Bed::new();
    offer(&bed.log, &book(&rules), false).await.unwrap();
    let records: Vec<Received> = (0..DAYS * 3).map(|number| record(&mut chance, number, number / 3)).collect();
    bed.put(&records).await;
    bed.settle(&mut chance).await;
    let before = members(&bed).await;
    assert!(before > 50, "{before} members");
    for tenant in ["t1", "t2"] {
        mark(&bed, tenant, "Audit.Exchange", DAYS).await;
    }
    // Everything but the archive goes on.
    let more: Vec<Received> = (0..3).map(|number| record(&mut chance, 1_000 + number, 0)).collect();
    bed.put(&more).await;
    for _ in 0..50 {
        bed.go_on_without_the_archive().await;
    }
    assert!(members(&bed).await >= before, "the archive has not come so far");
    bed.settle(&mut chance).await;
    let after = members(&bed).await;
    assert!(after < before / 3, "{after} of {before} members are left");
    // And what comes now for that time is judged with all of it.
    let late: Vec<Received> = (0..40).map(|number| record(&mut chance, 2_000 + number, number % 20)).collect();
    bed.put(&late).await;
    bed.settle(&mut chance).await;
    let all: Vec<Received> = records.iter().chain(&more).chain(&late).cloned().collect();
    assert_eq!(canonical_of(bed.standing().await), found(&book(&rules), &all));
}

#[tokio::test]
async fn what_comes_while_the_archive_is_waited_for_stays() {
    let rules = [base("x", "x"), burst(3)];
    let mut bed = Bed::new();
    offer(&bed.log, &book(&rules), false).await.unwrap();
    let mut chance = Chance(11);
    let mut records: Vec<Received> = (0..DAYS).map(|number| record(&mut chance, number, number)).collect();
    bed.put(&records).await;
    for tenant in ["t1", "t2"] {
        mark(&bed, tenant, "Audit.Exchange", DAYS).await;
    }
    for _ in 0..20 {
        bed.go_on_without_the_archive().await;
    }
    let until = ends(&bed.log, Topic::Records).await.unwrap();
    // Two of three that make a burst, long ago; the archive comes as far as was waited for, and not to them.
    let of_burst = |number: u64| {
        let mut one = record(&mut Chance(1), 0, 3);
        let text = format!(
            r#"{{"Id":"b{number}","CreationTime":"{}T10:0{number}:00","Operation":"x","UserId":"u1@b.example"}}"#,
            day(3)
        );
        (one.origin.tenant, one.bytes) = ("t2".parse().unwrap(), text.into_bytes());
        one
    };
    bed.put(&[of_burst(0), of_burst(1)]).await;
    for _ in 0..20 {
        bed.go_on_without_the_archive().await;
    }
    let before = members(&bed).await;
    for (partition, until) in (0..).zip(&until) {
        let from = bed.log.committed(Consumer::Archive, Topic::Records, partition).await.unwrap();
        bed.archive(partition, (until - from) as usize).await;
    }
    for _ in 0..100 {
        bed.go_on_without_the_archive().await;
    }
    let after = members(&bed).await;
    assert!(after * 3 < before * 2, "{after} of {before} members are left");
    bed.put(&[of_burst(2)]).await;
    for _ in 0..20 {
        bed.go_on_without_the_archive().await;
    }
    records.extend((0..3).map(of_burst));
    let standing = canonical_of(bed.standing().await);
    assert!(standing.values().any(|finding| finding.event_count >= 3));
    assert_eq!(standing, found(&book(&rules), &records));
}

#[tokio::test]
async fn a_large_group_forgets_what_is_archived_and_keeps_what_came_since() {
    let rules = [base("x", "x"), burst(3)];
    let mut bed = Bed::new();
    bed.crowded_from = 30;
    bed.restart();
    offer(&bed.log, &book(&rules), false).await.unwrap();
    let of = |number: u64, minute: u64| {
        let text = format!(
            r#"{{"Id":"{number}","CreationTime":"{}T{:02}:{:02}:00","Operation":"x","UserId":"u1@b.example"}}"#,
            day(minute / 1_440),
            minute / 60 % 24,
            minute % 60
        );
        received("t2", text)
    };
    // One every six minutes: never three in ten. Nobody collects this tenant, so nothing expires.
    let mut records: Vec<Received> = (0..100).map(|number| of(number, number * 6)).collect();
    bed.put(&records).await;
    for _ in 0..50 {
        bed.go_on_without_the_archive().await;
    }
    assert_eq!(members(&bed).await, 100, "the archive has nothing of it yet");
    let until = ends(&bed.log, Topic::Records).await.unwrap();
    // Two more, of long ago; the archive comes as far as was waited for, and not to them.
    let young: Vec<Received> = [(100, 13), (101, 14)].map(|(number, minute)| of(number, minute)).into();
    bed.put(&young).await;
    for _ in 0..20 {
        bed.go_on_without_the_archive().await;
    }
    for (partition, until) in (0..).zip(&until) {
        let from = bed.log.committed(Consumer::Archive, Topic::Records, partition).await.unwrap();
        bed.archive(partition, (until - from) as usize).await;
    }
    for _ in 0..100 {
        bed.go_on_without_the_archive().await;
    }
    let left = members(&bed).await;
    assert!((20..70).contains(&left), "{left} of 102 members are left");
    bed.restart();
    records.extend(young);
    // Beside those, in the middle, and where nothing went.
    let late = [(102, 15), (103, 241), (104, 242), (105, 595), (106, 596)];
    for (number, minute) in late {
        records.push(of(number, minute));
        bed.put(&records[records.len() - 1..]).await;
        for _ in 0..20 {
            bed.go_on_without_the_archive().await;
        }
    }
    let standing = canonical_of(bed.standing().await);
    let bursts = standing.values().filter(|finding| finding.rule.id == "burst");
    assert_eq!(bursts.count(), 3, "each is told with those that were forgotten");
    assert_eq!(standing, found(&book(&rules), &records));
    assert!(*bed.shelf.looks.lock().unwrap() > 0);
}
