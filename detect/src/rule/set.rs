//! All rules together: names resolved across files, the operator's tuning applied.
//!
//! Loading is all or nothing: with one faulty rule there is no set, because a detector that runs without a rule its
//! operator believes in is worse than one that says so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use chrono::TimeDelta;
use schemas::json::key_id;
use schemas::path::Path;

use super::correlation::{Correlation, Named};
use super::document::{self, Body, Document, ENGINE_NAMES};
use super::model::{Kind, Member, Operator, Rule};
use super::report::{Code, Problems, RuleErrors};
use super::samples::{self, Fixtures};
use super::text::Template;
use super::tuning::{Exception, Tuning};
use super::yaml;

/// Near matches of a detection rule by itself are one finding.
const DETECTION_GAP: TimeDelta = TimeDelta::hours(1);

/// Part of every version: a change of what the language means is a change of every rule.
const LANGUAGE: &str = "1";

/// Hex digits of a rule's version.
const VERSION_DIGITS: usize = 12;

/// A rule file: where it is from, and its text.
#[derive(Clone, Debug)]
pub struct Source {
    pub file: String,
    pub text: String,
}

/// The rules that run. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    rules: Arc<[Arc<Rule>]>,
    exceptions: Arc<HashMap<String, Vec<Exception>>>,
}

impl RuleSet {
    /// Loads rules. All problems of all files are reported at once.
    pub fn load(sources: Vec<Source>, tuning: &Tuning) -> Result<RuleSet, RuleErrors> {
        let mut errors = RuleErrors::default();
        let (documents, unread) = read(&sources, &mut errors);
        let linker = Linker::new(&sources, &documents, unread, &mut errors);
        let mut rules = linker.link(&mut errors);
        let exceptions = apply(tuning, &mut rules, &mut errors);
        if !errors.is_empty() {
            errors.sort();
            return Err(errors);
        }
        rules.sort_by(|a, b| a.id.cmp(&b.id));
        let rules: Vec<Arc<Rule>> = rules.into_iter().map(Arc::new).collect();
        Ok(RuleSet { rules: rules.into(), exceptions: Arc::new(exceptions) })
    }

    /// The rules, by id.
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// The rule of that id.
    pub fn get(&self, id: &str) -> Option<&Arc<Rule>> {
        let position = self.rules.binary_search_by(|rule| rule.id.as_str().cmp(id)).ok()?;
        self.rules.get(position)
    }

    /// The rule of that id or name.
    pub fn find(&self, name: &str) -> Option<&Arc<Rule>> {
        self.rules.iter().find(|rule| rule.id == name || rule.name == name)
    }

    /// The exceptions of a rule, by its id.
    pub fn exceptions(&self, rule_id: &str) -> &[Exception] {
        self.exceptions.get(rule_id).map_or(&[], Vec::as_slice)
    }
}

/// Every document of every file, and the ids and names of those that are no rules: who refers to one of them is not to
/// blame.
fn read(sources: &[Source], errors: &mut RuleErrors) -> (Vec<Document>, BTreeSet<String>) {
    let mut documents = Vec::new();
    let mut unread = BTreeSet::new();
    for (file, source) in sources.iter().enumerate() {
        let mut problems = Problems::new(&source.file, &source.text, errors);
        let nodes = yaml::parse(&source.text, &mut problems);
        // Fixtures hold for the whole file: a correlation and its rules are tested with the same records.
        let mut fixtures = Fixtures::new();
        for entry in nodes.iter().filter_map(|node| node.entry("x-fixtures")) {
            samples::fixtures(entry, &mut fixtures, &mut problems);
        }
        for node in nodes.iter().filter(|node| node.value != yaml::Value::Null) {
            match document::parse(file, node, &fixtures, &mut problems) {
                Some(document) => documents.push(document),
                None => {
                    let names = ["id", "name"].into_iter().filter_map(|key| node.get(key)?.text());
                    unread.extend(names.map(str::to_owned));
                }
            }
        }
    }
    (documents, unread)
}

struct Linker<'d> {
    sources: &'d [Source],
    documents: &'d [Document],
    /// Positions by id and name.
    index: HashMap<&'d str, usize>,
    unread: BTreeSet<String>,
}

