//! The JSON Schema of rules, asked of a validator that knows nothing of us: the pack keeps to it, slips do not.

use std::process::{Command, Stdio};

use crate::binary::Harrier;

const NEEDS: &str = "import jsonschema, yaml";

/// Prints a line for each document that is refused. Dates stay texts, as in harrier.
const CHECK: &str = "
import json, pathlib, sys
import jsonschema, yaml
class Loader(yaml.SafeLoader): pass
Loader.yaml_implicit_resolvers = {first: [(tag, expression) for tag, expression in resolvers if 'timestamp' not in tag]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()}
schema = json.load(open(sys.argv[1]))
jsonschema.Draft202012Validator.check_schema(schema)
validator = jsonschema.Draft202012Validator(schema)
seen = 0
for path in sys.argv[2:]:
    files = sorted(pathlib.Path(path).rglob('*.yml')) if pathlib.Path(path).is_dir() else [pathlib.Path(path)]
    for file in files:
        try:
            documents = list(yaml.load_all(file.read_text(), Loader))
        except yaml.YAMLError:
            # PyYAML is of YAML 1.1, where a plain text in brackets has no question mark.
            print(file, 'is left out', file=sys.stderr)
            continue
        for document in documents:
            seen += 1
            errors = sorted(validator.iter_errors(document), key=str)
            if errors:
                print(file, list(errors[0].path), errors[0].message[:300].replace('\\n', ' '))
print(seen, 'documents', file=sys.stderr)
";

#[test]
fn the_pack_keeps_to_the_schema_and_slips_do_not() {
    let quiet = |code| Command::new("python3").args(["-c", code]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !quiet(NEEDS).is_ok_and(|status| status.success()) {
        println!("skipped: no python3 with jsonschema and yaml");
        return;
    }
    let harrier = Harrier::new();
    let schema = harrier.run(["rules", "schema"]);
    assert_eq!(schema.code, Some(0), "{schema}");
    let schema = harrier.file("schema.json", schema.stdout);
    let check = |path: &std::path::Path| {
        let output = Command::new("python3").args(["-c", CHECK]).arg(&schema).arg(path).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        println!("{}", stderr.trim());
        String::from_utf8(output.stdout).unwrap()
    };
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for folder in ["rules", "detect/tests/conformance"] {
        assert_eq!(check(&root.join(folder)), "", "{folder}");
    }
    let detection = "title: R\nlogsource: {product: m365}\ndetection:\n  s:\n    Operation: Send\n  condition: s\n";
    let correlation = "title: R\ncorrelation: {type: event_count, rules: [r], timespan: 5m, condition: {gte: 3}}\n";
    for right in [detection, correlation] {
        assert_eq!(check(&harrier.file("right.yml", right)), "");
    }
    let slips = [
        (detection, "Operation:", "Operation|startwith:"),
        (detection, "condition: s", "conditions: s"),
        (detection, "title: R", "titel: R"),
        (detection, "title: R", "title: R\nlevel: severe"),
        (detection, "title: R", "title: R\nx-answers: [why]"),
        (correlation, "event_count", "event_counts"),
        (correlation, "5m", "5 minutes"),
        (correlation, "rules: [r], ", ""),
        (correlation, "timespan", "timeframe"),
    ];
    for (text, right, wrong) in slips {
        let text = text.replace(right, wrong);
        assert_ne!(check(&harrier.file("slip.yml", &text)), "", "{text}");
    }
}
