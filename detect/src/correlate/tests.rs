//! What the outside cannot reach: the limits, damaged rows, and that no operator is forgotten.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use schemas::finding::{Level, Status};

use super::summary::NAMED_MAX;
use super::*;
use crate::rule::model::{Absence, Kind, Needs, NewValue};
use crate::rule::text::Template;

pub(super) fn rule(operator: Operator) -> Rule {
    Rule {
        id: "rule".to_owned(),
        name: "rule".to_owned(),
        version: String::new(),
        title: String::new(),
        description: String::new(),
        level: Level::Low,
        attack: Vec::new(),
        false_positives: Vec::new(),
        references: Vec::new(),
        answers: Vec::new(),
        needs: Needs::default(),
        kind: Kind::Correlation { members: Vec::new(), learn_from: Vec::new() },
        group_by: Vec::new(),
        gap: TimeDelta::minutes(10),
        operator,
        weight: None,
        values: Vec::new(),
        stages: Vec::new(),
        outside: None,
        generates: true,
        reason: Template::default(),
        next: Vec::new(),
        entities: vec![("user".to_owned(), "user".to_owned())],
        shown: Vec::new(),
        tests: Vec::new(),
        file: String::new(),
        line: 1,
    }
}

pub(super) fn a_match(second: i64, id: &str) -> Match {
    let event_time = chrono::DateTime::from_timestamp(1_790_000_000 + second, 0).unwrap();
    Match {
        tenant: "contoso".parse().unwrap(),
        rule_id: "rule".to_owned(),
        epoch: 1,
        member: "rule".to_owned(),
        shard: "shard".to_owned(),
        group: vec!["g".to_owned()],
        within: Vec::new(),
        event_id: id.to_owned(),
        content: 0,
        event_time,
        received: event_time,
        notify: true,
        values: Vec::new(),
        weight: 1,
        fields: BTreeMap::from([("user".to_owned(), vec![format!("u{}", second % 12), "ann".to_owned()])]),
    }
}

#[test]
fn a_full_group_refuses_counts_and_says_so() {
    let rule = rule(Operator::Each);
    let mut shard = Shard { members_max: 2, ..Shard::default() };
    shard.apply(&rule, &[a_match(0, "a"), a_match(1, "b")], &[]);
    let change = shard.apply(&rule, &[a_match(0, "a"), a_match(2, "c"), a_match(3, "d")], &[]);
    assert_eq!(change.limited, 2);
    assert_eq!(change.rows.len(), 2, "the group's row and the finding's");
    assert_eq!(change.findings.len(), 1);
    assert_eq!(change.findings[0].event_count, 2);
    assert!(change.findings[0].notes[0].contains("not judged"), "{:?}", change.findings[0].notes);
    let again = shard.apply(&rule, &[a_match(2, "c")], &[]);
    assert_eq!((again.limited, again.rows.len(), again.findings.len()), (1, 0, 0));
}

#[test]
fn where_an_absence_had_decided_before_there_were_stretches_is_still_known() {
    let absence = Absence { expect: vec!["y".to_owned()], timespan: TimeDelta::hours(1), delay: TimeDelta::zero() };
    let rule = rule(Operator::Absence(absence));
    let key = [&b"c"[..], &[0; 16]].concat();
    let mut shard = Shard::load([(key.clone(), b"\x01[1790007200,0]".to_vec())]).unwrap();
    // The first lies before that moment by more than an hour, the second by less.
    let change = shard.apply(&rule, &[a_match(0, "a"), a_match(3_601, "b")], &[]);
    let told: Vec<_> = change.findings.iter().map(|finding| finding.evidence.clone()).collect();
    assert_eq!(told, [["a"]]);
    // From the next mark on it is kept as stretches.
    let moment = |second: i64| chrono::DateTime::from_timestamp(1_790_000_000 + second, 0).unwrap();
    let past = Past { whole: &[(moment(0), moment(7_201))], ..Past::default() };
    let change = shard.apply_after(&rule, &past, &[], &[]);
    let row = change.rows.iter().find(|(row, _)| *row == key).and_then(|(_, value)| value.clone()).unwrap();
    let again = Shard::load([(key, row)]).unwrap();
    assert_eq!(again.whole, [Span { start: DateTime::<Utc>::MIN_UTC, end: moment(7_201) }]);
}

