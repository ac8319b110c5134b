//! What a detection asks of one record and what the record answers, line by line: the naive evaluator with its reasons.
//!
//! It asks through the same functions as [`Detection::matches`], so that an explanation cannot say another thing than the
//! rule does; a test holds the two against each other.

use schemas::Event;
use schemas::path::Scalar;

use super::condition::{Condition, Detection};
use super::predicate::{Item, Scratch, Search, Subject};

/// Most values of a field that are shown, the longest of them, and most members of a list that are looked into.
const VALUES_SHOWN_MAX: usize = 5;
const VALUE_CHARS_MAX: usize = 160;
const MEMBERS_SHOWN_MAX: usize = 5;

/// One question and its answer.
#[derive(Clone, Debug)]
pub struct Trace {
    /// What is asked, or the name of a search.
    pub said: String,
    /// What the record has there; only for lines.
    pub found: Option<String>,
    pub holds: bool,
    pub joined: Joined,
    pub parts: Vec<Trace>,
}

/// How parts make the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joined {
    /// It has no parts.
    Line,
    All,
    AtLeast(usize),
    Not,
}

/// All that a detection asks.
#[derive(Clone, Debug)]
pub struct Traced {
    /// The condition in its searches' names.
    pub condition: String,
    /// The logsource, where it asks anything, then the searches in the order of the rule.
    pub searches: Vec<Trace>,
    /// The same as the condition joins them, with the filters.
    pub whole: Trace,
}

impl Detection {
    /// Asks a record everything.
    pub fn trace(&self, event: &Event) -> Traced {
        let mut searches = Vec::new();
        let mut parts = Vec::new();
        if let Some(wants) = self.logsource.wants() {
            let found = event.text(schemas::field::WORKLOAD).unwrap_or_default();
            let operation = event.text(schemas::field::OPERATION).unwrap_or_default();
            let found = format!("has Workload {}, Operation {}", quoted(found), quoted(operation));
            let line = Trace { found: Some(found), ..Trace::line(wants, self.logsource.covers(event)) };
            let logsource = Trace::join("logsource", Joined::All, vec![line]);
            searches.push(logsource.clone());
            parts.push(logsource);
        }
        let own = self.trace_searches(event);
        parts.push(condition(&self.condition, &own));
        searches.extend(own);
        for filter in &self.filters {
            let asked = filter.detection.trace_searches(event);
            let holds = condition(&filter.detection.condition, &asked);
            parts.push(if filter.include { holds } else { Trace::join("not", Joined::Not, vec![holds]) });
            let named = asked.into_iter().map(|search| Trace { said: format!("filter {}", search.said), ..search });
            searches.extend(named);
        }
        Traced { condition: words(&self.condition, &self.names), searches, whole: Trace::join("", Joined::All, parts) }
    }

    fn trace_searches(&self, event: &Event) -> Vec<Trace> {
        let asked = self.searches.iter().zip(&self.names);
        asked.map(|(search, name)| Trace::join(name, Joined::All, vec![of(search, Subject::Record(event))])).collect()
    }
}

impl Trace {
    fn line(said: String, holds: bool) -> Trace {
        Trace { said, found: None, holds, joined: Joined::Line, parts: Vec::new() }
    }

    fn join(said: &str, joined: Joined, parts: Vec<Trace>) -> Trace {
        let held = parts.iter().filter(|part| part.holds).count();
        let holds = match joined {
            Joined::Line | Joined::All => held == parts.len(),
            Joined::AtLeast(least) => held >= least,
            Joined::Not => held == 0,
        };
        Trace { said: said.to_owned(), found: None, holds, joined, parts }
    }

    /// How many lines would have to answer otherwise for it to be as wanted.
    pub fn distance(&self, wanted: bool) -> usize {
        if self.holds == wanted {
            return 0;
        }
        let mut each: Vec<usize> =
            self.parts.iter().filter(|part| part.holds != wanted).map(|part| part.distance(wanted)).collect();
        each.sort_unstable();
        let held = self.parts.iter().filter(|part| part.holds).count();
        match (self.joined, wanted) {
            (Joined::Line, _) => 1,
            (Joined::Not, _) => self.parts.iter().map(|part| part.distance(!wanted)).sum(),
            (Joined::All, true) => each.iter().sum(),
            (Joined::All, false) => each.first().copied().unwrap_or(1),
            (Joined::AtLeast(least), true) => each.iter().take(least.saturating_sub(held)).sum(),
            (Joined::AtLeast(least), false) => each.iter().take((held + 1).saturating_sub(least)).sum(),
        }
    }
}

fn condition(condition: &Condition, searches: &[Trace]) -> Trace {
    let search = |index: &usize| searches.get(*index).cloned().unwrap_or_else(|| Trace::line(String::new(), false));
    let each = |parts: &[Condition]| parts.iter().map(|part| self::condition(part, searches)).collect();
    match condition {
        Condition::Search(index) => search(index),
        Condition::Not(inner) => Trace::join("not", Joined::Not, vec![self::condition(inner, searches)]),
        Condition::And(parts) => Trace::join("", Joined::All, each(parts)),
        Condition::Or(parts) => Trace::join("", Joined::AtLeast(1), each(parts)),
        Condition::AtLeast(least, indexes) => {
            Trace::join("", Joined::AtLeast(*least), indexes.iter().map(search).collect())
        }
    }
}

