//! The world as its readers see it: parsed records, joined as an investigation joins them.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value;

use super::*;
use crate::{Delivery, Fault, Pace};

fn options(seed: u64) -> Options {
    let end = DateTime::from_timestamp(1_795_255_471, 0).unwrap();
    Options { seed, users: 8, days: 15, ..Options::new(end) }
}

struct Parsed {
    world: World,
    by_id: HashMap<String, Value>,
}

impl Parsed {
    fn new(options: &Options) -> Parsed {
        let world = World::generate(options);
        let parse = |record: &Record| (record.id.clone(), serde_json::from_str(&record.json).unwrap());
        Parsed { by_id: world.records.iter().map(parse).collect(), world }
    }

    fn step(&self, name: &str) -> Vec<&Value> {
        let step = self.world.story.steps.iter().find(|step| step.name == name).unwrap();
        step.record_ids.iter().map(|id| &self.by_id[id]).collect()
    }

    fn victim(&self) -> &str {
        &self.world.story.victim
    }
}

fn named<'a>(list: &'a Value, name: &str) -> Option<&'a str> {
    list.as_array()?.iter().find(|entry| entry["Name"] == name)?["Value"].as_str()
}

#[test]
fn the_same_options_give_the_same_world_and_another_seed_another() {
    let world = World::generate(&options(1));
    assert_eq!(world, World::generate(&options(1)));
    let elsewhere = Options {
        delivery: Delivery { late: false, ..Delivery::default() },
        pace: Pace::Fast { real: std::time::Duration::from_secs(1) },
        faults: vec![Fault::Throttle],
        ..options(1)
    };
    assert_eq!(world, World::generate(&elsewhere), "delivery must not change what happened");
    let other = World::generate(&options(2));
    let ids: HashSet<&str> = world.records.iter().map(|record| record.id.as_str()).collect();
    assert!(other.records.iter().all(|record| !ids.contains(record.id.as_str())));
}

#[test]
fn the_quiet_world_is_the_same_without_the_story() {
    let takeover = World::generate(&options(1));
    let quiet = World::generate(&Options { story: Scenario::Quiet, ..options(1) });
    assert_eq!(quiet.story, Story::default());
    let ordinary: Vec<Record> = takeover.records.into_iter().filter(|record| !record.malicious).collect();
    assert_eq!(quiet.records, ordinary);
    assert!(quiet.records.iter().all(|record| !record.json.contains("203.0.113.")));
}

#[test]
fn records_are_unique_ordered_and_agree_with_their_text() {
    let parsed = Parsed::new(&options(3));
    let records = &parsed.world.records;
    assert_eq!(parsed.by_id.len(), records.len());
    assert!(records.is_sorted_by_key(|record| record.created));
    assert!((3_000..6_000).contains(&records.len()), "{}", records.len());
    for record in records {
        let value = &parsed.by_id[&record.id];
        assert_eq!(value["Id"], record.id);
        assert_eq!(value["CreationTime"], record.created.format("%Y-%m-%dT%H:%M:%S").to_string());
        assert_eq!(value["OrganizationId"], options(3).tenant_id);
        let keys: Vec<&String> = value.as_object().unwrap().keys().take(5).collect();
        assert_eq!(keys, ["CreationTime", "Id", "Operation", "OrganizationId", "RecordType"]);
    }
    assert!(records[0].created < options(3).end - TimeDelta::days(14));
    assert!(records[records.len() - 1].created <= options(3).end - QUIET_END);
}

#[test]
fn the_mix_holds_what_an_office_makes() {
    let parsed = Parsed::new(&options(4));
    let mut operations: BTreeMap<(u64, &str), usize> = BTreeMap::new();
    for record in parsed.world.records.iter().filter(|record| !record.malicious) {
        let value = &parsed.by_id[&record.id];
        let key = (value["RecordType"].as_u64().unwrap(), value["Operation"].as_str().unwrap());
        *operations.entry(key).or_default() += 1;
    }
    for key in [
        (1, "Set-Mailbox"),
        (2, "MailItemsAccessed"),
        (2, "Send"),
        (3, "MoveToDeletedItems"),
        (6, "FileAccessed"),
        (6, "FileModified"),
        (6, "FileDownloaded"),
        (15, "UserLoggedIn"),
        (15, "UserLoginFailed"),
        (25, "MessageSent"),
        (50, "MailItemsAccessed"),
    ] {
        assert!(operations.get(&key).is_some_and(|count| *count > 5), "{key:?} in {operations:?}");
    }
}

#[test]
fn the_story_has_its_steps_and_every_malicious_record_is_in_one() {
    for seed in 1..6 {
        let parsed = Parsed::new(&options(seed));
        let steps: Vec<(&str, usize)> =
            parsed.world.story.steps.iter().map(|step| (step.name, step.record_ids.len())).collect();
        assert_eq!(
            steps,
            [
                ("phish", 6),
                ("sign_in", 9),
                ("mail_read", 63),
                ("hide_rule", 1),
                ("forward_rule", 41),
                ("mailbox_forwarding", 2),
                ("send_burst", 120),
                ("consent", 4),
                ("application_read", 3),
                ("clean_up", 7),
                ("second_account", 3),
            ]
        );
        let told: HashSet<&String> = parsed.world.story.steps.iter().flat_map(|step| &step.record_ids).collect();
        let malicious: HashSet<&String> =
            parsed.world.records.iter().filter(|record| record.malicious).map(|record| &record.id).collect();
        assert_eq!(told, malicious);
    }
}

