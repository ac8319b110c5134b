//! Stories as text: what arrives, and after each `expect` what is told.
//!
//! ```text
//! # a comment
//! rule event_count at_least=3 timespan=10m gap=10m
//! match +0m id=e1 user=x value=a,b weight=2 member=m group=g content=1 quiet     everything but the time is optional
//! observe day=-3 value=a                                                         `day=-9..-1` for each of them
//! complete +2h the set is complete up to here, from this batch on
//! since +1h    and from here on, not from the beginning
//! imported +0m..+2h    what was imported of this stretch was whole
//! again        the batch so far once more
//! restart      what follows meets a shard loaded from rows
//! expect       applies the batch; the indented lines below are what it tells, and golden
//!   #1 r1 open +0m..+4m 3 events [e1 e2 e3] x: 3 of 3 [unknown] in 4 min, usual unknown
//! ```
//! Findings are numbered as they first appear. At its end every story is told again, backwards and at once: what stands
//! must be the same.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use detect::rule::model::{Absence, Least, NewValue, Operator, Rule, Sequence, Spike, Step};
use schemas::finding::Finding;
use schemas::message::{Match, Observation};

use super::fixture::{Runner, base, rule};
use super::oracle;
use super::property::decided;

#[test]
fn every_script_tells_what_it_expects() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/windows");
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "script"))
        .collect();
    scripts.sort();
    assert!(scripts.len() >= 10, "the scripts are gone");
    let mut differing = Vec::new();
    for path in scripts {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let told = Story::play(&name, &text);
        if told == text {
            continue;
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, told).unwrap();
        } else {
            differing.push(format!("{name} now tells:\n{told}"));
        }
    }
    assert!(differing.is_empty(), "{}\nIf this is meant: UPDATE_GOLDEN=1", differing.join("\n"));
}

struct Story {
    runner: Runner,
    matches: Vec<Match>,
    observations: Vec<Observation>,
    all_matches: Vec<Match>,
    all_observations: Vec<Observation>,
    /// Ids in the order in which they first appeared.
    ids: Vec<String>,
}

