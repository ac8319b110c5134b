//! From documents to rules: references by id and name resolved across files, filters put to the rules they bear on.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::TimeDelta;
use schemas::path::Path;

use super::condition::{Detection, Filter};
use super::correlation::Named;
use super::document::{Body, Document, ENGINE_NAMES};
use super::model::{Kind, Operator, Rule, Stage};
use super::report::{Code, Problems, RuleErrors};
use super::set::Source;
use super::text::Template;

/// Near matches of a detection rule by itself are one finding.
const DETECTION_GAP: TimeDelta = TimeDelta::hours(1);

/// What is known of documents that are no rules because of their faults.
#[derive(Default)]
pub(super) struct Unread {
    pub names: BTreeSet<String>,
    /// What they refer to, with the file that does: a name that is wrong as well is told at once.
    pub refers_to: Vec<(usize, Named)>,
}

pub(super) struct Linker<'d> {
    pub sources: &'d [Source],
    pub documents: &'d [Document],
    /// Positions by id and name.
    pub index: HashMap<&'d str, usize>,
    unread: Unread,
}

impl<'d> Linker<'d> {
    pub(super) fn new(
        sources: &'d [Source],
        documents: &'d [Document],
        unread: Unread,
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

    pub(super) fn link(&self, errors: &mut RuleErrors) -> Vec<Rule> {
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

    pub(super) fn name(&self, position: usize) -> &str {
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
    pub(super) fn check_dangling(&self, errors: &mut RuleErrors) {
        for (file, named) in
            self.unread.refers_to.iter().filter(|(_, named)| !named.name.is_empty() && named.name != "any")
        {
            self.find_from(*file, named, errors);
        }
    }

    /// The document that is called so.
    pub(super) fn find(&self, document: &Document, named: &Named, errors: &mut RuleErrors) -> Option<usize> {
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
}

/// A document with its references resolved.
struct Linked {
    kind: Kind,
    stages: Vec<Stage>,
    operator: Operator,
}

/// Filters: the position of the rule, that of the filter, and what it does.
#[derive(Default)]
pub(super) struct Filters(Vec<(usize, usize, Filter)>);

impl Filters {
    /// Those that bear on a rule.
    pub fn of(&self, position: usize) -> impl Iterator<Item = (usize, &Filter)> {
        self.0.iter().filter(move |(rule, ..)| *rule == position).map(|(_, own, filter)| (*own, filter))
    }
}

pub(super) fn names(named: &[Named]) -> Vec<String> {
    named.iter().map(|named| named.name.clone()).collect()
}

pub(super) fn problems<'e>(sources: &'e [Source], file: usize, errors: &'e mut RuleErrors) -> Problems<'e> {
    let source = &sources[file];
    Problems::new(&source.file, &source.text, errors)
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
