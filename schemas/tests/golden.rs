//! What harrier makes of a record, as text: one file for each family of records and each odd shape.
//!
//! `golden/<family>__<case>.json` is a record, `.golden` beside it every value that is not null and every defect.
//! `UPDATE_GOLDEN=1 cargo test -p schemas --test golden` writes the expectations; the change is then read in the diff.

mod received;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use schemas::{Event, FIELDS, Value};

#[test]
fn records_read_as_written_down() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    let records = with_extension("json");
    assert!(records.len() > 50, "the folder of records is there");
    for record in records {
        let event = received::read(&fs::read(&record).unwrap()).unwrap();
        let text = render(&event);
        let golden = record.with_extension("golden");
        if update {
            fs::write(&golden, &text).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != text {
            wrong.push(format!("{}\n{text}", name(&record)));
        }
    }
    assert!(wrong.is_empty(), "differ from their .golden (UPDATE_GOLDEN=1 accepts):\n\n{}", wrong.join("\n"));
}

#[test]
fn every_expectation_has_a_record() {
    for golden in with_extension("golden") {
        assert!(golden.with_extension("json").exists(), "{}", name(&golden));
        assert!(name(&golden).contains("__"), "{} is named <family>__<case>", name(&golden));
    }
}

fn with_extension(extension: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|found| found == extension));
    files.sort();
    files
}

fn name(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The values that come from the record (not from its delivery), then the defects.
fn render(event: &Event) -> String {
    let mut text = String::new();
    for field in FIELDS.iter().filter(|field| !field.sources.is_empty() || field.name == "client_network") {
        let id = schemas::field::by_name(field.name).unwrap();
        let value = match event.get(id) {
            Value::Null => continue,
            Value::Text(value) => format!("{value:?}"),
            Value::Integer(value) => value.to_string(),
            Value::Boolean(value) => value.to_string(),
            Value::Time(value) => value.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
            Value::TextList(values) => format!("{values:?}"),
        };
        writeln!(text, "{} = {value}", field.name).unwrap();
    }
    for defect in event.defects() {
        writeln!(text, "defect: {} {}", defect.field, defect.kind.as_str()).unwrap();
    }
    text
}
