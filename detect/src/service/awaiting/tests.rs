//! However the steps of all partitions lie between one another, whoever is killed and whichever rule came later: what is
//! missing is told once it is complete, and nothing is told that is taken back because it was told too early.

use chrono::TimeDelta;
use schemas::envelope::Received;
use schemas::finding::{Finding, Status};

use super::super::judging_again::tests::{Bed, Chance, PARTITIONS, base, book, canonical_of, found_complete, received};
use super::super::offer;
use super::*;

const MISSING: &str = "title: Missing\nid: missing\nlevel: high\ncorrelation: {type: x_absence, rules: [x, y], group-by: [user_id], timespan: 1h, x-expect: [y], x-delay: 1m}\n";

const HOURS: i64 = 30;

fn start() -> DateTime<Utc> {
    "2026-11-20T00:00:00Z".parse().unwrap()
}

fn record(number: usize, operation: &str, (tenant, user): (&str, u64), at: DateTime<Utc>) -> Received {
    let bytes = format!(
        r#"{{"Id":"{number}","CreationTime":"{}","Operation":"{operation}","UserId":"u{user}@b.example"}}"#,
        at.format("%Y-%m-%dT%H:%M:%S")
    );
    received(tenant, bytes)
}

/// The hours before and after each midnight: the archive is shown day by day.
fn tick(number: i64) -> DateTime<Utc> {
    start() + TimeDelta::hours(23 + number / 2 * 24 + number % 2)
}

#[tokio::test]
async fn what_is_missing_is_told_once_all_feeds_have_come_so_far() {
    let mut chance = Chance(3);
    let mut bed = Bed::new();
    offer(&bed.log, &book(&[base("x", "x"), base("y", "y"), MISSING.to_owned()]), false).await.unwrap();
    let at = |minutes: i64| start() + TimeDelta::minutes(minutes);
    bed.put(&[record(0, "x", ("t1", 1), at(0)), record(1, "x", ("t2", 1), at(0))]).await;
    bed.settle(&mut chance).await;
    assert!(bed.told().await.is_empty(), "nobody has said that it is complete");
    bed.mark("t1", "Audit.Exchange", at(600)).await;
    bed.mark("t1", "Audit.General", at(60)).await;
    bed.settle(&mut chance).await;
    assert!(bed.told().await.is_empty(), "one feed is behind");
    // Somebody who begins anew knows how far the other feed was.
    bed.restart();
    bed.mark("t1", "Audit.General", at(62)).await;
    bed.settle(&mut chance).await;
    let told = bed.told().await;
    assert!(told.len() == 1 && told[0].tenant.as_str() == "t1" && told[0].status == Status::Open, "{told:?}");
}

/// Of two feeds, one an hour behind the other.
async fn marks(bed: &Bed, now: DateTime<Utc>) {
    for tenant in ["t1", "t2"] {
        bed.mark(tenant, "Audit.Exchange", now + TimeDelta::hours(1)).await;
        bed.mark(tenant, "Audit.General", now).await;
    }
}

#[tokio::test]
async fn nothing_is_told_too_early() {
    let plain = [base("x", "x"), base("y", "y")];
    let all = [base("x", "x"), base("y", "y"), MISSING.to_owned()];
    for seed in 0..4 {
        println!("seed {seed}");
        let mut chance = Chance(seed);
        let mut bed = Bed::new();
        // In every other run the rule comes in the middle.
        let comes_at = if seed % 2 == 0 { 0 } else { HOURS / 2 };
        let mut records = Vec::new();
        for hour in 0..HOURS {
            if hour == comes_at {
                offer(&bed.log, &book(&all), false).await.unwrap();
            } else if hour == 0 {
                offer(&bed.log, &book(&plain), false).await.unwrap();
            }
            let now = tick(hour);
            for _ in 0..chance.below(5) {
                let (tenant, user) = ([("t1", 0), ("t2", 1), ("t2", 2)])[chance.below(3) as usize];
                let operation = if chance.below(2) == 0 { "x" } else { "y" };
                let at = now + TimeDelta::minutes(chance.below(60) as i64);
                records.push(record(records.len(), operation, (tenant, user), at));
                bed.put(&records[records.len() - 1..]).await;
            }
            marks(&bed, now).await;
            for _ in 0..chance.below(40) {
                bed.something(&mut chance).await;
                // A worker that was killed knows none until the next.
                if chance.below(6) == 0 {
                    marks(&bed, now).await;
                }
            }
        }
        bed.settle(&mut chance).await;
        let complete = tick(HOURS - 1);
        marks(&bed, complete).await;
        bed.settle(&mut chance).await;
        let expected = found_complete(&book(&all), &records, complete);
        assert!(expected.len() > 3, "seed {seed}: something is found");
        let mut standing = canonical_of(bed.standing().await);
        // Those of the rules alone stand from before.
        standing.retain(|_, finding| finding.rule.id == "missing");
        let name = |finding: &Finding| (finding.tenant.to_string(), finding.rule.id.clone(), finding.evidence.clone());
        let names = |of: &BTreeMap<String, Finding>| of.values().map(name).collect::<BTreeSet<_>>();
        assert_eq!(names(&standing), names(&expected), "seed {seed}");
        assert!(standing == expected, "seed {seed}");
        let told = bed.told().await;
        let taken_back = told.iter().filter(|finding| finding.status == Status::Retracted).count();
        assert_eq!(taken_back, 0, "seed {seed}: told too early");
    }
}

