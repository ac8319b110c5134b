use super::*;
use crate::samples::{finding, start};

fn retry(after_seconds: Option<u64>) -> Result<(), Failure> {
    failure(FailureClass::Retry { after: after_seconds.map(Duration::from_secs) })
}

fn failure(class: FailureClass) -> Result<(), Failure> {
    Err(Failure { class, label: "other", reason: "no".into() })
}

fn at(seconds: i64) -> DateTime<Utc> {
    start() + TimeDelta::seconds(seconds)
}

fn entry() -> Entry {
    Entry::new(&"contoso".parse().unwrap(), "a", 0, start())
}

fn revision(revision: u32, event_count: u64, status: Status) -> Finding {
    Finding { event_count, status, ..finding("a", revision) }
}

fn pending(entry: &mut Entry, finding: &Finding, now: DateTime<Utc>) {
    entry.offer(finding, now);
    assert!(entry.waiting.is_some());
}

/// What is waiting, in words.
fn state(entry: &Entry) -> String {
    match (&entry.waiting, &entry.told, &entry.dead) {
        (Some(waiting), _, _) if waiting.sending => format!("sending {}", waiting.finding.revision),
        (Some(waiting), _, _) if waiting.tries.at.is_some() => {
            format!("retry {} after {}", waiting.finding.revision, waiting.tries.attempts)
        }
        (Some(waiting), _, _) => format!("pending {}", waiting.finding.revision),
        (None, _, Some(dead)) => format!("dead {}", dead.revision),
        (None, Some(told), None) => format!("delivered {}", told.revision),
        (None, None, None) => "nothing".into(),
    }
}

#[test]
fn the_schedule_is_kept_with_jitter_that_is_the_same_each_time() {
    let mut entry = entry();
    pending(&mut entry, &finding("a", 1), start());
    let mut now = start();
    for (attempt, &wait_seconds) in SCHEDULE_SECONDS.iter().enumerate() {
        let due = entry.due_at().unwrap();
        let wait = (due - now).num_milliseconds() as f64 / 1_000.0;
        assert!(wait >= wait_seconds as f64 && wait <= wait_seconds as f64 * (1.0 + JITTER_MAX), "{attempt}: {wait}");
        now = due;
        let begun = entry.begin(now).unwrap();
        assert_eq!(begun.webhook_id, "a_1_open");
        assert_eq!(state(&entry), "sending 1");
        let again = entry.clone().settle(&begun, &retry(None), now);
        let reason = entry.settle(&begun, &retry(None), now);
        assert_eq!(reason, again);
        if attempt + 1 < SCHEDULE_SECONDS.len() {
            assert_eq!(reason, None);
            assert_eq!(state(&entry), format!("retry 1 after {}", attempt + 1));
        } else {
            assert_eq!(reason.as_deref(), Some("given up after 10 attempts: no"));
        }
    }
}

#[test]
fn each_class_of_failure_leads_where_it_should() {
    let gone_on = |class: FailureClass, times: usize| {
        let mut entry = entry();
        pending(&mut entry, &finding("a", 1), start());
        for _ in 0..times {
            let begun = entry.begin(start()).unwrap();
            if let Some(reason) = entry.settle(&begun, &failure(class), start()) {
                entry.bury(&reason, start());
                break;
            }
        }
        state(&entry)
    };
    assert_eq!(gone_on(FailureClass::Refused, 1), "dead 1");
    assert_eq!(gone_on(FailureClass::Auth, 2), "retry 1 after 2");
    assert_eq!(gone_on(FailureClass::Auth, 3), "dead 1");
    assert_eq!(gone_on(FailureClass::Gone, 20), "pending 1");
    assert_eq!(gone_on(FailureClass::Retry { after: None }, 9), "retry 1 after 9");
    assert_eq!(gone_on(FailureClass::Retry { after: None }, 10), "dead 1");
}

#[test]
fn retry_after_is_honoured_and_capped() {
    for (asked, least, most) in [(None, 5, 6), (Some(2), 5, 6), (Some(120), 120, 120), (Some(1_000_000), 3_600, 3_600)]
    {
        let mut entry = entry();
        pending(&mut entry, &finding("a", 1), start());
        let begun = entry.begin(start()).unwrap();
        entry.settle(&begun, &retry(asked), start());
        let due = entry.due_at().unwrap();
        assert!(due >= at(least) && due <= at(most), "{asked:?}: {due}");
    }
}

