//! A JSON Schema of the rule language, for editors: what they complete, explain and underline while a rule is written.
//!
//! It follows from the tables that the parser works by: keys, modifiers, types of correlations, fields, operations. So a
//! key cannot be known to the one and not to the other. It is a help, not a judge: what it lets pass may still be refused by
//! the parser, with a better message; what it refuses the parser refuses as well.

use schemas::FIELDS;
use serde_json::{Map, Value as Json, json};

use super::correlation::{BASELINE_KEYS, CORRELATION_TYPES, KEYS as CORRELATION_KEYS};
use super::document::{ENTITY_KINDS, OWN_KEYS, QUESTIONS, SIGMA_KEYS};
use super::lint::OPERATIONS;
use super::modifier::MODIFIERS;

/// What an author is told of a key. A key without an entry here fails the test below.
const HELP: &[(&str, &str)] = &[
    ("aliases", "one name for fields that the rules call differently: alias, then rule and field"),
    ("author", "who wrote it"),
    ("condition", "how the selections, or the records, must be there"),
    ("correlation", "what several records must be to one another"),
    ("date", "the day it was written"),
    ("description", "why it matters, in a paragraph"),
    ("detection", "selections of records, and the condition that joins them"),
    ("falsepositives", "what is harmless and looks the same"),
    ("fields", "further fields that a finding shows"),
    ("filter", "records that other rules leave out"),
    ("generate", "whether the rules that a correlation refers to make findings as well"),
    ("group-by", "the fields whose values records must share"),
    ("id", "a UUID, or another name that no other rule has: the key of its state and of its findings"),
    ("level", "how urgent a finding is"),
    ("license", "the licence of the rule"),
    ("logsource", "which records it is asked of"),
    ("modified", "the day it was last changed"),
    ("name", "the name by which correlations refer to it"),
    ("references", "where one reads more"),
    ("related", "rules it comes from or replaces"),
    ("rules", "the rules it looks at, by name or id"),
    ("scope", "what it is meant for"),
    ("status", "how far it is tried"),
    ("tags", "ATT&CK and others: attack.t1114.003"),
    ("taxonomy", "whose field names it uses"),
    ("timespan", "how far apart the first and the last record may be: 90s, 10m, 1h, 7d, 2w"),
    ("title", "what a finding is called"),
    ("type", "what is asked of the records"),
    ("x-answers", "the questions of an incident that it helps to answer"),
    ("x-cold-floor", "x_spike without a history: so much"),
    ("x-delay", "x_absence: how much later than it happened a record may become available"),
    ("x-deviations", "x_spike: so many robust deviations above the median"),
    ("x-differs", "x_travel: fields of which one must differ"),
    ("x-distance", "x_travel: the least distance, in kilometres"),
    ("x-entities", "what a finding is about: kind and field"),
    ("x-expect", "x_absence: the rules of which a record is to follow"),
    ("x-field", "the field whose values are compared"),
    ("x-fixtures", "records that the tests use, by name"),
    ("x-floor", "x_spike: the least that is told; x_ratio: of less in all nothing is said"),
    ("x-gap", "episodes that are nearer are one finding"),
    ("x-group-by", "what the findings of a single rule are grouped by"),
    ("x-history", "how long what was seen counts, in days"),
    ("x-known-after", "x_new_value: how many days after it was first seen a value counts as known"),
    ("x-learn", "x_new_value: the rules whose records teach what is known; those it looks at without it"),
    ("x-list-additions", "values for lists that other files define"),
    ("x-lists", "lists of values, by name, for `expand`"),
    ("x-min-days", "silent until the group was first seen so many days ago"),
    ("x-min-days-seen", "silent until the group was seen on so many days"),
    ("x-min-events", "an episode is told once it has so many records"),
    ("x-min-of", "records of these rules must be among them"),
    ("x-needs", "what must be there to be seen: feeds, operations, setting"),
    ("x-next", "what to do next: text and command"),
    ("x-of", "x_ratio: the rules whose share it is"),
    ("x-outside", "only what names an address or domain here that is not the tenant's own"),
    ("x-pause", "temporal_ordered: rule, and how long after its record nothing counts"),
    ("x-ratio", "x_spike: so many times the median"),
    ("x-reason", "the sentence that tells what happened, with {field}"),
    ("x-same", "temporal_ordered: rules whose records have a value in common, and the field it is in"),
    ("x-speed", "x_travel: faster than so many kilometres an hour"),
    ("x-tests", "records, and what the rule must find in them"),
    ("x-weight", "a field that says how much a record counts for"),
];

const LEVELS: &[&str] = &["informational", "low", "medium", "high", "critical"];
const STATUSES: &[&str] = &["stable", "test", "experimental", "deprecated", "unsupported"];

fn help(key: &str) -> &'static str {
    HELP.iter().find(|(name, _)| *name == key).map_or("", |(_, help)| help)
}

/// The schema, draft 2020-12, of one document of a rule file.
pub fn schema() -> Json {
    let keys = SIGMA_KEYS.iter().chain(OWN_KEYS).chain(BASELINE_KEYS);
    let properties: Map<String, Json> = keys.map(|key| ((*key).to_owned(), property(key))).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A rule of harrier: Sigma 2.1 and keys of its own that begin with x-",
        "type": "object",
        "properties": properties,
        "anyOf": [
            {"required": ["title", "detection"]},
            {"required": ["title", "correlation"]},
            {"required": ["title", "filter"]},
            {"required": ["x-lists"]},
            {"required": ["x-list-additions"]},
            {"required": ["x-dialect"]},
        ],
        "$defs": {
            "text": {"type": ["string", "number", "boolean"]},
            "texts": {"anyOf": [{"$ref": "#/$defs/text"}, {"type": "array", "items": {"$ref": "#/$defs/text"}}]},
            "timespan": {"type": "string", "pattern": "^[0-9]+[smhdwMy]$"},
            "selection": selection(),
            "value": {
                "anyOf": [
                    {"type": ["string", "number", "boolean", "null"]},
                    {"type": "array", "items": {"type": ["string", "number", "boolean", "null"]}},
                    // Of the members of a list: `Target[any]`.
                    {"$ref": "#/$defs/selection"},
                ],
            },
        },
    })
}

