//! What every rule that makes findings says: why it matters, how it is attacked, what to do, and tests of both kinds.

use detect::rule::Rule;

use super::PACK;

/// Rules about the collector itself: what they need is harrier, not a feed.
const OF_THE_COLLECTOR: [&str; 3] = ["feed_silent", "feed_listing_fails", "feed_subscription_disabled"];
/// Microsoft's alerts are of any technique; which one their name says.
const OF_ANY_TECHNIQUE: [&str; 2] = ["microsoft_alert_high", "microsoft_alert_medium"];
const QUESTIONS: [&str; 6] = ["how", "when", "only_one", "taken", "launched", "left_behind"];

fn lacks(rule: &Rule) -> Vec<&'static str> {
    let positive = rule.tests.iter().filter(|test| test.findings > 0).count();
    let negative = rule.tests.iter().filter(|test| test.findings == 0).count();
    let hostile = rule
        .tests
        .iter()
        .any(|test| test.findings > 0 && test.records.iter().any(|record| record.to_string().contains("\\u001b")));
    let commands: Vec<_> = rule.next.iter().filter_map(|next| next.command.as_ref()).collect();
    let is_in = |names: &[&str]| names.contains(&rule.name.as_str());
    let checks = [
        ("a paragraph that says why it matters", rule.description.split_whitespace().count() >= 15),
        ("an ATT&CK technique", is_in(&OF_ANY_TECHNIQUE) || !rule.attack.is_empty()),
        ("known false positives", !rule.false_positives.is_empty()),
        (
            "the questions it answers",
            !rule.answers.is_empty() && rule.answers.iter().all(|answer| QUESTIONS.contains(&answer.as_str())),
        ),
        ("fields to show", !rule.shown.is_empty()),
        ("entities", !rule.entities.is_empty()),
        ("what it needs", is_in(&OF_THE_COLLECTOR) || !rule.needs.feeds.is_empty()),
        ("steps to take", rule.next.len() >= 2),
        ("a command", !commands.is_empty()),
        ("two tests that find", positive >= 2),
        ("two tests that do not", negative >= 2),
        ("a test with a hostile value", hostile),
    ];
    checks.into_iter().filter(|(_, holds)| !holds).map(|(what, _)| what).collect()
}

#[test]
fn every_rule_says_all_that_an_analyst_needs() {
    let mut missing = Vec::new();
    for rule in PACK.rules().iter().filter(|rule| rule.generates) {
        let lacks = lacks(rule);
        if !lacks.is_empty() {
            missing.push(format!("{} ({}): {}", rule.name, rule.file, lacks.join("; ")));
        }
    }
    assert!(missing.is_empty(), "rules lack:\n{}", missing.join("\n"));
    let count = PACK.rules().iter().filter(|rule| rule.generates).count();
    assert!(count >= 90, "only {count} rules");
}
