//! `harrier rules`: what an author asks of records and of the archive.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use serde_json::Value;

use crate::binary::{Harrier, until};
use crate::sample::{self, forwarding_rule, joined, lines, sign_in};
use crate::service::Service;

const DOMAINS: [&str; 2] = ["--domains", "contoso.example"];

/// The lines of `rules backtest --json`, without the count of what is the same, and that count.
fn backtest(harrier: &Harrier, more: &[&str]) -> (u64, Vec<Value>) {
    let mut arguments = vec!["rules", "backtest", "--json", "--tenant", "contoso"];
    arguments.extend(more);
    let ran = harrier.run(arguments);
    assert_eq!(ran.code, Some(0), "{ran}");
    let mut lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let same = lines.remove(0);
    assert_eq!(same["kind"], "same", "{ran}");
    (same["count"].as_u64().unwrap(), lines)
}

/// A world with an account takeover, imported in two halves, the later one first.
fn imported() -> (Harrier, u64) {
    let lines = lines(&sample::world(11));
    let (earlier, later) = lines.split_at(lines.len() / 2);
    let harrier = Harrier::new();
    for (name, part) in [("later.jsonl", later), ("earlier.jsonl", earlier), ("again.jsonl", later)] {
        let file = harrier.file(name, joined(part));
        harrier.import(&[file], &DOMAINS);
    }
    let standing = harrier.number("SELECT count(*) FROM findings WHERE status IN ('open', 'final')");
    assert!(standing >= 3, "the story is seen");
    (harrier, standing)
}

#[test]
fn the_archive_judged_again_gives_what_live_found_byte_for_byte() {
    let (harrier, standing) = imported();
    let (same, different) = backtest(&harrier, &DOMAINS);
    assert_eq!((same, different), (standing, vec![]));
    // From a day on: what begins there, with what lies before it in view.
    let since = "2026-11-20T00:00:00Z";
    let later = harrier.number(&format!(
        "SELECT count(*) FROM findings WHERE status IN ('open', 'final') AND first_event >= '{since}'"
    ));
    let (same, different) = backtest(&harrier, &[&DOMAINS[..], &["--since", since]].concat());
    assert_eq!((same, different), (later, vec![]));
    assert!(later > 0, "the story is on its last day");
    // The control: with a rule more, another answer.
    let more = "title: M\nid: m\nlogsource: {product: m365}\ndetection: {s: {Operation: UserLoggedIn}, condition: s}\n";
    let more = harrier.file("more.yml", more);
    let (_, different) = backtest(&harrier, &[&DOMAINS[..], &["--rules", more.to_str().unwrap()]].concat());
    assert!(!different.is_empty() && different.iter().all(|line| line["kind"] == "only_new"), "{different:?}");
}

#[test]
fn two_rule_sets_are_told_apart() {
    let (harrier, _) = imported();
    let rule = |operation: &str, level: &str| {
        format!(
            "title: Seen\nid: seen\nlevel: {level}\nlogsource: {{product: m365}}\n\
             detection: {{s: {{Operation: {operation}}}, condition: s}}\n"
        )
    };
    let new = harrier.file("new.yml", rule("UserLoggedIn", "high"));
    let (old, other) =
        (harrier.file("old.yml", rule("UserLoggedIn", "low")), harrier.file("other.yml", rule("NoSuch", "low")));
    let compare = |against: &std::path::Path| {
        let paths = ["--rules", new.to_str().unwrap(), "--against", against.to_str().unwrap()];
        backtest(&harrier, &[&DOMAINS[..], &paths[..]].concat()).1
    };
    let changed = compare(&old);
    assert!(!changed.is_empty());
    assert!(changed.iter().all(|line| line["kind"] == "changed" && line["fields"] == serde_json::json!(["rule"])));
    let found = compare(&other);
    assert!(found.len() == changed.len() && found.iter().all(|line| line["kind"] == "only_new"), "{found:?}");
    assert_eq!(compare(&new), Vec::<Value>::new());
}