impl<'d> Linker<'d> {
    fn new(
        sources: &'d [Source],
        documents: &'d [Document],
        unread: BTreeSet<String>,
        errors: &mut RuleErrors,
    ) -> Linker<'d> {
        let mut index: HashMap<&'d str, usize> = HashMap::new();
        for (position, document) in documents.iter().enumerate() {
            for named in [&document.id, &document.name] {
                let first = *index.entry(&named.name).or_insert(position);
                if first != position {
                    let other: &Document = &documents[first];
                    let message = format!(
                        "'{}' is already the id or name of the rule at {}:{}",
                        named.name, sources[other.file].file, other.place.line
                    );
                    problems(sources, document.file, errors).add(Code::Duplicate, named.place, message);
                    break;
                }
            }
        }
        Linker { sources, documents, index, unread }
    }

    fn link(&self, errors: &mut RuleErrors) -> Vec<Rule> {
        let mut referred: BTreeSet<usize> = BTreeSet::new();
        let mut generating: BTreeSet<usize> = BTreeSet::new();
        let mut kinds = Vec::new();
        for document in self.documents {
            let kind = match &document.body {
                Body::Detection(detection) => Some((Kind::Detection(detection.clone()), Operator::Each)),
                Body::Correlation(correlation) => {
                    let linked = self.correlation(document, correlation, errors);
                    linked.map(|linked| {
                        referred.extend(linked.members.iter().chain(&linked.learn));
                        if correlation.generate || document.generate == Some(true) {
                            generating.extend(&linked.members);
                        }
                        (linked.kind, linked.operator)
                    })
                }
            };
            kinds.push(kind);
        }
        let mut rules = Vec::new();
        for (position, (document, kind)) in self.documents.iter().zip(kinds).enumerate() {
            if let Some((kind, operator)) = kind {
                let is_detection = matches!(kind, Kind::Detection(_));
                let by_itself = !referred.contains(&position) || generating.contains(&position);
                // On a correlation `generate` speaks of the rules it refers to.
                let generates = if is_detection { document.generate.unwrap_or(by_itself) } else { true };
                rules.push(self.rule(document, kind, operator, generates));
            }
        }
        rules
    }

    /// Resolves one reference. Only detection rules can be referred to.
    fn resolve(&self, document: &Document, named: &Named, errors: &mut RuleErrors) -> Option<usize> {
        let mut problems = problems(self.sources, document.file, errors);
        let Some(position) = self.index.get(named.name.as_str()).copied() else {
            if self.unread.contains(&named.name) {
                return None;
            }
            let message = format!("no rule has the id or name '{}'", named.name.escape_debug());
            let mut names: Vec<&str> = self.index.keys().copied().collect();
            names.sort_unstable();
            problems.add_name(Code::UnknownRule, named.place, message, &named.name, names);
            return None;
        };
        if let Body::Correlation(_) = self.documents[position].body {
            let message = format!("'{}' is a correlation: correlations of correlations are not supported", named.name);
            problems.add(Code::Unsupported, named.place, message);
            return None;
        }
        Some(position)
    }

    fn correlation(
        &self,
        document: &Document,
        correlation: &Correlation,
        errors: &mut RuleErrors,
    ) -> Option<LinkedCorrelation> {
        let mut resolve_all = |named: &[Named]| -> Option<Vec<usize>> {
            let all: Vec<_> = named.iter().map(|named| self.resolve(document, named, errors)).collect();
            all.into_iter().collect()
        };
        let (members, learn) = (resolve_all(&correlation.rules), resolve_all(&correlation.learn));
        let (members, learn) = (members?, learn?);
        let mut problems = problems(self.sources, document.file, errors);
        let before = problems.count();
        if let Some(twice) = (1..members.len()).find(|at| members[..*at].contains(&members[*at])) {
            let place = correlation.rules[twice].place;
            problems.add(Code::Duplicate, place, "the same rule stands twice in 'rules', by its id and its name");
        }
        self.check_aliases(correlation, &members, &mut problems);
        let paths: Vec<Vec<Path>> = members
            .iter()
            .map(|member| {
                let group_by = correlation.group_by.iter();
                group_by.map(|name| self.group_path(correlation, name, *member, &mut problems)).collect()
            })
            .collect();
        let names: Vec<String> = members.iter().map(|member| self.documents[*member].name.name.clone()).collect();
        let operator = match &correlation.operator {
            Operator::Temporal { at_least: 0, timespan } => {
                Operator::Temporal { at_least: members.len(), timespan: *timespan }
            }
            Operator::Temporal { at_least, .. } if *at_least > members.len() => {
                let message =
                    format!("the condition asks for {at_least} of {} rules: it can never hold", members.len());
                problems.add(Code::InvalidValue, document.place, message);
                return None;
            }
            Operator::TemporalOrdered { timespan, .. } => {
                Operator::TemporalOrdered { members: names.clone(), timespan: *timespan }
            }
            other => other.clone(),
        };
        let members_and_paths =
            names.into_iter().zip(paths).map(|(name, group_by)| Member { name, group_by }).collect();
        // A baseline without teachers learns from what triggers it.
        let learn = match (&operator, learn.is_empty()) {
            (Operator::NewValue(_), true) => members.clone(),
            _ => learn,
        };
        let learn_from = learn.iter().map(|rule| self.documents[*rule].name.name.clone()).collect();
        let kind = Kind::Correlation { members: members_and_paths, learn_from };
        (problems.count() == before).then_some(LinkedCorrelation { kind, operator, members, learn })
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
            Some((_, field)) => Path::parse(&field.name),
            None => {
                let rule = &self.documents[member].name.name;
                let message = format!("the alias '{}' says nothing of the rule '{rule}'", alias.name);
                problems.add(Code::MissingKey, alias.place, message);
                Path::parse(&named.name)
            }
        }
    }

    fn rule(&self, document: &Document, kind: Kind, operator: Operator, generates: bool) -> Rule {
        let correlation = match &document.body {
            Body::Correlation(correlation) => Some(&**correlation),
            Body::Detection(_) => None,
        };
        let operator = if document.outside.is_some() { Operator::Outside } else { operator };
        let group_by: Vec<String> = match (correlation, &document.group_by) {
            (Some(correlation), _) if !correlation.group_by.is_empty() => names(&correlation.group_by),
            (_, Some(given)) => names(given),
            (None, None) => vec!["user_id".to_owned()],
            (Some(_), None) => Vec::new(),
        };
        let gap = document.gap.or(correlation.map(|correlation| correlation.gap)).unwrap_or(DETECTION_GAP);
        let path = |named: &Option<Named>| named.as_ref().map(|named| Path::parse(&named.name));
        let value = correlation.and_then(|correlation| correlation.value.clone());
        let entities = document.entities.clone();
        let reason = document.reason.clone().unwrap_or_else(|| default_reason(document));
        let aliases: BTreeSet<&str> = correlation
            .map(|correlation| correlation.aliases.iter().map(|(alias, _)| alias.name.as_str()).collect())
            .unwrap_or_default();
        let mut shown: BTreeMap<String, Path> = BTreeMap::new();
        let templates = document.next.iter().flat_map(|next| std::iter::once(&next.text).chain(&next.command));
        let in_texts = templates.chain(std::iter::once(&reason)).flat_map(Template::fields);
        let other = entities.iter().map(|(_, field)| field.as_str()).chain(document.fields.iter().map(String::as_str));
        let grouping = group_by.iter().map(String::as_str).filter(|name| !aliases.contains(name));
        for name in in_texts.filter(|name| !ENGINE_NAMES.contains(name)).chain(other).chain(grouping) {
            shown.insert(name.to_owned(), Path::parse(name));
        }
        Rule {
            id: document.id.name.clone(),
            name: document.name.name.clone(),
            version: self.version(document, &kind, &operator, gap, &group_by),
            title: document.title.clone(),
            description: document.description.clone(),
            level: document.level,
            attack: document.attack.clone(),
            false_positives: document.false_positives.clone(),
            references: document.references.clone(),
            answers: document.answers.clone(),
            needs: document.needs.clone(),
            kind,
            group_by,
            gap,
            operator,
            weight: path(&document.weight),
            value: path(&value),
            outside: path(&document.outside),
            generates,
            reason,
            next: document.next.clone(),
            entities,
            shown: shown.into_iter().collect(),
            tests: document.tests.clone(),
            file: self.sources[document.file].file.clone(),
            line: document.place.line,
        }
    }

    /// The hash of what a rule selects and when it fires. Titles, levels, texts and formatting are not part of it.
    fn version(
        &self,
        document: &Document,
        kind: &Kind,
        operator: &Operator,
        gap: TimeDelta,
        group_by: &[String],
    ) -> String {
        let mut parts: Vec<String> = vec![LANGUAGE.to_owned(), document.meaning.clone(), operator_text(operator)];
        parts.push(gap.num_seconds().to_string());
        parts.push(group_by.join("\n"));
        let value = match &document.body {
            Body::Correlation(correlation) => correlation.value.as_ref(),
            Body::Detection(_) => None,
        };
        for named in [document.weight.as_ref(), document.outside.as_ref(), value] {
            parts.push(named.map(|named| named.name.clone()).unwrap_or_default());
        }
        if let (Kind::Correlation { members, learn_from }, Body::Correlation(correlation)) = (kind, &document.body) {
            for name in members.iter().map(|member| &member.name).chain(learn_from) {
                parts.push(name.clone());
                if let Some(position) = self.index.get(name.as_str()) {
                    let member = &self.documents[*position];
                    parts.push(member.meaning.clone());
                    parts.push(member.outside.as_ref().map(|named| named.name.clone()).unwrap_or_default());
                }
            }
            for (alias, fields) in &correlation.aliases {
                parts.push(alias.name.clone());
                parts.extend(fields.iter().map(|(rule, field)| format!("{}={}", rule.name, field.name)));
            }
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let mut id = key_id(&parts);
        id.truncate(VERSION_DIGITS);
        id
    }
}