#[test]
fn a_full_history_refuses_counts_and_says_so_and_knows_what_it_knew() {
    let rule = rule(Operator::NewValue(NewValue {
        history_days: 10,
        known_after_days: 1,
        min_days: 0,
        min_days_seen: 0,
        least: None,
    }));
    let full = |shard: Shard| Shard { sightings_max: 3, ..shard };
    let day = |number: u32| a_match(0, "").event_time.date_naive() - chrono::Days::new(u64::from(10 - number));
    let seen = |value: &str, number: u32| Observation {
        tenant: "contoso".parse().unwrap(),
        rule_id: "rule".to_owned(),
        epoch: 1,
        shard: "shard".to_owned(),
        value: value.to_owned(),
        day: day(number),
    };
    let mut shard = full(Shard::default());
    let first = shard.apply(&rule, &[], &[seen("a", 8), seen("b", 8), seen("a", 9)]);
    assert_eq!((first.unlearnt, first.rows.len()), (0, 3));
    let mut shard = full(Shard::load(first.rows.into_iter().map(|(row, value)| (row, value.unwrap()))).unwrap());
    let more = shard.apply(&rule, &[], &[seen("c", 8), seen("a", 8), seen("b", 9)]);
    assert_eq!((more.unlearnt, more.rows.len(), shard.entries()), (2, 0, 3));
    let of = |second: i64, value: &str| Match { values: vec![value.to_owned()], ..a_match(second, value) };
    let told = shard.apply(&rule, &[of(0, "a"), of(5_000, "c")], &[]).findings;
    assert_eq!(told.len(), 1, "what it knew is not new: {told:?}");
    let note = "the history is full at 3 values and days: what was seen later is not known";
    assert!(told[0].evidence == ["c"] && told[0].notes.iter().any(|known| known == note), "{told:?}");
}

#[test]
fn a_huge_episode_names_its_first_ids_and_counts_all() {
    let rule = rule(Operator::Each);
    let many = NAMED_MAX as i64 + 500;
    let matches: Vec<Match> = (0..many).rev().map(|second| a_match(second, &format!("e{second:06}"))).collect();
    let mut shard = Shard::default();
    let mut newest = None;
    for batch in matches.chunks(3_000) {
        newest = shard.apply(&rule, batch, &[]).findings.pop();
    }
    let finding = newest.unwrap();
    assert_eq!(finding.event_count, many as u64);
    assert_eq!(finding.evidence.len(), NAMED_MAX);
    assert_eq!(finding.evidence[0], "e000000");
    assert_eq!(finding.evidence[NAMED_MAX - 1], format!("e{:06}", NAMED_MAX - 1));
    assert_eq!(finding.fields["user"].len(), summary::FIELD_VALUES_MAX);
    assert_eq!(finding.fields["user"][..3], ["u0", "ann", "u1"]);
    assert_eq!(finding.entities.len(), summary::FIELD_VALUES_MAX);
}

#[test]
fn times_at_the_ends_of_time_are_members_like_any_other() {
    let timespan = TimeDelta::days(1);
    for operator in [Operator::Each, Operator::EventCount { at_least: 1, timespan }, Operator::Outside] {
        let rule = rule(operator);
        let mut first = a_match(0, "first");
        first.event_time = chrono::DateTime::<chrono::Utc>::MIN_UTC;
        let mut last = a_match(0, "last");
        last.event_time = chrono::DateTime::<chrono::Utc>::MAX_UTC;
        let change = Shard::default().apply(&rule, &[last, first], &[]);
        assert_eq!(change.findings.len(), 2);
        let rows = change.rows.into_iter().map(|(key, value)| (key, value.unwrap()));
        assert_eq!(Shard::load(rows).unwrap().groups.values().map(|group| group.members.len()).sum::<usize>(), 2);
    }
}

#[test]
fn rows_that_are_not_ours_are_refused_with_their_key() {
    let change = Shard::default().apply(&rule(Operator::Each), &[a_match(0, "a")], &[]);
    let rows: Vec<(Vec<u8>, Vec<u8>)> = change.rows.into_iter().map(|(key, value)| (key, value.unwrap())).collect();
    assert_eq!(rows.iter().map(|(key, _)| char::from(key[0])).collect::<String>(), "fgm");
    for (at, (key, value)) in rows.iter().enumerate() {
        let load = |key: &[u8], value: &[u8]| {
            let mut rows = rows.clone();
            rows[at] = (key.to_vec(), value.to_vec());
            Shard::load(rows).map(drop).unwrap_err()
        };
        assert!(matches!(load(key, b"").kind, DamagedStateKind::Version(None)));
        assert!(matches!(load(key, b"\x09{}").kind, DamagedStateKind::Version(Some(9))));
        assert!(matches!(load(key, &value[..value.len() - 1]).kind, DamagedStateKind::Value(_)));
        assert!(matches!(load(&key[..9], value).kind, DamagedStateKind::Key));
        assert!(load(&key[..9], value).to_string().contains("in row"));
    }
    let without_group = rows.iter().filter(|(key, _)| key[0] != b'g').cloned();
    assert!(matches!(Shard::load(without_group).map(drop).unwrap_err().kind, DamagedStateKind::Orphan));
}

