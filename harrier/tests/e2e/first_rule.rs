//! The walk of somebody who writes a first rule: copy one, break it, be told where, mend it, test it, see it find.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::binary::{Harrier, finish};
use crate::sample::forwarding_rule;

/// The rule of the pack that is copied.
const COPIED: &str = "sharepoint/anonymous_link_created.yml";

fn pack_rule() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules").join(COPIED)).unwrap()
}

#[test]
fn a_rule_is_copied_broken_mended_tested_and_finds() {
    let harrier = Harrier::new();
    let folder = harrier.path("rules");
    fs::create_dir(&folder).unwrap();
    let rule = folder.join("my_first_rule.yml");
    let rules = ["--rules", folder.to_str().unwrap()];
    let check = || harrier.run(["rules", "check"].into_iter().chain(rules));

    let copied = pack_rule();
    fs::write(&rule, &copied).unwrap();
    let ran = check();
    assert_eq!(ran.code, Some(78), "an id of its own is needed\n{ran}");
    assert!(ran.stderr.contains("my_first_rule.yml:"), "{ran}");

    let id = copied.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
    let mine = copied
        .replace(id, "0d8f2f0a-9f58-4f7a-8a53-1b1c6f1f0001")
        .replace("name: anonymous_link_created", "name: my_first_rule")
        .replacen("title: Link for anybody created", "title: My first rule", 1);
    let broken = mine.replace("    operation_key: ", "    operation_kye: ");
    assert_ne!(broken, mine);
    fs::write(&rule, &broken).unwrap();
    let ran = check();
    assert_eq!(ran.code, Some(78), "{ran}");
    let line = 1 + broken.lines().position(|line| line.contains("operation_kye")).unwrap();
    let place = format!("{}:{line}:5", rule.display());
    for drawn in ["harrier::rule::unknown_field\n", &format!(",-[{place}]\n"), "`-- did you mean 'operation_key'?\n"] {
        assert_eq!(ran.stderr.matches(drawn).count(), 1, "{drawn}\n{ran}");
    }
    assert!(ran.stderr.ends_with("\n1 problem, no rules loaded\n"), "{ran}");
    assert!(ran.stdout.is_empty(), "{ran}");
    let ran = harrier.run(["import", "x", "--tenant", "a"].into_iter().chain(rules));
    assert_eq!(ran.code, Some(78), "nothing runs with it\n{ran}");
    let told: Vec<&str> = ran.stderr.lines().filter(|line| line.starts_with(&format!("{place}: "))).collect();
    assert!(told.len() == 1 && told[0].contains("did you mean 'operation_key'?"), "{place}\n{ran}");

    fs::write(&rule, &mine).unwrap();
    let ran = check();
    assert_eq!(ran.code, Some(0), "{ran}");
    let ran = harrier.run(["rules", "test", "my_first_rule"].into_iter().chain(rules));
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.stdout.contains(" tests hold, 0 do not"), "{ran}");
    let ran = harrier.run(["rules", "list"].into_iter().chain(rules));
    assert!(ran.stdout.lines().any(|line| line.contains("my_first_rule") && line.contains("My first rule")), "{ran}");

    let record = forwarding_rule(1, "2026-11-20T10:00:00Z".parse().unwrap())
        .replace("New-InboxRule", "AnonymousLinkCreated")
        .replace("\"Workload\":\"Exchange\"", "\"Workload\":\"OneDrive\"")
        .replace("\"RecordType\":1,", "\"RecordType\":14,");
    let file = harrier.file("record.jsonl", record);
    let (counts, ran) = harrier.import(&[file], &rules);
    assert_eq!(counts.admitted, 1);
    assert!(ran.stdout.contains("My first rule"), "{ran}");
    let list = harrier.run(["findings", "list"]);
    assert!(list.code == Some(0) && list.stdout.contains("My first rule"), "{list}");
    let mine = list.stdout.lines().find(|line| line.contains("My first rule")).unwrap();
    let shown = harrier.run(["findings", "show", mine.split(' ').next().unwrap()]);
    assert!(shown.stdout.contains("My first rule") && shown.stdout.contains("user1@contoso.example"), "{shown}");
}

#[test]
fn a_test_that_does_not_hold_is_told_and_is_a_failure() {
    let harrier = Harrier::new();
    let mine = pack_rule()
        .replace("id: 6f3a8f0e-4d86-4bd5-9b34-6a3e9d7e4b51", "id: 0d8f2f0a-9f58-4f7a-8a53-1b1c6f1f0002")
        .replace("name: anonymous_link_created", "name: my_first_rule")
        .replacen("findings: 1", "findings: 2", 1);
    let rule = harrier.file("rule.yml", mine);
    let rules = ["--rules", rule.to_str().unwrap()];
    let ran = harrier.run(["rules", "test", "my_first_rule"].into_iter().chain(rules));
    assert_eq!(ran.code, Some(1), "{ran}");
    assert!(ran.stdout.contains("one link") && ran.stdout.contains("1 do not"), "{ran}");
    let ran = harrier.run(["rules", "test", "no_such_rule"]);
    assert!(ran.code == Some(1) && ran.stderr.contains("no_such_rule"), "{ran}");
}

/// The commands of the README, as they stand there, but for where the binary lies and where the work is done.
#[test]
fn the_walk_of_the_readme_goes_as_it_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let Ok(readme) = fs::read_to_string(root.join("README.md")) else {
        println!("skipped: no README");
        return;
    };
    let walk = readme.split_once("```sh first-rule\n").and_then(|(_, rest)| rest.split_once("```"));
    let (walk, _) = walk.expect("the README has the walk");
    let binary = Path::new(env!("CARGO_BIN_EXE_harrier")).parent().unwrap();
    let harrier = Harrier::new();
    let work = harrier.path("walk");
    fs::create_dir(&work).unwrap();
    let path = r#"PATH="$PWD/target/debug:$PATH""#;
    assert!(walk.contains(path) && walk.contains("work=$(mktemp -d)"), "{walk}");
    let script = walk
        .replace(path, &format!("PATH=\"{}:$PATH\"", binary.display()))
        .replace("work=$(mktemp -d)", &format!("work='{}'", work.display()));
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", &format!("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}")]);
    command.current_dir(&root).stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let ran = finish(&mut command);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.stdout.contains("exit code 78") && ran.stderr.contains("did you mean 'operation_key'?"), "{ran}");
    assert!(ran.stderr.contains("rules/forbidden_link.yml:"), "{ran}");
    assert!(ran.stdout.contains(" tests hold, 0 do not"), "{ran}");
    let alerts = fs::read_to_string(work.join("alerts.ndjson")).unwrap();
    assert!(alerts.contains("Forbidden link created") && alerts.contains("kim@contoso.example"), "{alerts}");
}