#[test]
fn a_newer_revision_takes_the_place_of_one_that_waits_and_its_place_in_the_schedule() {
    let mut entry = entry();
    pending(&mut entry, &finding("a", 1), start());
    let begun = entry.begin(start()).unwrap();
    entry.settle(&begun, &retry(None), start());
    let due = entry.due_at();
    entry.offer(&finding("a", 3), at(1));
    assert_eq!((state(&entry).as_str(), entry.due_at()), ("retry 3 after 1", due));
    // The log offers older ones again after a restart of the producer: they are no news.
    entry.offer(&finding("a", 2), at(2));
    assert_eq!(state(&entry), "retry 3 after 1");
    assert_eq!(entry.kind(), Some(Kind::Created));

    // While one is under way, a newer one comes; the answer is about the older one.
    let begun = entry.begin(at(6)).unwrap();
    entry.offer(&finding("a", 4), at(7));
    assert_eq!(entry.settle(&begun, &failure(FailureClass::Refused), at(8)), None);
    assert_eq!(state(&entry), "retry 4 after 1");
    let begun = entry.begin(at(9)).unwrap();
    entry.offer(&finding("a", 5), at(10));
    entry.settle(&begun, &Ok(()), at(11));
    assert_eq!((state(&entry).as_str(), entry.told.as_ref().unwrap().revision), ("pending 5", 4));
    assert_eq!(entry.kind(), Some(Kind::Updated));
}

#[test]
fn a_growing_finding_is_told_again_when_it_doubles_or_time_passes_or_its_status_changes() {
    for (told, next, due_seconds) in [
        ((10, Status::Open), (11, Status::Open), 300),
        ((10, Status::Open), (19, Status::Open), 300),
        ((10, Status::Open), (20, Status::Open), 60),
        ((10, Status::Open), (10, Status::Final), 60),
        ((10, Status::Final), (9, Status::Final), 300),
        ((10, Status::Open), (0, Status::Retracted), 60),
    ] {
        let mut entry = entry();
        pending(&mut entry, &revision(1, told.0, told.1), start());
        let begun = entry.begin(start()).unwrap();
        entry.settle(&begun, &Ok(()), start());
        entry.offer(&revision(2, next.0, next.1), at(60));
        assert_eq!(entry.due_at(), Some(at(due_seconds)), "{told:?} -> {next:?}");
        // The newest is the one that goes.
        entry.offer(&revision(3, next.0, next.1), at(90));
        assert_eq!((state(&entry).as_str(), entry.due_at()), ("pending 3", Some(at(due_seconds))));
    }
}

#[test]
fn what_does_not_stand_is_told_only_to_whoever_may_know_of_it() {
    let retracted = revision(2, 1, Status::Retracted);
    let mut unknown = entry();
    unknown.offer(&retracted, start());
    assert_eq!(state(&unknown), "nothing");

    let mut waiting = entry();
    pending(&mut waiting, &finding("a", 1), start());
    waiting.offer(&retracted, start());
    assert_eq!(state(&waiting), "nothing");

    // Something was sent and no answer came: it may have arrived.
    let mut uncertain = entry();
    pending(&mut uncertain, &finding("a", 1), start());
    let begun = uncertain.begin(start()).unwrap();
    uncertain.settle(&begun, &retry(None), start());
    uncertain.offer(&retracted, start());
    assert_eq!((state(&uncertain).as_str(), uncertain.kind()), ("retry 2 after 1", Some(Kind::Closed)));

    let mut told = entry();
    pending(&mut told, &finding("a", 1), start());
    let begun = told.begin(start()).unwrap();
    told.settle(&begun, &Ok(()), start());
    // An import that must alert nobody may still end an alert.
    told.offer(&Finding { notify: false, ..finding("a", 2) }, start());
    assert_eq!(state(&told), "delivered 1");
    told.offer(&Finding { notify: false, revision: 3, ..retracted }, start());
    assert_eq!((state(&told).as_str(), told.kind()), ("pending 3", Some(Kind::Closed)));
}

#[test]
fn a_row_survives_the_log_and_one_that_was_sending_is_due_at_once() {
    let mut entry = entry();
    pending(&mut entry, &finding("a", 1), start());
    let begun = entry.begin(start()).unwrap();
    entry.settle(&begun, &retry(None), start());
    let first = entry.begin(at(6)).unwrap();
    let mut read: Entry = serde_json::from_slice(&serde_json::to_vec(&entry).unwrap()).unwrap();
    assert_eq!(read, entry);
    assert!(read.due_at().unwrap() <= at(6));
    assert_eq!(read.begin(at(7)).unwrap(), first);
}

#[test]
fn a_dead_finding_is_told_again_when_it_has_news() {
    let mut entry = entry();
    pending(&mut entry, &finding("a", 1), start());
    let begun = entry.begin(start()).unwrap();
    let reason = entry.settle(&begun, &failure(FailureClass::Refused), start()).unwrap();
    assert_eq!(entry.bury(&reason, start()).unwrap().finding.revision, 1);
    assert_eq!(state(&entry), "dead 1");
    entry.offer(&finding("a", 2), at(1));
    assert_eq!((state(&entry).as_str(), entry.due_at()), ("pending 2", Some(at(1))));
    assert_eq!(entry.dead, None);
}
