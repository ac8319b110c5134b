//! The embedded rule pack: every rule loads, carries a test that finds and one that does not, and all of them hold,
//! whatever order the records come in.

use detect::rule::{RuleSet, Source, Tuning};
use detect::rule_test;

#[test]
fn every_rule_of_the_pack_does_what_its_tests_say() {
    let sources = rules::pack().iter().map(|(file, text)| Source { file: (*file).into(), text: (*text).into() });
    let rules = RuleSet::load(sources.collect(), &Tuning::default()).unwrap_or_else(|errors| panic!("{errors}"));
    let outcome = rule_test::run(&rules, None);
    for failure in &outcome.failures {
        eprintln!("{}", rule_test::printable(failure));
    }
    assert!(outcome.failures.is_empty(), "{} of {} tests do not hold", outcome.failures.len(), outcome.tests);
    assert_eq!(outcome.untested, Vec::<String>::new(), "rules without a test that finds and one that does not");
}
