//! One YAML document: a rule whose references to other rules are not resolved yet.

use schemas::finding::Level;

use super::condition::{Detection, Filter};
use super::correlation::{self, BASELINE_KEYS, Correlation, Named};
use super::detection::{self, World};
use super::logsource::Logsource;
use super::model::{Needs, NextTemplate, RuleTest};
use super::names;
use super::read;
use super::report::{Code, Problems};
use super::samples::{self, Fixtures};
use super::text::{InvalidTemplate, Template};
use super::yaml::{Entry, Node, Place, Value};

/// Longest title: Sigma's own limit.
const TITLE_CHARS_MAX: usize = 256;

/// Longest id and name: they become parts of keys.
const NAME_BYTES_MAX: usize = 200;

pub(super) const SIGMA_KEYS: &[&str] = &[
    "title",
    "id",
    "name",
    "related",
    "taxonomy",
    "status",
    "description",
    "license",
    "author",
    "references",
    "date",
    "modified",
    "logsource",
    "detection",
    "correlation",
    "filter",
    "fields",
    "falsepositives",
    "level",
    "tags",
    "scope",
    "generate",
];
pub(super) const OWN_KEYS: &[&str] = &[
    "x-answers",
    "x-entities",
    "x-fixtures",
    "x-gap",
    "x-group-by",
    "x-list-additions",
    "x-lists",
    "x-needs",
    "x-next",
    "x-outside",
    "x-reason",
    "x-tests",
    "x-weight",
];

/// The questions of a breach.
pub(super) const QUESTIONS: &[&str] = &["how", "when", "only_one", "taken", "launched", "left_behind"];

pub(super) const ENTITY_KINDS: &[&str] = &["user", "mailbox", "ip", "session", "app", "address", "domain"];

/// What a rule is about unless it says so: kind and field.
const ENTITIES: &[(&str, &str)] = &[
    ("user", "user_id"),
    ("mailbox", "mailbox_owner"),
    ("ip", "client_ip"),
    ("session", "session_id"),
    ("app", "app_id"),
];

/// Placeholders that the engine fills in.
pub const ENGINE_NAMES: &[&str] =
    &["count", "weight", "values", "first_event", "last_event", "minutes", "group", "usual"];

/// A parsed document.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its place in the list of files.
    pub file: usize,
    pub place: Place,
    pub id: Named,
    pub name: Named,
    pub title: String,
    pub description: String,
    pub level: Level,
    pub attack: Vec<String>,
    pub false_positives: Vec<String>,
    pub references: Vec<String>,
    pub answers: Vec<String>,
    pub needs: Needs,
    pub body: Body,
    pub group_by: Option<Vec<Named>>,
    pub gap: Option<chrono::TimeDelta>,
    pub weight: Option<Named>,
    pub outside: Option<Named>,
    pub generate: Option<bool>,
    pub reason: Option<Template>,
    pub next: Vec<NextTemplate>,
    pub entities: Vec<(String, String)>,
    pub entities_given: bool,
    pub fields: Vec<String>,
    pub tests: Vec<RuleTest>,
    /// What the rule selects, in a form in which equal meanings are equal texts.
    pub meaning: String,
}

/// What kind of rule it is.
#[derive(Clone, Debug)]
pub enum Body {
    Detection(Box<Detection>),
    Correlation(Box<Correlation>),
    Filter(Box<FilterBody>),
}

/// A Sigma filter before its rules are found.
#[derive(Clone, Debug)]
pub struct FilterBody {
    /// None for every rule of the logsource.
    pub rules: Option<Vec<Named>>,
    pub filter: Filter,
}

