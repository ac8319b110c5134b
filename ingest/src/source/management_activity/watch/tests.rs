//! Weeks of a feed, an hour at a time.

use schemas::envelope::Envelope;

use super::*;

const FEED: &str = "Audit.Exchange";

/// A Monday.
fn monday() -> DateTime<Utc> {
    "2026-11-02T00:00:00Z".parse().unwrap()
}

fn origin() -> Origin {
    Origin {
        tenant: "t1".parse().unwrap(),
        source: String::new(),
        content_type: String::new(),
        blob_id: String::new(),
        received: monday(),
        notify: true,
    }
}

/// An office: twenty records an hour on weekdays from eight to six, and none at other times.
fn office(hour_of_week: i64) -> u64 {
    let (day, hour) = (hour_of_week / 24, hour_of_week % 24);
    if day < 5 && (8..18).contains(&hour) { 20 } else { 0 }
}

struct Play {
    watch: Watch,
    ledger: Ledger,
    told: Vec<(i64, serde_json::Value)>,
}

impl Play {
    fn new() -> Play {
        let ledger = Ledger::default();
        Play { watch: watch(&ledger, monday()), ledger, told: Vec::new() }
    }

    /// Plays hours; `records` says how many come in each, none that the feed cannot be listed.
    fn hours(&mut self, hours: std::ops::Range<i64>, records: impl Fn(i64) -> Option<u64>) {
        for number in hours {
            let now = monday() + TimeDelta::hours(number) + TimeDelta::minutes(59);
            let feed = FEED.to_owned();
            if let Some(records) = records(number) {
                self.watch.heard(&Note::Listed { feed: feed.clone() }, now);
                if records > 0 {
                    let note = Note::BlobFetched { feed, blob: String::new(), records, created: now };
                    self.watch.heard(&note, now);
                }
            } else {
                let error = "HTTP 503".to_owned();
                self.watch.heard(&Note::Trouble { feed: Some(feed), error, wait: TimeDelta::zero() }, now);
            }
            self.judge(number, now);
        }
    }

    fn judge(&mut self, number: i64, now: DateTime<Utc>) {
        let told = self.watch.judge(&origin(), now);
        for change in told.changes {
            let Change::History(feed, row) = change else { panic!() };
            self.ledger.histories.insert(feed, row);
        }
        for output in told.records {
            let Envelope::Record(received) = Envelope::decode(&output.value).unwrap() else { panic!() };
            assert_eq!(received.origin.source, WORKLOAD);
            self.told.push((number, serde_json::from_slice(&received.bytes).unwrap()));
        }
    }

    /// Hour of the play and operation of each alarm.
    fn told(&self) -> Vec<(i64, &str)> {
        self.told.iter().map(|(number, record)| (*number, record["Operation"].as_str().unwrap())).collect()
    }

    fn restart(&mut self, number: i64) {
        self.watch = watch(&self.ledger, monday() + TimeDelta::hours(number));
    }
}

fn watch(ledger: &Ledger, now: DateTime<Utc>) -> Watch {
    Watch::new(&[FEED.to_owned()], ledger, TimeDelta::minutes(90), now)
}

#[test]
fn nights_and_weekends_are_no_alarm_and_a_silent_morning_is_one() {
    let mut play = Play::new();
    play.hours(0..3 * 168, |hour| Some(office(hour % 168)));
    assert_eq!(play.told(), [], "three ordinary weeks");
    // The fourth Monday is silent: sixty records are missing by eleven, the first thirty of them by ten.
    play.hours(3 * 168..3 * 168 + 24, |_| Some(0));
    assert_eq!(play.told(), [(3 * 168 + 10, "FeedSilent")], "once, though the silence goes on");
    play.hours(3 * 168 + 24..4 * 168, |hour| Some(office(hour % 168)));
    assert_eq!(play.told().len(), 1, "and it is over");
    play.hours(4 * 168..4 * 168 + 24, |_| Some(0));
    assert_eq!(play.told().len(), 1, "a Monday that was silent once before is not expected to speak");
    play.hours(4 * 168 + 24..4 * 168 + 48, |_| Some(0));
    assert_eq!(play.told().len(), 2, "but a Tuesday is");
}

#[test]
fn a_single_week_is_no_history() {
    let mut play = Play::new();
    play.hours(0..168, |hour| Some(office(hour % 168)));
    play.hours(168..2 * 168, |_| Some(0));
    assert_eq!(play.told(), []);
}

#[test]
fn our_own_trouble_is_told_as_ours_and_once() {
    let mut play = Play::new();
    play.hours(0..3 * 168, |hour| Some(office(hour % 168)));
    let start = 3 * 168 + 7;
    play.hours(3 * 168..start, |_| Some(0));
    play.hours(start..start + 12, |_| None);
    assert_eq!(play.told(), [(start + 1, "FeedListingFails")], "not as silence");
    assert_eq!(play.told[0].1["Detail"], "HTTP 503");
    play.restart(start + 12);
    play.hours(start + 12..start + 24, |_| None);
    assert_eq!(play.told().len(), 1, "a restart does not tell it again");
    play.hours(start + 24..start + 25, |_| Some(1));
    play.hours(start + 25..start + 30, |_| None);
    assert_eq!(play.told().len(), 2, "another episode");
}

#[test]
fn a_disabled_subscription_is_told_once_an_episode_and_a_new_one_never() {
    let mut play = Play::new();
    let found = |play: &mut Play, hour: i64, enabled: bool| {
        let now = monday() + TimeDelta::hours(hour);
        play.watch.heard(&Note::Subscription { feed: FEED.to_owned(), enabled }, now);
        play.judge(hour, now);
    };
    found(&mut play, 0, false);
    assert_eq!(play.told(), [], "it was never there");
    play.hours(0..2, |_| Some(5));
    for (hour, enabled) in [(2, true), (3, false), (4, false), (5, true), (6, true), (7, false)] {
        found(&mut play, hour, enabled);
    }
    assert_eq!(play.told(), [(3, "FeedSubscriptionDisabled"), (7, "FeedSubscriptionDisabled")]);
    let ids: std::collections::BTreeSet<&str> =
        play.told.iter().map(|(_, record)| record["Id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 2);
}

#[test]
fn the_row_has_a_bound() {
    let mut play = Play::new();
    play.hours(0..8 * 168, |_| Some(1));
    let row = &play.ledger.histories[FEED];
    assert!(row.hours.len() <= 4 * 168 + 26, "{}", row.hours.len());
    assert!(serde_json::to_vec(row).unwrap().len() < 16 * 1024);
}
