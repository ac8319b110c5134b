//! What happens to a feed itself is a record in the log beside Microsoft's.

use std::collections::BTreeSet;

use crate::support::*;

fn told(held: &Held, operation: &str) -> usize {
    let is_told = |bytes: &[u8]| {
        let record: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        record["Workload"] == "harrier" && record["Operation"] == operation && record["ObjectId"] == FEED
    };
    held.received().iter().filter(|received| is_told(&received.bytes)).count()
}

#[tokio::test]
async fn a_subscription_that_somebody_removed_is_a_record_once() {
    let server = Server::start().await;
    server.add("a", 60, r#"[{"Id":"1"}]"#);
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let running = run(source(&server.base()), pace(), &log);
    running.until(&log, |held| held.state("a").is_some_and(|state| state.is_final())).await;
    server.with(|service| service.subscribed = BTreeSet::new());
    running.until(&log, |held| told(held, "FeedSubscriptionDisabled") == 1).await;
    running.stop().await;
    // Harrier has started it again; the next life tells nothing new.
    let running = run(source(&server.base()), pace(), &log);
    let listed = server.count(is_list);
    running.until(&log, |_| server.count(is_list) > listed + 5).await;
    running.stop().await;
    let held = Held::read(&*log).await;
    assert_eq!(told(&held, "FeedSubscriptionDisabled"), 1);
    let history = &held.ledger.histories[FEED];
    assert_eq!(history.hours.values().sum::<u32>(), 1, "{history:?}");
}

#[tokio::test]
async fn a_subscription_that_takes_long_to_start_again_is_one_record() {
    let server = Server::start().await;
    server.add("a", 60, r#"[{"Id":"1"}]"#);
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let running = run(source(&server.base()), pace(), &log);
    running.until(&log, |held| held.state("a").is_some_and(|state| state.is_final())).await;
    let is_start = |seen: &Seen| seen.path.ends_with("/subscriptions/start");
    server.with(|service| {
        let refused = (is_start as fn(&Seen) -> bool, Reply::Status(503, String::new()));
        service.scripts.extend(std::iter::repeat_n(refused, 60));
        service.subscribed = BTreeSet::new();
    });
    // Told while it cannot be started; that it then can is the end of the same episode.
    running.until(&log, |held| told(held, "FeedSubscriptionDisabled") > 0).await;
    server.with(|service| service.scripts.clear());
    running.until(&log, |_| !server.with(|service| service.subscribed.is_empty())).await;
    let listed = server.count(is_list);
    running.until(&log, |_| server.count(is_list) > listed + 20).await;
    running.stop().await;
    assert_eq!(told(&Held::read(&*log).await, "FeedSubscriptionDisabled"), 1);
}

#[tokio::test]
async fn a_feed_whose_listing_fails_is_a_record() {
    let server = Server::start().await;
    server.add("a", 60, r#"[{"Id":"1"}]"#);
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path());
    let pace =
        ingest::source::management_activity::Pace { listing_fails_after: chrono::TimeDelta::seconds(2), ..pace() };
    let running = run(source(&server.base()), pace, &log);
    running.until(&log, |held| held.state("a").is_some_and(|state| state.is_final())).await;
    for _ in 0..2_000 {
        server.script(is_list, Reply::Status(503, String::new()));
    }
    let held = running.until(&log, |held| told(held, "FeedListingFails") > 0).await;
    let text: Vec<String> =
        held.received().iter().map(|received| String::from_utf8_lossy(&received.bytes).into()).collect();
    assert!(text.iter().any(|text| text.contains("HTTP 503")), "{text:?}");
    running.stop().await;
}
