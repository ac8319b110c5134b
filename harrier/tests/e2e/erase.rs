//! `harrier archive erase`: a person's data goes and stays away, and all else is as it was.

use runtime::config::Config;
use runtime::log::embedded::Embedded;
use runtime::log::{Log, Output, To, Topic, Txn};
use serde_json::Value;

use crate::binary::{Harrier, Ran, command, finish};
use crate::sample::{forwarding_rule, joined, sign_in};

const PERSON: &str = "user1@contoso.example";

/// Two who forward mail, some who sign in, and a line that is no record and names one of them.
fn imported() -> (Harrier, std::path::PathBuf) {
    let harrier = Harrier::new();
    let mut lines: Vec<String> =
        (1..=2).map(|number| forwarding_rule(number, "2026-11-20T10:00:00Z".parse().unwrap())).collect();
    lines.extend((1..=3).map(sign_in));
    lines.push(format!("not a record of {PERSON}"));
    let file = harrier.file("records.jsonl", joined(&lines));
    harrier.import(std::slice::from_ref(&file), &["--domains", "contoso.example"]);
    (harrier, file)
}

fn erase(harrier: &Harrier, more: &[&str]) -> Ran {
    let mut arguments = vec!["archive", "erase", "--tenant", "contoso", "--user", "User1@Contoso.example"];
    arguments.extend(["--reason", "request 17", "--by", "the data protection officer"]);
    arguments.extend(more);
    harrier.run(arguments)
}

/// In which tables a person is still named, whatever the column.
fn named(harrier: &Harrier, person: &str) -> Vec<&'static str> {
    let tables = [
        ("events", "raw"),
        ("sign_ins", "user_id"),
        ("findings", "finding"),
        ("finding_revisions", "finding"),
        ("dead_letters", "CAST(bytes AS VARCHAR)"),
    ];
    let is_in = |(table, column): &(&str, &str)| {
        harrier.number(&format!("SELECT count(*) AS n FROM {table} WHERE strpos(lower({column}), '{person}') > 0")) > 0
    };
    tables.iter().filter(|table| is_in(table)).map(|(table, _)| *table).collect()
}

#[test]
fn a_person_goes_with_all_that_names_them_and_does_not_come_back() {
    let (harrier, file) = imported();
    let everywhere = ["events", "sign_ins", "findings", "finding_revisions", "dead_letters"];
    assert_eq!(named(&harrier, PERSON), everywhere);
    let others = |harrier: &Harrier| -> Vec<Value> {
        ["SELECT * FROM events", "SELECT * FROM sign_ins"]
            .iter()
            .flat_map(|query| {
                harrier.rows(&format!("{query} WHERE user_id <> '{PERSON}' ORDER BY user_id, event_time"))
            })
            .collect()
    };
    let (before, evidence) = (others(&harrier), harrier.number("SELECT count(*) AS n FROM evidence"));
    // Looking changes nothing.
    let looked = erase(&harrier, &[]);
    assert!(looked.code == Some(0) && looked.stdout.contains("nothing was erased: --yes does it"), "{looked}");
    assert!(looked.stdout.contains("finding ") && looked.stdout.contains("events"), "{looked}");
    assert_eq!(named(&harrier, PERSON), everywhere);
    // Killed before the last table it is done again.
    let mut killed = command();
    killed.env("HARRIER_FAILPOINT", "archive_erase_before_commit@events").args([
        "archive",
        "erase",
        "--tenant",
        "contoso",
        "--user",
        PERSON,
        "--reason",
        "request 17",
        "--by",
        "me",
        "--yes",
    ]);
    let killed = finish(killed.arg("--data-dir").arg(harrier.data_dir()));
    assert_eq!(killed.code, None, "{killed}");
    assert_eq!(named(&harrier, PERSON), ["events"]);
    let erased = erase(&harrier, &["--yes", "--now"]);
    assert!(erased.code == Some(0) && erased.stdout.contains("rows were erased, and "), "{erased}");
    for said in ["the log: records and findings up to 7 days", "windows and baselines", "admission: a hash", "backups"]
    {
        assert!(erased.stdout.contains(said), "{said}\n{erased}");
    }
    assert_eq!(named(&harrier, PERSON), Vec::<&str>::new());
    assert_eq!(others(&harrier), before, "what is of others is as it was");
    assert_eq!(named(&harrier, "user2@contoso.example"), &everywhere[..4]);
    assert!(harrier.number("SELECT count(*) AS n FROM evidence") < evidence);
    let orphans = "SELECT count(*) AS n FROM evidence e LEFT JOIN events v ON v.id = e.event_id WHERE v.id IS NULL";
    assert_eq!(harrier.number(orphans), 0, "no evidence of what is not there");
    // Erased and altered are two things.
    let verified = harrier.run(["archive", "verify"]);
    assert!(verified.code == Some(0) && verified.stdout.ends_with("whole\n"), "{verified}");
    let told = "2 rows of a person were erased at version 1, decided by the data protection officer: request 17";
    assert!(verified.stdout.contains(told), "{verified}");
    // What comes again is known.
    let (counts, _) = harrier.import(&[file], &["--domains", "contoso.example"]);
    assert_eq!((counts.admitted, counts.duplicate), (0, 5), "{counts:?}");
    assert_eq!(
        named(&harrier, PERSON),
        ["dead_letters"],
        "what is no record is not admitted, so it is not known either"
    );
    assert!(erase(&harrier, &["--yes"]).stdout.contains("1 rows were erased"));
    assert!(!format!("{erased}{looked}{verified}").to_lowercase().contains(PERSON));
}

