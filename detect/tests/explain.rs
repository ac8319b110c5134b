//! The screens of `harrier rules explain`: what someone reads who asks why a rule is silent.

use std::collections::BTreeMap;

use chrono::DateTime;
use detect::explain::explain;
use detect::matcher::Matcher;
use detect::rule::{RuleSet, Source, Tuning};
use expect_test::{Expect, expect};
use schemas::envelope::{Origin, Received};
use serde_json::{Value, json};

const RULES: &str = r"
title: Inbox rule forwards
id: forwards
logsource: {product: m365, service: exchange}
detection:
  selection:
    Operation: [New-InboxRule, Set-InboxRule]
    Parameters.ForwardTo|contains: ['@evil.example', '@drop.example']
  hidden:
    - Parameters.Name: '.'
    - Parameters.MoveToFolder|contains: RSS
  off: {Parameters.Enabled: false}
  condition: selection and (1 of hidden* or not off)
---
title: Failed sign-in
id: failed_sign_in
logsource: {product: m365, service: entra}
detection: {s: {Operation: UserLoginFailed}, condition: s}
---
title: Sign-in
id: signed_in
logsource: {product: m365, service: entra}
detection: {s: {Operation: UserLoggedIn}, condition: s}
---
title: Guessing
id: guessing
correlation: {type: event_count, rules: [failed_sign_in], group-by: [user_id], timespan: 10m, condition: {gte: 10}}
---
title: Guessed
id: guessed
correlation: {type: temporal_ordered, rules: [failed_sign_in, signed_in], group-by: [user_id], timespan: 10m}
---
title: Used again
id: used_again
correlation:
  type: temporal_ordered
  rules: [signed_in, failed_sign_in, signed_in]
  group-by: [user_id]
  timespan: 30m
  x-same: {signed_in: SessionId}
  x-pause: {failed_sign_in: 5m}
";

#[track_caller]
fn check(rule: &str, tuning: &str, records: &[Value], expected: &Expect) {
    let tuning = Tuning::parse("tuning.toml", tuning).unwrap();
    let source = Source { file: "t.yml".into(), text: RULES.into() };
    let rules = RuleSet::load(vec![source], &tuning).unwrap_or_else(|errors| panic!("{errors}"));
    let matcher = Matcher::new(rules, BTreeMap::new());
    let origin = Origin {
        tenant: "contoso".parse().unwrap(),
        source: "file".into(),
        content_type: String::new(),
        blob_id: String::new(),
        received: DateTime::UNIX_EPOCH,
        notify: true,
    };
    let received = |record: &Value| Received { origin: origin.clone(), bytes: record.to_string().into_bytes() };
    let records: Vec<Received> = records.iter().map(received).collect();
    let rule = matcher.rules().find(rule).unwrap();
    expected.assert_eq(&explain(&matcher, rule, &records).unwrap());
}

fn forwarding(to: &str) -> Value {
    json!({"Id": "r1", "CreationTime": "2026-11-02T09:00:00", "Workload": "Exchange", "Operation": "New-InboxRule",
        "UserId": "ana@contoso.example", "Parameters": [{"Name": "ForwardTo", "Value": to}, {"Name": "Enabled", "Value": "False"}]})
}

fn sign_in(minute: u32, operation: &str, user: &str) -> Value {
    json!({"Id": format!("{operation} {minute} {user}"), "CreationTime": format!("2026-11-02T09:{minute:02}:00"),
        "Workload": "AzureActiveDirectory", "Operation": operation, "UserId": user})
}

