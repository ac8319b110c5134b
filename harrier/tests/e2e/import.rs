//! `harrier import`: nothing lost, nothing doubled, and the order of lines, files and runs does not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use serde_json::{Map, Value};

use crate::binary::{Counts, Harrier};
use crate::sample::{self, Dice, forwarding_rule, joined, lines, real_data, sign_in};

const DOMAINS: [&str; 2] = ["--domains", "contoso.example"];

#[test]
fn the_same_records_in_any_order_and_any_files_give_the_same_archive_and_the_same_findings() {
    let mut dice = Dice::from_environment();
    let mut lines = lines(&sample::world(7));
    let total = lines.len() as u64;
    let whole = Harrier::new();
    let file = whole.file("records.jsonl", joined(&lines));

    let (first, _) = whole.import(std::slice::from_ref(&file), &DOMAINS);
    first.assert_adds_up();
    assert_eq!(first, Counts { received: total, admitted: total, ..Counts::default() });
    let (events, standing) = (whole.events(), whole.standing());
    let mut expected: Vec<_> = lines.clone();
    expected.sort();
    let mut raws: Vec<_> = events.iter().map(|(_, _, raw)| raw.clone()).collect();
    raws.sort();
    assert_eq!(raws, expected, "every line is there once, byte for byte");
    assert!(standing.len() >= 3, "the story is seen: {standing:#?}");

    let revisions = whole.number("SELECT count(*) FROM finding_revisions");
    let (again, ran) = whole.import(&[file], &DOMAINS);
    assert_eq!(again, Counts { received: total, duplicate: total, ..Counts::default() });
    assert!(ran.stdout.contains("no new findings"), "{ran}");
    assert_eq!(whole.number("SELECT count(*) FROM finding_revisions"), revisions, "nothing has been judged anew");
    assert_eq!((whole.events(), whole.standing()), (events.clone(), standing.clone()));

    dice.shuffle(&mut lines);
    let shuffled = Harrier::new();
    let file = shuffled.file("records.jsonl", joined(&lines));
    shuffled.import(&[file], &DOMAINS);
    assert_eq!(shuffled.events(), events);
    assert_eq!(shuffled.standing(), standing);

    // Ten files: by one run in one order, by ten runs in another.
    for runs in [1, 10] {
        let parts = Harrier::new();
        dice.shuffle(&mut lines);
        let mut files: Vec<PathBuf> = lines
            .chunks(lines.len().div_ceil(10))
            .enumerate()
            .map(|(number, part)| parts.file(&format!("{number}.jsonl"), joined(part)))
            .collect();
        dice.shuffle(&mut files);
        let mut admitted = 0;
        for part in files.chunks(files.len().div_ceil(runs)) {
            admitted += parts.import(part, &DOMAINS).0.admitted;
        }
        assert_eq!(admitted, total);
        assert_eq!(parts.events(), events);
        assert_eq!(parts.standing(), standing, "in {runs} runs");
    }
}

#[test]
fn a_known_id_with_other_content_is_a_variant_and_other_spelling_is_a_duplicate() {
    let harrier = Harrier::new();
    let rule = forwarding_rule(1, "2026-11-20T10:00:00Z".parse().unwrap());
    let variant = rule.replace("drop1@evil.example", "other@evil.example");
    let mut parsed: Map<String, Value> = serde_json::from_str(&rule).unwrap();
    let id = parsed.remove("Id").unwrap();
    parsed.insert("Id".to_owned(), id);
    let respelt = serde_json::to_string_pretty(&parsed).unwrap().replace('\n', " ");
    assert_ne!(respelt, rule);

    let lines = [rule.clone(), variant.clone(), respelt, rule.clone()];
    let file = harrier.file("records.jsonl", joined(&lines));
    let (counts, _) = harrier.import(&[file], &DOMAINS);
    assert_eq!(counts, Counts { received: 4, admitted: 1, variant: 1, duplicate: 2, rejected: 0 });
    let raws: BTreeSet<String> = harrier.events().into_iter().map(|(_, _, raw)| raw).collect();
    assert_eq!(raws, BTreeSet::from([rule, variant]), "both contents are kept, each as it came");
    let standing = harrier.standing();
    assert_eq!(standing.len(), 1, "{standing:#?}");
    assert_eq!(standing.values().next().unwrap()["event_count"], 1, "a variant is not another event");
}