/// The state outlives the program: a change of these bytes needs a new version byte and a reader of the old one.
#[test]
fn rows_of_version_1_keep_their_bytes() {
    let rule = rule(Operator::Outside);
    let mut matched = a_match(0, "a");
    matched.values = vec!["x.example".to_owned()];
    let day = matched.event_time.date_naive();
    let observation = Observation {
        tenant: matched.tenant.clone(),
        rule_id: matched.rule_id.clone(),
        epoch: 1,
        shard: matched.shard.clone(),
        value: "y.example".to_owned(),
        day,
    };
    let change = Shard::default().apply(&rule, &[matched], &[observation]);
    let mut text = String::new();
    for (key, value) in change.rows {
        let value = value.unwrap();
        let (key, rest) = key.split_at(1);
        let hex: String = rest.iter().map(|byte| format!("{byte:02x}")).collect();
        let value = String::from_utf8_lossy(&value[1..]).into_owned();
        text += &format!("{} {hex} {value}\n", char::from(key[0]));
    }
    expect_test::expect![[r#"
        f 7bd4c83629982f2a5cafa5c7c6ef39df3835373062616432326531653039333865346339333130393132386431346166 {"revision":1,"status":"open","start":[1790000000,0],"end":[1790000000,0],"created":[1790000000,0],"updated":[1790000000,0],"shown":"4d0c552b44ab9a4c7af950d6f2718e78"}
        g 7bd4c83629982f2a5cafa5c7c6ef39df {"tenant":"contoso","key":["g"]}
        m 7bd4c83629982f2a5cafa5c7c6ef39df800000006ab13b8000000000c8b4ae7acd22539cc8b34f3dc58d4e6b {"i":"a","m":"rule","v":["x.example"],"w":1,"f":{"user":["u0","ann"]},"r":[1790000000,0],"n":true}
        o 7d1a8810d53082f3c0c6b63ae541c42b800b4a28 
    "#]].assert_eq(&text);
}

#[test]
fn every_file_of_the_folder_is_in_the_module() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/correlate");
    let list = include_str!("mod.rs");
    for entry in std::fs::read_dir(here).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let is_listed = list.lines().any(|line| line == format!("mod {name};"));
        assert!(name == "mod" || is_listed, "{name}");
    }
}

/// A rule as it was changed: what the shard before has told is all that the new one is given.
fn changed(before: &Change, operator: Operator) -> (Rule, Shard) {
    let rows = before.rows.iter().filter(|(row, _)| is_record_row(row));
    let rows: Vec<_> = rows.map(|(row, value)| (row.clone(), value.clone().unwrap())).collect();
    assert!(!rows.is_empty());
    (Rule { version: "second".to_owned(), ..rule(operator) }, Shard::load(rows).unwrap())
}

fn counting(at_least: u64) -> Operator {
    Operator::EventCount { at_least, timespan: TimeDelta::seconds(60) }
}

#[test]
fn a_finding_goes_on_when_its_rule_means_something_else() {
    let first = Rule { version: "first".to_owned(), ..rule(counting(2)) };
    let members = [a_match(0, "a"), a_match(10, "b")];
    let told = Shard::default().apply(&first, &members, &[]);
    assert_eq!(told.findings.len(), 1);
    let (second, mut shard) = changed(&told, counting(2));
    let again = shard.apply(&second, &members, &[]).findings;
    let [finding] = &again[..] else { panic!("{again:?}") };
    assert_eq!((&finding.id, finding.revision, finding.notify), (&told.findings[0].id, 2, false), "as it was told");
    assert_eq!((finding.rule.version.as_str(), finding.created), ("second", told.findings[0].created));
    let grown = shard.apply(&second, &[a_match(20, "c")], &[]).findings;
    assert_eq!((grown[0].revision, grown[0].event_count, grown[0].notify), (3, 3, true));
    // A change back finds what the one in between has told.
    assert!(shard.apply(&second, &members, &[]).findings.is_empty());
}

#[test]
fn what_another_meaning_told_of_the_same_time_is_superseded() {
    let first = Rule { version: "first".to_owned(), ..rule(counting(2)) };
    // Two seconds apart at the end only: the first meaning begins at b, the second at a.
    let members = [a_match(0, "a"), a_match(100, "b"), a_match(130, "c")];
    let told = Shard::default().apply(&first, &members, &[]);
    let old = &told.findings[0];
    assert_eq!((told.findings.len(), old.event_count), (1, 2));
    let (second, mut shard) = changed(&told, counting(1));
    let again = shard.apply(&second, &members, &[]).findings;
    let [ended, new] = &again[..] else { panic!("{again:?}") };
    assert_eq!((&ended.id, ended.revision, ended.status), (&old.id, 2, Status::Superseded));
    assert_eq!((ended.superseded_by.as_ref(), new.revision, new.event_count), (Some(&new.id), 1, 3));
    assert!(shard.apply(&second, &members, &[]).findings.is_empty());
    // What the new meaning does not find stands as it was told.
    let (third, mut shard) = changed(&told, counting(9));
    assert_eq!(shard.apply(&third, &members, &[]).findings, []);
}
