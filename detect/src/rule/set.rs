//! All rules together: names resolved across files, the operator's tuning applied.
//!
//! Loading is all or nothing: with one faulty rule there is no set, because a detector that runs without a rule its
//! operator believes in is worse than one that says so.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use chrono::TimeDelta;
use schemas::json::key_id;
use schemas::path::Path;

use super::condition::{Detection, Filter};
use super::correlation::{Correlation, Named};
use super::detection::World;
use super::dialect::{self, Dialects};
use super::document::{self, Body, Document, ENGINE_NAMES};
use super::lists::Lists;
use super::model::{Kind, Member, Operator, Rule, Stage};
use super::report::{Code, Problems, RuleErrors};
use super::samples::{self, Fixtures};
use super::text::Template;
use super::tuning::{Exception, Tuning};
use super::yaml;

/// Near matches of a detection rule by itself are one finding.
const DETECTION_GAP: TimeDelta = TimeDelta::hours(1);

/// Part of every version: a change of what the language means is a change of every rule.
const LANGUAGE: &str = "1";

/// Longest chain of correlations of correlations.
const CHAIN_LENGTH_MAX: usize = 4;

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
        let (documents, unread) = read(&sources, tuning, &mut errors);
        let linker = Linker::new(&sources, &documents, unread, &mut errors);
        linker.check_dangling(&mut errors);
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
fn read(sources: &[Source], tuning: &Tuning, errors: &mut RuleErrors) -> (Vec<Document>, Unread) {
    let mut world = World { lists: Lists::default(), dialects: Dialects::own() };
    let mut files = Vec::new();
    // Lists and dialects hold for all files, so they are read before any rule.
    for source in sources {
        let mut problems = Problems::new(&source.file, &source.text, errors);
        let mut nodes = yaml::parse(&source.text, &mut problems);
        for node in &nodes {
            if let Some(entry) = node.entry("x-lists") {
                world.lists.read(entry, &source.file, &mut problems);
            }
            if let Some(entry) = node.entry(dialect::KEY) {
                world.dialects.read(node, entry, Some(&source.file), &mut problems);
            }
        }
        let is_rule = |node: &yaml::Node| {
            let only_lists = node.map().is_some_and(|entries| entries.iter().all(|entry| entry.key == "x-lists"));
            node.value != yaml::Value::Null && node.entry(dialect::KEY).is_none() && !only_lists
        };
        nodes.retain(is_rule);
        files.push(nodes);
    }
    for (name, values) in &tuning.lists {
        world.lists.replace(name, values, &tuning.file);
    }
    let mut documents = Vec::new();
    let mut unread = Unread::default();
    for (file, (source, nodes)) in sources.iter().zip(files).enumerate() {
        let mut problems = Problems::new(&source.file, &source.text, errors);
        // Fixtures hold for the whole file: a correlation and its rules are tested with the same records.
        let mut fixtures = Fixtures::new();
        for entry in nodes.iter().filter_map(|node| node.entry("x-fixtures")) {
            samples::fixtures(entry, &mut fixtures, &mut problems);
        }
        for node in &nodes {
            match document::parse(file, node, &fixtures, &world, &mut problems) {
                Some(document) => documents.push(document),
                None => {
                    let names = ["id", "name"].into_iter().filter_map(|key| node.get(key)?.text());
                    unread.names.extend(names.map(str::to_owned));
                    let section = ["correlation", "filter"].into_iter().find_map(|key| node.get(key));
                    let rules = section.and_then(|section| section.get("rules")).map_or(&[][..], yaml::Node::members);
                    let named = |node: &yaml::Node| Named {
                        name: node.text().unwrap_or_default().to_owned(),
                        place: node.place,
                    };
                    unread.refers_to.extend(rules.iter().map(|rule| (file, named(rule))));
                }
            }
        }
    }
    (documents, unread)
}

/// What is known of documents that are no rules because of their faults.
#[derive(Default)]
struct Unread {
    names: BTreeSet<String>,
    /// What they refer to, with the file that does: a name that is wrong as well is told at once.
    refers_to: Vec<(usize, Named)>,
}

struct Linker<'d> {
    sources: &'d [Source],
    documents: &'d [Document],
    /// Positions by id and name.
    index: HashMap<&'d str, usize>,
    unread: Unread,
}

