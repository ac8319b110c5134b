//! What a selection means, as truth tables: a fragment of a rule, a record, and whether it is selected.
//!
//! One test for each of the places where the specification leaves a choice bears the number of our decision.

use std::collections::BTreeMap;

use detect::matcher::Matcher;
use detect::rule::{RuleSet, Source, Tuning};
use detect::rule_test;
use schemas::Event;
use schemas::envelope::{Origin, Received};

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

fn load(logsource: &str, detection: &str) -> RuleSet {
    let text = format!("title: T\nid: t\nlogsource: {logsource}\ndetection:\n{detection}\n");
    RuleSet::load(vec![Source { file: "t.yml".into(), text: text.clone() }], &Tuning::default())
        .unwrap_or_else(|errors| panic!("{text}\n{errors}"))
}

fn selects(rules: RuleSet, record: &str) -> bool {
    let mut out = Vec::new();
    Matcher::new(rules, BTreeMap::new()).matches(&event(record), &mut out);
    !out.is_empty()
}

/// One line of a selection against records.
#[track_caller]
fn line(line: &str, table: &[(&str, bool)]) {
    let rules = load("{product: m365}", &format!("  s:\n    {line}\n  condition: s"));
    for (record, expected) in table {
        assert_eq!(selects(rules.clone(), record), *expected, "{line}  on  {record}");
    }
}

/// A whole detection against records.
#[track_caller]
fn detection(detection: &str, table: &[(&str, bool)]) {
    let rules = load("{product: m365}", detection);
    for (record, expected) in table {
        assert_eq!(selects(rules.clone(), record), *expected, "{detection}  on  {record}");
    }
}

