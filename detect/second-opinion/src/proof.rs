//! Proofs that a conformance rule is answered otherwise for a known reason: rsigma is asked the question changed in what
//! the reason names, and in nothing else, and must then have harrier's answer.

use rsigma_eval::{Engine, JsonEvent};
use rsigma_parser::{ConditionExpr, Quantifier, SigmaCollection};
use serde_json::{Value, json};

use crate::compare;

/// The rule, the record and harrier's answer.
pub type Proof = fn(&str, &Value, bool) -> bool;

/// A field that is not there differs from everything, as a value does that no rule asks for.
pub fn absent_differs(rule: &str, record: &Value, ours: bool) -> bool {
    let is_absent = record.get("A").is_none_or(|value| value.is_null() || *value == json!([]));
    let mut record = record.clone();
    record["A"] = json!("a value of its own");
    is_absent && asked(&rsigma_parser::parse_sigma_yaml(rule).expect("a rule"), &record) == ours
}

/// A filter takes away what its condition selects, unless it includes; `1 of them` are its own searches; and it bears on
/// the rule whatever the two logsources are.
pub fn filters_exclude(rule: &str, record: &Value, ours: bool) -> bool {
    let mut collection = rsigma_parser::parse_sigma_yaml(rule).expect("a rule");
    let includes = rule.split("\n---").filter(|part| part.contains("\nfilter:"));
    let includes: Vec<bool> = includes.map(|part| part.contains("x-mode: include")).collect();
    for (filter, include) in collection.filters.iter_mut().zip(includes) {
        let names: Vec<String> = filter.detection.named.keys().cloned().collect();
        for condition in &mut filter.detection.conditions {
            let own = own_searches(condition, &names);
            *condition = if include { own } else { ConditionExpr::Not(Box::new(own)) };
        }
        filter.logsource = None;
    }
    asked(&collection, record) == ours
}

/// `1 of them` written out; the conformance rules have no other quantifier in filters.
fn own_searches(condition: &ConditionExpr, names: &[String]) -> ConditionExpr {
    match condition {
        ConditionExpr::Selector { quantifier: Quantifier::Any | Quantifier::Count(1), .. } => {
            ConditionExpr::Or(names.iter().cloned().map(ConditionExpr::Identifier).collect())
        }
        other => other.clone(),
    }
}

/// The logsource does not speak of the record, or the rule's names or values are others than the record's.
pub fn logsource_or_names(rule: &str, record: &Value, ours: bool) -> bool {
    compare::is_explained(rule, record, ours)
}

fn asked(collection: &SigmaCollection, record: &Value) -> bool {
    let mut engine = Engine::new();
    engine.add_collection(collection).expect("a rule that rsigma takes");
    !engine.evaluate(&JsonEvent::borrow(record)).is_empty()
}
