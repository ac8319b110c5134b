//! Days of polling: nothing lost, nothing fetched twice, and marks that are true.

use super::*;

const FEEDS: [&str; 2] = ["Audit.Exchange", "Audit.General"];

/// A blob every 13 minutes or so in each feed; every fifth is listed later than it became available.
fn fill(play: &mut Play, from: DateTime<Utc>, to: DateTime<Utc>) {
    let mut created = from;
    let mut count = 0;
    while created < to {
        let feed = FEEDS[count % 2];
        let late = if count % 5 == 0 { TimeDelta::minutes((count % 118) as i64) } else { TimeDelta::zero() };
        play.blobs.push(Shown { feed: feed.into(), created, listed: created + late });
        created += TimeDelta::milliseconds(400_123);
        count += 1;
    }
}

fn assert_each_fetched_once(play: &Play) {
    let mut fetched = play.fetched.clone();
    fetched.sort();
    let mut expected: Vec<String> = play.blobs.iter().filter(|blob| blob.listed <= play.now).map(id).collect();
    expected.sort();
    assert_eq!(fetched, expected);
}

#[test]
fn a_week_of_polling_with_crashes_fetches_every_blob_once() {
    // Without a margin the mark would be ahead of what is listed late; here it may, for it never waits two hours.
    let pace = Pace { settle: TimeDelta::hours(2), poll_interval: TimeDelta::minutes(3), ..Pace::default() };
    let mut play = Play::new(&FEEDS, pace);
    let end = start() + TimeDelta::days(7);
    fill(&mut play, start(), end - TimeDelta::hours(3));
    let mut now = start();
    while now < end {
        now += TimeDelta::minutes(60 * 7 + 13);
        play.run_until(now.min(end));
        play.restart();
    }
    assert_each_fetched_once(&play);
    assert!(play.marks.values().all(|mark| *mark > end - TimeDelta::hours(2) - TimeDelta::minutes(8)));
    // One listing an interval and feed, eight windows of three pages an hour for the sweep, and little else.
    let (intervals, hours) = (7 * 24 * 20, 7 * 24);
    let is_sweep = |call: &&Made| matches!(call.what, What::List { pass: Pass::Sweep, .. });
    let sweeps = play.calls.iter().filter(is_sweep).count();
    assert!((hours..2 * hours * 8 * 3).contains(&sweeps), "{sweeps}");
    let others = play.calls.len() - sweeps;
    assert!(others < 2 * intervals + play.blobs.len() + 2_000, "{others}");
    // The stretches told as complete lie end to end.
    let mut until = BTreeMap::new();
    for row in &play.coverage {
        assert_eq!(row.state, CoverageState::Complete);
        let before = until.insert(row.feed.clone(), row.window_end);
        assert!(before.is_none_or(|before| before == row.window_start));
    }
}

#[test]
fn what_is_listed_days_late_is_found_by_the_sweep_also_after_crashes() {
    let mut play = Play::new(&FEEDS, Pace { poll_interval: TimeDelta::minutes(10), ..Pace::default() });
    let created = |number: i64| start() + TimeDelta::milliseconds(number * 3_600_123);
    for number in 0..60 {
        // From a minute to five and a half days late.
        let listed = created(number) + TimeDelta::minutes(1 + number * 132);
        play.blobs.push(Shown { feed: FEEDS[0].into(), created: created(number), listed });
    }
    let end = start() + TimeDelta::days(9);
    let mut found_by = Vec::new();
    while play.now < end {
        let before = play.fetched.len();
        play.run_until(play.now + TimeDelta::minutes(30));
        found_by.extend(std::iter::repeat_n(play.now, play.fetched.len() - before));
        if found_by.len() % 7 == 3 {
            play.restart();
        }
    }
    assert_each_fetched_once(&play);
    let mut listed: Vec<DateTime<Utc>> = play.blobs.iter().map(|blob| blob.listed).collect();
    listed.sort();
    // Within two sweeps of when it was listed.
    for (listed, found) in listed.iter().zip(&found_by) {
        assert!(*found - *listed < TimeDelta::minutes(150), "{listed} {found}");
    }
    assert!(play.notes.iter().any(|note| matches!(note, Note::ListedLate { .. })));
}

#[test]
fn a_first_start_reaches_back_as_far_as_the_service_lets_it() {
    let mut play = Play::new(&FEEDS, Pace::default());
    fill(&mut play, start() - TimeDelta::minutes(167 * 60 + 50), start());
    play.page_size = 7;
    play.run_until(start() + TimeDelta::hours(3));
    assert_each_fetched_once(&play);
    let lists = play.calls.iter().filter(|call| is_list(&call.what) && call.at == start()).count();
    assert!(lists > 16, "windows and pages at once, without waiting for the interval: {lists}");
    assert!(play.coverage.iter().all(|row| row.state == CoverageState::Complete));
    assert_eq!(play.coverage[0].window_start, at("2026-11-15T10:05:01Z"));
}