#[test]
fn texts_are_compared_whole_without_regard_to_case_and_with_wildcards() {
    line("A: New-InboxRule", &[(r#"{"A":"new-inboxrule"}"#, true), (r#"{"A":"New-InboxRule2"}"#, false)]);
    line("A: 'New-*Rule'", &[(r#"{"A":"New-InboxRule"}"#, true), (r#"{"A":"xNew-Rule"}"#, false)]);
    line("A: 'a?c'", &[(r#"{"A":"abc"}"#, true), (r#"{"A":"ac"}"#, false)]);
    line(r"A: 'a\*c'", &[(r#"{"A":"a*c"}"#, true), (r#"{"A":"abc"}"#, false)]);
    line("A: ''", &[(r#"{"A":""}"#, true), (r#"{"A":null}"#, false), ("{}", false), (r#"{"A":"x"}"#, false)]);
    line("A: [x, y]", &[(r#"{"A":"Y"}"#, true), (r#"{"A":"z"}"#, false)]);
    line("A: true", &[(r#"{"A":true}"#, true), (r#"{"A":"True"}"#, true), (r#"{"A":false}"#, false)]);
}

#[test]
fn the_modifiers_of_texts() {
    line("A|contains: b", &[(r#"{"A":"aBc"}"#, true), (r#"{"A":"ac"}"#, false)]);
    line("A|contains: 'b*d'", &[(r#"{"A":"abcde"}"#, true), (r#"{"A":"adb"}"#, false)]);
    line("A|startswith: ab", &[(r#"{"A":"ABc"}"#, true), (r#"{"A":"cab"}"#, false)]);
    line("A|endswith: ab", &[(r#"{"A":"cab"}"#, true), (r#"{"A":"abc"}"#, false)]);
    line("A|contains|all: [a, b]", &[(r#"{"A":"xbxa"}"#, true), (r#"{"A":"a"}"#, false)]);
    line("A|cased: Ab", &[(r#"{"A":"Ab"}"#, true), (r#"{"A":"ab"}"#, false)]);
    line("A|contains|cased: Ab", &[(r#"{"A":"xAbx"}"#, true), (r#"{"A":"xabx"}"#, false)]);
    line("A|windash|contains: ' -f '", &[(r#"{"A":"cmd /f x"}"#, true), (r#"{"A":"cmd – f"}"#, false)]);
    line("A|exists: true", &[(r#"{"A":null}"#, true), ("{}", false)]);
    line("A|exists: false", &[(r#"{"A":null}"#, false), ("{}", true)]);
}

#[test]
fn regular_expressions_search_anywhere_and_regard_case() {
    line("A|re: b+c", &[(r#"{"A":"abbcd"}"#, true), (r#"{"A":"aBC"}"#, false)]);
    line("A|re|i: b+c", &[(r#"{"A":"aBC"}"#, true)]);
    line("A|re: ^b.c$", &[(r#"{"A":"b\nc"}"#, false), (r#"{"A":"bxc"}"#, true)]);
    line("A|re|s: ^b.c$", &[(r#"{"A":"b\nc"}"#, true)]);
    line("A|re|m: ^c$", &[(r#"{"A":"b\nc"}"#, true)]);
    line("A|re: '^5'", &[(r#"{"A":5}"#, true)]);
}

#[test]
fn encodings_find_texts_inside_base64() {
    line("A|base64: foobar", &[(r#"{"A":"Zm9vYmFy"}"#, true)]);
    line("A|wide|base64|contains: foo", &[(r#"{"A":"xx ZgBvAG8A"}"#, true)]);
    // "xfoobar", "xxfoobar" and "foobar" in base64.
    for encoded in ["eGZvb2Jhcg==", "eHhmb29iYXI=", "Zm9vYmFy"] {
        line("A|base64offset|contains: foobar", &[(&format!(r#"{{"A":"{encoded}"}}"#), true)]);
    }
    line("A|base64offset|contains: foobar", &[(r#"{"A":"aGVsbG8="}"#, false)]);
}

#[test]
fn numbers_dates_and_networks() {
    line("A|gt: 5", &[(r#"{"A":6}"#, true), (r#"{"A":"6"}"#, true), (r#"{"A":5}"#, false), (r#"{"A":"x"}"#, false)]);
    line("A|lte: 5.5", &[(r#"{"A":5.5}"#, true), (r#"{"A":6}"#, false), ("{}", false)]);
    line("A|hour|gte: 18", &[(r#"{"A":"2026-11-22T18:00:00"}"#, true), (r#"{"A":"2026-11-22T17:59:59Z"}"#, false)]);
    line("A|hour: 9", &[(r#"{"A":"2026-11-22T10:30:00+01:00"}"#, true)]);
    line("A|week: 53", &[(r#"{"A":"2026-12-31T10:30:00"}"#, true)]);
    line("A|month: [11, 12]", &[(r#"{"A":"2026-12-31T10:30:00"}"#, true), (r#"{"A":"December"}"#, false)]);
    line("event_time|year: 2026", &[(r#"{"CreationTime":"2026-12-31T10:30:00"}"#, true)]);
    line(
        "A|cidr: [10.0.0.0/8, '2001:db8::/32']",
        &[
            (r#"{"A":"10.1.2.3"}"#, true),
            (r#"{"A":"10.1.2.3:50123"}"#, true),
            (r#"{"A":"[2001:db8::1]:443"}"#, true),
            (r#"{"A":"2001:db8::1"}"#, true),
            (r#"{"A":"::ffff:10.1.2.3"}"#, true),
            (r#"{"A":"11.1.2.3"}"#, false),
            (r#"{"A":"not an address"}"#, false),
        ],
    );
}

#[test]
fn one_field_compared_with_another() {
    line("A|fieldref: B", &[(r#"{"A":"x","B":"X"}"#, true), (r#"{"A":"x","B":"y"}"#, false), (r#"{"A":"x"}"#, false)]);
    line("A|fieldref: B", &[("{}", false), (r#"{"A":5,"B":"5"}"#, true), (r#"{"A":null,"B":null}"#, false)]);
    line("A|fieldref|endswith: B", &[(r#"{"A":"a@x.y","B":"X.Y"}"#, true)]);
    line("A|fieldref|neq: B", &[(r#"{"A":"x","B":"y"}"#, true), (r#"{"A":"x"}"#, true)]);
    line("A|fieldref|cased: B", &[(r#"{"A":"x","B":"X"}"#, false)]);
}

#[test]
fn arrays_match_by_any_member_and_name_value_arrays_by_name() {
    line("A.B: x", &[(r#"{"A":[{"B":"y"},{"B":"x"}]}"#, true), (r#"{"A":[{"B":"y"}]}"#, false)]);
    line("A|all: [x, y]", &[(r#"{"A":["y","x"]}"#, true), (r#"{"A":["x"]}"#, false)]);
    line(
        "Parameters.ForwardTo|contains: evil",
        &[
            (r#"{"Parameters":[{"Name":"ForwardTo","Value":"a@evil"}]}"#, true),
            (r#"{"Parameters":[{"Name":"Name","Value":"evil"}]}"#, false),
        ],
    );
    line(
        "Parameters|contains: ForwardTo",
        &[
            (r#"{"Parameters":[{"Name":"ForwardTo","Value":"a@evil"}]}"#, true),
            (r#"{"Parameters":"-ForwardTo \"a@evil\""}"#, true),
            (r#"{"Parameters":[]}"#, false),
        ],
    );
    detection("  s: {A: x}\n  condition: not s", &[(r#"{"A":["y","x"]}"#, false), (r#"{"A":["y"]}"#, true)]);
}

#[test]
fn maps_are_and_lists_are_or() {
    detection("  s:\n    A: x\n    B: y\n  condition: s", &[(r#"{"A":"x","B":"y"}"#, true), (r#"{"A":"x"}"#, false)]);
    detection("  s:\n    - A: x\n    - B: y\n  condition: s", &[(r#"{"B":"y"}"#, true), (r#"{"C":"x"}"#, false)]);
    detection("  s:\n    - A: x\n    - evil\n  condition: s", &[(r#"{"B":"so evil"}"#, true), (r#"{"A":"x"}"#, true)]);
}

#[test]
fn decision_1_numbers_and_texts_are_compared_as_numbers_if_both_are_numbers() {
    line(
        "A: 42",
        &[(r#"{"A":"42"}"#, true), (r#"{"A":42.0}"#, true), (r#"{"A":"042"}"#, true), (r#"{"A":"x"}"#, false)],
    );
    line("A: '42'", &[(r#"{"A":42}"#, true), (r#"{"A":42.0}"#, true), (r#"{"A":"042"}"#, false)]);
    line("A: '4*'", &[(r#"{"A":42}"#, true)]);
}

#[test]
fn decision_2_null_is_null_or_absent() {
    line("A: null", &[("{}", true), (r#"{"A":null}"#, true), (r#"{"A":""}"#, false), (r#"{"A":[]}"#, true)]);
    line("client_ip: null", &[("{}", true), (r#"{"ClientIP":"203.0.113.7"}"#, false)]);
}

#[test]
fn decision_3_neq_holds_for_an_absent_field() {
    line("A|neq: x", &[("{}", true), (r#"{"A":"y"}"#, true), (r#"{"A":"X"}"#, false)]);
    line("A|neq: [x, y]", &[(r#"{"A":"y"}"#, false), (r#"{"A":"z"}"#, true)]);
    line("A|contains|neq: x", &[(r#"{"A":["y","axb"]}"#, false)]);
}

/// The tests that a set of rules carries, in every order of arrival.
#[track_caller]
fn hold(rules: &str) {
    let source = Source { file: "t.yml".into(), text: rules.into() };
    let rules = RuleSet::load(vec![source], &Tuning::default()).unwrap_or_else(|errors| panic!("\n{errors}"));
    let outcome = rule_test::run(&rules, None);
    assert!(outcome.tests > 0);
    let failures: Vec<String> = outcome.failures.iter().map(rule_test::printable).collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn decision_6_a_filter_excludes_and_a_leading_not_must_be_explained() {
    let with = |filter: &str| {
        format!(
            "title: T\nid: t\nlogsource: {{product: m365}}\ndetection: {{s: {{A: x}}, condition: s}}\n---\ntitle: F\nid: f\nlogsource: {{product: m365}}\nfilter: {{rules: [t], s: {{B: y}}, {filter}}}\n"
        )
    };
    let load = |text: String| RuleSet::load(vec![Source { file: "t.yml".into(), text }], &Tuning::default());
    let rules = load(with("condition: s")).unwrap();
    assert!(selects(rules.clone(), r#"{"A":"x"}"#));
    assert!(!selects(rules, r#"{"A":"x","B":"y"}"#));
    let errors = load(with("condition: not s")).unwrap_err();
    assert!(errors.to_string().contains("a double negative?"), "{errors}");
    let rules = load(with("condition: not s, x-mode: include")).unwrap();
    assert!(selects(rules.clone(), r#"{"A":"x"}"#));
    assert!(!selects(rules, r#"{"A":"x","B":"y"}"#));
    let rules = load(with("condition: not s, x-mode: exclude")).unwrap();
    assert!(!selects(rules, r#"{"A":"x"}"#));
}

const BASES: &str = "---\ntitle: One\nid: one\nlogsource: {product: m365}\ndetection: {s: {A: 1}, condition: s}\n---\ntitle: Two\nid: two\nlogsource: {product: m365}\ndetection: {s: {B: 2}, condition: s}\n";

#[test]
fn decision_9_a_window_is_at_most_as_long_as_its_timespan_both_ends_included() {
    hold(&format!(
        "title: T\nid: t\ncorrelation: {{type: event_count, rules: [one], timespan: 10m, condition: {{gte: 2}}}}\nx-tests:\n  - {{name: at the end, findings: 1, records: [{{A: 1}}, {{A: 1, at: +10m}}]}}\n  - {{name: a second later, findings: 0, records: [{{A: 1}}, {{A: 1, at: +10m1s}}]}}\n{BASES}"
    ));
}

#[test]
fn decision_10_equal_times_stand_in_any_order_and_one_record_fills_one_place() {
    hold(&format!(
        "title: T\nid: t\ncorrelation: {{type: temporal_ordered, rules: [one, two], timespan: 10m}}\nx-tests:\n  - {{name: one moment, findings: 1, records: [{{B: 2}}, {{A: 1}}]}}\n  - {{name: one record, findings: 0, records: [{{A: 1, B: 2}}]}}\n  - {{name: the wrong way, findings: 0, records: [{{B: 2}}, {{A: 1, at: +1s}}]}}\n{BASES}"
    ));
}

#[test]
fn decision_11_a_percentile_is_a_value_by_nearest_rank_and_without_one_a_share() {
    let numbers = "{A: 1, N: 10}, {A: 1, N: 20}, {A: 1, N: 30}, {A: 1, N: 40}";
    for (percentile, value) in [("25", 10), ("26", 20), ("50", 20), ("75.1", 40), ("100", 40), ("0.1", 10)] {
        hold(&format!(
            "title: T\nid: t\ncorrelation: {{type: value_percentile, rules: [one], timespan: 10m, condition: {{field: N, percentile: {percentile}, eq: {value}}}}}\nx-group-by: [tenant]\nx-gap: 1h\nx-tests:\n  - {{name: all at once, findings: 1, records: [{numbers}]}}\n{BASES}"
        ));
    }
    hold(&format!(
        "title: T\nid: t\ncorrelation: {{type: value_percentile, rules: [one], timespan: 10m, condition: {{field: N, lte: 25}}}}\nx-tests:\n  - {{name: a quarter, findings: 1, records: [{numbers}]}}\n  - {{name: a third, findings: 0, records: [{{A: 1, N: 1}}, {{A: 1, N: 2}}, {{A: 1, N: 3}}]}}\n{BASES}"
    ));
}

#[test]
fn decision_12_several_bounds_hold_together() {
    hold(&format!(
        "title: T\nid: t\ncorrelation: {{type: event_count, rules: [one], timespan: 10m, condition: {{gt: 1, lt: 4, neq: 3}}}}\nx-tests:\n  - {{name: two, findings: 1, records: [{{A: 1, repeat: 2, every: 1s}}]}}\n  - {{name: one, findings: 0, records: [{{A: 1}}]}}\n{BASES}"
    ));
}

#[test]
fn decision_13_case_is_folded_by_unicode() {
    line("A: ÄRGER", &[(r#"{"A":"ärger"}"#, true)]);
    line("A|re|i: ÄRGER", &[(r#"{"A":"ärger"}"#, true)]);
}

#[test]
fn decision_14_a_list_of_conditions_is_one_finding() {
    let rules = load("{product: m365}", "  a: {A: x}\n  b: {B: y}\n  condition:\n    - a\n    - b");
    let mut out = Vec::new();
    Matcher::new(rules, BTreeMap::new()).matches(&event(r#"{"A":"x","B":"y"}"#), &mut out);
    assert_eq!(out.len(), 1);
}

#[test]
fn decision_15_keywords_are_looked_for_in_values_and_never_in_keys() {
    let keyword = "  s: [evil]\n  condition: s";
    detection(
        keyword,
        &[(r#"{"A":{"B":["so EVIL!"]}}"#, true), (r#"{"evil":"x"}"#, false), (r#"{"A":"good"}"#, false)],
    );
    detection("  s: [4242]\n  condition: s", &[(r#"{"A":14242}"#, true)]);
    detection(
        "  s: {'|all': [a1, b2]}\n  condition: s",
        &[(r#"{"A":"xa1","B":"b2"}"#, true), (r#"{"A":"a1"}"#, false)],
    );
    detection("  s: {'|re': '^a.c$'}\n  condition: s", &[(r#"{"A":"abc"}"#, true), (r#"{"A":"xabc"}"#, false)]);
}

#[test]
fn a_logsource_covers_its_records() {
    let all = r#"{"Operation":"x"}"#;
    let exchange = r#"{"Operation":"x","Workload":"exchange"}"#;
    let entra = r#"{"Operation":"x","Workload":"AzureActiveDirectory"}"#;
    let sign_in = r#"{"Operation":"UserLoggedIn","Workload":"AzureActiveDirectory"}"#;
    for (logsource, record, expected) in [
        ("{product: m365}", all, true),
        ("{product: m365, service: audit}", entra, true),
        ("{product: m365, service: exchange}", exchange, true),
        ("{product: m365, service: exchange}", entra, false),
        ("{product: m365, service: teams}", r#"{"Workload":"MicrosoftTeams"}"#, true),
        ("{product: m365, service: sharepoint}", r#"{"Workload":"OneDrive"}"#, true),
        ("{product: azure}", sign_in, true),
        ("{product: azure, service: auditlogs}", entra, true),
        ("{product: azure, service: auditlogs}", sign_in, false),
        ("{product: azure, service: signinlogs}", sign_in, true),
        ("{product: azure, service: signinlogs}", exchange, false),
    ] {
        let rules = load(
            logsource,
            "  s: {event_time|exists: true}\n  other: {event_time|exists: false}\n  condition: 1 of them",
        );
        assert_eq!(selects(rules, record), expected, "{logsource} {record}");
    }
}

#[test]
fn rules_of_the_portals_find_what_they_mean() {
    let azure = |service: &str, line: &str| {
        load(&format!("{{product: azure, service: {service}}}"), &format!("  s:\n    {line}\n  condition: s"))
    };
    let dash = r#"{"Workload":"AzureActiveDirectory","Operation":"Update application – Certificates and secrets management "}"#;
    assert!(selects(
        azure("auditlogs", "properties.message: Update application – Certificates and secrets management"),
        dash
    ));
    let added = r#"{"Workload":"AzureActiveDirectory","Operation":"Add user.","ResultStatus":"Success","ExtendedProperties":[{"Name":"extendedAuditEventCategory","Value":"User"}],"Target":[{"ID":"User_1","Type":2}]}"#;
    assert!(selects(
        azure("auditlogs", "OperationName: Add user\n    Status: Success\n    Category: UserManagement"),
        added
    ));
    assert!(selects(azure("auditlogs", "TargetResources|contains: User_1"), added));
    let failed = r#"{"Workload":"AzureActiveDirectory","Operation":"UserLoginFailed","ErrorNumber":"50053"}"#;
    assert!(selects(azure("signinlogs", "ResultType: 50053\n    ResultDescription: whatever"), failed));
    assert!(!selects(azure("signinlogs", "ResultType: 50057"), failed));
    let alert =
        r#"{"Workload":"SecurityComplianceCenter","Operation":"AlertTriggered","Name":"Impossible travel activity"}"#;
    let lines = "  s:\n    eventSource: SecurityComplianceCenter\n    eventName: Impossible travel activity\n    status: success\n  condition: s";
    assert!(selects(load("{product: m365, service: threat_management}", lines), alert));
}