/// Rules that come after the records: what they find is what they would have found, and the archive judged again agrees.
#[test]
fn a_rule_that_came_later_has_found_what_it_would_have_found() {
    let lines = lines(&sample::world(12));
    let (first, rest) = lines.split_at(lines.len() * 2 / 3);
    let rule = |at_least: u32| {
        format!(
            "title: Seen\nid: seen\nname: seen\nlogsource: {{product: m365}}\n\
             detection: {{s: {{Operation: UserLoggedIn}}, condition: s}}\n---\n\
             title: Busy\nid: busy\nlevel: medium\ncorrelation: {{type: event_count, rules: [seen], \
             group-by: [user_id], timespan: 1d, condition: {{gte: {at_least}}}}}\n---\n\
             title: Elsewhere\nid: elsewhere\nlevel: low\ncorrelation: {{type: x_new_value, rules: [seen], \
             group-by: [user_id]}}\nx-field: client_ip\nx-min-days: 0\nx-min-days-seen: 1\n"
        )
    };
    let harrier = Harrier::new();
    let file = harrier.file("first.jsonl", joined(first));
    harrier.import(&[file], &DOMAINS);
    let found = |rule: &str| {
        let standing =
            format!("SELECT count(*) FROM findings WHERE status IN ('open', 'final') AND rule_id = '{rule}'");
        harrier.number(&standing)
    };
    assert_eq!((found("busy"), found("elsewhere")), (0, 0));
    // New, then changed, each with some records beside.
    for (name, part, at_least) in [("middle", &rest[..rest.len() / 2], 3), ("last", &rest[rest.len() / 2..], 2)] {
        let rules = harrier.file(&format!("{name}.yml"), rule(at_least));
        let file = harrier.file(&format!("{name}.jsonl"), joined(part));
        let rules = ["--rules", rules.to_str().unwrap()];
        harrier.import(&[file], &[&DOMAINS[..], &rules].concat());
        assert!(found("busy") > 0, "{name}");
        let (same, different) = backtest(&harrier, &[&DOMAINS[..], &rules].concat());
        assert!(same > 0 && different.is_empty(), "{name}: {same} the same, but {different:?}");
    }
    println!("{} of busy, {} of elsewhere", found("busy"), found("elsewhere"));
}

#[test]
fn a_record_is_explained() {
    let harrier = Harrier::new();
    let at = "2026-11-20T10:00:00Z".parse().unwrap();
    let file = harrier.file("record.json", forwarding_rule(1, at));
    let run = |rule: &str| harrier.run(["rules", "explain", rule, file.to_str().unwrap()]);
    let ran = run("inbox_rule_forwards_outside");
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.stdout.contains("selects the record") && ran.stdout.contains("1 finding:"), "{ran}");
    let ran = run("anonymous_link_created");
    assert!(ran.stdout.contains("does not select") && ran.stdout.contains("it would, if:"), "{ran}");
    let ran = run("anonymous_link_create");
    assert!(ran.code == Some(1) && ran.stderr.contains("did you mean anonymous_link_created?"), "{ran}");
    let many = harrier.file("many.jsonl", joined(&(0..2_001).map(sign_in).collect::<Vec<_>>()));
    let ran = harrier.run(["rules", "explain", "anonymous_link_created", many.to_str().unwrap()]);
    assert!(ran.code == Some(1) && ran.stderr.contains("at most 2000"), "{ran}");
    assert!(!harrier.data_dir().exists(), "a question makes nothing");
}

#[test]
fn what_is_worth_a_look_is_said_of_rules_beside_the_pack() {
    let harrier = Harrier::new();
    let rule = "title: A\nid: a\nlogsource: {product: m365}\ndetection: {s: {UserId: y}, condition: s}\n";
    let file = harrier.file("a.yml", rule);
    let ran = harrier.run(["rules", "check", "--rules", file.to_str().unwrap()]);
    assert_eq!((ran.code, ran.stdout.matches("note: ").count()), (Some(0), 1), "{ran}");
    assert!(ran.stdout.contains("names no Operation"), "{ran}");
}

