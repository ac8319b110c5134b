//! Every file `config/<case>.toml` is read, and what comes of it is compared with `config/<case>.txt`: the problems as
//! an operator sees them, or the configuration. `UPDATE_GOLDEN=1 cargo test -p runtime --test config` writes them anew.

use std::path::{Path, PathBuf};
use std::{env, fs};

use runtime::config::Config;

fn outcome(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    // By name only, so that the goldens do not depend on where the project lies.
    let name = PathBuf::from(file.file_name().unwrap());
    match Config::parse(&name, &text) {
        Ok(config) => format!("{config:#?}\n"),
        Err(errors) => format!("{errors}\n"),
    }
}

#[test]
fn each_case_comes_out_as_its_golden_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let mut differing = Vec::new();
    let mut cases = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        cases += 1;
        let golden = file.with_extension("txt");
        let outcome = outcome(&file);
        // What the cases write where it does not belong must come out nowhere.
        assert!(!outcome.contains("hunter2"), "a secret in the outcome of {}:\n{outcome}", file.display());
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &outcome).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != outcome {
            differing.push(format!("--- {}\n{outcome}", golden.display()));
        }
    }
    assert!(cases > 0);
    assert!(differing.is_empty(), "these differ from their golden:\n{}", differing.join("\n"));
}