#[tokio::test]
async fn a_rule_that_came_later_waits_until_it_was_shown_all_days() {
    let mut chance = Chance(5);
    let mut bed = Bed::new();
    let plain = [base("x", "x"), base("y", "y")];
    offer(&bed.log, &book(&plain), false).await.unwrap();
    // What follows lies on the next day, but for the last.
    let midnight = |day: i64| start() + TimeDelta::days(day);
    let story = |day: i64| {
        let (before, after) = (midnight(day) - TimeDelta::minutes(20), midnight(day) + TimeDelta::minutes(20));
        [record(2 * day as usize, "x", ("t2", 1), before), record(2 * day as usize + 1, "y", ("t2", 1), after)]
    };
    let mut records: Vec<Received> = (1..6).flat_map(story).collect();
    records.pop();
    bed.put(&records).await;
    marks(&bed, midnight(8)).await;
    bed.settle(&mut chance).await;
    let all = book(&[base("x", "x"), base("y", "y"), MISSING.to_owned()]);
    offer(&bed.log, &all, false).await.unwrap();
    while super::super::rules_behind(&bed.log).await.unwrap().rules.is_empty() {
        bed.go_on_without_the_archive().await;
    }
    while !super::super::rules_behind(&bed.log).await.unwrap().rules.is_empty() {
        marks(&bed, midnight(8)).await;
        for partition in 0..PARTITIONS {
            bed.archive(partition, 1_000).await;
        }
        bed.aside().await;
        bed.go_on_without_the_archive().await;
        bed.log.wait(std::time::Duration::from_millis(1)).await;
    }
    marks(&bed, midnight(8)).await;
    bed.settle(&mut chance).await;
    let told: Vec<Finding> = bed.told().await.into_iter().filter(|finding| finding.rule.id == "missing").collect();
    assert_eq!(
        told.len(),
        1,
        "told too early: {:?}",
        told.iter().map(|finding| finding.first_event).collect::<Vec<_>>()
    );
    assert_eq!(told[0].first_event, midnight(5) - TimeDelta::minutes(20));
}

#[tokio::test]
async fn a_mark_speaks_for_the_partition_that_passed_it_on() {
    let mut bed = Bed::new();
    let mut chance = Chance(1);
    offer(&bed.log, &book(&[base("x", "x"), base("y", "y"), MISSING.to_owned()]), false).await.unwrap();
    bed.settle(&mut chance).await;
    // They lie in either partition, and some that follow on one another in different ones.
    let at = |minutes: u64| start() + TimeDelta::minutes(minutes as i64);
    let story = |user: u64| {
        let number = 2 * user as usize;
        [record(number, "x", ("t1", user), at(user)), record(number + 1, "y", ("t1", user), at(user + 30))]
    };
    bed.put(&(0..12).flat_map(story).collect::<Vec<_>>()).await;
    bed.mark("t1", "Audit.Exchange", at(600)).await;
    for matching in 0..PARTITIONS {
        bed.match_step(matching).await;
        for partition in 0..PARTITIONS {
            bed.correlate_step(partition).await;
        }
    }
    bed.settle(&mut chance).await;
    assert_eq!(bed.told().await.len(), 0, "told too early");
}

#[tokio::test]
async fn what_was_before_the_feeds_is_told_once_somebody_says_that_it_was_imported_whole() {
    let mut chance = Chance(7);
    let mut bed = Bed::new();
    offer(&bed.log, &book(&[base("x", "x"), base("y", "y"), MISSING.to_owned()]), false).await.unwrap();
    let at = |minutes: i64| start() + TimeDelta::minutes(minutes);
    let x = |number: usize, user: u64, minutes: i64| record(number, "x", ("t1", user), at(minutes));
    // The third lies in what was collected, and the last in no import.
    let records = [x(0, 1, 0), x(1, 2, 300), x(2, 3, 700), x(3, 4, 420)];
    bed.put(&records).await;
    bed.mark_since("t1", "Audit.General", (Some(at(600)), at(900))).await;
    bed.mark_since("t1", "Audit.Exchange", (Some(at(500)), at(900))).await;
    bed.settle(&mut chance).await;
    let users = |told: Vec<Finding>| -> Vec<Vec<String>> {
        assert!(told.iter().all(|finding| finding.status == Status::Open));
        told.into_iter().map(|finding| finding.evidence).collect()
    };
    assert_eq!(users(bed.told().await), [["2"]]);
    // One partition has passed it on, and everybody begins anew.
    bed.mark_since("t1", schemas::envelope::IMPORT, (Some(at(-60)), at(60))).await;
    bed.match_step(0).await;
    for partition in 0..PARTITIONS {
        bed.correlate_step(partition).await;
    }
    assert_eq!(bed.told().await.len(), 1, "the other partition may have more of it");
    bed.restart();
    bed.settle(&mut chance).await;
    assert_eq!(users(bed.told().await).len(), 2);
    // It ends before the hour is over, and the next goes on from there.
    bed.mark_since("t1", schemas::envelope::IMPORT, (Some(at(290)), at(330))).await;
    bed.settle(&mut chance).await;
    assert_eq!(bed.told().await.len(), 2);
    bed.restart();
    bed.mark_since("t1", schemas::envelope::IMPORT, (Some(at(330)), at(361))).await;
    bed.settle(&mut chance).await;
    assert_eq!(users(bed.told().await).len(), 3);
    bed.restart();
    bed.mark("t1", "Audit.General", at(990)).await;
    bed.settle(&mut chance).await;
    assert_eq!(bed.told().await.len(), 3, "nobody has said anything of the fourth");
}

