//! What the matcher puts out: groups, shards, values, weights, observations, and what tuning takes away.

use std::collections::BTreeMap;

use detect::matcher::Matcher;
use detect::rule::{Operator, RuleSet, Source, Tuning};
use schemas::Event;
use schemas::envelope::{Origin, Received};
use schemas::message::{Match, MatchMessage, Observation};

fn event(record: &str) -> Event {
    let origin = Origin {
        tenant: "t1".parse().unwrap(),
        source: "import".into(),
        content_type: String::new(),
        blob_id: String::new(),
        received: "2026-11-22T10:00:00Z".parse().unwrap(),
        notify: true,
    };
    Event::read(&Received { origin, bytes: record.as_bytes().to_vec() }).unwrap()
}

fn rules_with(text: &str, tuning: &str) -> RuleSet {
    let tuning = Tuning::parse("tuning.toml", tuning).unwrap_or_else(|errors| panic!("{errors}"));
    RuleSet::load(vec![Source { file: "t.yml".into(), text: text.into() }], &tuning)
        .unwrap_or_else(|errors| panic!("{errors}"))
}

fn rules(text: &str) -> RuleSet {
    rules_with(text, "")
}

/// A detection rule that selects `A: x`, with further lines.
fn base(more: &str) -> String {
    format!("title: Base\nid: base\nlogsource: {{product: m365}}\ndetection: {{s: {{A: x}}, condition: s}}\n{more}\n")
}

fn run(rules: &RuleSet, domains: &[&str], record: &str) -> (Vec<Match>, Vec<Observation>, Vec<String>) {
    let domains = domains.iter().map(|domain| (*domain).to_owned()).collect();
    let matcher = Matcher::new(rules.clone(), BTreeMap::from([("t1".parse().unwrap(), domains)]));
    let mut out = Vec::new();
    let dropped = matcher.matches(&event(record), &mut out).dropped;
    let (mut matches, mut observations) = (Vec::new(), Vec::new());
    for message in out {
        match message {
            MatchMessage::Match(found) => matches.push(found),
            MatchMessage::Observation(seen) => observations.push(seen),
            other => panic!("{other:?}"),
        }
    }
    (matches, observations, dropped)
}

fn matches(rules: &RuleSet, record: &str) -> Vec<Match> {
    run(rules, &[], record).0
}

#[test]
fn a_match_carries_what_correlate_needs() {
    let rules = rules(&base("x-weight: Count\nx-reason: '{Labels} by {user_id}'\nfields: [Operation]"));
    let record = r#"{"Id":"R1","CreationTime":"2026-11-02T09:00:00","A":"x","UserId":"J.Doe@Contoso.com","Operation":"Op","Count":[3,"4",-9],"Labels":["a","a","b"]}"#;
    let found = matches(&rules, record).remove(0);
    assert_eq!((found.rule_id.as_str(), found.member.as_str(), found.weight), ("base", "base", 7));
    assert_eq!((found.shard.as_str(), found.group), ("j.doe@contoso.com", vec!["j.doe@contoso.com".to_owned()]));
    assert_eq!(found.event_time.to_rfc3339(), "2026-11-02T09:00:00+00:00");
    assert_eq!(found.fields["Labels"], ["a", "b"]);
    assert_eq!(found.fields["Operation"], ["Op"]);
    assert!(!found.fields.contains_key("client_ip"));
    assert!(found.values.is_empty());
}

