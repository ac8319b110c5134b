//! What a correlation is made from: detection rules, directly or by way of other correlations, each with the paths of its
//! group key and what the operator compares.

use std::collections::BTreeSet;

use chrono::TimeDelta;
use schemas::path::Path;

use super::correlation::{Correlation, Named};
use super::document::{Body, Document};
use super::link::{Linker, problems};
use super::model::{Absence, Measure, Member, Operator, Reads, Sequence, Stage, Step};
use super::report::{Code, Problems, RuleErrors};

/// Longest chain of correlations of correlations.
const CHAIN_LENGTH_MAX: usize = 4;

/// What a correlation is made from.
pub(super) struct Parts {
    /// Positions of the rules it names.
    pub rules: Vec<usize>,
    pub learn: Vec<usize>,
    pub members: Vec<Member>,
    pub stages: Vec<Stage>,
    pub operator: Operator,
}

impl Linker<'_> {
    /// The rules that `x-learn` names: what teaches are records.
    fn teachers(&self, document: &Document, named: &[Named], errors: &mut RuleErrors) -> Option<Vec<usize>> {
        let mut teacher = |named: &Named| -> Option<usize> {
            let position = self.find(document, named, errors)?;
            if matches!(self.documents[position].body, Body::Detection(_)) {
                return Some(position);
            }
            let message = format!("'{}' is no detection rule: baselines learn from records", named.name);
            problems(self.sources, document.file, errors).add(Code::Unsupported, named.place, message);
            None
        };
        let all: Vec<_> = named.iter().map(&mut teacher).collect();
        all.into_iter().collect()
    }

    /// What a correlation is made from. `around` are the correlations it is looked at for.
    pub(super) fn parts(&self, own: usize, around: &mut Vec<usize>, errors: &mut RuleErrors) -> Option<Parts> {
        let document = &self.documents[own];
        let Body::Correlation(correlation) = &document.body else { return None };
        let rules: Vec<_> = correlation.rules.iter().map(|named| self.find(document, named, errors)).collect();
        let learn = self.teachers(document, &correlation.learn, errors);
        let (rules, learn) = (rules.into_iter().collect::<Option<Vec<usize>>>()?, learn?);
        let before = errors.reports().len();
        let is_sequence = matches!(correlation.operator, Operator::TemporalOrdered(_));
        let twice = (1..rules.len()).find(|at| rules[..*at].contains(&rules[*at]));
        if let (Some(twice), false) = (twice, is_sequence) {
            let place = correlation.rules[twice].place;
            let message = "the same rule stands twice in 'rules', by its id and its name";
            problems(self.sources, document.file, errors).add(Code::Duplicate, place, message);
        }
        self.check_aliases(correlation, &rules, &mut problems(self.sources, document.file, errors));
        if rules.iter().any(|at| matches!(self.documents[*at].body, Body::Detection(_))) {
            // Of correlations alone these are names of their group keys.
            let mut problems = problems(self.sources, document.file, errors);
            for value in &correlation.values {
                super::names::check(&value.name, value.place, &mut problems);
            }
        }
        self.check_same(document, correlation, &rules, errors);
        let operator = self.operator(document, correlation, &rules, errors)?;
        let (mut members, mut stages, mut complete) = (Vec::new(), Vec::new(), true);
        around.push(own);
        let places = correlation.rules.iter().zip(&rules).enumerate();
        // One that stands in several places of a sequence is one member.
        for (_, (named, position)) in places.filter(|(at, (_, position))| !rules[..*at].contains(position)) {
            match &self.documents[*position].body {
                Body::Detection(_) => {
                    let mut problems = problems(self.sources, document.file, errors);
                    members.push(self.member(document, correlation, &operator, *position, &mut problems));
                }
                Body::Correlation(inner) => {
                    let found = self.inner(document, correlation, (named, *position, inner), around, errors);
                    let Some((inner_members, inner_stages)) = found else {
                        complete = false;
                        continue;
                    };
                    members.extend(inner_members);
                    stages.extend(inner_stages);
                }
                Body::Filter(_) => {
                    let message = format!("'{}' is a filter, not a rule", named.name);
                    problems(self.sources, document.file, errors).add(Code::InvalidValue, named.place, message);
                }
            }
        }
        around.pop();
        if !stages.is_empty() && !operator.only_grows() {
            let message = "a correlation of correlations counts, or asks for its rules: event_count, value_count, \
                           temporal, temporal_ordered, with lower bounds only";
            problems(self.sources, document.file, errors).add(Code::Unsupported, document.place, message);
        }
        // A baseline without teachers learns from what triggers it.
        let learn = match (&operator, learn.is_empty()) {
            (Operator::NewValue(_), true) => rules.clone(),
            _ => learn,
        };
        (complete && errors.reports().len() == before).then_some(Parts { rules, learn, members, stages, operator })
    }

    /// Whether a correlation looks at another one, directly or by way of others.
    fn refers_to(&self, from: usize, wanted: usize, seen: &mut BTreeSet<usize>) -> bool {
        let Body::Correlation(correlation) = &self.documents[from].body else { return false };
        let rules = correlation.rules.iter().filter_map(|named| self.index.get(named.name.as_str()).copied());
        let rules: Vec<usize> = rules.collect();
        rules.contains(&wanted) || rules.into_iter().any(|rule| seen.insert(rule) && self.refers_to(rule, wanted, seen))
    }

    /// The operator with what only the rules it refers to say.
    fn operator(
        &self,
        document: &Document,
        correlation: &Correlation,
        rules: &[usize],
        errors: &mut RuleErrors,
    ) -> Option<Operator> {
        Some(match &correlation.operator {
            Operator::Temporal { at_least: 0, timespan } => {
                Operator::Temporal { at_least: rules.len(), timespan: *timespan }
            }
            Operator::Temporal { at_least, .. } if *at_least > rules.len() => {
                let message = format!("the condition asks for {at_least} of {} rules: it can never hold", rules.len());
                problems(self.sources, document.file, errors).add(Code::InvalidValue, document.place, message);
                return None;
            }
            Operator::TemporalOrdered(Sequence { timespan, .. }) => {
                let step = |(named, at): (&Named, &usize)| Step {
                    rule: self.name(*at).to_owned(),
                    same: self.same_of(correlation, *at).map(|field| field.name.clone()),
                    pause: self.pause_of(correlation, named),
                };
                let steps = correlation.rules.iter().zip(rules).map(step).collect();
                Operator::TemporalOrdered(Sequence { steps, timespan: *timespan })
            }
            // By name, however the correlation refers to them.
            Operator::NewValue(new) => {
                let mut new = new.clone();
                if let Some(least) = &mut new.least {
                    least.of = self.named(&least.of, correlation, rules);
                }
                Operator::NewValue(new)
            }
            Operator::Absence(absence) => {
                let expect = self.named(&absence.expect, correlation, rules);
                Operator::Absence(Absence { expect, ..absence.clone() })
            }
            Operator::Aggregate(aggregate) => {
                let mut aggregate = aggregate.clone();
                if let Measure::Ratio(ratio) = &mut aggregate.measure {
                    ratio.of = self.named(&ratio.of, correlation, rules);
                }
                Operator::Aggregate(aggregate)
            }
            other => other.clone(),
        })
    }

    /// The names of those of its rules that a correlation refers to as one of these.
    fn named(&self, references: &[String], correlation: &Correlation, rules: &[usize]) -> Vec<String> {
        let referred = correlation.rules.iter().zip(rules);
        let meant = referred.filter(|(named, _)| references.contains(&named.name));
        meant.map(|(_, at)| self.name(*at).to_owned()).collect()
    }

    /// What `x-same` asks of records: fields that can be, and rules that select records.
    fn check_same(&self, document: &Document, correlation: &Correlation, rules: &[usize], errors: &mut RuleErrors) {
        let mut problems = problems(self.sources, document.file, errors);
        for (_, field) in &correlation.same {
            super::names::check(&field.name, field.place, &mut problems);
        }
        let is_correlation = |at: &usize| matches!(self.documents[*at].body, Body::Correlation(_));
        if let (Some((first, _)), true) = (correlation.same.first(), rules.iter().any(is_correlation)) {
            let message = "'x-same' compares records: all of its rules are detection rules";
            problems.add(Code::Unsupported, first.place, message);
        }
    }

    /// The field whose value a rule's records have in common with those of others.
    fn same_of<'c>(&self, correlation: &'c Correlation, position: usize) -> Option<&'c Named> {
        let of_rule = |rule: &Named| self.index.get(rule.name.as_str()) == Some(&position);
        correlation.same.iter().find(|(rule, _)| of_rule(rule)).map(|(_, field)| field)
    }

    fn pause_of(&self, correlation: &Correlation, rule: &Named) -> TimeDelta {
        let found = correlation.pauses.iter().find(|(other, _)| other.name == rule.name);
        found.map_or(TimeDelta::zero(), |(_, pause)| *pause)
    }

    /// A detection rule that a correlation refers to.
    fn member(
        &self,
        document: &Document,
        correlation: &Correlation,
        operator: &Operator,
        position: usize,
        problems: &mut Problems<'_>,
    ) -> Member {
        let paths = |names: &[Named]| names.iter().map(|named| Path::parse(&named.name)).collect();
        let (reads, values) = match self.same_of(correlation, position) {
            Some(field) => (Reads::Texts, paths(std::slice::from_ref(field))),
            None => (operator.reads(), paths(&correlation.values)),
        };
        Member {
            name: self.name(position).to_owned(),
            rule: self.name(position).to_owned(),
            through: Vec::new(),
            group_by: correlation
                .group_by
                .iter()
                .map(|named| self.group_path(correlation, named, position, problems))
                .collect(),
            levels: Vec::new(),
            reads,
            values,
            weight: document.weight.as_ref().map(|named| Path::parse(&named.name)),
        }
    }

    /// What an inner correlation brings: its members and stages, seen from the one around it, which knows of it
    /// nothing but its group key.
    fn inner(
        &self,
        document: &Document,
        outer: &Correlation,
        (named, position, inner): (&Named, usize, &Correlation),
        around: &mut Vec<usize>,
        errors: &mut RuleErrors,
    ) -> Option<(Vec<Member>, Vec<Stage>)> {
        let refuse = |message: String, place, errors: &mut RuleErrors| {
            problems(self.sources, document.file, errors).add(Code::Unsupported, place, message);
            None
        };
        let own = around.last().copied().unwrap_or(position);
        if position == own || self.refers_to(position, own, &mut BTreeSet::new()) {
            let message = format!("'{}' refers back to this correlation: they would wait for each other", named.name);
            return refuse(message, named.place, errors);
        }
        if around.len() >= CHAIN_LENGTH_MAX {
            let message = format!("correlations of correlations, more than {CHAIN_LENGTH_MAX} deep");
            return refuse(message, named.place, errors);
        }
        // Its own problems are reported where it stands.
        let parts = self.parts(position, around, &mut RuleErrors::default())?;
        if !inner.same.is_empty() {
            let message = format!("'{}' has 'x-same': nothing can rest on it yet", named.name);
            return refuse(message, named.place, errors);
        }
        if !parts.operator.only_grows() {
            let message = format!(
                "'{}' can be taken back by later records, so nothing can rest on it; correlations that count with \
                 lower bounds, temporal and temporal_ordered can be referred to",
                named.name
            );
            return refuse(message, named.place, errors);
        }
        let name = self.name(position);
        let exposed = |field: &Named, errors: &mut RuleErrors| -> Option<usize> {
            let wanted = self.alias_of(outer, field, position).unwrap_or(field);
            let found = inner.group_by.iter().position(|own| own.name == wanted.name);
            if found.is_none() {
                let message =
                    format!("'{name}' is a correlation and shows only what it groups by, not '{}'", wanted.name);
                let known = inner.group_by.iter().map(|own| own.name.as_str());
                let mut problems = problems(self.sources, document.file, errors);
                problems.add_name(Code::UnknownField, wanted.place, message, &wanted.name, known);
            }
            found
        };
        let mut all = |fields: &[Named]| -> Option<Vec<usize>> {
            let found: Vec<_> = fields.iter().map(|field| exposed(field, errors)).collect();
            found.into_iter().collect()
        };
        let (key, exposes) = (all(&outer.group_by), all(&outer.values));
        let (key, exposes) = (key?, exposes?);
        let members = parts.members.into_iter().map(|member| {
            // Positions in the inner key are positions in the innermost one.
            let own = match member.levels.first() {
                Some(inner_key) => key.iter().filter_map(|at| inner_key.get(*at).copied()).collect(),
                None => key.clone(),
            };
            Member {
                name: format!("{name}/{}", member.name),
                through: std::iter::once(self.documents[position].id.name.clone()).chain(member.through).collect(),
                levels: std::iter::once(own).chain(member.levels).collect(),
                ..member
            }
        });
        let stages = parts.stages.into_iter().map(|stage| Stage { name: format!("{name}/{}", stage.name), ..stage });
        let own = Stage { name: name.to_owned(), operator: parts.operator, exposes };
        Some((members.collect(), stages.chain([own]).collect()))
    }

    fn check_aliases(&self, correlation: &Correlation, members: &[usize], problems: &mut Problems<'_>) {
        for (alias, fields) in &correlation.aliases {
            if !correlation.group_by.iter().any(|named| named.name == alias.name) {
                let message = format!("the alias '{}' is not used in 'group-by'", alias.name);
                problems.add(Code::InvalidValue, alias.place, message);
            }
            for (rule, _) in fields {
                if !self.index.get(rule.name.as_str()).is_some_and(|position| members.contains(position)) {
                    let message = format!("'{}' is not one of the correlation's rules", rule.name.escape_debug());
                    let names: Vec<&str> = correlation.rules.iter().map(|named| named.name.as_str()).collect();
                    problems.add_name(Code::UnknownRule, rule.place, message, &rule.name, names);
                }
            }
        }
    }

    /// The alias' field for one of the rules, where a name of `group-by` is an alias.
    fn alias_of<'c>(&self, correlation: &'c Correlation, named: &Named, member: usize) -> Option<&'c Named> {
        let (_, fields) = correlation.aliases.iter().find(|(alias, _)| alias.name == named.name)?;
        let (_, field) = fields.iter().find(|(rule, _)| self.index.get(rule.name.as_str()) == Some(&member))?;
        Some(field)
    }

    /// What a line of `group-by` is for one member: the alias' field for it, or the field itself.
    fn group_path(&self, correlation: &Correlation, named: &Named, member: usize, problems: &mut Problems<'_>) -> Path {
        let alias = correlation.aliases.iter().find(|(alias, _)| alias.name == named.name);
        let Some((alias, fields)) = alias else {
            // One report for all members: the check is made for the first one.
            if self.index.get(correlation.rules[0].name.as_str()) == Some(&member) {
                super::names::check(&named.name, named.place, problems);
            }
            return Path::parse(&named.name);
        };
        let field = fields.iter().find(|(rule, _)| self.index.get(rule.name.as_str()) == Some(&member));
        match field {
            Some((_, field)) => {
                super::names::check(&field.name, field.place, problems);
                Path::parse(&field.name)
            }
            None => {
                let rule = &self.documents[member].name.name;
                let message = format!("the alias '{}' says nothing of the rule '{rule}'", alias.name);
                problems.add(Code::MissingKey, alias.place, message);
                Path::parse(&named.name)
            }
        }
    }
}