/// Reads a document. Problems are reported; none is returned where they leave no rule.
pub fn parse(
    file: usize,
    node: &Node,
    fixtures: &Fixtures,
    world: &World,
    problems: &mut Problems<'_>,
) -> Option<Document> {
    if node.map().is_none() {
        problems.add(Code::InvalidValue, node.place, format!("a rule is a map, not {}", node.kind()));
        return None;
    }
    let before = problems.count();
    if !keys(node, problems) {
        return None;
    }
    let (body, rests_on) = body(node, world, problems).unzip();
    let title = title(node, problems);
    let (id, name) = names_of(node, problems).unzip();
    let optional = |key: &str| node.entry(key);
    let texts = |key: &str, problems: &mut Problems<'_>| {
        optional(key).map(|entry| read::owned_texts(entry, problems)).unwrap_or_default()
    };
    let x_weight =
        optional("x-weight").or_else(|| node.get("correlation").and_then(|section| section.entry("x-weight")));
    let (entities, entities_given) = entities(optional("x-entities"), problems);
    let rest = Document {
        file,
        place: node.map().and_then(<[Entry]>::first).map_or(node.place, |entry| entry.place),
        // Where one of these is missing there is no rule, and the rest is read all the same: all problems at once.
        id: id.unwrap_or_default(),
        name: name.unwrap_or_default(),
        title: title.unwrap_or_default(),
        description: optional("description")
            .and_then(|entry| read::text(entry, problems))
            .unwrap_or_default()
            .to_owned(),
        level: optional("level").and_then(|entry| level(entry, problems)).unwrap_or(Level::Medium),
        attack: texts("tags", problems).iter().filter_map(|tag| technique(tag)).collect(),
        false_positives: texts("falsepositives", problems),
        references: texts("references", problems),
        answers: answers(optional("x-answers"), problems),
        needs: optional("x-needs").map(|entry| needs(entry, problems)).unwrap_or_default(),
        group_by: optional("x-group-by").map(|entry| fields(entry, problems)),
        gap: optional("x-gap").and_then(|entry| read::timespan(entry, problems)),
        weight: x_weight.and_then(|entry| field(entry, problems)),
        outside: outside(node, problems),
        generate: optional("generate").and_then(|entry| read::boolean(entry, problems)),
        reason: optional("x-reason").and_then(|entry| template(&entry.value, Template::parse, problems)),
        next: optional("x-next").map(|entry| next(entry, problems)).unwrap_or_default(),
        entities,
        entities_given,
        fields: shown_fields(node, body.as_ref(), problems),
        tests: optional("x-tests").map(|entry| samples::tests(entry, fixtures, problems)).unwrap_or_default(),
        meaning: meaning(node) + &rests_on.unwrap_or_default(),
        body: body?,
    };
    (problems.count() == before).then_some(rest)
}

/// Whether it is a kind of document that is read at all; reports keys that are slips.
fn keys(node: &Node, problems: &mut Problems<'_>) -> bool {
    let known: Vec<&str> = SIGMA_KEYS.iter().chain(OWN_KEYS).chain(BASELINE_KEYS).copied().collect();
    if let Some(entry) = node.entry("action") {
        let help = "write each rule as a whole document of its own, between lines of '---'";
        problems.add_help(Code::Legacy, entry.place, "'action' is Sigma of before 1.0", help);
        return false;
    }
    read::no_slips(node, &known, problems);
    if node.entry("correlation").is_none() {
        for entry in node.map().unwrap_or_default() {
            if BASELINE_KEYS.contains(&entry.key.as_str()) && entry.key != "x-weight" {
                problems.add(Code::InvalidValue, entry.place, format!("'{}' belongs to a correlation", entry.key));
            }
        }
    }
    true
}

