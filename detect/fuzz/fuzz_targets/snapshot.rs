//! Any rows are state or are refused; what loads goes on working, and what it then writes can be loaded again.
//!
//! The input is rows, each a length of key, a length of value, and both.
#![no_main]

use std::sync::LazyLock;

use detect::correlate::Shard;
use detect::rule::RuleSet;
use libfuzzer_sys::fuzz_target;
use schemas::message::{Match, MatchMessage, Observation};

struct World {
    rules: RuleSet,
    /// What the pack's own tests make of themselves.
    messages: Vec<MatchMessage>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let rules = detect_fuzz::pack();
    let matcher = detect_fuzz::matcher(rules.clone());
    let mut messages = Vec::new();
    detect_fuzz::samples().iter().for_each(|event| drop(matcher.matches(event, &mut messages)));
    World { rules, messages }
});

fn rows(mut bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    while let [key, value, rest @ ..] = bytes {
        let key = usize::from(*key).min(rest.len());
        let value = usize::from(*value).min(rest.len() - key);
        rows.push((rest[..key].to_vec(), rest[key..key + value].to_vec()));
        bytes = &rest[key + value..];
    }
    rows
}

fuzz_target!(|bytes: &[u8]| {
    let [which, bytes @ ..] = bytes else { return };
    let World { rules, messages } = &*WORLD;
    let rule = &rules.rules()[usize::from(*which) % rules.rules().len()];
    let kept = rows(bytes);
    let Ok(mut shard) = Shard::load(kept.clone()) else { return };
    let mut matches: Vec<Match> = Vec::new();
    let mut observations: Vec<Observation> = Vec::new();
    for message in messages {
        match message {
            MatchMessage::Match(found) if found.rule_id == rule.id => matches.push(found.clone()),
            MatchMessage::Observation(seen) if seen.rule_id == rule.id => observations.push(seen.clone()),
            _ => {}
        }
    }
    let change = shard.apply(rule, &matches, &observations);
    let mut after: std::collections::BTreeMap<Vec<u8>, Vec<u8>> = kept.into_iter().collect();
    for (key, value) in change.rows {
        match value {
            Some(value) => drop(after.insert(key, value)),
            None => drop(after.remove(&key)),
        }
    }
    let again = Shard::load(after).expect("what was written cannot be read");
    assert_eq!(again.entries(), shard.entries());
});