#[test]
fn what_is_received_adds_up_and_another_tenant_is_another_record() {
    let harrier = Harrier::new();
    let mut lines: Vec<String> = (0..500).map(sign_in).collect();
    lines.extend((0..100).map(sign_in));
    lines.extend(["{\"cut\":".to_owned(), "[]".to_owned()]);
    lines.push(sign_in(3).replace("198.51.100.7", "198.51.100.8"));
    let file = harrier.file("records.jsonl", joined(&lines));
    let (counts, ran) = harrier.import(std::slice::from_ref(&file), &[]);
    counts.assert_adds_up();
    assert_eq!(counts, Counts { received: 603, admitted: 500, variant: 1, duplicate: 100, rejected: 2 });
    assert_eq!(ran.code, Some(1), "some input could not be used");
    let (counts, _) = harrier.import(&[file], &["--tenant", "fabrikam"]);
    assert_eq!((counts.admitted, counts.duplicate), (500, 100));
    assert_eq!(harrier.number("SELECT count(*) FROM dead_letters WHERE tenant = 'fabrikam'"), 2);
}

#[test]
fn fail_on_is_an_exit_code() {
    let harrier = Harrier::new();
    let file = harrier.file("records.jsonl", forwarding_rule(1, "2026-11-20T10:00:00Z".parse().unwrap()));
    let import = |more: &[&str]| {
        let mut arguments = vec!["import", file.to_str().unwrap(), "--tenant", "contoso"];
        arguments.extend(DOMAINS);
        arguments.extend(more);
        harrier.run(arguments).code
    };
    assert_eq!(import(&["--fail-on", "medium"]), Some(3));
    assert_eq!(import(&["--fail-on", "medium"]), Some(0), "it is not new any more");
    assert_eq!(import(&["--fail-on", "bad"]), Some(2));
}

#[test]
fn the_real_attack_is_read_whole_and_mail_as_usual_is_no_finding() {
    let Some(folder) = real_data() else { return };
    let harrier = Harrier::new();
    let (counts, _) = harrier.import(&[folder.join("attack-2021-spray-to-persistence.jsonl")], &[]);
    assert_eq!(counts, Counts { received: 1_478, admitted: 1_475, variant: 0, duplicate: 3, rejected: 0 });
    assert_eq!(harrier.number("SELECT count(*) FROM events"), 1_475);

    let list = harrier.run(["rules", "list"]).stdout;
    let burst: Vec<&str> = list.lines().filter(|line| line.contains("burst") || line.contains("mail_sent")).collect();
    println!("rules of bursts: {burst:?}");
    for finding in harrier.standing().values() {
        let title = finding["title"].as_str().unwrap();
        assert!(!burst.iter().any(|line| line.contains(title)), "ordinary sending is a finding: {finding:#}");
    }
}

#[test]
fn a_purview_export_gives_the_same_rows_as_the_records_themselves() {
    let Some(folder) = real_data() else { return };
    let harrier = Harrier::new();
    let records = fs::read_to_string(folder.join("attack-2021-spray-to-persistence.jsonl")).unwrap();
    let first: Vec<&str> = records.lines().take(600).collect();
    let file = harrier.file("first.jsonl", joined(&first));
    harrier.import(&[file], &["--tenant", "records"]);
    let (counts, _) = harrier.import(&[folder.join("attack-2021-purview-export.csv")], &["--tenant", "export"]);
    assert_eq!(counts.received, 600);
    counts.assert_adds_up();
    let rows = |tenant: &str| -> Vec<Value> {
        let query = format!("SELECT * FROM events WHERE tenant = '{tenant}' ORDER BY id, event_time");
        let mut rows = harrier.rows(&query);
        for row in &mut rows {
            let row = row.as_object_mut().unwrap();
            for of_the_delivery in ["tenant", "received_time", "blob_id"] {
                row.remove(of_the_delivery);
            }
            // The export may space its JSON otherwise; what it says is the same.
            let raw: Value = serde_json::from_str(row["raw"].as_str().unwrap()).unwrap();
            row.insert("raw".to_owned(), raw);
        }
        rows
    };
    let (records, export) = (rows("records"), rows("export"));
    assert_eq!(records.len(), export.len());
    for (record, export) in records.iter().zip(&export) {
        assert_eq!(record, export);
    }
}

