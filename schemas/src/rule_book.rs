//! A rule set as it travels in the log: everything that decides what the rules say, as text.
//!
//! Text, because the rule language is what stays readable from version to version; who reads it compiles it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::json::key_id;
use crate::tenant::Tenant;

/// Hex digits of a book's name.
const NAME_DIGITS: usize = 12;

/// Rules, the operator's changes to them, and what they take for inside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleBook {
    pub files: Vec<RuleText>,
    /// The operator's tuning (TOML).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<RuleText>,
    /// Mail domains by tenant: what is not named is outside.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub domains: BTreeMap<Tenant, Vec<String>>,
    /// The table of places, by the sha256 of its file: too large to be said here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub places: Option<String>,
}

/// A file: where it is from, for messages only, and its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleText {
    pub file: String,
    pub text: String,
}

impl RuleBook {
    /// Names what the book says. Where its files lie, and their order, say nothing.
    pub fn name(&self) -> String {
        let mut texts: Vec<&str> = self.files.iter().map(|file| file.text.as_str()).collect();
        texts.sort_unstable();
        let mut parts = texts;
        parts.push(self.tuning.as_ref().map_or("", |tuning| &tuning.text));
        parts.extend(self.places.as_deref());
        for (tenant, domains) in &self.domains {
            parts.push(tenant.as_str());
            parts.extend(domains.iter().map(String::as_str));
            parts.push("");
        }
        key_id(&parts).chars().take(NAME_DIGITS).collect()
    }

    /// Names the rules and the operator's changes to them, whatever is taken for inside.
    pub fn rules_name(&self) -> String {
        RuleBook { domains: BTreeMap::new(), ..self.clone() }.name()
    }

    /// This book where `other` is in force: domains of tenants that this one does not name go on being inside.
    #[must_use]
    pub fn over(mut self, other: Option<&RuleBook>) -> RuleBook {
        for (tenant, domains) in other.into_iter().flat_map(|other| &other.domains) {
            self.domains.entry(tenant.clone()).or_insert_with(|| domains.clone());
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn book(files: &[(&str, &str)], domains: &[(&str, &str)]) -> RuleBook {
        let text = |(file, text): &(&str, &str)| RuleText { file: (*file).into(), text: (*text).into() };
        let domain = |(tenant, domain): &(&str, &str)| (tenant.parse().unwrap(), vec![(*domain).to_owned()]);
        RuleBook {
            files: files.iter().map(text).collect(),
            tuning: None,
            domains: domains.iter().map(domain).collect(),
            places: None,
        }
    }

    #[test]
    fn a_name_follows_from_what_is_said_and_not_from_where() {
        let one = book(&[("a.yml", "x"), ("b.yml", "y")], &[("t1", "contoso.example")]);
        assert_eq!(one.name(), book(&[("/etc/b.yml", "y"), ("/etc/a.yml", "x")], &[("t1", "contoso.example")]).name());
        let others = [
            book(&[("a.yml", "x")], &[("t1", "contoso.example")]),
            book(&[("a.yml", "xy"), ("b.yml", "")], &[("t1", "contoso.example")]),
            book(&[("a.yml", "x"), ("b.yml", "y")], &[("t2", "contoso.example")]),
            book(&[("a.yml", "x"), ("b.yml", "y")], &[]),
            RuleBook { tuning: Some(RuleText { file: String::new(), text: "z".into() }), ..one.clone() },
            RuleBook { places: Some("00".into()), ..one.clone() },
        ];
        assert!(others.iter().all(|other| other.name() != one.name()));
        let same_rules = others.map(|other| other.rules_name() == one.rules_name());
        assert_eq!(same_rules, [false, false, true, true, false, false]);
    }

    #[test]
    fn domains_of_other_tenants_stay() {
        let before = book(&[("a.yml", "x")], &[("t1", "contoso.example"), ("t2", "fabrikam.example")]);
        let after = book(&[("a.yml", "y")], &[("t2", "new.example")]).over(Some(&before));
        assert_eq!(after, book(&[("a.yml", "y")], &[("t1", "contoso.example"), ("t2", "new.example")]));
    }
}