#[test]
fn decision_7_a_record_without_the_group_key_joins_no_group_of_a_correlation() {
    let text = base("")
        + "---\ntitle: C\nid: c\ncorrelation: {type: event_count, rules: [base], group-by: [client_ip], timespan: 1h, condition: {gte: 2}}\n";
    let (found, _, dropped) = run(&rules(&text), &[], r#"{"A":"x"}"#);
    assert_eq!((found.len(), dropped), (0, vec!["c".to_owned()]));
    // By itself the rule tells of it, of nobody.
    assert_eq!(matches(&rules(&base("")), r#"{"A":"x"}"#)[0].group, [""]);
}

#[test]
fn decision_8_addresses_of_people_are_one_key_in_any_case() {
    let rules = rules(&base("x-group-by: [Mailbox, Token]"));
    let found = matches(&rules, r#"{"A":"x","Mailbox":"A@B.com","Token":"CaSe|x"}"#).remove(0);
    assert_eq!(found.group, ["a@b.com", "CaSe|x"]);
    assert_eq!(found.shard, "a@b.com|CaSe\\|x");
}

#[test]
fn a_key_of_several_values_joins_every_group() {
    let rules = rules(&base("x-group-by: [To]"));
    let groups: Vec<_> =
        matches(&rules, r#"{"A":"x","To":["a","b","a"]}"#).into_iter().map(|found| found.shard).collect();
    assert_eq!(groups, ["a", "b"]);
}

#[test]
fn aliases_give_each_member_its_own_field() {
    let text = base("")
        + "---\ntitle: B2\nid: b2\nlogsource: {product: m365}\ndetection: {s: {B: y}, condition: s}\n---\ntitle: C\nid: c\ncorrelation: {type: temporal, rules: [base, b2], group-by: [who], timespan: 1h, aliases: {who: {base: One, b2: Two}}}\n";
    let rules = rules(&text);
    assert_eq!(
        rules.get("c").unwrap().operator,
        Operator::Temporal { at_least: 2, timespan: chrono::TimeDelta::hours(1) }
    );
    let found = matches(&rules, r#"{"A":"x","B":"y","One":"1","Two":"2"}"#);
    let told: Vec<_> =
        found.iter().map(|found| (found.rule_id.as_str(), found.member.as_str(), found.shard.as_str())).collect();
    assert_eq!(told, [("c", "base", "1"), ("c", "b2", "2")]);
}

#[test]
fn members_are_silent_unless_generate_says_otherwise() {
    let correlation = |more: &str| {
        format!(
            "---\ntitle: C\nid: c\ncorrelation: {{type: event_count, rules: [base], timespan: 1h, condition: {{gt: 2}}{more}}}\n"
        )
    };
    let ids = |text: String| -> Vec<String> {
        matches(&rules(&text), r#"{"A":"x","UserId":"u"}"#).into_iter().map(|found| found.rule_id).collect()
    };
    assert_eq!(ids(base("") + &correlation("")), ["c"]);
    assert_eq!(ids(base("") + &correlation(", generate: true")), ["base", "c"]);
    assert_eq!(ids(base("generate: true") + &correlation("")), ["base", "c"]);
    assert_eq!(ids(base("") + &correlation("") + "generate: true\n"), ["base", "c"]);
    assert_eq!(ids(base("generate: false")), Vec::<String>::new());
    let text = base("") + &correlation("");
    assert!(matches!(rules(&text).get("c").unwrap().operator, Operator::EventCount { at_least: 3, .. }));
}

#[test]
fn decision_12_of_several_bounds_the_highest_decides() {
    let text = base("")
        + "---\ntitle: C\nid: c\ncorrelation: {type: event_count, rules: [base], timespan: 1h, condition: {gte: 5, gt: 6}}\n";
    assert!(matches!(rules(&text).get("c").unwrap().operator, Operator::EventCount { at_least: 7, .. }));
}

#[test]
fn baselines_learn_from_their_teachers() {
    let text = base("")
        + "---\ntitle: L\nid: l\nlogsource: {product: m365}\ndetection: {s: {B: y}, condition: s}\n---\ntitle: N\nid: n\ncorrelation: {type: x_new_value, rules: [base], group-by: [user_id], x-field: client_ip, x-learn: [l], x-min-days: 3}\n";
    let rules = rules(&text);
    let learnt = r#"{"B":"y","UserId":"u@x","ClientIP":"203.0.113.7:1","CreationTime":"2026-11-02T23:59:59"}"#;
    let (found, seen, _) = run(&rules, &[], learnt);
    assert!(found.is_empty());
    assert_eq!((seen[0].rule_id.as_str(), seen[0].shard.as_str(), seen[0].value.as_str()), ("n", "u@x", "203.0.113.7"));
    assert_eq!(seen[0].day.to_string(), "2026-11-02");
    let (found, seen, dropped) = run(&rules, &[], r#"{"A":"x","UserId":"u@x","ClientIP":"198.51.100.9"}"#);
    assert_eq!((found[0].values.clone(), seen.len(), dropped.len()), (vec!["198.51.100.9".to_owned()], 0, 0));
    let (found, _, dropped) = run(&rules, &[], r#"{"A":"x","UserId":"u@x"}"#);
    assert_eq!((found.len(), dropped.len()), (0, 1), "nothing to compare");
}

#[test]
fn a_correlation_of_correlations_sees_the_records_with_the_keys_on_the_way() {
    let text = base("")
        + "---\ntitle: Inner\nid: inner\ncorrelation: {type: value_count, rules: [base], group-by: [ip, user_id], aliases: {ip: {base: Source}}, timespan: 1h, condition: {field: Target, gte: 2}}\nx-weight: N\n---\ntitle: Outer\nid: outer\ncorrelation: {type: value_count, rules: [inner], group-by: [ip], timespan: 1h, condition: {field: user_id, gte: 2}}\n";
    let record = r#"{"A":"x","Source":"s","UserId":"U@x","Target":["a","b"],"N":5}"#;
    let found = matches(&rules(&text), record);
    assert_eq!(found.len(), 1, "the inner one is silent: {found:?}");
    assert_eq!((found[0].rule_id.as_str(), found[0].member.as_str(), found[0].weight), ("outer", "inner/base", 5));
    assert_eq!(
        (found[0].group.clone(), found[0].within.clone()),
        (vec!["s".into()], vec![vec!["s".into(), "u@x".into()]])
    );
    assert_eq!(found[0].values, ["a", "b"], "what the inner one compares");
    let (_, _, dropped) = run(&rules(&text), &[], r#"{"A":"x","Source":"s","Target":"a"}"#);
    assert_eq!(dropped, ["outer"], "without the inner key it joins no group");
    let exception =
        "[[exception]]\nrule = \"inner\"\nfield = \"Source\"\nvalue = \"s\"\nowner = \"ana\"\nreason = \"scanner\"\n";
    assert!(matches(&rules_with(&text, exception), record).is_empty(), "exceptions of the inner one hold");
    let ids = |text: &str| -> Vec<String> {
        matches(&rules(text), record).into_iter().map(|found| format!("{} {}", found.rule_id, found.member)).collect()
    };
    assert_eq!(ids(&(text.clone() + "generate: true\n")), ["inner base", "outer inner/base"]);
    let silent = rules_with(&text, "disable = [\"inner\", \"base\"]\n");
    assert_eq!(matches(&silent, record).len(), 1, "switched off, they still serve the outer one");
}

#[test]
fn a_list_and_a_filter_are_part_of_the_meaning() {
    let list = |values: &str| {
        rules(&format!(
            "title: L\nid: l\nlogsource: {{product: m365}}\ndetection: {{s: {{'A|expand': '%v%'}}, condition: s}}\n---\nx-lists: {{v: {values}}}\n"
        ))
    };
    let version = |rules: &RuleSet| rules.get("l").unwrap().version.clone();
    assert_eq!(version(&list("[x]")), version(&list("[ x ]")));
    assert_ne!(version(&list("[x]")), version(&list("[x, y]")));
    let filter = "---\ntitle: F\nid: f\nlogsource: {product: m365}\nfilter: {rules: any, s: {B: y}, condition: s}\n";
    let plain = rules(&base("")).get("base").unwrap().version.clone();
    assert_ne!(plain, rules(&(base("") + filter)).get("base").unwrap().version);
    let tuned = rules_with(
        "title: L\nid: l\nlogsource: {product: m365}\ndetection: {s: {'A|expand': '%v%'}, condition: s}\n---\nx-lists: {v: [y]}\n",
        "[list]\nv = [\"x\"]\n",
    );
    assert_eq!(matches(&tuned, r#"{"A":"x"}"#).len(), 1, "the operator's values");
    assert_eq!(matches(&tuned, r#"{"A":"y"}"#).len(), 0);
}

#[test]
fn what_is_outside_is_decided_by_configured_domains() {
    let rules = rules(&base("x-outside: To"));
    let count = |to: &str| run(&rules, &["Contoso.com"], &format!(r#"{{"A":"x","To":{to}}}"#)).0.len();
    assert_eq!(count(r#""a@contoso.com""#), 0);
    assert_eq!(count(r#""a@mail.CONTOSO.com""#), 0);
    assert_eq!(count(r#""a@evilcontoso.com""#), 1);
    assert_eq!(count(r#"["a@contoso.com","b@evil.example"]"#), 1);
    assert_eq!(count(r#""alias""#), 0);
    let found = run(&rules, &["contoso.com"], r#"{"A":"x","To":"b@evil.example","UserId":"u"}"#).0.remove(0);
    assert_eq!((found.shard.as_str(), found.values.len()), ("u", 0), "decided here: judged like any match");
}

#[test]
fn what_is_outside_is_learnt_where_no_domains_are_configured() {
    let rules = rules(&base("x-outside: To"));
    assert_eq!(rules.get("base").unwrap().operator, Operator::Outside);
    let (found, seen, _) = run(&rules, &[], r#"{"A":"x","To":["a@b.com","x@Evil.example"],"UserId":"u"}"#);
    assert_eq!((found[0].shard.as_str(), found[0].group.clone()), ("", vec!["u".to_owned()]));
    assert_eq!(found[0].values, ["b.com", "evil.example"]);
    assert!(seen.is_empty(), "the actor's own words teach nothing");
    let (_, seen, _) = run(&rules, &[], r#"{"MailboxOwnerUPN":"Who@B.com","CreationTime":"2026-11-02T10:00:00"}"#);
    assert_eq!((seen[0].shard.as_str(), seen[0].value.as_str()), ("", "b.com"));
    let (_, seen, _) =
        run(&rules, &[], r#"{"Parameters":[{"Name":"Mailbox","Value":"x@evil.example"}],"Workload":"Exchange"}"#);
    assert!(seen.is_empty(), "a parameter is what the caller typed");
    let (_, seen, _) = run(&rules, &["contoso.com"], r#"{"MailboxOwnerUPN":"who@b.com"}"#);
    assert!(seen.is_empty(), "nothing is learnt where domains are configured");
}

#[test]
fn what_records_say_is_bounded() {
    let rules = rules(&base("x-reason: '{B}'\nx-weight: W"));
    let many: Vec<String> = (0..50).map(|number| format!("\"{number}{}\"", "é".repeat(600))).collect();
    let record = format!(r#"{{"A":"x","B":[{}],"UserId":"{}","W":1e300}}"#, many.join(","), "u".repeat(5000));
    let found = matches(&rules, &record).remove(0);
    assert_eq!(found.fields["B"].len(), 10);
    assert!(found.fields["B"].iter().all(|value| value.len() <= 500));
    assert!(found.shard.len() <= 500);
    assert_eq!(found.weight, 1_000_000);
    assert_eq!(matches(&rules, r#"{"A":"x"}"#)[0].weight, 1);
    assert_eq!(matches(&rules, r#"{"A":"x","W":0}"#)[0].weight, 0);
}

#[test]
fn exceptions_hold_by_the_time_of_the_record() {
    let exception = "[[exception]]\nrule = \"base\"\nfield = \"client_ip\"\nvalue = [\"203.0.113.*\"]\nowner = \"ana\"\nreason = \"scanner\"\nexpires = \"2026-11-10\"\n";
    let rules = rules_with(&base(""), exception);
    let count = |ip: &str, day: &str| {
        matches(&rules, &format!(r#"{{"A":"x","ClientIP":"{ip}","CreationTime":"{day}T12:00:00"}}"#)).len()
    };
    assert_eq!(count("203.0.113.7", "2026-11-10"), 0);
    assert_eq!(count("203.0.113.7", "2026-11-11"), 1);
    assert_eq!(count("198.51.100.7", "2026-11-01"), 1);
}

#[test]
fn a_disabled_rule_is_silent_and_still_serves_its_correlation() {
    let text = base("generate: true")
        + "---\ntitle: C\nid: c\ncorrelation: {type: event_count, rules: [base], timespan: 1h, condition: {gte: 2}}\n";
    let rules = rules_with(&text, "disable = [\"base\"]\n[level]\nc = \"critical\"\n");
    let ids: Vec<String> = matches(&rules, r#"{"A":"x"}"#).into_iter().map(|found| found.rule_id).collect();
    assert_eq!(ids, ["c"]);
    assert_eq!(rules.get("c").unwrap().level.as_str(), "critical");
    assert_eq!(rules_with(&text, "disable = [\"base\", \"c\"]\n").rules().len(), 0);
}

#[test]
fn the_version_is_that_of_the_meaning() {
    let version = |text: &str| rules(text).get("base").unwrap().version.clone();
    let plain = version(&base(""));
    assert_eq!(plain.len(), 12);
    assert_eq!(plain, version(&base("level: high\nx-reason: other\nx-gap: 1h\nx-group-by: [user_id]\n# comment")));
    assert_eq!(plain, version(&base("").replace("A: x", "'A': \"x\"").replace("title: Base", "title: Other")));
    assert_ne!(plain, version(&base("").replace("A: x", "A: y")));
    assert_ne!(plain, version(&base("x-gap: 2h")));
    assert_ne!(plain, version(&base("x-outside: To")));
}