/// The section that makes the document what it is, and what of the world its meaning rests on.
fn body(node: &Node, world: &World, problems: &mut Problems<'_>) -> Option<(Body, String)> {
    let sections: Vec<&Entry> =
        ["detection", "correlation", "filter"].into_iter().filter_map(|key| node.entry(key)).collect();
    match sections.as_slice() {
        [] => {
            problems.add(Code::MissingKey, node.place, "a rule has a 'detection' or a 'correlation'");
            None
        }
        [section] => match section.key.as_str() {
            "detection" => {
                let logsource = logsource(node, section, "a detection rule", problems)?;
                let compiled = detection::parse(&section.value, &logsource, world, &[], problems)?;
                Some((Body::Detection(Box::new(compiled.detection)), compiled.rests_on))
            }
            "correlation" => {
                if let Some(logsource) = node.entry("logsource") {
                    problems.add(Code::UnknownKey, logsource.place, "a correlation has no 'logsource': its rules have");
                }
                let correlation = correlation::parse(section, node, problems)?;
                Some((Body::Correlation(Box::new(correlation)), String::new()))
            }
            _ => filter(node, section, world, problems),
        },
        [first, second, ..] => {
            let message = format!(
                "a rule has '{}' or '{}', not both: put the {} into a document of its own",
                first.key, second.key, second.key
            );
            problems.add(Code::InvalidValue, second.place, message);
            None
        }
    }
}

fn logsource(node: &Node, section: &Entry, what: &str, problems: &mut Problems<'_>) -> Option<Logsource> {
    match node.get("logsource") {
        Some(logsource) => Logsource::parse(logsource, problems),
        None => {
            problems.add(Code::MissingKey, section.place, format!("{what} has a 'logsource'"));
            None
        }
    }
}

/// A filter takes away what its condition selects. Older tools join the condition as it is, so that their files say
/// `not`: which of the two is meant cannot be guessed, and `x-mode` says it.
fn filter(node: &Node, section: &Entry, world: &World, problems: &mut Problems<'_>) -> Option<(Body, String)> {
    let logsource = logsource(node, section, "a filter", problems)?;
    let rules = match section.value.entry("rules") {
        None => {
            let message = "a filter names the 'rules' it bears on, or 'any'";
            problems.add(Code::MissingKey, section.place, message);
            return None;
        }
        Some(entry) if entry.value.text() == Some("any") => None,
        Some(entry) => {
            let named = |(name, node): (&str, &Node)| Named { name: name.to_owned(), place: node.place };
            Some(read::texts(entry, problems).into_iter().map(named).collect())
        }
    };
    let mode = section.value.entry("x-mode");
    let include = match mode.map(|entry| (entry, entry.value.text())) {
        None | Some((_, Some("exclude"))) => false,
        Some((_, Some("include"))) => true,
        Some((entry, _)) => {
            problems.add(Code::InvalidValue, entry.value.place, "'x-mode' is exclude or include");
            return None;
        }
    };
    if let (Some(condition), None) = (section.value.get("condition"), mode) {
        let starts = condition.text().unwrap_or_default().trim_start().to_ascii_lowercase();
        if starts.strip_prefix("not").is_some_and(|rest| rest.starts_with([' ', '('])) {
            let message = "a double negative? A filter takes away what its condition selects";
            let help = "leave out the 'not'; or, if the file was written to keep what the condition selects, add \
                        'x-mode: include'";
            problems.add_help(Code::InvalidCondition, condition.place, message, help);
            return None;
        }
    }
    let compiled = detection::parse(&section.value, &logsource, world, &["rules", "x-mode"], problems)?;
    let filter = Filter { detection: compiled.detection, include };
    Some((Body::Filter(Box::new(FilterBody { rules, filter })), compiled.rests_on))
}

fn title(node: &Node, problems: &mut Problems<'_>) -> Option<String> {
    let Some(entry) = node.entry("title") else {
        problems.add(Code::MissingKey, node.place, "a rule has a 'title'");
        return None;
    };
    let title = read::text(entry, problems)?;
    if title.trim().is_empty() || title.chars().count() > TITLE_CHARS_MAX {
        problems.add(Code::InvalidValue, entry.value.place, format!("a title has 1 to {TITLE_CHARS_MAX} characters"));
        return None;
    }
    Some(title.to_owned())
}