#[tokio::test]
async fn of_who_only_imports_a_rule_that_came_later_waits_for_no_mark() {
    let mut chance = Chance(11);
    let mut bed = Bed::new();
    let plain = [base("x", "x"), base("y", "y")];
    offer(&bed.log, &book(&plain), false).await.unwrap();
    let at = |minutes: i64| start() + TimeDelta::minutes(minutes);
    bed.put(&[record(0, "x", ("t1", 1), at(0)), record(1, "x", ("t1", 2), at(0)), record(2, "y", ("t1", 2), at(30))])
        .await;
    bed.mark_since("t1", schemas::envelope::IMPORT, (Some(at(-60)), at(90))).await;
    bed.settle(&mut chance).await;
    offer(&bed.log, &book(&[base("x", "x"), base("y", "y"), MISSING.to_owned()]), false).await.unwrap();
    bed.settle(&mut chance).await;
    let told: Vec<Finding> = bed.told().await.into_iter().filter(|finding| finding.rule.id == "missing").collect();
    assert!(told.len() == 1 && told[0].evidence == ["0"], "{told:?}");
}

#[test]
fn stretches_that_touch_are_one_and_their_number_is_bounded() {
    let tenant: Tenant = "t1".parse().unwrap();
    let at = |minutes: i64| start() + TimeDelta::minutes(minutes);
    let mut awaiting = Awaiting {
        partition: 0,
        marks: BTreeMap::new(),
        imported: BTreeMap::new(),
        fresh: BTreeSet::new(),
        epoch: 1,
        behind: BTreeSet::new(),
        due: BTreeMap::new(),
        early: BTreeMap::new(),
    };
    let mut rows: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
    let mut pass = |awaiting: &mut Awaiting, (since, until), partition| {
        let mark = Mark { tenant: tenant.clone(), content_type: "import".into(), since: Some(since), until };
        let mut out = Vec::new();
        let passed = Passed { partition, epoch: 1, behind: Vec::new(), mark: Some(mark) };
        let is_noted = awaiting.passed(&passed, 2, &mut out);
        for change in out {
            match change.value {
                Some(value) => drop(rows.insert(change.key, Some(value))),
                None => drop(rows.remove(&change.key)),
            }
        }
        let kept: BTreeSet<_> = rows.keys().map(|key| read_imported(key).unwrap()).collect();
        let of_tenant = awaiting.imported.get(&tenant).into_iter().flatten();
        let here = of_tenant.flat_map(|(stretch, of)| of.iter().map(|one| (tenant.clone(), *stretch, *one)));
        assert_eq!(kept, here.collect(), "what is kept is not what is here");
        is_noted
    };
    for (since, until) in [(at(0), at(10)), (at(20), at(30)), (at(10), at(20)), (at(5), at(7))] {
        for partition in 0..2 {
            assert!(pass(&mut awaiting, (since, until), partition));
        }
    }
    let whole: Vec<Stretch> = awaiting.imported[&tenant].keys().copied().collect();
    assert_eq!(whole, [(at(0), at(30))]);
    // Never more than was said.
    let half = TimeDelta::milliseconds(500);
    for partition in 0..2 {
        assert!(pass(&mut awaiting, (at(40) + half, at(50) + half), partition));
    }
    assert!(awaiting.imported[&tenant].contains_key(&(at(40) + TimeDelta::seconds(1), at(50))));
    // A time far from any record is as good as one that is near.
    let far = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
    for partition in 0..2 {
        assert!(pass(&mut awaiting, (far("2300-01-01T00:00:00Z"), far("9999-12-31T00:00:00Z")), partition));
    }
    assert_eq!(awaiting.imported[&tenant].len(), 3);
    let noted = (2..600).filter(|number| pass(&mut awaiting, (at(number * 100), at(number * 100 + 1)), 0)).count();
    assert_eq!(noted, IMPORTED_MAX - 3);
}
