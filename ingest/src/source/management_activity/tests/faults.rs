//! What goes wrong, one thing at a time.

use std::fmt::Write;

use expect_test::expect;

use super::super::effect::Note;
use super::super::wire::Trouble;
use super::*;

const FEED: &str = "Audit.Exchange";

/// One blob, and the given outcome for the first call that fits.
fn play(applies: fn(&What) -> bool, outcome: Outcome) -> Play {
    let mut play = Play::new(&[FEED], Pace::default());
    play.show(FEED, start() - TimeDelta::hours(1));
    play.scripted.push((applies, outcome));
    play
}

/// What a code does, in a word or two.
fn reaction(applies: fn(&What) -> bool, outcome: Outcome) -> String {
    let mut play = play(applies, outcome);
    if applies(&What::Start { feed: 0 }) {
        play.enabled.clear();
    }
    play.run_until(start() + TimeDelta::seconds(20));
    let seconds = |wait: &TimeDelta| if *wait >= TimeDelta::seconds(30) { "wait" } else { "at once" };
    let notes = play.notes.iter().filter_map(|note| match note {
        Note::BlobFailed { wait, .. } => Some(format!("blob again, {}", seconds(wait))),
        Note::BlobLost { expired: true, .. } => Some("blob expired".into()),
        Note::BlobLost { .. } => Some("blob gone".into()),
        Note::Throttled { .. } => Some("throttled".into()),
        Note::Trouble { wait, .. } => Some(format!("again, {}", seconds(wait))),
        Note::Stopped { feed: None, .. } => Some("tenant stopped".into()),
        Note::Stopped { .. } => Some("feed stopped".into()),
        Note::SubscriptionStarted { .. } => Some("started".into()),
        _ => None,
    });
    let mut words: Vec<String> = notes.collect();
    words
        .extend(play.machine.problems().iter().map(|(feed, _)| format!("problem of {}", feed.unwrap_or("the tenant"))));
    if play.coverage.iter().any(|row| row.state == CoverageState::Missing) {
        words.push("coverage".into());
    }
    if play.fetched.len() == 1 {
        words.push("fetched".into());
    }
    words.join(", ")
}

