//! Any text is a rule set or is refused with problems that can be shown; what loads cannot fail on a record, and the
//! index finds with it what the naive matcher finds.
#![no_main]

use std::sync::LazyLock;

use detect::rule::{RuleSet, Source, Tuning, notes};
use libfuzzer_sys::fuzz_target;
use schemas::Event;

static SAMPLES: LazyLock<Vec<Event>> = LazyLock::new(detect_fuzz::samples);

fuzz_target!(|text: &str| {
    let source = Source { file: "fuzz.yml".into(), text: text.to_owned() };
    match RuleSet::load(vec![source], &Tuning::default()) {
        Err(errors) => assert!(!errors.to_string().is_empty()),
        Ok(rules) => {
            notes(&rules).iter().for_each(|note| drop(note.to_string()));
            let matcher = detect_fuzz::matcher(rules);
            SAMPLES.iter().for_each(|event| detect_fuzz::assert_like_naive(&matcher, event));
        }
    }
});