struct LinkedCorrelation {
    kind: Kind,
    operator: Operator,
    members: Vec<usize>,
    learn: Vec<usize>,
}

fn names(named: &[Named]) -> Vec<String> {
    named.iter().map(|named| named.name.clone()).collect()
}

fn problems<'e>(sources: &'e [Source], file: usize, errors: &'e mut RuleErrors) -> Problems<'e> {
    let source = &sources[file];
    Problems::new(&source.file, &source.text, errors)
}

/// An operator as text that stays the same when the code around it changes.
fn operator_text(operator: &Operator) -> String {
    match operator {
        Operator::Each => "each".to_owned(),
        Operator::Outside => "outside".to_owned(),
        Operator::EventCount { at_least, timespan } => format!("event_count {at_least} {}", timespan.num_seconds()),
        Operator::ValueCount { at_least, timespan } => format!("value_count {at_least} {}", timespan.num_seconds()),
        Operator::Temporal { at_least, timespan } => format!("temporal {at_least} {}", timespan.num_seconds()),
        Operator::TemporalOrdered { timespan, .. } => format!("temporal_ordered {}", timespan.num_seconds()),
        Operator::NewValue(new) => format!("new_value {} {} {}", new.history_days, new.min_days, new.min_days_seen),
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

/// The title and whom it is about.
fn default_reason(document: &Document) -> Template {
    let shown = |kind: &str| document.entities_given || matches!(kind, "user" | "mailbox" | "ip");
    let entities = document.entities.iter().filter(|(kind, _)| shown(kind));
    let entities: Vec<String> = entities.map(|(kind, field)| format!("{kind} {{{field}}}")).collect();
    let title = document.title.replace('{', "{{").replace('}', "}}");
    let text = if entities.is_empty() { title } else { format!("{title} ({})", entities.join(", ")) };
    // Names of fields and escaped text always make a template.
    Template::parse(&text).unwrap_or_default()
}

/// Applies the tuning; gives the exceptions by rule id.
fn apply(tuning: &Tuning, rules: &mut Vec<Rule>, errors: &mut RuleErrors) -> HashMap<String, Vec<Exception>> {
    let broken = !errors.is_empty();
    let mut problems = Problems::new(&tuning.file, &tuning.text, errors);
    let mut find = |rules: &[Rule], name: &str, place| -> Option<usize> {
        let found = rules.iter().position(|rule| rule.id == name || rule.name == name);
        // Where rules did not load, theirs are the errors to read first.
        if found.is_none() && !broken {
            let names = rules.iter().flat_map(|rule| [rule.id.as_str(), rule.name.as_str()]);
            let message = format!("no rule has the id or name '{}'", name.escape_debug());
            problems.add_name(Code::UnknownRule, place, message, name, names);
        }
        found
    };
    for (name, level, place) in &tuning.levels {
        if let Some(position) = find(rules, name, *place) {
            rules[position].level = *level;
        }
    }
    let mut exceptions: HashMap<String, Vec<Exception>> = HashMap::new();
    for exception in &tuning.exceptions {
        if let Some(position) = find(rules, &exception.rule, exception.place) {
            exceptions.entry(rules[position].id.clone()).or_default().push(exception.clone());
        }
    }
    let off: Vec<usize> = tuning.disable.iter().filter_map(|(name, place)| find(rules, name, *place)).collect();
    disable(rules, &off);
    exceptions
}

/// Takes rules away. A detection rule that a remaining correlation needs stays and makes no findings of its own.
fn disable(rules: &mut Vec<Rule>, off: &[usize]) {
    let mut needed: BTreeSet<String> = BTreeSet::new();
    for (position, rule) in rules.iter().enumerate() {
        if let (Kind::Correlation { members, learn_from }, false) = (&rule.kind, off.contains(&position)) {
            needed.extend(members.iter().map(|member| member.name.clone()).chain(learn_from.iter().cloned()));
        }
    }
    let mut position = 0;
    rules.retain_mut(|rule| {
        let is_off = off.contains(&position);
        position += 1;
        if is_off {
            rule.generates = false;
        }
        !is_off || needed.contains(&rule.name)
    });
}
