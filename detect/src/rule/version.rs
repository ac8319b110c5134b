//! The version of a rule: a hash of what it selects and when it fires, so that state made by one meaning is never read by
//! another. Titles, levels, texts and formatting are not part of it; lists, filters and the rules it rests on are.

use chrono::TimeDelta;
use schemas::json::key_id;

use super::document::Body;
use super::link::{Filters, Linker, names};
use super::model::{Measure, Operator, Ratio};

/// Part of every version: a change of what the language means is a change of every rule.
const LANGUAGE: &str = "1";

/// Hex digits of a rule's version.
const VERSION_DIGITS: usize = 12;

impl Linker<'_> {
    /// The hash of what a rule selects and when it fires. Titles, levels, texts and formatting are not part of it.
    pub(super) fn version(
        &self,
        position: usize,
        operator: &Operator,
        gap: TimeDelta,
        group_by: &[String],
        filters: &Filters,
    ) -> String {
        let document = &self.documents[position];
        let mut parts = vec![LANGUAGE.to_owned(), self.meaning(position, filters), operator_text(operator)];
        parts.push(gap.num_seconds().to_string());
        parts.push(group_by.join("\n"));
        let values = match &document.body {
            Body::Correlation(correlation) => names(&correlation.values).join("\n"),
            Body::Detection(_) | Body::Filter(_) => String::new(),
        };
        for named in [document.weight.as_ref(), document.outside.as_ref()] {
            parts.push(named.map(|named| named.name.clone()).unwrap_or_default());
        }
        parts.push(values);
        self.rests_on(position, filters, &mut parts);
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let mut id = key_id(&parts);
        id.truncate(VERSION_DIGITS);
        id
    }

    /// What a document selects, filters included.
    fn meaning(&self, position: usize, filters: &Filters) -> String {
        let mut meaning = self.documents[position].meaning.clone();
        for (own, filter) in filters.of(position) {
            meaning.push_str(if filter.include { "&" } else { "!" });
            meaning.push_str(&self.documents[own].meaning);
        }
        meaning
    }

    /// Appends what the rules that a correlation refers to mean, and how it sees them.
    fn rests_on(&self, position: usize, filters: &Filters, parts: &mut Vec<String>) {
        let Body::Correlation(correlation) = &self.documents[position].body else { return };
        // A baseline without teachers learns from what triggers it.
        let is_own_teacher = matches!(correlation.operator, Operator::NewValue(_)) && correlation.learn.is_empty();
        let teachers = if is_own_teacher { &correlation.rules } else { &correlation.learn };
        for named in correlation.rules.iter().chain(teachers) {
            let Some(rule) = self.index.get(named.name.as_str()).copied() else { continue };
            parts.push(self.name(rule).to_owned());
            parts.push(self.meaning(rule, filters));
            let member = &self.documents[rule];
            parts.push(member.outside.as_ref().map(|named| named.name.clone()).unwrap_or_default());
            if let Body::Correlation(inner) = &member.body {
                parts.push(operator_text(&inner.operator));
                parts.extend(names(&inner.group_by).into_iter().chain(names(&inner.values)));
                parts.extend(member.weight.as_ref().map(|named| named.name.clone()));
                self.rests_on(rule, filters, parts);
            }
        }
        for (alias, fields) in &correlation.aliases {
            parts.push(alias.name.clone());
            parts.extend(fields.iter().map(|(rule, field)| format!("{}={}", rule.name, field.name)));
        }
        parts.extend(correlation.same.iter().map(|(rule, field)| format!("same {}={}", rule.name, field.name)));
        let pauses = correlation.pauses.iter();
        parts.extend(pauses.map(|(rule, pause)| format!("pause {}={}", rule.name, pause.num_seconds())));
    }
}

/// An operator as text that stays the same when the code around it changes.
fn operator_text(operator: &Operator) -> String {
    match operator {
        Operator::Each => "each".to_owned(),
        Operator::Outside => "outside".to_owned(),
        Operator::EventCount { at_least, timespan } => format!("event_count {at_least} {}", timespan.num_seconds()),
        Operator::ValueCount { at_least, timespan } => format!("value_count {at_least} {}", timespan.num_seconds()),
        Operator::Temporal { at_least, timespan } => format!("temporal {at_least} {}", timespan.num_seconds()),
        Operator::TemporalOrdered(sequence) => format!("temporal_ordered {}", sequence.timespan.num_seconds()),
        Operator::Aggregate(aggregate) => {
            let bounds: Vec<String> =
                aggregate.bounds.iter().map(|bound| format!("{:?} {}", bound.comparison, bound.millionths)).collect();
            format!("{} {} {}", measure_text(&aggregate.measure), bounds.join(","), aggregate.timespan.num_seconds())
        }
        Operator::NewValue(new) => {
            let always = format!("new_value {} {} {}", new.history_days, new.min_days, new.min_days_seen);
            // Said only where it is not what it always was: what rules mean that do not name it has not changed.
            let always = match new.known_after_days {
                1 => always,
                days => format!("{always} after {days}"),
            };
            match &new.least {
                None => always,
                Some(least) => format!("{always} {} {}", least.events, least.of.join(",")),
            }
        }
        Operator::Absence(absence) => format!(
            "absence {} {} {}",
            absence.expect.join(","),
            absence.timespan.num_seconds(),
            absence.delay.num_seconds()
        ),
        Operator::Travel(travel) => format!(
            "travel {} {} {} {}",
            travel.timespan.num_seconds(),
            travel.speed_kmh,
            travel.distance_km,
            travel.must_differ
        ),
        Operator::Spike(spike) => format!(
            "spike {} {} {} {} {} {} {}",
            spike.timespan.num_seconds(),
            spike.floor,
            spike.ratio,
            spike.deviations,
            spike.history_days,
            spike.min_days,
            spike.cold_floor
        ),
    }
}

fn measure_text(measure: &Measure) -> String {
    match measure {
        Measure::Ratio(Ratio { of, floor }) => format!("Ratio {} {floor}", of.join(",")),
        other => format!("{other:?}"),
    }
}
