//! All rules together: names resolved across files, the operator's tuning applied.
//!
//! Loading is all or nothing: with one faulty rule there is no set, because a detector that runs without a rule its
//! operator believes in is worse than one that says so.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::correlation::Named;
use super::detection::World;
use super::dialect::{self, Dialects};
use super::document::{self, Document};
use super::link::{Linker, Unread};
use super::lists::Lists;
use super::model::{Kind, Rule};
use super::report::{Code, Problems, RuleErrors};
use super::samples::{self, Fixtures};
use super::tuning::{Exception, Tuning};
use super::yaml;

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
    exceptions: Arc<Exceptions>,
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

    /// All exceptions, in the order of the tuning file. One is known by its number here.
    pub fn exceptions(&self) -> &[Exception] {
        &self.exceptions.all
    }

    /// The exceptions of a rule, by its id, with their numbers.
    pub fn exceptions_of(&self, rule_id: &str) -> impl Iterator<Item = (usize, &Exception)> {
        let numbers = self.exceptions.by_rule.get(rule_id).map_or(&[][..], Vec::as_slice);
        numbers.iter().filter_map(|number| Some((*number, self.exceptions.all.get(*number)?)))
    }
}

/// What the operator has agreed to.
#[derive(Debug, Default)]
struct Exceptions {
    all: Vec<Exception>,
    /// Numbers of the above, by the id of their rule.
    by_rule: HashMap<String, Vec<usize>>,
}

/// Every document of every file, and the ids and names of those that are no rules: who refers to one of them is not to
/// blame.
fn read(sources: &[Source], tuning: &Tuning, errors: &mut RuleErrors) -> (Vec<Document>, Unread) {
    let mut world = World { lists: Lists::default(), dialects: Dialects::own() };
    let (mut files, mut additions) = (Vec::new(), Vec::new());
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
            let is_list = |entry: &yaml::Entry| ["x-lists", "x-list-additions"].contains(&entry.key.as_str());
            let only_lists = node.map().is_some_and(|entries| entries.iter().all(is_list));
            node.value != yaml::Value::Null && node.entry(dialect::KEY).is_none() && !only_lists
        };
        for entry in nodes.iter().filter_map(|node| node.entry("x-list-additions")) {
            additions.push((source, entry.clone()));
        }
        nodes.retain(is_rule);
        files.push(nodes);
    }
    for (name, values) in &tuning.lists {
        world.lists.replace(name, values, &tuning.file);
    }
    for (source, entry) in &additions {
        world.lists.add(entry, &mut Problems::new(&source.file, &source.text, errors));
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

/// Applies the tuning; gives its exceptions.
fn apply(tuning: &Tuning, rules: &mut Vec<Rule>, errors: &mut RuleErrors) -> Exceptions {
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
    let mut exceptions = Exceptions { all: tuning.exceptions.clone(), ..Exceptions::default() };
    for (number, exception) in tuning.exceptions.iter().enumerate() {
        if let Some(position) = find(rules, &exception.rule, exception.place) {
            exceptions.by_rule.entry(rules[position].id.clone()).or_default().push(number);
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