/// Id and name; each stands for the other where it is missing.
fn names_of(node: &Node, problems: &mut Problems<'_>) -> Option<(Named, Named)> {
    let mut named = |key: &str| -> Option<Named> {
        let entry = node.entry(key)?;
        let text = read::text(entry, problems)?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if text.is_empty() || text.len() > NAME_BYTES_MAX || !text.chars().all(allowed) {
            let message = format!("'{key}' has letters, digits, '_', '-' and '.', at most {NAME_BYTES_MAX}");
            problems.add(Code::InvalidValue, entry.value.place, message);
            return None;
        }
        Some(Named { name: text.to_owned(), place: entry.value.place })
    };
    match (named("id"), named("name")) {
        (Some(id), Some(name)) => Some((id, name)),
        (Some(one), None) | (None, Some(one)) => Some((one.clone(), one)),
        (None, None) => {
            if node.entry("id").is_none() && node.entry("name").is_none() {
                problems.add(Code::MissingKey, node.place, "a rule has an 'id' or a 'name'");
            }
            None
        }
    }
}

fn level(entry: &Entry, problems: &mut Problems<'_>) -> Option<Level> {
    let text = read::text(entry, problems)?;
    let level = Level::ALL.into_iter().find(|level| level.as_str() == text);
    if level.is_none() {
        let message = format!("'{}' is not a level", text.escape_debug());
        problems.add_name(Code::InvalidValue, entry.value.place, message, text, Level::ALL.map(Level::as_str));
    }
    level
}

/// `attack.t1564.008` is `T1564.008`; other tags are no techniques.
fn technique(tag: &str) -> Option<String> {
    let number = tag.strip_prefix("attack.t")?;
    let (main, sub) = number.split_once('.').map_or((number, None), |(main, sub)| (main, Some(sub)));
    let digits = |text: &str, length: usize| text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(main, 4) && sub.is_none_or(|sub| digits(sub, 3))).then(|| format!("T{number}"))
}

fn answers(entry: Option<&Entry>, problems: &mut Problems<'_>) -> Vec<String> {
    let mut answers = Vec::new();
    for (text, node) in entry.map(|entry| read::texts(entry, problems)).unwrap_or_default() {
        if !QUESTIONS.contains(&text) {
            let message = format!("'{}' is not one of the six questions", text.escape_debug());
            problems.add_name(Code::InvalidValue, node.place, message, text, QUESTIONS.iter().copied());
        }
        answers.push(text.to_owned());
    }
    answers
}

fn needs(entry: &Entry, problems: &mut Problems<'_>) -> Needs {
    read::only_keys(&entry.value, &["feeds", "operations", "setting"], "'x-needs'", problems);
    let _ = read::map(entry, problems);
    let texts = |key: &str, problems: &mut Problems<'_>| {
        entry.value.entry(key).map(|entry| read::owned_texts(entry, problems)).unwrap_or_default()
    };
    Needs {
        feeds: texts("feeds", problems),
        operations: texts("operations", problems),
        setting: entry.value.entry("setting").and_then(|entry| read::text(entry, problems)).map(str::to_owned),
    }
}

/// Names of fields, checked.
fn fields(entry: &Entry, problems: &mut Problems<'_>) -> Vec<Named> {
    let texts = read::texts(entry, problems);
    texts
        .into_iter()
        .map(|(name, node)| {
            names::check(name, node.place, problems);
            Named { name: name.to_owned(), place: node.place }
        })
        .collect()
}

fn field(entry: &Entry, problems: &mut Problems<'_>) -> Option<Named> {
    let name = read::text(entry, problems)?;
    names::check(name, entry.value.place, problems);
    Some(Named { name: name.to_owned(), place: entry.value.place })
}

fn outside(node: &Node, problems: &mut Problems<'_>) -> Option<Named> {
    let entry = node.entry("x-outside")?;
    if node.entry("correlation").is_some() {
        problems.add(
            Code::InvalidValue,
            entry.place,
            "'x-outside' belongs to a detection rule; the correlation's rules may have it",
        );
    }
    field(entry, problems)
}