/// Rules of a running service: what is edited is taken up as a whole, and what is broken changes nothing.
#[test]
fn rule_files_that_change_are_taken_up_and_broken_ones_are_refused() {
    let rule = |id: &str| {
        format!(
            "title: R\nid: {id}\nlogsource: {{product: m365}}\ndetection: {{s: {{Operation: Send}}, condition: s}}\n"
        )
    };
    let harrier = Harrier::new();
    std::fs::create_dir(harrier.path("rules")).unwrap();
    harrier.file("rules/one.yml", rule("one"));
    let config = "data_dir = \"data\"\n[http]\nlisten = \"127.0.0.1:0\"\n[rules]\npaths = [\"rules\"]\n";
    let config = harrier.file("harrier.toml", config);
    let service = Service::start(&config);
    let (loaded, epoch, refused) = (
        || service.metric("harrier_rules_loaded", &["status=\"enabled\""]),
        || service.metric("harrier_rule_set_epoch", &[]),
        || service.metric("harrier_rules_refused", &[]),
    );
    let within = |condition: &dyn Fn() -> bool| until(Duration::from_secs(60), condition);
    assert!(within(&|| epoch() == 1.0));
    let before = loaded();

    harrier.file("rules/two.yml", rule("two").replace("condition: s", "condition: t"));
    assert!(within(&|| refused() == 1.0), "{}", service.stderr());
    let told = service.event("rules_refused").unwrap().to_string();
    assert!(told.contains("two.yml"), "{told}");
    assert_eq!((loaded(), epoch()), (before, 1.0));

    harrier.file("rules/two.yml", rule("two"));
    assert!(within(&|| epoch() == 2.0), "{}", service.stderr());
    assert_eq!((loaded(), refused()), (before + 1.0, 0.0));

    // Back again, at once: what was in force before is asked for anew.
    std::fs::remove_file(harrier.path("rules/two.yml")).unwrap();
    service.signal("-HUP");
    assert!(within(&|| epoch() == 3.0), "{}", service.stderr());
    assert_eq!((loaded(), refused()), (before, 0.0));

    let ran = harrier.run(["watch", "add", "address", "203.0.113.77", "--reason", "seen before"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(within(&|| epoch() == 4.0), "{}", service.stderr());
    assert_eq!(service.terminate(), Some(0));
}

/// An exception is asked for again: what it takes from its rule is no finding, and is counted.
#[test]
fn what_exceptions_take_is_counted() {
    let harrier = Harrier::new();
    let tuning = |users: &str, expires: &str| {
        format!(
            "[[exception]]\nrule = \"inbox_rule_forwards_outside\"\nfield = \"user_id\"\nvalue = \"{users}\"\n\
             owner = \"ana\"\nreason = \"agreed, \\u001b[2J ticket 4711\"\nexpires = \"{expires}\"\n"
        )
    };
    let now = Utc::now();
    let (today, last) = (now.format("%F"), (now - TimeDelta::days(3)).format("%F"));
    let both = tuning("user[12]@*", "2020-01-31")
        + &tuning("user1@*", &format!("{last}"))
        + &tuning("user2@*", &format!("{today}"));
    harrier.file("tuning.toml", both);
    let config = "data_dir = \"data\"\n[rules]\ntuning_file = \"tuning.toml\"\n[[tenant]]\nname = \"contoso\"\n\
                  domains = [\"contoso.example\"]\n";
    let config = harrier.file("harrier.toml", config);
    let run = |args: &[&str]| harrier.run([args, &["--config", config.to_str().unwrap()]].concat());

    let records: Vec<String> = [(1, 5), (1, 4), (1, 2), (2, 1), (3, 1)]
        .iter()
        .enumerate()
        .map(|(at, (user, days))| {
            let record = forwarding_rule(at as u32 + 1, now - TimeDelta::days(*days));
            record.replace(&format!("user{}@", at + 1), &format!("user{user}@"))
        })
        .collect();
    let file = harrier.file("records.jsonl", joined(&records));
    let ran = run(&["import", file.to_str().unwrap(), "--tenant", "contoso"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let ran = run(&["sql", "SELECT count(*) FROM findings WHERE status = 'open'", "--format", "csv"]);
    // That of the user whom nobody excepts, and the one after the last day.
    assert!(ran.stdout.contains("\n2"), "{ran}");

    let ran = run(&["rules", "exceptions", "--json"]);
    let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told = |line: &Value| (line["records"].as_u64(), line["expired"].as_bool(), line["line"].as_u64());
    let told: Vec<_> = lines.iter().map(told).collect();
    assert_eq!(
        told,
        [(Some(0), Some(true), Some(2)), (Some(2), Some(true), Some(9)), (Some(1), Some(false), Some(16))]
    );
    let ran = run(&["rules", "exceptions", "--since", "30h"]);
    assert!(ran.stdout.contains(&format!("\n    last day {today}; took 1 records, the last of ")), "{ran}");
    assert!(
        ran.stdout.contains(" looked at\ncovers    ") && ran.stdout.contains("3 exceptions; 2 records of "),
        "{ran}"
    );
    assert!(ran.stdout.contains("ana: agreed, \\x1b[2J ticket 4711\n"), "{ran}");
    let ran = run(&["rules", "check"]);
    assert_eq!(ran.stdout.matches("note: tuning file, line ").count(), 2, "{ran}");
}

/// How often a rule is asked is a matter of the index; how long it takes, of the machine.
#[test]
fn what_rules_cost_is_measured_on_ones_own_records() {
    let harrier = Harrier::new();
    let rules = "title: By name\nid: by_name\nlogsource: {product: m365}\ndetection: {s: {Operation: UserLoggedIn}, condition: s}\n---\n\
                 title: Never\nid: never_comes\nlogsource: {product: m365}\ndetection: {s: {Operation: NeverComes}, condition: s}\n---\n\
                 title: Of all\nid: of_all\nlogsource: {product: m365}\ndetection: {s: {Workload|endswith: e}, condition: not s}\n";
    let rules = harrier.file("rules.yml", rules);
    let lines = lines(&sample::world(3));
    let sign_ins = lines.iter().filter(|line| line.contains("\"Operation\":\"UserLoggedIn\"")).count();
    let file = harrier.file("records.jsonl", joined(&lines));
    let ran = harrier.run(["rules", "bench", file.to_str().unwrap(), "--rules", rules.to_str().unwrap()]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let asked = |rule: &str| -> Option<Vec<String>> {
        let line = ran.stdout.lines().find(|line| line.starts_with(rule))?;
        Some(line.split_whitespace().skip(1).take(2).map(|number| number.replace(',', "")).collect())
    };
    assert!(sign_ins > 0);
    assert_eq!(asked("by_name ").unwrap(), [sign_ins.to_string(), sign_ins.to_string()], "{ran}");
    assert_eq!(asked("of_all ").unwrap()[0], lines.len().to_string(), "{ran}");
    assert_eq!(asked("never_comes "), None, "{ran}");
}

/// Without the mail feed, everything that only mail tells is deaf; where it came, it is not.
#[test]
fn what_a_rule_cannot_see_is_said() {
    let all = lines(&sample::world(3));
    let is_mail = |line: &&String| line.contains("\"Workload\":\"Exchange\"");
    let without_mail: Vec<String> = all.iter().filter(|line| !is_mail(line)).cloned().collect();
    assert!(without_mail.len() < all.len() && !without_mail.is_empty());
    let states = |records: &[String]| {
        let harrier = Harrier::new();
        let file = harrier.file("records.jsonl", joined(records));
        harrier.import(&[file], &DOMAINS);
        let text = harrier.run(["rules", "coverage"]);
        assert!(text.stdout.starts_with("contoso  ") && text.stdout.contains("\nrules      "), "{text}");
        let layer = harrier.run(["rules", "coverage", "--layer"]);
        let layer: Value = serde_json::from_str(&layer.stdout).unwrap();
        let forwarding = layer["techniques"].as_array().unwrap().iter().find(|one| one["techniqueID"] == "T1114.003");
        let ran = harrier.run(["rules", "coverage", "--json"]);
        let lines: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let state = |rule: &str| lines.iter().find(|line| line["rule"] == rule).unwrap()["state"].clone();
        (state("inbox_rule_forwards_outside"), forwarding.unwrap()["score"].as_u64().unwrap(), text)
    };
    let (state, score, text) = states(&without_mail);
    assert_eq!(state, "deaf", "{text}");
    let blind = score;
    assert!(text.stdout.contains("nothing of Audit.Exchange was collected"), "{text}");
    let (state, score, text) = states(&all);
    assert_eq!((state, score > blind), ("live".into(), true), "{text}");
    assert!(!text.stdout.contains("Audit.Exchange"), "{text}");
}
