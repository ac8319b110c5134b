//! The embedded pack as a whole: a rule whose condition is broken fails its own tests, every rule says what an analyst
//! needs, and the pages and tables made of the rules are current.

mod complete;
mod negated;
mod pages;
mod peers;

use std::path::PathBuf;
use std::sync::LazyLock;

use detect::rule::{RuleSet, Source, Tuning};

static PACK: LazyLock<RuleSet> = LazyLock::new(|| {
    let sources = rules::pack().iter().map(|(file, text)| Source { file: (*file).into(), text: (*text).into() });
    RuleSet::load(sources.collect(), &Tuning::default()).unwrap_or_else(|errors| panic!("{errors}"))
});

fn rules_folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../rules"))
}

/// Compares with a generated file, or writes it anew where `UPDATE_GOLDEN=1` asks for that.
fn golden(name: &str, found: &str) {
    let file = rules_folder().join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, found).unwrap();
    }
    let known = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(known == found, "rules/{name} is not what the rules say: UPDATE_GOLDEN=1 writes it");
}