impl<'d> Linker<'d> {
    fn new(sources: &'d [Source], documents: &'d [Document], unread: Unread, errors: &mut RuleErrors) -> Linker<'d> {
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
        let filters = self.filters(errors);
        let mut referred: BTreeSet<usize> = BTreeSet::new();
        let mut generating: BTreeSet<usize> = BTreeSet::new();
        let mut linked: Vec<Option<Linked>> = Vec::new();
        for (position, document) in self.documents.iter().enumerate() {
            linked.push(match &document.body {
                Body::Detection(detection) => {
                    let mut detection = detection.clone();
                    detection.filters = filters.of(position).map(|(_, filter)| filter.clone()).collect();
                    Some(Linked { kind: Kind::Detection(detection), stages: Vec::new(), operator: Operator::Each })
                }
                Body::Correlation(correlation) => {
                    let parts = self.parts(position, &mut Vec::new(), errors);
                    parts.map(|parts| {
                        referred.extend(parts.rules.iter().chain(&parts.learn));
                        if correlation.generate || document.generate == Some(true) {
                            generating.extend(&parts.rules);
                        }
                        let learn_from = parts.learn.iter().map(|at| self.name(*at).to_owned()).collect();
                        let kind = Kind::Correlation { members: parts.members, learn_from };
                        Linked { kind, stages: parts.stages, operator: parts.operator }
                    })
                }
                Body::Filter(_) => None,
            });
        }
        let mut rules = Vec::new();
        for (position, linked) in linked.into_iter().enumerate() {
            let Some(linked) = linked else { continue };
            let document = &self.documents[position];
            let by_itself = !referred.contains(&position) || generating.contains(&position);
            // On a correlation `generate` speaks of the rules it refers to.
            let is_detection = matches!(linked.kind, Kind::Detection(_));
            let generates = if is_detection { document.generate.unwrap_or(by_itself) } else { by_itself };
            rules.push(self.rule(position, linked, generates, &filters));
        }
        rules
    }

    fn name(&self, position: usize) -> &str {
        &self.documents[position].name.name
    }

    /// Which filters bear on which rules.
    fn filters(&self, errors: &mut RuleErrors) -> Filters {
        let mut filters = Filters::default();
        for (own, document) in self.documents.iter().enumerate() {
            let Body::Filter(body) = &document.body else { continue };
            let mut bears_on = |position: usize| filters.0.push((position, own, body.filter.clone()));
            let detection = |position: usize| match &self.documents[position].body {
                Body::Detection(detection) => Some(detection),
                _ => None,
            };
            let covers = |other: &Detection| body.filter.detection.logsource.includes(&other.logsource);
            let Some(rules) = &body.rules else {
                let all = 0..self.documents.len();
                all.filter(|at| detection(*at).is_some_and(|other| covers(other))).for_each(bears_on);
                continue;
            };
            for named in rules {
                let Some(position) = self.find(document, named, errors) else { continue };
                let mut problems = problems(self.sources, document.file, errors);
                match detection(position) {
                    Some(other) if covers(other) => bears_on(position),
                    Some(_) => {
                        let message =
                            format!("'{}' also looks at records that the filter's logsource has not", named.name);
                        problems.add(Code::InvalidValue, named.place, message);
                    }
                    None => {
                        let message = format!("'{}' is no detection rule: filters take records from those", named.name);
                        let help = "name the correlation's rules, or write an exception in the tuning file";
                        problems.add_help(Code::Unsupported, named.place, message, help);
                    }
                }
            }
        }
        filters
    }

    /// Names that faulty documents refer to, and that nothing has.
    fn check_dangling(&self, errors: &mut RuleErrors) {
        for (file, named) in
            self.unread.refers_to.iter().filter(|(_, named)| !named.name.is_empty() && named.name != "any")
        {
            self.find_from(*file, named, errors);
        }
    }

    /// The document that is called so.
    fn find(&self, document: &Document, named: &Named, errors: &mut RuleErrors) -> Option<usize> {
        self.find_from(document.file, named, errors)
    }

    fn find_from(&self, file: usize, named: &Named, errors: &mut RuleErrors) -> Option<usize> {
        if let Some(position) = self.index.get(named.name.as_str()) {
            return Some(*position);
        }
        if !self.unread.names.contains(&named.name) {
            let message = format!("no rule has the id or name '{}'", named.name.escape_debug());
            let mut names: Vec<&str> = self.index.keys().copied().collect();
            names.sort_unstable();
            problems(self.sources, file, errors).add_name(Code::UnknownRule, named.place, message, &named.name, names);
        }
        None
    }

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
    fn parts(&self, own: usize, around: &mut Vec<usize>, errors: &mut RuleErrors) -> Option<Parts> {
        let document = &self.documents[own];
        let Body::Correlation(correlation) = &document.body else { return None };
        let rules: Vec<_> = correlation.rules.iter().map(|named| self.find(document, named, errors)).collect();
        let learn = self.teachers(document, &correlation.learn, errors);
        let (rules, learn) = (rules.into_iter().collect::<Option<Vec<usize>>>()?, learn?);
        let before = errors.reports().len();
        if let Some(twice) = (1..rules.len()).find(|at| rules[..*at].contains(&rules[*at])) {
            let place = correlation.rules[twice].place;
            let message = "the same rule stands twice in 'rules', by its id and its name";
            problems(self.sources, document.file, errors).add(Code::Duplicate, place, message);
        }
        self.check_aliases(correlation, &rules, &mut problems(self.sources, document.file, errors));
        let operator = self.operator(document, correlation, &rules, errors)?;
        let (mut members, mut stages, mut complete) = (Vec::new(), Vec::new(), true);
        around.push(own);
        for (named, position) in correlation.rules.iter().zip(&rules) {
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
            Operator::TemporalOrdered { timespan, .. } => {
                let members = rules.iter().map(|at| self.name(*at).to_owned()).collect();
                Operator::TemporalOrdered { members, timespan: *timespan }
            }
            other => other.clone(),
        })
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
            reads: operator.reads(),
            values: paths(&correlation.values),
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

    fn rule(&self, position: usize, linked: Linked, generates: bool, filters: &Filters) -> Rule {
        let document = &self.documents[position];
        let Linked { kind, stages, operator } = linked;
        let correlation = match &document.body {
            Body::Correlation(correlation) => Some(&**correlation),
            Body::Detection(_) | Body::Filter(_) => None,
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
        let values = correlation.map(|correlation| correlation.values.as_slice()).unwrap_or_default();
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
            version: self.version(position, &operator, gap, &group_by, filters),
            title: document.title.clone(),
            description: document.description.clone(),
            level: document.level,
            attack: document.attack.clone(),
            false_positives: document.false_positives.clone(),
            references: document.references.clone(),
            answers: document.answers.clone(),
            needs: document.needs.clone(),
            kind,
            stages,
            group_by,
            gap,
            operator,
            weight: path(&document.weight),
            values: values.iter().map(|named| Path::parse(&named.name)).collect(),
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
    }
}

/// A document with its references resolved.
struct Linked {
    kind: Kind,
    stages: Vec<Stage>,
    operator: Operator,
}

/// What a correlation is made from.
struct Parts {
    /// Positions of the rules it names.
    rules: Vec<usize>,
    learn: Vec<usize>,
    members: Vec<Member>,
    stages: Vec<Stage>,
    operator: Operator,
}

/// Filters: the position of the rule, that of the filter, and what it does.
#[derive(Default)]
struct Filters(Vec<(usize, usize, Filter)>);

impl Filters {
    /// Those that bear on a rule.
    fn of(&self, position: usize) -> impl Iterator<Item = (usize, &Filter)> {
        self.0.iter().filter(move |(rule, ..)| *rule == position).map(|(_, own, filter)| (*own, filter))
    }
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
        Operator::Aggregate(aggregate) => {
            let bounds: Vec<String> =
                aggregate.bounds.iter().map(|bound| format!("{:?} {}", bound.comparison, bound.millionths)).collect();
            format!("{:?} {} {}", aggregate.measure, bounds.join(","), aggregate.timespan.num_seconds())
        }
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
            needed.extend(members.iter().map(|member| member.rule.clone()).chain(learn_from.iter().cloned()));
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