impl Story {
    /// The script with what it tells in place of what it expected.
    fn play(name: &str, text: &str) -> String {
        let rule_line =
            text.lines().find_map(|line| line.strip_prefix("rule ")).expect("a script begins with its rule");
        let mut story = Story {
            runner: Runner::new(parse_rule(rule_line)),
            matches: Vec::new(),
            observations: Vec::new(),
            all_matches: Vec::new(),
            all_observations: Vec::new(),
            ids: Vec::new(),
        };
        let mut out = String::new();
        for line in text.lines().filter(|line| !line.starts_with("  ")) {
            writeln!(out, "{line}").unwrap();
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "" | "#" | "rule" => {}
                "match" => story.a_match(rest),
                "observe" => story.observe(rest),
                "again" => {
                    story.matches.extend_from_within(..);
                    story.observations.extend_from_within(..);
                }
                "complete" => story.runner.complete = Some(base() + duration(rest)),
                "since" => story.runner.since = Some(base() + duration(rest)),
                "imported" => {
                    let (from, until) = rest.split_once("..").unwrap();
                    story.runner.imported.push((base() + duration(from), base() + duration(until)));
                }
                "restart" => story.runner.restart(),
                "expect" => out.push_str(&story.tell()),
                other => panic!("{name}: '{other}' is not a step"),
            }
        }
        assert!(story.matches.is_empty() && story.observations.is_empty(), "{name}: ends without expect");
        story.check_other_orders(name);
        out
    }

    fn a_match(&mut self, text: &str) {
        let (time, rest) = text.split_once(' ').unwrap_or((text, ""));
        let number = self.all_matches.len() + self.matches.len() + 1;
        let event_time = base() + duration(time);
        let mut matched = Match {
            tenant: "contoso".parse().unwrap(),
            rule_id: "rule".to_owned(),
            epoch: 1,
            member: "rule".to_owned(),
            shard: "shard".to_owned(),
            group: vec!["g".to_owned()],
            within: Vec::new(),
            event_id: format!("e{number}"),
            content: 0,
            event_time,
            received: event_time + TimeDelta::minutes(30),
            notify: true,
            values: Vec::new(),
            weight: 1,
            fields: [("user".to_owned(), vec!["ann".to_owned()])].into(),
        };
        for word in rest.split_whitespace() {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let texts = || value.split(',').map(str::to_owned).collect::<Vec<_>>();
            match key {
                "id" => matched.event_id = value.to_owned(),
                "value" => matched.values = texts(),
                "weight" => matched.weight = value.parse().unwrap(),
                "member" => matched.member = value.to_owned(),
                "group" => matched.group = texts(),
                "content" => matched.content = value.parse().unwrap(),
                "quiet" => matched.notify = false,
                field => {
                    matched.fields.insert(field.to_owned(), texts());
                }
            }
        }
        self.matches.push(matched);
    }

    fn observe(&mut self, text: &str) {
        let words: Vec<&str> = text.split_whitespace().collect();
        let days = find(&words, "day").expect("a day");
        let (from, until) = days.split_once("..").unwrap_or((days, days));
        for day in from.parse::<i64>().unwrap()..=until.parse().unwrap() {
            for value in find(&words, "value").expect("a value").split(',') {
                self.observations.push(Observation {
                    tenant: "contoso".parse().unwrap(),
                    rule_id: "rule".to_owned(),
                    epoch: 1,
                    shard: "shard".to_owned(),
                    value: value.to_owned(),
                    day: base().date_naive() + TimeDelta::days(day),
                });
            }
        }
    }

    fn tell(&mut self) -> String {
        let change = self.runner.apply(&self.matches, &self.observations);
        self.all_matches.append(&mut self.matches);
        self.all_observations.append(&mut self.observations);
        let mut out = String::new();
        for finding in &change.findings {
            let successor = finding.superseded_by.as_ref().map(|id| format!(" by #{}", self.number(id)));
            let notes = finding.notes.iter().map(|note| format!(" ({note})")).collect::<String>();
            writeln!(
                out,
                "  #{} r{} {}{} {}..{} {} events [{}] {}{notes}{}",
                self.number(&finding.id),
                finding.revision,
                finding.status.as_str(),
                successor.unwrap_or_default(),
                offset(finding.first_event),
                offset(finding.last_event),
                finding.event_count,
                finding.evidence.join(" "),
                finding.reason,
                if finding.notify { "" } else { " quiet" },
            )
            .unwrap();
        }
        out
    }

    fn number(&mut self, id: &str) -> usize {
        let known = self.ids.iter().position(|known| known == id);
        known.map_or_else(
            || {
                self.ids.push(id.to_owned());
                self.ids.len()
            },
            |at| at + 1,
        )
    }

    fn check_other_orders(&self, name: &str) {
        let standing = |findings: Vec<&Finding>| findings.into_iter().map(oracle::of_finding).collect::<Vec<_>>();
        let here = standing(self.runner.standing());
        let mut matches = self.all_matches.clone();
        if let Operator::Absence(absence) = &self.runner.rule.operator {
            decided(absence, &self.runner.whole(), &mut matches);
        }
        assert_eq!(here, oracle::standing(&self.runner.rule, &matches, &self.all_observations), "{name}");
        let mut at_once = Runner::new(self.runner.rule.clone());
        at_once.stand_where(&self.runner);
        at_once.apply(&self.all_matches, &self.all_observations);
        assert_eq!(standing(at_once.standing()), here, "{name} at once");
        let mut backwards = Runner::new(self.runner.rule.clone());
        backwards.stand_where(&self.runner);
        for matched in self.all_matches.iter().rev() {
            backwards.apply(std::slice::from_ref(matched), &[]);
        }
        for observation in self.all_observations.iter().rev() {
            backwards.apply(&[], std::slice::from_ref(observation));
        }
        assert_eq!(standing(backwards.standing()), here, "{name} backwards");
    }
}