#[test]
fn what_may_not_be_erased_is_refused_with_its_reason() {
    let (harrier, _) = imported();
    let hold =
        "[[hold]]\ntenant = \"contoso\"\nfrom = \"2026-11-01\"\nuntil = \"2026-11-30\"\nreason = \"case 4711\"\n";
    let config = harrier.file("harrier.toml", hold).to_string_lossy().into_owned();
    for range in [&[][..], &["--from", "2026-11-20"], &["--until", "2026-11-01"]] {
        let more: Vec<&str> = ["--yes", "--config", &config].into_iter().chain(range.iter().copied()).collect();
        let refused = erase(&harrier, &more);
        assert_eq!(refused.code, Some(1), "{refused}");
        assert!(refused.stderr.contains("is under a hold from 2026-11-01 until 2026-11-30 (case 4711)"), "{refused}");
    }
    assert_eq!(named(&harrier, PERSON).len(), 5);
    let outside = erase(&harrier, &["--yes", "--config", &config, "--until", "2026-10-31"]);
    assert!(outside.code == Some(0) && outside.stdout.contains("\n0 rows were erased"), "{outside}");
    for (option, text) in
        [("--reason", "user1@contoso.example asked"), ("--by", "User1@contoso.example"), ("--reason", " ")]
    {
        let mut arguments = vec!["archive", "erase", "--tenant", "contoso", "--user", PERSON, "--yes"];
        let other = if option == "--by" { ["--reason", "r"] } else { ["--by", "b"] };
        arguments.extend([option, text, other[0], other[1]]);
        let refused = harrier.run(arguments);
        assert_eq!(refused.code, Some(1), "{refused}");
    }
    let nobody =
        harrier.run(["archive", "erase", "--tenant", "contoso", "--user", "", "--reason", "r", "--by", "b", "--yes"]);
    assert_eq!(nobody.code, Some(1), "{nobody}");
    assert_eq!(named(&harrier, PERSON).len(), 5);
}

#[tokio::test]
async fn what_the_archive_has_not_read_yet_is_said() {
    let (harrier, _) = imported();
    let said = "messages that the archive had not read";
    let erased = erase(&harrier, &["--yes"]);
    assert!(erased.code == Some(0) && !erased.stdout.contains(said), "{erased}");
    let partitions = Config::for_data_dir(&harrier.data_dir()).log.partitions;
    let log = Embedded::open(&harrier.data_dir().join("log.sqlite"), partitions).unwrap();
    let output = Output { topic: Topic::Records, to: To::Partition(0), value: b"on its way".to_vec() };
    log.commit(Txn { outputs: vec![output], ..Txn::default() }).await.unwrap();
    let erased = erase(&harrier, &["--yes"]);
    assert!(erased.code == Some(0) && erased.stdout.contains(&format!("- 1 {said}")), "{erased}");
}
