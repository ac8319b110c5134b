//! Digests: what is old, and storms.

use super::*;
use crate::outbox::STORM_MESSAGES_MAX;

fn digests(house: &House) -> Vec<serde_json::Value> {
    let bodies = house.receiver.received().into_iter().map(|received| received.body);
    bodies.filter(|body| body["type"] == "finding.digest").map(|body| body["data"].clone()).collect()
}

fn old(id: &str, revision: u32) -> Finding {
    Finding { first_event: time("2026-11-01T00:00:00Z"), ..finding(id, revision) }
}

#[tokio::test]
async fn old_findings_arrive_as_one_digest_for_each_tenant() {
    let house = House::new().await;
    let mut sink = house.webhook("soc");
    sink.max_age = Some(TimeDelta::hours(24));
    let running = house.run(vec![sink]);
    let other = (0..3).map(|n| Finding { tenant: "fabrikam".parse().unwrap(), ..old(&format!("o{n}"), 1) });
    house.publish((0..20).map(|n| old(&format!("a{n}"), 1)).chain(other).chain([finding("new", 1)])).await;
    house.settled("soc").await;
    assert_eq!(house.receiver.ids().len(), 3);
    let mut counts: Vec<u64> = digests(&house).iter().map(|digest| digest["count"].as_u64().unwrap()).collect();
    counts.sort();
    assert_eq!(counts, [3, 20]);
    let of_many = digests(&house).into_iter().find(|digest| digest["count"] == 20).unwrap();
    assert_eq!(of_many["by_rule"]["inbox-rule-hides-mail"]["count"], 20);
    assert_eq!(of_many["first_event"], "2026-11-01T00:00:00Z");
    assert!(of_many["findings"].as_array().unwrap().iter().any(|id| id == "a7_1_open"));

    // The next digest keeps its distance and takes in what comes meanwhile; what has only grown is no news.
    house.publish([old("b0", 1)]).await;
    house.publish([old("b1", 1), old("a1", 3), Finding { event_count: 1, ..old("a2", 2) }]).await;
    house.taken_in().await;
    quiet(&house.receiver).await;
    house.hand.advance(TimeDelta::minutes(11));
    house.settled("soc").await;
    let last = digests(&house).pop().unwrap()["findings"].clone();
    assert_eq!(last.sorted(), serde_json::json!(["a1_3_open", "b0_1_open", "b1_1_open"]));
    running.stop().await;
}

/// Partitions are read in an order that tests should not rest on.
trait Sorted {
    fn sorted(self) -> Self;
}

impl Sorted for serde_json::Value {
    fn sorted(mut self) -> Self {
        if let Some(list) = self.as_array_mut() {
            list.sort_by_key(|value| value.to_string());
        }
        self
    }
}

#[tokio::test]
async fn an_alert_that_grows_for_longer_than_max_age_stays_an_alert() {
    let house = House::new().await;
    let mut sink = house.webhook("soc");
    sink.max_age = Some(TimeDelta::hours(24));
    let running = house.run(vec![sink]);
    house.publish([finding("a", 1)]).await;
    house.settled("soc").await;
    house.hand.advance(TimeDelta::days(2));
    house.publish([finding("a", 2)]).await;
    house.settled("soc").await;
    running.stop().await;
    assert_eq!(house.receiver.ids(), ["a_1_open", "a_2_open"]);
}

#[tokio::test]
async fn a_storm_ends_in_a_digest_that_names_all_and_lets_the_worst_through() {
    let house = House::new().await;
    let running = house.run(vec![house.webhook("soc")]);
    let count = 400;
    let storm = (0..count).map(|n| {
        let mut finding = finding(&format!("s{n}"), 1);
        if n >= count - 5 {
            finding.rule.level = Level::Critical;
        }
        finding
    });
    house.publish(storm).await;
    house.settled("soc").await;
    let ids = house.receiver.ids();
    let single: Vec<&String> = ids.iter().filter(|id| !id.starts_with("digest_")).collect();
    assert_eq!(single.len(), STORM_MESSAGES_MAX);
    let digests_sent = digests(&house);
    let mut named: Vec<String> = digests_sent
        .iter()
        .flat_map(|digest| digest["findings"].as_array().unwrap())
        .map(|id| id.as_str().unwrap().to_owned())
        .chain(single.iter().map(|id| (*id).clone()))
        .collect();
    named.sort();
    named.dedup();
    assert_eq!(named.len(), count);
    assert!(digests_sent.iter().all(|digest| digest["reason"].as_str().unwrap().contains("more than 60 messages")));

    // Within the window nothing more goes out; after it, single messages again.
    house.publish([finding("later", 1)]).await;
    house.taken_in().await;
    quiet(&house.receiver).await;
    house.hand.advance(TimeDelta::minutes(11));
    house.settled("soc").await;
    assert_eq!(house.receiver.ids().pop().as_deref(), Some("later_1_open"));

    // What a digest has named is not told as new when it ends, but it is told.
    house.publish([Finding { status: Status::Retracted, ..finding("s100", 2) }]).await;
    house.settled("soc").await;
    assert_eq!(house.receiver.received().pop().unwrap().body["type"], "finding.closed");
    running.stop().await;
}

#[tokio::test]
async fn the_brake_remembers_across_a_restart_and_does_not_hold_a_file() {
    let house = House::new().await;
    let mut file = Sink::new("file", "file");
    file.path = Some(house.folder.path().join("all.ndjson"));
    let sinks = vec![house.webhook("soc"), file];
    let running = house.run(sinks.clone());
    house.publish((0..STORM_MESSAGES_MAX).map(|n| finding(&format!("s{n}"), 1))).await;
    house.settled("soc").await;
    running.kill().await;
    let running = house.run(sinks);
    house.publish((0..3).map(|n| finding(&format!("t{n}"), 1))).await;
    house.settled("soc").await;
    house.settled("file").await;
    running.stop().await;
    assert_eq!(house.receiver.ids().len(), STORM_MESSAGES_MAX + 1);
    assert_eq!(digests(&house)[0]["count"], 3);
    let text = std::fs::read_to_string(house.folder.path().join("all.ndjson")).unwrap();
    assert_eq!(text.lines().count(), STORM_MESSAGES_MAX + 3);
}