/// The `fields` of Sigma: hints of what to show. Those of other log sources' rules are left out, not refused.
fn shown_fields(node: &Node, body: Option<&Body>, problems: &mut Problems<'_>) -> Vec<String> {
    let Some(entry) = node.entry("fields") else {
        return Vec::new();
    };
    let own = match body {
        Some(Body::Detection(detection)) => detection.logsource.is_own(),
        _ => true,
    };
    match own {
        true => fields(entry, problems).into_iter().map(|field| field.name).collect(),
        false => Vec::new(),
    }
}

fn entities(entry: Option<&Entry>, problems: &mut Problems<'_>) -> (Vec<(String, String)>, bool) {
    let Some(entry) = entry else {
        let owned = |(kind, field): &(&str, &str)| ((*kind).to_owned(), (*field).to_owned());
        return (ENTITIES.iter().map(owned).collect(), false);
    };
    let mut entities = Vec::new();
    for line in read::map(entry, problems).unwrap_or_default() {
        if !ENTITY_KINDS.contains(&line.key.as_str()) {
            let message = format!("'{}' is not a kind of entity", line.key.escape_debug());
            problems.add_name(Code::UnknownKey, line.place, message, &line.key, ENTITY_KINDS.iter().copied());
        }
        for named in fields(line, problems) {
            entities.push((line.key.clone(), named.name));
        }
    }
    (entities, true)
}

fn next(entry: &Entry, problems: &mut Problems<'_>) -> Vec<NextTemplate> {
    let mut steps = Vec::new();
    for member in entry.value.members() {
        if member.text().is_some() {
            if let Some(text) = template(member, Template::parse, problems) {
                steps.push(NextTemplate { text, command: None });
            }
            continue;
        }
        read::only_keys(member, &["text", "command"], "a step", problems);
        let Some(text) = member.get("text") else {
            problems.add(Code::MissingKey, member.place, "a step has a 'text'");
            continue;
        };
        let text = template(text, Template::parse, problems);
        let command = member.get("command").and_then(|node| template(node, Template::parse_command, problems));
        if let Some(text) = text {
            steps.push(NextTemplate { text, command });
        }
    }
    steps
}

fn template(
    node: &Node,
    parse: fn(&str) -> Result<Template, InvalidTemplate>,
    problems: &mut Problems<'_>,
) -> Option<Template> {
    let Some(text) = node.text() else {
        problems.add(Code::InvalidValue, node.place, format!("expected text with placeholders, not {}", node.kind()));
        return None;
    };
    match parse(text) {
        Ok(template) => {
            for name in template.fields().filter(|name| !ENGINE_NAMES.contains(name)) {
                let after_brace = text.find(&format!("{{{name}")).map(|at| at + 1);
                let offset = after_brace.or_else(|| text.find(name)).unwrap_or_default();
                names::check(name, node.part(offset, name.len()), problems);
            }
            Some(template)
        }
        Err(error) => {
            problems.add(Code::InvalidTemplate, node.part(error.offset, 1), error.kind.to_string());
            None
        }
    }
}

/// What is hashed for the rule's version: logsource and detection or filter, without order, comments and quotes.
fn meaning(node: &Node) -> String {
    let mut out = String::new();
    for key in ["product", "service"] {
        if let Some(value) = node.get("logsource").and_then(|logsource| logsource.get(key)) {
            out.push_str(&format!("{key}={};", value.text().unwrap_or_default().to_ascii_lowercase()));
        }
    }
    for section in ["detection", "filter"].into_iter().filter_map(|key| node.get(key)) {
        canonical(section, &mut out);
    }
    out
}

fn canonical(node: &Node, out: &mut String) {
    match &node.value {
        Value::Map(entries) => {
            let mut entries: Vec<&Entry> = entries.iter().collect();
            entries.sort_by(|a, b| a.key.cmp(&b.key));
            out.push('{');
            for entry in entries {
                out.push_str(&format!("{:?}:", entry.key));
                canonical(&entry.value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::List(members) => {
            out.push('[');
            for member in members {
                canonical(member, out);
                out.push(',');
            }
            out.push(']');
        }
        _ => out.push_str(&node.json().to_string()),
    }
}