fn property(key: &str) -> Json {
    let mut property = match key {
        "correlation" => correlation(),
        "detection" | "filter" => detection(key == "filter"),
        "logsource" => json!({"type": "object", "additionalProperties": {"$ref": "#/$defs/text"}}),
        "level" => json!({"enum": LEVELS}),
        "status" => json!({"enum": STATUSES}),
        "generate" => json!({"type": "boolean"}),
        "x-gap" | "x-history" | "x-delay" => json!({"$ref": "#/$defs/timespan"}),
        // In a dialect, whose fields are called what.
        "fields" => json!({"anyOf": [{"$ref": "#/$defs/texts"}, {"type": "object"}]}),
        "tags" | "falsepositives" | "references" | "x-group-by" | "x-learn" | "x-min-of" | "x-of" | "x-expect"
        | "x-differs" => {
            json!({"$ref": "#/$defs/texts"})
        }
        "x-field" => json!({"$ref": "#/$defs/texts"}),
        "x-answers" => json!({"type": "array", "items": {"enum": QUESTIONS}}),
        "x-entities" => json!({"type": "object", "propertyNames": {"enum": ENTITY_KINDS}}),
        "x-cold-floor" | "x-floor" | "x-min-days" | "x-min-days-seen" | "x-min-events" | "x-speed" | "x-distance" => {
            json!({"type": "integer", "minimum": 0})
        }
        "x-deviations" | "x-ratio" => json!({"type": "number", "minimum": 0}),
        "title" | "id" | "name" | "description" | "author" | "license" | "x-reason" | "x-outside" | "x-weight" => {
            json!({"$ref": "#/$defs/text"})
        }
        _ => json!({}),
    };
    property["description"] = help(key).into();
    property
}

/// Selections by name, and a condition; a filter's also names the rules.
fn detection(is_filter: bool) -> Json {
    let mut properties = Map::new();
    properties.insert("condition".into(), json!({"$ref": "#/$defs/texts", "description": help("condition")}));
    if is_filter {
        properties.insert("rules".into(), json!({"$ref": "#/$defs/texts", "description": help("rules")}));
    }
    json!({
        "type": "object",
        "properties": properties,
        "required": ["condition"],
        "additionalProperties": {
            "anyOf": [
                {"$ref": "#/$defs/selection"},
                {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/selection"}, {"$ref": "#/$defs/text"}]}},
                {"$ref": "#/$defs/text"},
            ],
        },
    })
}

/// Lines of `field|modifier: value`, with the fields that are known.
fn selection() -> Json {
    let fields = FIELDS.iter().filter(|field| field.name != "raw");
    let mut properties: Map<String, Json> = fields
        .map(|field| (field.name.to_owned(), json!({"$ref": "#/$defs/value", "description": field.doc})))
        .collect();
    let operations: Vec<&str> = OPERATIONS.lines().collect();
    properties.insert(
        "Operation".into(),
        json!({"anyOf": [{"enum": operations}, {"$ref": "#/$defs/value"}], "description": "as Microsoft writes it"}),
    );
    let modifiers: Vec<&str> = MODIFIERS.iter().map(|(name, _)| *name).collect();
    json!({
        "type": "object",
        "properties": properties,
        "propertyNames": {"pattern": format!(r"^[^|]*(\|({}))*$", modifiers.join("|"))},
        "additionalProperties": {"$ref": "#/$defs/value"},
    })
}

fn correlation() -> Json {
    let own = CORRELATION_KEYS.iter().filter(|key| !["type", "timespan", "condition", "aliases"].contains(key));
    let mut properties: Map<String, Json> = own
        .map(|key| {
            let form = if *key == "generate" { json!({"type": "boolean"}) } else { json!({"$ref": "#/$defs/texts"}) };
            let mut form = form;
            form["description"] = help(key).into();
            ((*key).to_owned(), form)
        })
        .collect();
    properties.extend(BASELINE_KEYS.iter().map(|key| ((*key).to_owned(), property(key))));
    let types = CORRELATION_TYPES.iter().map(|(name, meaning)| json!({"const": name, "description": meaning}));
    properties.insert("type".into(), json!({"oneOf": types.collect::<Vec<_>>(), "description": help("type")}));
    properties.insert("timespan".into(), json!({"$ref": "#/$defs/timespan", "description": help("timespan")}));
    properties.insert("aliases".into(), json!({"type": "object", "description": help("aliases")}));
    properties.insert("condition".into(), json!({"type": ["object", "string"], "description": help("condition")}));
    json!({
        "type": "object",
        "properties": properties,
        "required": ["type", "rules"],
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_explained_and_nothing_else_is() {
        let keys = SIGMA_KEYS.iter().chain(OWN_KEYS).chain(BASELINE_KEYS).chain(CORRELATION_KEYS);
        let keys: std::collections::BTreeSet<&str> = keys.copied().collect();
        assert_eq!(HELP.iter().map(|(key, _)| *key).collect::<Vec<_>>(), keys.into_iter().collect::<Vec<_>>());
    }
}
