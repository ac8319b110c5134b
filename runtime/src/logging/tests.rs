use std::sync::{Mutex, PoisonError};

use chrono::TimeDelta;

use super::*;
use crate::clock::Hand;

/// Keeps what is written.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What comes of the events of `work`.
fn logged(verbosity: Verbosity, form: Form, work: impl FnOnce(&Hand)) -> (String, Arc<Metrics>) {
    let (clock, hand) = Clock::manual("2026-11-22T10:00:00.125Z".parse().unwrap());
    let (written, metrics) = (Written::default(), Metrics::new("abc"));
    let subscriber = subscriber(verbosity, form, &metrics, clock, written.clone());
    tracing::subscriber::with_default(subscriber, || work(&hand));
    let bytes = written.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    (String::from_utf8(bytes).unwrap(), metrics)
}

#[test]
fn a_line_for_people_and_a_line_for_programs() {
    let work = |_: &Hand| {
        let span = tracing::info_span!("poll", tenant = "contoso", code = 1);
        let _entered = span.enter();
        tracing::warn!(code = 429, error = "too many", "microsoft refuses a listing");
    };
    assert_eq!(
        logged(Verbosity::Normal, Form::Short, work).0,
        "2026-11-22T10:00:00Z warn  runtime: microsoft refuses a listing code=429 error=\"too many\" tenant=contoso\n"
    );
    assert_eq!(
        logged(Verbosity::Normal, Form::Json, work).0,
        "{\"time\":\"2026-11-22T10:00:00.125Z\",\"level\":\"warn\",\"target\":\"runtime::logging::tests\",\
         \"message\":\"microsoft refuses a listing\",\"code\":429,\"error\":\"too many\",\"tenant\":\"contoso\"}\n"
    );
}

#[test]
fn levels_follow_the_switches_and_strangers_are_not_asked_for_details() {
    let work = |_: &Hand| {
        tracing::error!("own");
        tracing::info!("own");
        tracing::debug!("own");
        tracing::warn!(target: "reqwest::connect", "other");
        tracing::info!(target: "reqwest::connect", "other");
        tracing::debug!(target: "reqwest::connect", "authorization: bearer");
    };
    let levels = |verbosity| {
        let (text, metrics) = logged(verbosity, Form::Short, work);
        assert_eq!(metrics.own.log_messages.with(["error"]).value(), 1);
        text.lines().filter_map(|line| line.split_whitespace().nth(1).map(str::to_owned)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(levels(Verbosity::Quiet), "error warn");
    assert_eq!(levels(Verbosity::Normal), "error info warn");
    assert_eq!(levels(Verbosity::Verbose), "error info debug warn info");
}

#[test]
fn no_value_acts_on_what_shows_it_or_forges_a_line() {
    let hostile = "x\u{1b}[2J\n2026-11-22T10:00:00Z error harrier: all is lost \u{202e}\u{9b} level=info";
    for form in [Form::Short, Form::Json] {
        let (text, _) = logged(Verbosity::Normal, form, |_| {
            tracing::warn!(user = hostile, debug = ?hostile, level = "fake", "cannot read {hostile}");
        });
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.trim_end().contains(|c: char| c.is_control() || c == '\u{202e}'), "{text}");
    }
    let (text, _) = logged(Verbosity::Normal, Form::Json, |_| tracing::warn!(level = "fake", "x"));
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((line["level"].as_str(), line["level_"].as_str()), (Some("warn"), Some("fake")));
}

#[test]
fn a_value_is_cut() {
    let (text, _) = logged(Verbosity::Normal, Form::Short, |_| tracing::warn!(body = "y".repeat(100_000), "x"));
    assert!(text.len() < 3_000 && text.ends_with("yyy...\n"), "{}", text.len());
}

#[test]
fn what_repeats_is_written_once_and_its_number_said() {
    let (text, metrics) = logged(Verbosity::Normal, Form::Short, |hand| {
        for sink in ["soc", "chat", "soc", "soc"] {
            tracing::warn!(sink, "cannot be reached");
        }
        hand.advance(TimeDelta::seconds(11));
        tracing::info!("later");
    });
    let expected = "\
2026-11-22T10:00:00Z warn  runtime: cannot be reached sink=soc
2026-11-22T10:00:00Z warn  runtime: cannot be reached sink=chat
2026-11-22T10:00:11Z warn  runtime: cannot be reached held_back=2
2026-11-22T10:00:11Z info  runtime: later
";
    assert_eq!(text, expected);
    assert_eq!(metrics.own.log_messages.with(["warn"]).value(), 4);
    assert_eq!(metrics.own.log_messages_held_back.value(), 2);
}