#[test]
fn every_real_file_is_received_whole() {
    let Some(folder) = real_data() else { return };
    let harrier = Harrier::new();
    let mut counts = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "jsonl") {
            continue;
        }
        let tenant = path.file_stem().unwrap().to_str().unwrap().to_ascii_lowercase().replace('_', "-");
        let lines: Vec<String> =
            String::from_utf8_lossy(&fs::read(&path).unwrap()).split('\n').map(|line| line.trim().to_owned()).collect();
        let lines: Vec<String> = lines.into_iter().filter(|line| !line.is_empty()).collect();
        let (count, ran) = harrier.import(&[path], &["--tenant", &tenant]);
        count.assert_adds_up();
        assert_eq!(count.received, lines.len() as u64, "{tenant}\n{ran}");
        counts.insert(tenant, (count, lines));
    }
    assert!(!counts.is_empty());
    let mut raws: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (tenant, _, raw) in harrier.events() {
        raws.entry(tenant).or_default().push(raw);
    }
    for (tenant, (count, mut lines)) in counts {
        let dead = harrier.number(&format!("SELECT count(*) FROM dead_letters WHERE tenant = '{tenant}'"));
        assert_eq!(dead, count.rejected, "{tenant}");
        let raws = raws.remove(&tenant).unwrap_or_default();
        assert_eq!(raws.len() as u64, count.admitted + count.variant, "{tenant}");
        lines.sort();
        for raw in &raws {
            let at = lines.binary_search(raw).unwrap_or_else(|_| panic!("{tenant}: not a line of the file: {raw}"));
            lines.remove(at);
        }
        println!("{tenant}: {count:?}");
    }
}

#[test]
fn what_did_not_happen_is_told_of_an_import_only_where_it_is_said_to_be_complete() {
    let harrier = Harrier::new();
    let rules = "title: Off\nid: off\nname: off\nlogsource: {product: m365}\ndetection: {s: {Operation: off}, condition: s}\n---\n\
                 title: On\nid: on\nname: on\nlogsource: {product: m365}\ndetection: {s: {Operation: on}, condition: s}\n---\n\
                 title: Left off\nid: left_off\nlevel: high\ncorrelation: {type: x_absence, rules: [off, on], \
                 group-by: [user_id], timespan: 1h, x-expect: [on], x-delay: 30m}\n";
    let rules = harrier.file("rules.yml", rules);
    let rules = ["--rules", rules.to_str().unwrap()];
    let record = |number: usize, operation: &str, user: &str, time: &str| {
        format!(r#"{{"Id":"{number}","CreationTime":"2026-10-05T{time}","Operation":"{operation}","UserId":"{user}"}}"#)
    };
    let lines = [
        record(1, "off", "ann", "08:00:00"),
        record(2, "off", "bob", "08:00:00"),
        record(3, "on", "bob", "08:30:00"),
        record(4, "off", "cid", "11:30:00"),
    ];
    let file = harrier.file("records.jsonl", joined(&lines));
    let files = std::slice::from_ref(&file);
    let left_off = || {
        let rows =
            harrier.rows("SELECT entity FROM findings WHERE rule_id = 'left_off' AND status = 'open' ORDER BY 1");
        rows.into_iter().map(|row| row["entity"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    harrier.import(files, &rules);
    assert!(left_off().is_empty(), "nobody knows what the file leaves out");
    // Something of that time cannot be read: it may be what is missed.
    let broken = harrier.file("broken.jsonl", "{\"Id\": \n");
    let complete = ["--complete", "2026-10-05T07:00:00Z..2026-10-05T12:00:00Z"];
    let (_, ran) = harrier.import(&[file.clone(), broken], &[&rules[..], &complete].concat());
    assert!(ran.code == Some(1) && ran.stderr.contains("the import is not taken to be complete"), "{ran}");
    assert!(left_off().is_empty());
    // The same records once more: they are known, and what waits is decided. The last ends after the stretch.
    let (counts, ran) = harrier.import(files, &[&rules[..], &complete].concat());
    assert_eq!((counts.duplicate, ran.code), (4, Some(0)), "{ran}");
    assert!(ran.stdout.contains("Left off"), "{ran}");
    assert_eq!(left_off(), ["ann"]);
    let told =
        harrier.rows("SELECT window_start, window_end FROM coverage WHERE feed = 'import' AND state = 'complete'");
    assert_eq!(told.len(), 1, "{told:?}");
    // One that goes on from there.
    let later = harrier.file("later.jsonl", joined(&[record(5, "off", "dan", "12:30:00")]));
    let complete = ["--complete", "2026-10-05T12:00:00Z..2026-10-05T14:00:00Z"];
    harrier.import(&[later], &[&rules[..], &complete].concat());
    assert_eq!(left_off(), ["ann", "cid", "dan"]);
    for wrong in ["2026-10-05T14:00:00Z", "7d..1d", "2026-10-05T14:00:00Z..2026-10-05T12:00:00Z"] {
        let ran = harrier.run(["import", file.to_str().unwrap(), "--tenant", "contoso", "--complete", wrong]);
        assert_eq!(ran.code, Some(2), "{wrong}: {ran}");
    }
}