#[test]
fn every_code_has_its_reaction() {
    let mut table = String::new();
    for code in CODES {
        let of = |applies| reaction(applies, refusal(400, code.code));
        writeln!(table, "{}: list: {} | blob: {} | start: {}", code.code, of(is_list), of(is_blob), of(is_start))
            .unwrap();
    }
    expect![[r#"
        AF10001: list: tenant stopped, problem of the tenant | blob: tenant stopped, problem of the tenant | start: tenant stopped, problem of the tenant
        AF20001: list: feed stopped, problem of Audit.Exchange | blob: feed stopped, problem of Audit.Exchange | start: feed stopped, problem of Audit.Exchange
        AF20002: list: feed stopped, problem of Audit.Exchange | blob: feed stopped, problem of Audit.Exchange | start: feed stopped, problem of Audit.Exchange
        AF20003: list: feed stopped, problem of Audit.Exchange | blob: feed stopped, problem of Audit.Exchange | start: feed stopped, problem of Audit.Exchange
        AF20010: list: tenant stopped, problem of the tenant | blob: tenant stopped, problem of the tenant | start: tenant stopped, problem of the tenant
        AF20011: list: tenant stopped, problem of the tenant | blob: tenant stopped, problem of the tenant | start: tenant stopped, problem of the tenant
        AF20012: list: tenant stopped, problem of the tenant | blob: tenant stopped, problem of the tenant | start: tenant stopped, problem of the tenant
        AF20013: list: tenant stopped, problem of the tenant | blob: tenant stopped, problem of the tenant | start: tenant stopped, problem of the tenant
        AF20020: list: feed stopped, problem of Audit.Exchange | blob: feed stopped, problem of Audit.Exchange | start: feed stopped, problem of Audit.Exchange
        AF20021: list: feed stopped, problem of Audit.Exchange | blob: feed stopped, problem of Audit.Exchange | start: feed stopped, problem of Audit.Exchange
        AF20022: list: started, fetched | blob: blob again, wait | start: again, wait
        AF20023: list: started, fetched | blob: blob again, wait | start: problem of Audit.Exchange, coverage
        AF20024: list: again, wait | blob: blob again, wait | start: fetched
        AF20030: list: again, at once, fetched | blob: blob again, wait | start: again, wait
        AF20031: list: again, at once, fetched | blob: blob again, wait | start: again, wait
        AF20050: list: again, wait | blob: blob gone, coverage | start: again, wait
        AF20051: list: again, wait | blob: blob expired, coverage | start: again, wait
        AF20052: list: again, wait | blob: blob gone, coverage | start: again, wait
        AF20053: list: feed stopped, problem of Audit.Exchange | blob: feed stopped, problem of Audit.Exchange | start: feed stopped, problem of Audit.Exchange
        AF20054: list: feed stopped, problem of Audit.Exchange | blob: feed stopped, problem of Audit.Exchange | start: feed stopped, problem of Audit.Exchange
        AF20055: list: again, at once, fetched | blob: blob again, wait | start: again, wait
        AF429: list: throttled | blob: throttled | start: throttled
        AF50000: list: again, wait | blob: blob again, wait | start: again, wait
        AF50005: list: again, wait | blob: blob again, wait | start: again, wait
        AF50006: list: again, wait | blob: blob again, wait | start: again, wait
    "#]]
    .assert_eq(&table);
}

#[test]
fn statuses_and_broken_answers_have_their_reaction() {
    let mut table = String::new();
    let answer = |status, body: &str| Outcome::Answer(Answer { status, body: body.into(), ..Answer::default() });
    for (name, outcome) in [
        ("401", answer(401, "")),
        ("403 with the text of a throttle", answer(403, "Too many requests. Method=GetBlob")),
        ("404", answer(404, "")),
        ("408", answer(408, "")),
        ("429", answer(429, "")),
        ("500", answer(500, "<html>")),
        ("503", answer(503, "")),
        ("302", answer(302, "")),
        ("200 and an error", answer(200, r#"{"error":{"code":"AF50000","message":""}}"#)),
        ("200 and an object", answer(200, "{}")),
        (
            "a tenant without auditing",
            answer(400, r#"{"error":{"code":"StartSubscription [","message":"Tenant 1 does not exist."}}"#),
        ),
        ("an unknown code", refusal(400, "AF77777")),
        ("no connection", Outcome::Failed(Trouble::Connection)),
        ("a body that ends early", Outcome::Failed(Trouble::EndedEarly)),
    ] {
        let (list, blob) = (reaction(is_list, outcome.clone()), reaction(is_blob, outcome));
        writeln!(table, "{name}: list: {list} | blob: {blob}").unwrap();
    }
    expect![[r#"
        401: list: fetched | blob: fetched
        403 with the text of a throttle: list: throttled | blob: throttled
        404: list: again, wait | blob: blob again, wait
        408: list: again, wait | blob: blob again, wait
        429: list: throttled | blob: throttled
        500: list: again, wait | blob: blob again, wait
        503: list: again, wait | blob: blob again, wait
        302: list: again, wait | blob: blob again, wait
        200 and an error: list: again, wait | blob: blob again, wait
        200 and an object: list: again, wait | blob: blob again, wait
        a tenant without auditing: list: tenant stopped, problem of the tenant | blob: tenant stopped, problem of the tenant
        an unknown code: list: again, wait | blob: blob again, wait
        no connection: list: again, wait | blob: blob again, wait
        a body that ends early: list: again, wait | blob: blob again, wait
    "#]]
    .assert_eq(&table);
}

#[test]
fn after_any_trouble_the_blob_is_fetched_in_the_end() {
    for code in CODES {
        for (place, applies) in [is_list as fn(&What) -> bool, is_blob, is_start].into_iter().enumerate() {
            let is_for_blob = place == 1;
            let mut play = play(applies, refusal(400, code.code));
            play.enabled.clear();
            play.run_until(start() + TimeDelta::hours(2));
            let is_lost = is_for_blob && matches!(code.class, Class::Gone | Class::Expired);
            assert_eq!(play.fetched.len(), usize::from(!is_lost), "{}", code.code);
            assert!(play.machine.problems().is_empty(), "{}", code.code);
            let row = play.ledger.blobs[FEED].values().next().unwrap();
            assert!(row.state.is_final());
        }
    }
}

#[test]
fn a_bare_404_is_believed_when_it_is_seen_again() {
    let mut play = play(is_blob, refusal(404, ""));
    play.run_until(start() + TimeDelta::minutes(5));
    assert_eq!(play.fetched.len(), 1);
    let mut play = super::faults::play(is_blob, refusal(404, ""));
    play.scripted.extend([(is_blob as fn(&What) -> bool, refusal(404, "")), (is_blob, refusal(404, ""))]);
    play.run_until(start() + TimeDelta::minutes(5));
    assert!(matches!(play.ledger.blobs[FEED].values().next().unwrap().state, BlobState::Gone { .. }));
    assert_eq!(play.fetched.len(), 0);
}

#[test]
fn a_token_is_renewed_before_its_end_and_once_after_a_401() {
    let mut play = play(is_blob, refusal(401, "Unauthorized"));
    play.run_until(start() + TimeDelta::hours(3));
    let tokens: Vec<i64> = play
        .calls
        .iter()
        .filter(|call| call.what == What::Token)
        .map(|call| (call.at - start()).num_minutes())
        .collect();
    assert_eq!(tokens, [0, 0, 55, 110, 165]);
    assert_eq!(play.fetched.len(), 1);
}

#[test]
fn tokens_that_are_never_accepted_do_not_make_the_poller_hammer() {
    let mut play = Play::new(&[FEED], Pace::default());
    for _ in 0..50 {
        play.scripted.push((|what| *what != What::Token, refusal(401, "Unauthorized")));
    }
    play.run_until(start() + TimeDelta::hours(1));
    assert!(play.calls.len() < 30, "{}", play.calls.len());
    assert_eq!(play.machine.problems().len(), 1);
}

#[test]
fn a_wrong_secret_stops_the_tenant_and_is_told() {
    let body =
        br#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret\u001b[2J provided."}"#;
    let outcome = Outcome::Answer(Answer { status: 401, body: body.to_vec(), ..Answer::default() });
    let mut play = play(|what| *what == What::Token, outcome);
    play.run_until(start() + TimeDelta::minutes(5));
    let problems = format!("{:?}", play.machine.problems());
    assert!(
        problems.contains("the client secret is wrong") && !problems.contains('\x1b') && !problems.contains("hush")
    );
    assert_eq!(play.calls.len(), 1);
    play.run_until(start() + TimeDelta::minutes(30));
    assert_eq!(play.fetched.len(), 1);
    assert!(play.machine.problems().is_empty());
}

#[test]
fn a_next_page_elsewhere_is_refused_and_the_cursor_stays() {
    let body = b"[]".to_vec();
    let next_page = Some("https://manage.example.evil.example/api?nextPage=1".into());
    let foreign = Outcome::Answer(Answer { status: 200, body, next_page, ..Answer::default() });
    let mut play = play(is_list, foreign);
    play.run_until(start() + TimeDelta::seconds(20));
    assert!(play.notes.contains(&Note::ForeignAddress { feed: FEED.into(), kind: "NextPageUri" }));
    assert_eq!(play.ledger.feeds.get(FEED), None);
    play.run_until(start() + TimeDelta::minutes(10));
    assert_eq!(play.fetched.len(), 1);
    assert!(play.calls.iter().all(|call| call.url.host_str() != Some("manage.example.evil.example")));
}

#[test]
fn a_stale_page_begins_the_window_again_and_a_failed_one_does_not() {
    for (outcome, pages) in [(refusal(400, "AF20031"), [0, 10, 0, 10, 20]), (refusal(503, ""), [0, 10, 10, 20, 30])] {
        let mut play = Play::new(&[FEED], Pace { window: TimeDelta::hours(24), ..Pace::default() });
        play.page_size = 10;
        for minute in 1..50 {
            play.show(FEED, start() - TimeDelta::minutes(minute));
        }
        let is_second = |what: &What| is_list(what);
        play.run_until(start() - TimeDelta::seconds(1));
        // The last window is the one with blobs; answer its second page with the trouble.
        let offset = |call: &Call| {
            call.url.query_pairs().find(|(name, _)| name == "nextPage").map(|(_, page)| page.into_owned())
        };
        let mut lists = Vec::new();
        let mut scripted = false;
        while play.now < start() + TimeDelta::minutes(20) && lists.len() < 100 {
            let (next, effects) = play.machine.next(play.now);
            play.apply(effects);
            match next {
                Next::Call(call) => {
                    let is_troubled = !scripted && is_second(&call.what) && offset(&call).as_deref() == Some("10");
                    scripted |= is_troubled;
                    let outcome = if is_troubled { outcome.clone() } else { play.answer(&call) };
                    if is_list(&call.what) {
                        lists.push(offset(&call).map_or(0, |page| page.parse::<u32>().unwrap()));
                    }
                    let effects = play.machine.heard(*call, outcome, play.now);
                    play.apply(effects);
                }
                Next::Wait(until) => play.now = until.unwrap(),
            }
        }
        let first = lists.iter().position(|page| *page == 10).unwrap() - 1;
        assert_eq!(lists[first..first + 5], pages);
        assert_eq!(play.fetched.len(), 49);
    }
}

#[test]
fn a_disabled_subscription_is_started_once_then_told_until_somebody_enables_it() {
    let mut play = Play::new(&[FEED], Pace::default());
    play.run_until(start() + TimeDelta::hours(1));
    let disabled = r#"[{"contentType":"Audit.Exchange","status":"disabled","webhook":null}]"#;
    for _ in 0..6 {
        let outcome = Outcome::Answer(Answer { status: 200, body: disabled.into(), ..Answer::default() });
        play.scripted.push((|what| *what == What::Subscriptions, outcome));
    }
    play.scripted.push((is_start, refusal(400, "AF20023")));
    play.coverage.clear();
    play.calls.clear();
    play.run_until(start() + TimeDelta::minutes(115));
    assert_eq!(play.calls.iter().filter(|call| is_start(&call.what)).count(), 1);
    assert_eq!(play.machine.problems(), [(Some(FEED), "the subscription is disabled")]);
    assert!(play.coverage.iter().all(|row| row.state == CoverageState::Missing));
    play.run_until(start() + TimeDelta::hours(3));
    assert!(play.machine.problems().is_empty());
    // The rows lie end to end: what was stopped is never called complete.
    let until = play.coverage[0].window_start;
    play.coverage.iter().fold(until, |until, row| {
        assert_eq!(row.window_start, until);
        row.window_end
    });
    assert_eq!(play.coverage.last().unwrap().state, CoverageState::Complete);
}

#[test]
fn a_blob_that_is_never_whole_holds_the_mark_only_so_long() {
    let mut play = Play::new(&[FEED], Pace::default());
    let created = start() + TimeDelta::minutes(30);
    play.show(FEED, created);
    for _ in 0..200 {
        play.scripted.push((is_blob, Outcome::Failed(Trouble::EndedEarly)));
    }
    play.run_until(start() + TimeDelta::hours(6));
    assert_eq!(play.marks[FEED], created);
    play.run_until(start() + TimeDelta::hours(8));
    assert!(play.marks[FEED] > created + TimeDelta::hours(6));
    let gap = play.coverage.iter().find(|row| row.state == CoverageState::Partial).unwrap();
    assert_eq!((gap.window_start, gap.window_end), (created, created + TimeDelta::seconds(1)));
    // The gap is left out of what is complete, also after a restart; and the blob is still tried.
    assert!(
        play.coverage
            .iter()
            .all(|row| row.state != CoverageState::Complete || row.window_end <= created || row.window_start > created)
    );
    play.restart();
    play.scripted.clear();
    play.run_until(start() + TimeDelta::hours(9));
    assert_eq!(play.fetched.len(), 1);
    assert!(play.coverage.iter().any(|row| row.state == CoverageState::Complete && row.window_start == created));
}

#[test]
fn a_foreign_content_uri_is_fetched_from_the_configured_endpoint() {
    let created = start() - TimeDelta::hours(1);
    let body = entry(&Shown { feed: FEED.into(), created, listed: created })
        .replace("https://manage.example", "https://evil.example");
    let mut play = play(
        is_list,
        Outcome::Answer(Answer { status: 200, body: format!("[{body}]").into_bytes(), ..Answer::default() }),
    );
    play.run_until(start() + TimeDelta::minutes(1));
    assert_eq!(play.fetched.len(), 1);
    assert!(play.calls.iter().all(|call| call.url.host_str() != Some("evil.example")));
    assert!(play.notes.contains(&Note::ForeignAddress { feed: FEED.into(), kind: "contentUri" }));
}

#[test]
fn an_entry_that_names_no_blob_is_set_aside_once() {
    let body = br#"[{"contentType":"Audit.Exchange"}]"#.to_vec();
    let mut play = Play::new(&[FEED], Pace::default());
    for _ in 0..3 {
        let outcome = Outcome::Answer(Answer { status: 200, body: body.clone(), ..Answer::default() });
        play.scripted.push((is_list, outcome));
    }
    play.run_until(start() + TimeDelta::minutes(1));
    play.restart();
    play.run_until(start() + TimeDelta::minutes(10));
    assert_eq!(play.coverage.iter().filter(|row| row.state == CoverageState::Partial).count(), 1);
    assert!(play.marks[FEED] > start());
}

#[test]
fn slow_listings_do_not_keep_blobs_from_being_fetched() {
    // One request at a time, and a listing takes longer than the interval: the next is always due.
    let pace = Pace { concurrency_max: 1, ..Pace::default() };
    let mut play = Play::new(&[FEED, "Audit.General"], pace);
    for minute in 0..20 {
        play.show(FEED, start() - TimeDelta::minutes(30 - minute));
    }
    for _ in 0..80 {
        let (next, effects) = play.machine.next(play.now);
        play.apply(effects);
        let Next::Call(call) = next else { break };
        play.now += TimeDelta::seconds(70);
        let outcome = play.answer(&call);
        let effects = play.machine.heard(*call, outcome, play.now);
        play.apply(effects);
    }
    assert_eq!(play.fetched.len(), 20);
}

#[test]
fn slow_listings_of_what_is_new_do_not_keep_a_sweep_from_its_turn() {
    // As above: something new is due after every answer, for hours.
    let pace = Pace { concurrency_max: 1, ..Pace::default() };
    let mut play = Play::new(&[FEED, "Audit.General"], pace);
    let (created, listed) = (start() - TimeDelta::days(3), start() + TimeDelta::minutes(40));
    play.blobs.push(Shown { feed: FEED.into(), created, listed });
    for _ in 0..200 {
        let (next, effects) = play.machine.next(play.now);
        play.apply(effects);
        let Next::Call(call) = next else { break };
        play.now += TimeDelta::seconds(70);
        let outcome = play.answer(&call);
        play.calls.push(Made { at: play.now, what: call.what.clone(), url: call.url.clone() });
        let effects = play.machine.heard(*call, outcome, play.now);
        play.apply(effects);
    }
    assert_eq!(play.fetched.len(), 1);
    // What is new still has the most of the turns.
    let count = |wanted| {
        play.calls.iter().filter(|call| matches!(call.what, What::List { pass, .. } if pass == wanted)).count()
    };
    assert!(count(Pass::Front) > 2 * count(Pass::Sweep));
}

#[test]
fn moments_noted_under_a_clock_that_was_ahead_hold_nothing_up() {
    let mut play = play(is_blob, Outcome::Failed(Trouble::Connection));
    play.now = start() + TimeDelta::hours(3);
    play.run_until(start() + TimeDelta::hours(3) + TimeDelta::seconds(10));
    assert!(play.fetched.is_empty(), "it has failed and waits");
    // Set right, and the poller begins again.
    play.now = start() + TimeDelta::minutes(1);
    play.restart();
    play.show(FEED, start() + TimeDelta::milliseconds(90_500));
    play.run_until(start() + TimeDelta::minutes(20));
    assert_eq!(play.fetched.len(), 2, "{:?}", play.ledger);
}
