//! Writes what fuzzing begins with into `corpus/`: the pack's rules, the records of their tests, and state that they make.

use std::fs;
use std::path::Path;

use detect::correlate::Shard;
use schemas::message::{Match, MatchMessage, Observation};

fn main() -> std::io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let write = |target: &str, number: usize, bytes: &[u8]| {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("seed-{number}")), bytes)
    };
    for (number, (_, text)) in rules::pack().iter().enumerate() {
        write("rule_text", number, text.as_bytes())?;
    }
    let pack = detect_fuzz::pack();
    let tests = pack.rules().iter().flat_map(|rule| rule.tests.iter().take(1));
    for (number, record) in tests.flat_map(|test| test.records.iter().take(1)).enumerate() {
        write("record", number, record.to_string().as_bytes())?;
    }
    let matcher = detect_fuzz::matcher(pack.clone());
    let mut messages = Vec::new();
    detect_fuzz::samples().iter().for_each(|event| drop(matcher.matches(event, &mut messages)));
    for (number, rule) in pack.rules().iter().enumerate() {
        let (mut matches, mut observations): (Vec<Match>, Vec<Observation>) = Default::default();
        for message in &messages {
            match message {
                MatchMessage::Match(found) if found.rule_id == rule.id => matches.push(found.clone()),
                MatchMessage::Observation(seen) if seen.rule_id == rule.id => observations.push(seen.clone()),
                _ => {}
            }
        }
        let mut bytes = vec![(number % 256) as u8];
        for (key, value) in Shard::default().apply(rule, &matches, &observations).rows {
            let value = value.unwrap_or_default();
            if let (Ok(key_length), Ok(value_length)) = (u8::try_from(key.len()), u8::try_from(value.len())) {
                bytes.extend([key_length, value_length]);
                bytes.extend(key);
                bytes.extend(value);
            }
        }
        if bytes.len() > 1 {
            write("snapshot", number, &bytes)?;
        }
    }
    Ok(())
}
