//! Every message a rule author can get, as data: `rules/errors/<case>.yml` and beside it what is said of it.
//! `UPDATE_GOLDEN=1` writes the second anew.

use std::path::Path;

use detect::rule::{RuleErrors, RuleSet, Source, Tuning};
use expect_test::expect;

fn load(file: &str, text: &str) -> Result<RuleSet, RuleErrors> {
    RuleSet::load(vec![Source { file: file.to_owned(), text: text.to_owned() }], &Tuning::default())
}

/// The plain lines, each before its code.
fn printed(errors: &RuleErrors) -> String {
    let lines = errors.to_string();
    let with_code = |(line, report): (&str, &detect::rule::Report)| {
        let help = report.help.as_ref().map(|help| format!("    help: {help}\n")).unwrap_or_default();
        format!("{line}\n    {}\n{help}", report.code.as_str())
    };
    lines.lines().zip(errors.reports()).map(with_code).collect()
}

#[test]
fn messages_are_what_they_were() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules/errors");
    let update = std::env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1");
    let mut cases = 0;
    let mut changed = Vec::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yml") {
            continue;
        }
        cases += 1;
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let errors = load(name, &text).expect_err(name);
        for report in errors.reports() {
            assert!(report.place.line >= 1 && report.place.column >= 1, "{name}: {report}");
            assert!(report.place.offset + report.place.length <= text.len(), "{name}: {report}");
        }
        let golden = path.with_extension("txt");
        if update {
            std::fs::write(&golden, printed(&errors)).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != printed(&errors) {
            changed.push(format!("{name}:\n{}", printed(&errors)));
        }
    }
    assert!(cases > 10);
    assert!(changed.is_empty(), "UPDATE_GOLDEN=1 accepts:\n{}", changed.join("\n"));
}

/// `rules/broken`: what somebody who is new to this gets wrong, and all that `rules check` says of it.
#[test]
fn broken_rules_are_explained_as_a_newcomer_reads_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules/broken");
    let mut changed = Vec::new();
    let mut cases = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yml") {
            continue;
        }
        cases += 1;
        let name = format!("rules/{}", path.file_name().unwrap().to_str().unwrap());
        let drawn = load(&name, &std::fs::read_to_string(&path).unwrap()).expect_err(&name).render(false);
        let golden = path.with_extension("txt");
        if std::env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1") {
            std::fs::write(&golden, &drawn).unwrap();
        } else if std::fs::read_to_string(&golden).unwrap_or_default() != drawn {
            changed.push(format!("{name}:\n{drawn}"));
        }
    }
    assert!(cases >= 10);
    assert!(changed.is_empty(), "UPDATE_GOLDEN=1 accepts:\n{}", changed.join("\n"));
}

#[test]
fn a_message_is_drawn_with_its_line() {
    let text = "title: Hides mail\nid: hides\nlogsource: {product: m365}\ndetection:\n  selection:\n    Paramters.MoveToFolder: RSS Feeds\n  condition: selection\n";
    expect![[r#"
        harrier::rule::unknown_field

          x 'Paramters' is not a field of Microsoft's records
           ,-[rules/hides.yml:6:5]
         5 |   selection:
         6 |     Paramters.MoveToFolder: RSS Feeds
           :     ^^^^^^^^^^^|^^^^^^^^^^
           :                `-- did you mean 'Parameters'?
         7 |   condition: selection
           `----

    "#]]
    .assert_eq(&load("rules/hides.yml", text).unwrap_err().render(false));
}

#[test]
fn rules_of_several_files_are_told_apart() {
    let rule = "title: A\nid: a\nlogsource: {product: m365}\ndetection: {s: {Operation: x}, condition: s}\n";
    let source = |file: &str| Source { file: file.to_owned(), text: rule.to_owned() };
    let errors = RuleSet::load(vec![source("one.yml"), source("two.yml")], &Tuning::default()).unwrap_err();
    assert_eq!(errors.to_string(), "two.yml:2:5: 'a' is already the id or name of the rule at one.yml:1");
}

#[test]
fn tuning_is_checked_like_rules() {
    let rule = "title: A\nid: rule-a\nlogsource: {product: m365}\ndetection: {s: {Operation: x}, condition: s}\n";
    let check = |tuning: &str| match Tuning::parse("tuning.toml", tuning) {
        Err(errors) => errors.to_string(),
        Ok(tuning) => match RuleSet::load(vec![Source { file: "a.yml".into(), text: rule.into() }], &tuning) {
            Err(errors) => errors.to_string(),
            Ok(_) => String::new(),
        },
    };
    assert_eq!(check("disable = [\"rule-a\"]\n[level]\nrule-a = \"low\"\n"), "");
    expect![[r#"
        tuning.toml:1:12: no rule has the id or name 'rule-b' (did you mean 'rule-a'?)
        tuning.toml:3:1: no rule has the id or name 'rule-c' (did you mean 'rule-a'?)"#]]
    .assert_eq(&check("disable = [\"rule-b\"]\n[level]\nrule-c = \"low\"\n"));
    expect!["tuning.toml:2:10: 'lwo' is not a level (did you mean 'low'?)"]
        .assert_eq(&check("[level]\nrule-a = \"lwo\"\n"));
    expect!["tuning.toml:1:1: unknown field `disabled`, expected one of `disable`, `level`, `list`, `exception`"]
        .assert_eq(&check("disabled = []\n"));
    let exception = "[[exception]]\nrule = \"rule-a\"\nfield = \"clinet_ip\"\nvalue = \"x\"\nowner = \"\"\nreason = \"r\"\nexpires = \"soon\"\n";
    expect![[r#"
        tuning.toml:7:11: 'expires' is a day: "2027-01-31"
        tuning.toml:2:8: an exception has a value, an owner and a reason
        tuning.toml:3:9: 'clinet_ip' is not a field (did you mean 'client_ip'?)"#]]
    .assert_eq(&check(exception));
}

proptest::proptest! {
    #[test]
    fn no_text_breaks_the_parser(text in "\\PC{0,200}") {
        let _ = load("f.yml", &text);
    }

    #[test]
    fn no_rule_like_text_breaks_the_parser(
        lines in proptest::collection::vec("( {0,6})(title|id|detection|correlation|condition|s|type|rules|x-tests|x-next|timespan|Operation\\|re|- )?: ?([a-z*()\\[\\]{}|'\"&*-]{0,8}|null|5|m365)", 0..15)
    ) {
        let _ = load("f.yml", &lines.join("\n"));
    }

    #[test]
    fn no_condition_breaks_a_rule(condition in "[ a-z0-9_*()|'-]{0,40}") {
        let text = format!("title: t\nid: t\nlogsource: {{product: m365}}\ndetection:\n  a: {{Operation: x}}\n  condition: \"{}\"\n", condition);
        let _ = load("f.yml", &text);
    }

    #[test]
    fn no_tuning_breaks_its_parser(text in "\\PC{0,100}") {
        let _ = Tuning::parse("t.toml", &text);
    }
}