#[test]
fn one_session_runs_through_the_story() {
    let parsed = Parsed::new(&options(6));
    let signed_in = parsed.step("sign_in").into_iter().find(|value| value["ErrorNumber"] == "0").unwrap();
    assert_eq!((&signed_in["Operation"], &signed_in["ClientIP"]), (&"UserLoggedIn".into(), &"203.0.113.77".into()));
    let session = named(&signed_in["DeviceProperties"], "SessionId").unwrap();
    for step in ["mail_read", "hide_rule", "forward_rule", "send_burst", "clean_up", "application_read"] {
        for value in parsed.step(step) {
            let classic = value["SessionId"].as_str();
            let given = classic.or(value["AppAccessContext"]["AADSessionId"].as_str());
            assert_eq!(given, Some(session), "{step}: {value}");
            assert_eq!(value["UserId"], parsed.victim());
        }
    }
    let [forwarding, alert] = parsed.step("mailbox_forwarding")[..] else { panic!() };
    assert_eq!(forwarding["SessionId"], session);
    assert!(forwarding["ClientIP"].as_str().unwrap().starts_with("[2001:db8:bad:77::77]:"));
    assert!(alert["Data"].as_str().unwrap().contains(forwarding["Id"].as_str().unwrap()));
}

#[test]
fn mail_is_read_by_the_hundred_and_what_was_sent_is_destroyed() {
    let parsed = Parsed::new(&options(7));
    let reads = parsed.step("mail_read");
    let items: u64 = reads.iter().filter_map(|value| value["OperationCount"].as_u64()).sum();
    assert!((300..700).contains(&items), "{items}");
    for value in reads.iter().filter(|value| value["RecordType"] == 50) {
        assert!(value.get("ClientIP").is_none());
        let listed: usize = value["Folders"]
            .as_array()
            .unwrap()
            .iter()
            .map(|folder| folder["FolderItems"].as_array().unwrap().len())
            .sum();
        assert_eq!(value["OperationCount"], listed);
    }
    let throttled = reads.iter().filter(|value| named(&value["OperationProperties"], "IsThrottled") == Some("True"));
    assert_eq!(throttled.count(), 1);
    let syncs = reads.iter().filter(|value| named(&value["OperationProperties"], "MailAccessType") == Some("Sync"));
    assert_eq!(syncs.count(), 2);
    let sent: HashSet<&str> =
        parsed.step("send_burst").iter().map(|value| value["Item"]["InternetMessageId"].as_str().unwrap()).collect();
    let destroyed: HashSet<&str> = parsed
        .step("clean_up")
        .iter()
        .filter(|value| value["Operation"] == "HardDelete" && value["Folder"]["Path"] == "\\Sent Items")
        .flat_map(|value| value["AffectedItems"].as_array().unwrap())
        .map(|item| item["InternetMessageId"].as_str().unwrap())
        .collect();
    assert_eq!((sent.len(), &sent), (120, &destroyed));
}

#[test]
fn rules_and_consent_have_the_odd_details_of_the_real_ones() {
    let parsed = Parsed::new(&options(8));
    let [rule] = parsed.step("hide_rule")[..] else { panic!() };
    assert_eq!(named(&rule["Parameters"], "Name"), Some("."));
    assert_eq!(named(&rule["Parameters"], "MoveToFolder"), Some("RSS Feeds"));
    assert_eq!(rule["UserType"], 2);
    let changes = parsed.step("forward_rule");
    let added =
        changes.iter().find(|value| named(&value["OperationProperties"], "RuleOperation") == Some("AddMailboxRule"));
    let actions: Value =
        serde_json::from_str(named(&added.unwrap()["OperationProperties"], "RuleActions").unwrap()).unwrap();
    assert_eq!(actions[0]["Recipients"][0], "collector@mailbox.example.net");
    assert!(added.unwrap()["OriginatingServer"].as_str().unwrap().ends_with("\r\n"));
    let blank = changes.iter().filter(|value| value["OperationProperties"][2].get("Value").is_none());
    assert_eq!(blank.count(), 40);
    let consent = parsed.step("consent");
    let keys: HashSet<(&str, &str, &str)> = consent
        .iter()
        .map(|value| {
            let text = |name: &str| value[name].as_str().unwrap();
            (text("CreationTime"), text("InterSystemsId"), text("IntraSystemId"))
        })
        .collect();
    assert_eq!(keys.len(), 1);
    let texts: String = consent.iter().map(|value| value.to_string()).collect();
    for expected in [
        "Add service principal.",
        "Add delegated permission grant.",
        "Consent to application.",
        "Mail.Read offline_access",
    ] {
        assert!(texts.contains(expected), "{expected}");
    }
}

#[test]
fn any_hour_of_the_day_is_played_among_people_at_work() {
    for hour in 0..24 {
        let end = options(9).end + TimeDelta::hours(hour);
        let world = World::generate(&Options { end, days: 1, ..options(9) });
        let busy =
            world.records.iter().filter(|record| !record.malicious && record.created > end - TimeDelta::hours(6));
        assert!(busy.count() > 100, "{hour}");
        assert!(world.story.steps.iter().all(|step| !step.record_ids.is_empty()));
    }
}

#[test]
fn two_people_and_no_history_are_enough() {
    let world = World::generate(&Options { users: 0, days: 0, ..options(1) });
    assert!(world.records.iter().filter(|record| record.malicious).count() > 200);
}