fn find<'t>(words: &[&'t str], key: &str) -> Option<&'t str> {
    words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

fn parse_rule(text: &str) -> Rule {
    let words: Vec<&str> = text.split_whitespace().collect();
    let number = |key: &str, default: u64| find(&words, key).map_or(default, |text| text.parse().unwrap());
    let timespan = find(&words, "timespan").map_or(TimeDelta::zero(), duration);
    let at_least = number("at_least", 1);
    let operator = match words[0] {
        "each" => Operator::Each,
        "event_count" => Operator::EventCount { at_least, timespan },
        "value_count" => Operator::ValueCount { at_least, timespan },
        "temporal" => Operator::Temporal { at_least: at_least as usize, timespan },
        "temporal_ordered" => {
            // `login,reset/2h,login same=login`: two hours after a reset nothing counts, and the logins share a value.
            let same: Vec<&str> = find(&words, "same").map(|names| names.split(',').collect()).unwrap_or_default();
            let step = |text: &str| {
                let (rule, pause) = text.split_once('/').unwrap_or((text, "0s"));
                let field = same.contains(&rule).then(|| "value".to_owned());
                Step { rule: rule.to_owned(), same: field, pause: duration(pause) }
            };
            let steps = find(&words, "members").unwrap().split(',').map(step).collect();
            Operator::TemporalOrdered(Sequence { steps, timespan })
        }
        "new_value" => Operator::NewValue(NewValue {
            history_days: number("history_days", 30) as u32,
            known_after_days: number("known_after_days", 1) as u32,
            min_days: number("min_days", 7) as u32,
            min_days_seen: number("min_days_seen", 3) as u32,
            least: find(&words, "min_of").map(|of| Least {
                events: number("min_events", 1) as u32,
                of: of.split(',').map(str::to_owned).collect(),
            }),
        }),
        "spike" => Operator::Spike(Spike {
            timespan,
            floor: number("floor", 1),
            ratio: number("ratio", 3) as f64,
            deviations: number("deviations", 6) as f64,
            history_days: number("history_days", 30) as u32,
            min_days: number("min_days", 7) as u32,
            cold_floor: number("cold_floor", 1000),
        }),
        "absence" => Operator::Absence(Absence {
            expect: find(&words, "expect").unwrap().split(',').map(str::to_owned).collect(),
            timespan,
            delay: find(&words, "delay").map_or(TimeDelta::zero(), duration),
        }),
        "outside" => Operator::Outside,
        other => panic!("'{other}' is not an operator"),
    };
    rule(operator, find(&words, "gap").map_or(TimeDelta::zero(), duration))
}

/// `+1d2h`, `10m`, `-5m30s`.
fn duration(text: &str) -> TimeDelta {
    let (sign, text) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.trim_start_matches('+')),
    };
    let mut seconds = 0;
    let mut digits = String::new();
    for c in text.chars() {
        let unit = match c {
            'd' => 86_400,
            'h' => 3_600,
            'm' => 60,
            's' => 1,
            digit => {
                digits.push(digit);
                continue;
            }
        };
        seconds += unit * digits.parse::<i64>().unwrap();
        digits.clear();
    }
    TimeDelta::seconds(sign * seconds)
}

/// The inverse of [`duration`].
fn offset(time: DateTime<Utc>) -> String {
    let seconds = (time - base()).num_seconds();
    let mut rest = seconds.abs();
    let mut out = String::from(if seconds < 0 { "-" } else { "+" });
    for (unit, length) in [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)] {
        if rest >= length {
            write!(out, "{}{unit}", rest / length).unwrap();
            rest %= length;
        }
    }
    if seconds == 0 { "+0m".to_owned() } else { out }
}
