//! `deploy/compose.yaml` is what the compose specification allows. That it runs is shown nowhere here: there is no Docker.

use std::path::Path;
use std::process::{Command, Stdio};

const NEEDS: &str = "import compose, jsonschema, yaml";

/// Prints nothing, or what is wrong.
const CHECK: &str = "
import json, pathlib, sys
import compose, jsonschema, yaml
specification = pathlib.Path(compose.__file__).parent / 'config' / 'compose_spec.json'
document = yaml.safe_load(open(sys.argv[1]))
document['services']['kafka'].update(json.loads(sys.argv[2]))
for error in jsonschema.Draft7Validator(json.loads(specification.read_text())).iter_errors(document):
    print(list(error.path), error.message)
";

#[test]
fn the_compose_file_is_one() {
    let quiet = |code| Command::new("python3").args(["-c", code]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !quiet(NEEDS).is_ok_and(|status| status.success()) {
        println!("skipped: no python3 with docker-compose, jsonschema and yaml");
        return;
    }
    let check = |more: &str| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/compose.yaml");
        let output = Command::new("python3").args(["-c", CHECK]).arg(file).arg(more).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(check("{}"), "");
    assert!(check(r#"{"portz": []}"#).contains("portz"), "a key that is none is seen");
}