fn words(condition: &Condition, names: &[String]) -> String {
    let name = |index: &usize| names.get(*index).cloned().unwrap_or_default();
    let inner = |part: &Condition| match part {
        Condition::And(_) | Condition::Or(_) => format!("({})", words(part, names)),
        _ => words(part, names),
    };
    let joined = |parts: &[Condition], word: &str| parts.iter().map(inner).collect::<Vec<_>>().join(word);
    match condition {
        Condition::Search(index) => name(index),
        Condition::Not(part) => format!("not {}", inner(part)),
        Condition::And(parts) => joined(parts, " and "),
        Condition::Or(parts) => joined(parts, " or "),
        Condition::AtLeast(least, indexes) => {
            format!("{least} of ({})", indexes.iter().map(name).collect::<Vec<_>>().join(", "))
        }
    }
}

fn of(search: &Search, subject: Subject<'_>) -> Trace {
    let each = |parts: &[Search]| parts.iter().map(|part| of(part, subject)).collect();
    match search {
        Search::Item(item) => line(item, subject),
        Search::All(parts) => Trace::join("", Joined::All, each(parts)),
        Search::Any(parts) => Trace::join("", Joined::AtLeast(1), each(parts)),
        Search::Members(members) => {
            let mut parts = Vec::new();
            let mut count = 0_usize;
            members.path.for_each_member(subject.node(), &mut |member| {
                count += 1;
                if parts.len() < MEMBERS_SHOWN_MAX {
                    let asked = of(&members.search, Subject::Member(member));
                    parts.push(Trace::join(&format!("{} {count}", members.written), Joined::All, vec![asked]));
                }
            });
            let holds = search.matches(subject, &mut Scratch::default());
            let found = match count.saturating_sub(MEMBERS_SHOWN_MAX) {
                _ if count == 0 => Some("has no member there".to_owned()),
                0 => None,
                more => Some(format!("has {more} more members")),
            };
            let joined = match (count, members.each) {
                (0, _) => Joined::Line,
                (_, true) => Joined::All,
                (_, false) => Joined::AtLeast(1),
            };
            Trace { said: members.written.clone(), found, holds, joined, parts }
        }
    }
}

fn line(item: &Item, subject: Subject<'_>) -> Trace {
    let values = item.written.values.join(", ");
    let more = if item.written.more > 0 { format!(", and {} more", item.written.more) } else { String::new() };
    let values = if item.written.values.len() > 1 { format!("[{values}{more}]") } else { values };
    let said = match item.written.key.as_str() {
        "" => format!("some value: {values}"),
        key => format!("{key}: {values}"),
    };
    let holds = item.matches(subject, &mut Scratch::default());
    let found = item.field.as_ref().map(|_| {
        let (values, present) = item.values(subject);
        found(&values, present)
    });
    Trace { found, ..Trace::line(said, holds) }
}

fn found(values: &[Scalar<'_>], present: bool) -> String {
    let shown: Vec<String> = values.iter().take(VALUES_SHOWN_MAX).map(shown).collect();
    let more = values.len().saturating_sub(VALUES_SHOWN_MAX);
    match (present, shown.is_empty()) {
        (false, true) => "has no such field".to_owned(),
        (true, true) => "has it, without a value".to_owned(),
        _ if more > 0 => format!("has {} and {more} more", shown.join(", ")),
        _ => format!("has {}", shown.join(", ")),
    }
}

fn shown(value: &Scalar<'_>) -> String {
    match value {
        Scalar::Null => "null".to_owned(),
        Scalar::Text(text) => quoted(text),
        other => other.to_text().into_owned(),
    }
}

fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(VALUE_CHARS_MAX).collect();
    if cut.len() < text.len() { format!("'{cut}...'") } else { format!("'{text}'") }
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use schemas::envelope::{Origin, Received};

    use super::*;
    use crate::rule::{RuleSet, Source, Tuning};

    /// Every rule of the pack against every record of the pack's tests: as different as records get.
    #[test]
    fn an_explanation_says_what_the_rule_does() {
        let source = |(file, text): &(&str, &str)| Source { file: (*file).to_owned(), text: (*text).to_owned() };
        let sources = rules::pack().iter().map(source).collect();
        let rules = RuleSet::load(sources, &Tuning::default()).unwrap_or_else(|errors| panic!("{errors}"));
        let origin = Origin {
            tenant: "test".parse().unwrap(),
            source: "test".into(),
            content_type: String::new(),
            blob_id: String::new(),
            received: DateTime::UNIX_EPOCH,
            notify: true,
        };
        // Bursts repeat one record, which says nothing new. Every fifth of the others is enough for a test of seconds.
        let records =
            rules.rules().iter().flat_map(|rule| &rule.tests).flat_map(|test| test.records.iter().take(2)).step_by(5);
        let (mut asked, mut held) = (0, 0);
        for record in records {
            let received = Received { origin: origin.clone(), bytes: record.to_string().into_bytes() };
            let event = Event::read(&received).unwrap();
            for detection in rules.rules().iter().filter_map(|rule| rule.detection()) {
                let traced = detection.trace(&event);
                let holds = detection.matches(&event, &mut Scratch::default());
                assert_eq!(traced.whole.holds, holds, "{} {record}", traced.condition);
                assert_eq!(traced.whole.distance(true) == 0, holds, "{} {record}", traced.condition);
                (asked, held) = (asked + 1, held + usize::from(holds));
            }
        }
        assert!(asked > 10_000 && held > 100, "{held} of {asked} held");
    }
}
