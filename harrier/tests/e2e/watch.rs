//! `harrier watch`: what an intruder used is known again.

use crate::binary::{Harrier, Ran};
use crate::sample::{forwarding_rule, joined, sign_in};

/// The people who used what is watched.
fn seen_again(harrier: &Harrier) -> Vec<String> {
    let rows = harrier.rows(
        "SELECT entity FROM findings WHERE rule_id = '4d1f8a62-93b7-4c05-8e2a-6b7d0c9e5f14' AND status IN ('open', 'final') ORDER BY entity",
    );
    rows.iter().map(|row| row["entity"].as_str().unwrap().to_owned()).collect()
}

fn watch(harrier: &Harrier, arguments: &[&str]) -> Ran {
    harrier.run([&["watch"], arguments].concat())
}

#[test]
fn what_a_finding_names_is_told_of_when_it_comes_again() {
    let harrier = Harrier::new();
    let at = "2026-11-20T10:00:00Z".parse().unwrap();
    let records = |numbers: std::ops::Range<u32>| {
        let rules = numbers.clone().map(|number| forwarding_rule(number, at));
        joined(&rules.chain(numbers.map(sign_in)).collect::<Vec<_>>())
    };
    let first = harrier.file("first.jsonl", records(1..2));
    harrier.import(&[first], &["--domains", "contoso.example"]);
    assert_eq!(seen_again(&harrier), Vec::<String>::new());

    let rows = harrier.rows("SELECT id FROM findings WHERE rule_id = '1f0b7a52-6f0a-4f0c-9c53-7d3f4a1c2e10'");
    let finding = rows[0]["id"].as_str().unwrap();
    let ran = watch(&harrier, &["add", "--finding", finding, "--reason", "the incident of Friday"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.stdout.contains("203.0.113.77") && ran.stdout.contains("drop1@evil.example"), "{ran}");
    assert!(ran.stderr.contains("harrier timeline 203.0.113.77"), "{ran}");

    // In what comes now, and in what is in the archive already.
    let second = harrier.file("second.jsonl", records(2..4));
    harrier.import(&[second], &["--domains", "contoso.example"]);
    let all = ["user1@contoso.example", "user2@contoso.example", "user3@contoso.example"];
    assert_eq!(seen_again(&harrier), all);

    // Off the list again: what stands stays, nothing is added.
    assert_eq!(watch(&harrier, &["remove", "address", "203.0.113.77"]).code, Some(0));
    let third = harrier.file("third.jsonl", records(4..5));
    harrier.import(&[third], &["--domains", "contoso.example"]);
    assert_eq!(seen_again(&harrier), all);
}

#[test]
fn a_hostile_value_is_refused_or_stands_for_itself() {
    let harrier = Harrier::new();
    for (kind, value) in [("address", "0.0.0.0/0"), ("client", "\u{1b}[2J"), ("application", "*"), ("target", "*")] {
        let ran = watch(&harrier, &["add", kind, value, "--reason", "x"]);
        assert!(ran.code == Some(1) && ran.stderr.lines().count() == 1 && !ran.stderr.contains('\u{1b}'), "{ran}");
    }
    assert_eq!(watch(&harrier, &["list"]).stdout, "");
    // Neither a pattern nor a way out of the file.
    for value in ["*", "?\"]}\\", "%WatchedClients%"] {
        assert_eq!(watch(&harrier, &["add", "client", value, "--reason", "x"]).code, Some(0));
    }
    assert_eq!(watch(&harrier, &["list"]).stdout.lines().count(), 3);
    let by_a_program = |number| sign_in(number).replace("\"UserType\"", "\"UserAgent\":\"Mozilla/5.0\",\"UserType\"");
    let file = harrier.file("sign-ins.jsonl", joined(&(1..4).map(by_a_program).collect::<Vec<_>>()));
    harrier.import(&[file], &[]);
    assert_eq!(seen_again(&harrier), Vec::<String>::new());
    // A damaged list refuses the rules by name: a silent one would watch for nothing.
    std::fs::write(harrier.data_dir().join("watch.json"), "{").unwrap();
    let ran = harrier.run(["rules", "check"]);
    assert!(ran.code == Some(78) && ran.stderr.contains("watch.json"), "{ran}");
}