/// The lines it prints (`--nocapture`) are the rows of `coverage` around the hour.
#[test]
fn an_hour_of_downtime_is_caught_up_in_minutes_and_leaves_no_gap() {
    let mut play = Play::new(&FEEDS, Pace::default());
    let (down, up) = (start() + TimeDelta::hours(3), start() + TimeDelta::hours(4));
    fill(&mut play, start(), up + TimeDelta::hours(1));
    play.run_until(down);
    play.now = up;
    play.restart();
    let fetched = play.fetched.len();
    while !FEEDS.iter().all(|feed| play.marks.get(*feed).is_some_and(|mark| *mark >= up)) {
        assert!(play.now < up + TimeDelta::minutes(15), "not caught up: {:?}", play.marks);
        play.run_until(play.now + TimeDelta::seconds(30));
    }
    let (caught_up, missed) = (play.now - up, play.fetched.len() - fetched);
    println!("{missed} blobs of the hour, complete up to its end {} s after the start", caught_up.num_seconds());
    // What is said to be complete is there, all that became available and was listed meanwhile.
    let of_the_hour = |blob: &&Shown| blob.created > down && blob.created < up && blob.listed < up;
    assert!(play.blobs.iter().filter(of_the_hour).count() > 5);
    for blob in play.blobs.iter().filter(of_the_hour) {
        assert!(play.fetched.contains(&id(blob)), "{} is said to be complete and is not", blob.created);
    }
    play.run_until(up + TimeDelta::hours(4));
    assert_each_fetched_once(&play);
    for feed in FEEDS {
        let mut until = None;
        for row in play.coverage.iter().filter(|row| row.feed == feed) {
            if row.window_end > down - TimeDelta::minutes(10) && row.window_start < up + TimeDelta::minutes(10) {
                println!("{feed} {} .. {} {:?}", row.window_start, row.window_end, row.state);
            }
            assert_eq!(row.state, CoverageState::Complete);
            assert!(until.is_none_or(|until| until == row.window_start), "a gap before {}", row.window_start);
            until = Some(row.window_end);
        }
        assert!(until > Some(up + TimeDelta::hours(3)));
    }
}

#[test]
fn what_harrier_slept_through_is_a_gap_in_coverage() {
    let mut play = Play::new(&["Audit.Exchange"], Pace::default());
    play.run_until(start() + TimeDelta::hours(1));
    let slept = play.now;
    play.now += TimeDelta::days(10);
    play.restart();
    play.coverage.clear();
    play.run_until(play.now + TimeDelta::hours(1));
    let row = &play.coverage[0];
    assert_eq!(row.state, CoverageState::Missing);
    assert!(
        row.window_start < slept && row.window_end == slept + TimeDelta::hours(240 - 168) + TimeDelta::seconds(301)
    );
    assert_eq!(play.coverage[1].window_start, row.window_end);
    assert_eq!(play.coverage[1].state, CoverageState::Complete);
}

#[test]
fn rows_that_no_listing_reaches_are_removed_and_nothing_is_fetched_again() {
    let mut play = Play::new(&FEEDS, Pace { poll_interval: TimeDelta::minutes(40), ..Pace::default() });
    let end = start() + TimeDelta::days(20);
    fill(&mut play, start(), end - TimeDelta::hours(3));
    let mut rows_most = 0;
    while play.now < end {
        play.run_until(play.now + TimeDelta::hours(11));
        for _ in 0..3 {
            let effects = play.machine.prune(play.now);
            assert!(effects.changes.len() <= crate::ledger::PRUNED_ROWS_MAX);
            play.apply(effects);
        }
        rows_most = rows_most.max(play.ledger.blobs.values().map(BTreeMap::len).sum());
        play.restart();
    }
    assert_each_fetched_once(&play);
    assert!(rows_most < play.blobs.len() / 2, "{rows_most}");
}

#[test]
fn a_clock_that_is_ahead_makes_no_hole() {
    let mut play = Play::new(&["Audit.Exchange"], Pace::default());
    // Three hours ahead, more than the overlap: without the service's date the cursor would pass what comes later.
    play.service_ahead = Some(TimeDelta::hours(-3));
    for minutes in 0..120 {
        play.show("Audit.Exchange", start() - TimeDelta::hours(3) + TimeDelta::minutes(minutes));
    }
    play.run_until(start() + TimeDelta::hours(3));
    assert_eq!(play.fetched.len(), 120);
    assert!(play.notes.contains(&Note::ClockOff { ahead_seconds: 3 * 3_600 }));
    // Behind: asking for more than seven days would be refused.
    let mut play = Play::new(&["Audit.Exchange"], Pace::default());
    play.service_ahead = Some(TimeDelta::hours(3));
    play.show("Audit.Exchange", start() + TimeDelta::minutes(170));
    // Not only when our clock comes to where the service's is.
    play.run_until(start() + TimeDelta::minutes(5));
    assert_eq!(play.fetched.len(), 1);
}

#[test]
fn a_new_subscription_is_not_called_complete_before_it_can_be() {
    let mut play = Play::new(&["Audit.Exchange", "DLP.All"], Pace::default());
    play.enabled.clear();
    play.run_until(start() + TimeDelta::hours(2));
    assert_eq!(play.calls.iter().filter(|call| is_start(&call.what)).count(), 2);
    assert!(play.marks.is_empty() && play.coverage.is_empty());
    play.show("Audit.Exchange", play.now + TimeDelta::minutes(1));
    play.run_until(start() + TimeDelta::hours(3));
    assert_eq!(play.marks.keys().collect::<Vec<_>>(), ["Audit.Exchange"]);
    play.run_until(start() + TimeDelta::hours(13));
    assert_eq!(play.marks.len(), 2);
    // Nothing is claimed of the time before it was started.
    assert!(play.coverage.iter().all(|row| row.window_start >= start()));
    assert!(play.since.len() == 2 && play.since.values().all(|since| *since >= start()), "{:?}", play.since);
}
