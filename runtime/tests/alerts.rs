//! The alerts of `deploy/prometheus` against the metrics there are: an alert on a name that was changed would be silent
//! for ever. With promtool installed, its own checks as well.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use runtime::metrics::Metrics;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus")
}

/// Every word of a text that has the form of one of our metrics.
fn metric_names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("harrier_"));
    // The series of a histogram carry the name of their part.
    names
        .map(|name| ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part)).unwrap_or(name))
        .collect()
}

/// A process whose every series has begun, as far as the configuration can name it.
fn text_of_all_metrics() -> String {
    let metrics = Metrics::new("abc");
    metrics.begin(&[("tenant", "contoso"), ("content_type", "Audit.Exchange"), ("workload", "Exchange")]);
    metrics.begin(&[("sink", "soc"), ("type", "webhook")]);
    metrics.begin(&[("rule", "m365.inbox_rule"), ("dataset", "events"), ("source", "import"), ("limit", "members")]);
    metrics.own.data_dir_free.with([]).set_count(1 << 30);
    metrics.sinks.dead_letters.with(["soc"]).set_count(0);
    metrics.text().unwrap()
}

#[test]
fn every_metric_that_an_alert_names_is_there_from_the_start() {
    let fresh = Metrics::new("abc").text().unwrap();
    for file in ["alerts.yml", "alerts_test.yml"] {
        let text = fs::read_to_string(folder().join(file)).unwrap();
        let names = metric_names(&text);
        assert!(!names.is_empty());
        for name in names {
            assert!(fresh.contains(&format!("\n# TYPE {name} ")), "{file}: there is no {name}");
        }
    }
}

#[test]
fn promtool_has_nothing_to_object_to() {
    if !Command::new("promtool").arg("--version").output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: promtool is not installed (Debian package prometheus)");
        return;
    }
    for arguments in [["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]] {
        let output = Command::new("promtool").args(arguments).current_dir(folder()).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "promtool {}:\n{out}{err}", arguments.join(" "));
    }
    let mut command = Command::new("promtool");
    let command =
        command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for text in [Metrics::new("abc").text().unwrap(), text_of_all_metrics()] {
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // Its lints are printed, not only returned.
        assert!(output.status.success() && out.is_empty() && err.is_empty(), "promtool check metrics:\n{out}{err}");
    }
}