#[test]
fn a_near_miss_says_what_to_change() {
    check(
        "forwards",
        "",
        &[forwarding("ana@private.example")],
        &expect![[r#"
        rule     forwards: Inbox rule forwards (t.yml:2)
        record   r1 New-InboxRule by ana@contoso.example at 2026-11-02 09:00:00 UTC

        it does not select the record: selection and (1 of (hidden) or not off)
          yes  logsource
            yes  Workload: Exchange
                   has Workload 'Exchange', Operation 'New-InboxRule'
          no   selection
            yes  Operation: ['New-InboxRule', 'Set-InboxRule']
                   has 'New-InboxRule'
            no   Parameters.ForwardTo|contains: ['@evil.example', '@drop.example']
                   has 'ana@private.example'
          no   hidden
            no   at least 1 of:
              no   Parameters.Name: '.'
                     has no such field
              no   Parameters.MoveToFolder|contains: 'RSS'
                     has no such field
          yes  off
            yes  Parameters.Enabled: false
                   has 'False'
        it would, if:
          Parameters.ForwardTo|contains: ['@evil.example', '@drop.example']
          1 of:
            1 of:
              Parameters.Name: '.'
              Parameters.MoveToFolder|contains: 'RSS'
            not Parameters.Enabled: false

        no finding
    "#]],
    );
}

#[test]
fn a_record_of_another_workload_is_told_apart() {
    check(
        "forwards",
        "",
        &[sign_in(1, "UserLoggedIn", "ana@contoso.example")],
        &expect![[r#"
        rule     forwards: Inbox rule forwards (t.yml:2)
        record   userloggedin 1 ana@contoso.example UserLoggedIn by ana@contoso.example at 2026-11-02 09:01:00 UTC

        it does not select the record: selection and (1 of (hidden) or not off)
          no   logsource
            no   Workload: Exchange
                   has Workload 'AzureActiveDirectory', Operation 'UserLoggedIn'
          no   selection
            no   Operation: ['New-InboxRule', 'Set-InboxRule']
                   has 'UserLoggedIn'
            no   Parameters.ForwardTo|contains: ['@evil.example', '@drop.example']
                   has no such field
          no   hidden
            no   at least 1 of:
              no   Parameters.Name: '.'
                     has no such field
              no   Parameters.MoveToFolder|contains: 'RSS'
                     has no such field
          no   off
            no   Parameters.Enabled: false
                   has no such field
        it would, if:
          Workload: Exchange
          Operation: ['New-InboxRule', 'Set-InboxRule']
          Parameters.ForwardTo|contains: ['@evil.example', '@drop.example']

        no finding
    "#]],
    );
}

#[test]
fn what_an_attacker_writes_does_not_act_on_the_reader() {
    check(
        "forwards",
        "",
        &[forwarding("\u{1b}[2J\u{202e}@evil.example\r\nno finding")],
        &expect![[r#"
        rule     forwards: Inbox rule forwards (t.yml:2)
        record   r1 New-InboxRule by ana@contoso.example at 2026-11-02 09:00:00 UTC

        it does not select the record: selection and (1 of (hidden) or not off)
          yes  logsource
            yes  Workload: Exchange
                   has Workload 'Exchange', Operation 'New-InboxRule'
          yes  selection
            yes  Operation: ['New-InboxRule', 'Set-InboxRule']
                   has 'New-InboxRule'
            yes  Parameters.ForwardTo|contains: ['@evil.example', '@drop.example']
                   has '\x1b[2J\u{202e}@evil.example\r\nno finding'
          no   hidden
            no   at least 1 of:
              no   Parameters.Name: '.'
                     has no such field
              no   Parameters.MoveToFolder|contains: 'RSS'
                     has no such field
          yes  off
            yes  Parameters.Enabled: false
                   has 'False'
        it would, if:
          1 of:
            1 of:
              Parameters.Name: '.'
              Parameters.MoveToFolder|contains: 'RSS'
            not Parameters.Enabled: false

        no finding
    "#]],
    );
}

#[test]
fn an_exception_is_named_with_its_owner() {
    let mut record = forwarding("x@evil.example");
    record["Parameters"][1]["Value"] = "True".into();
    let tuning =
        "[[exception]]\nrule = 'forwards'\nfield = 'user_id'\nvalue = 'ana@*'\nowner = 'ben'\nreason = 'a drill'\n";
    check(
        "forwards",
        tuning,
        &[record],
        &expect![[r#"
        rule     forwards: Inbox rule forwards (t.yml:2)
        record   r1 New-InboxRule by ana@contoso.example at 2026-11-02 09:00:00 UTC

        it selects the record: selection and (1 of (hidden) or not off)
          yes  logsource
            yes  Workload: Exchange
                   has Workload 'Exchange', Operation 'New-InboxRule'
          yes  selection
            yes  Operation: ['New-InboxRule', 'Set-InboxRule']
                   has 'New-InboxRule'
            yes  Parameters.ForwardTo|contains: ['@evil.example', '@drop.example']
                   has 'x@evil.example'
          no   hidden
            no   at least 1 of:
              no   Parameters.Name: '.'
                     has no such field
              no   Parameters.MoveToFolder|contains: 'RSS'
                     has no such field
          no   off
            no   Parameters.Enabled: false
                   has 'True'
        an exception of ben takes away 1: a drill

        no finding
    "#]],
    );
}

#[test]
fn a_window_says_how_far_it_came() {
    let mut records: Vec<Value> =
        (0..7).map(|minute| sign_in(minute, "UserLoginFailed", "ana@contoso.example")).collect();
    records.extend((0..30).step_by(10).map(|minute| sign_in(minute, "UserLoginFailed", "ben@contoso.example")));
    records.push(json!({"Id": "nobody", "CreationTime": "2026-11-02T09:00:00", "Workload": "AzureActiveDirectory", "Operation": "UserLoginFailed"}));
    check(
        "guessing",
        "",
        &records,
        &expect![[r#"
        rule     guessing: Guessing (t.yml:25)
        records  11

          failed_sign_in selects 11 of 11: s

        selected and left out: 1, because they have no value for the group (user_id), or none to compare
        asked of each group: records that weigh 10 within 10m
          user_id 'ana@contoso.example': 7 of 10 seen within 10m, between 2026-11-02 09:00:00 and 2026-11-02 09:06:00
          user_id 'ben@contoso.example': 2 of 10 seen within 10m, between 2026-11-02 09:00:00 and 2026-11-02 09:10:00

        no finding
    "#]],
    );
}

#[test]
fn a_sequence_says_how_far_it_came() {
    let failed = sign_in(5, "UserLoginFailed", "ana@contoso.example");
    check(
        "guessed",
        "",
        &[sign_in(3, "UserLoggedIn", "ana@contoso.example"), failed.clone()],
        &expect![[r#"
        rule     guessed: Guessed (t.yml:29)
        records  2

          failed_sign_in selects 1 of 2: s

          signed_in selects 1 of 2: s

        asked of each group: failed_sign_in, signed_in in this order within 10m
          user_id 'ana@contoso.example': 1 of 2 seen within 10m, between 2026-11-02 09:05:00 and 2026-11-02 09:05:00

        no finding
    "#]],
    );
    check(
        "guessed",
        "",
        &[sign_in(5, "UserLoggedIn", "ana@contoso.example"), failed],
        &expect![[r#"
        rule     guessed: Guessed (t.yml:29)
        records  2

          failed_sign_in selects 1 of 2: s

          signed_in selects 1 of 2: s

        asked of each group: failed_sign_in, signed_in in this order within 10m
          user_id 'ana@contoso.example': 2 of 2 seen within 10m, between 2026-11-02 09:05:00 and 2026-11-02 09:05:00

        1 finding:
          Guessed (user ana@contoso.example, mailbox unknown, ip unknown)
    "#]],
    );
}

#[test]
fn a_sequence_that_shares_a_value_is_told_of_one_value() {
    let signed_in = |minute, session: &str| {
        let mut record = sign_in(minute, "UserLoggedIn", "ana@contoso.example");
        record["SessionId"] = json!(session);
        record
    };
    let failed = sign_in(10, "UserLoginFailed", "ana@contoso.example");
    check(
        "used_again",
        "",
        &[signed_in(0, "S"), failed.clone(), signed_in(20, "T"), signed_in(14, "S")],
        &expect![[r#"
            rule     used_again: Used again (t.yml:33)
            records  4

              failed_sign_in selects 1 of 4: s

              signed_in selects 3 of 4: s

            asked of each group: signed_in with the same SessionId, failed_sign_in and a pause of 5m, signed_in with the same SessionId in this order within 30m
              user_id 'ana@contoso.example': 2 of 3 seen within 30m, between 2026-11-02 09:00:00 and 2026-11-02 09:10:00

            no finding
        "#]],
    );
    check(
        "used_again",
        "",
        &[signed_in(0, "S"), failed, signed_in(20, "s")],
        &expect![[r#"
        rule     used_again: Used again (t.yml:33)
        records  3

          failed_sign_in selects 1 of 3: s

          signed_in selects 2 of 3: s

        asked of each group: signed_in with the same SessionId, failed_sign_in and a pause of 5m, signed_in with the same SessionId in this order within 30m
          user_id 'ana@contoso.example': 3 of 3 seen within 30m, between 2026-11-02 09:00:00 and 2026-11-02 09:20:00

        1 finding:
          Used again (user ana@contoso.example, mailbox unknown, ip unknown)
    "#]],
    );
}
