//! Where a rule or a setting sends mail to.
//!
//! The guarantee is one-sided on purpose: every `local@domain` that mail is sent to is in the list, in whatever form it
//! was written, because an attacker chooses the form. Addresses of conditions (`From`, `SentTo`) are not.

use std::collections::BTreeSet;

use crate::document::{Node, View};
use crate::event::{DefectKind, Event, Value};
use crate::field::{self, Reading};
use crate::normalise::{sources, text};
use crate::path::nested_json;

/// Most addresses kept of one record. Exchange limits a rule to 256 kB, and no honest rule forwards to hundreds.
const TARGETS_MAX: usize = 1_000;

/// Words in the type of an action that sends mail on. `Delegate` resends to another recipient.
const SENDING: &[&str] = &["forward", "redirect", "delegate"];

/// All of them, lower-case, sorted, each once.
pub(crate) fn targets(event: &Event) -> Reading {
    let mut targets = BTreeSet::new();
    let mut found = Vec::new();
    for (path, source) in sources(field::FORWARD_TARGETS).iter().zip(field::FORWARD_TARGETS.field().sources) {
        found.clear();
        path.select_record(event.record(), &mut found);
        for text in found.iter().filter_map(text::saying) {
            match source.starts_with("Parameters.") {
                true => scan(&text, &mut targets),
                false => rule_text(&text, &mut targets),
            }
        }
    }
    let cut = targets.len() > TARGETS_MAX;
    let list: Vec<String> = targets.into_iter().take(TARGETS_MAX).collect();
    match (list.is_empty(), cut) {
        (true, _) => Reading::Nothing,
        (false, true) => Reading::Odd(Value::TextList(list), DefectKind::Truncated),
        (false, false) => Reading::Value(Value::TextList(list)),
    }
}

/// A rule of UpdateInboxRules: JSON with actions of all kinds, of which only those that send mail on count. Text that
/// is not JSON (cut off, or a form not met before) counts as a whole if it speaks of sending.
fn rule_text(text: &str, targets: &mut BTreeSet<String>) {
    match nested_json(text) {
        Some(rule) => rule_part(rule.root(), targets),
        None if sends(text) => scan(text, targets),
        None => {}
    }
}

/// Finds the actions. An action that does not say its type but has recipients can only be one that sends.
fn rule_part(part: Node<'_>, targets: &mut BTreeSet<String>) {
    match part.view() {
        View::Array(parts) => parts.into_iter().for_each(|part| rule_part(part, targets)),
        View::Object(members) => {
            let kind = ["ActionType", "Type", "$type"].iter().find_map(|key| part.get(key)).and_then(Node::as_str);
            match kind {
                Some(kind) if sends(kind) => return every_text(part, targets),
                Some(_) if part.get("ActionType").is_some() => return,
                _ => {}
            }
            for (key, member) in members {
                match key {
                    key if key.starts_with("Condition") || key.starts_with("Except") => {}
                    key if key == "Recipients" || sends(key) => every_text(member, targets),
                    _ => rule_part(member, targets),
                }
            }
        }
        // An array of actions, each as JSON text.
        View::Text(text) => {
            if let Some(nested) = nested_json(text) {
                rule_part(nested.root(), targets);
            }
        }
        _ => {}
    }
}

fn sends(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    SENDING.iter().any(|word| text.contains(word))
}

fn every_text(part: Node<'_>, targets: &mut BTreeSet<String>) {
    match part.view() {
        View::Array(parts) => parts.into_iter().for_each(|part| every_text(part, targets)),
        View::Object(members) => members.values().for_each(|member| every_text(member, targets)),
        View::Text(text) => scan(text, targets),
        _ => {}
    }
}

/// Every `local@domain` in a text.
fn scan(text: &str, targets: &mut BTreeSet<String>) {
    for (at, _) in text.match_indices('@') {
        let (before, after) = (&text[..at], &text[at + 1..]);
        let domain = match after.strip_prefix('[') {
            // `alex@[192.0.2.7]`
            Some(literal) => literal.find(']').map_or("", |end| &after[..end + 2]),
            None => {
                let end = after.find(|c: char| !is_domain(c)).unwrap_or(after.len());
                after[..end].trim_matches(['.', '-'])
            }
        };
        let local = local_part(before);
        if !local.is_empty() && !domain.is_empty() {
            targets.insert(format!("{local}@{domain}").to_lowercase());
        }
    }
}

/// What stands before the `@` and belongs to it; `"with space"@contoso.com` is an address as well.
fn local_part(before: &str) -> &str {
    if let Some(quoted) = before.strip_suffix('"') {
        return quoted.rfind('"').map_or("", |start| &before[start..]);
    }
    let start = before.char_indices().rev().find(|(_, c)| !is_local(*c)).map_or(0, |(at, c)| at + c.len_utf8());
    before[start..].trim_start_matches(['.', '\''])
}

/// Characters of the part before the `@`: all but those that separate addresses. Letters of any script.
fn is_local(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && !";,:<>[]()\"\\@".contains(c)
}

fn is_domain(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '-' | '_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(text: &str) -> Vec<String> {
        let mut targets = BTreeSet::new();
        scan(text, &mut targets);
        targets.into_iter().collect()
    }

    fn of_rule(text: &str) -> Vec<String> {
        let mut targets = BTreeSet::new();
        rule_text(text, &mut targets);
        targets.into_iter().collect()
    }

    #[test]
    fn every_form_of_an_address_is_found() {
        for (text, expected) in [
            ("drop@example.net", vec!["drop@example.net"]),
            ("B@example.net;a@Example.NET", vec!["a@example.net", "b@example.net"]),
            ("smtp:drop@example.net", vec!["drop@example.net"]),
            ("\"Display\" [SMTP:drop@example.net]", vec!["drop@example.net"]),
            ("\"boss@contoso.com\" [SMTP:drop@example.net]", vec!["boss@contoso.com", "drop@example.net"]),
            ("\"a@b.example\" [EX:/o=ExchangeLabs/cn=Recipients/cn=x]", vec!["a@b.example"]),
            ("Drop <drop@example.net>, 'o'neil@example.net'", vec!["drop@example.net", "o'neil@example.net"]),
            ("\"two words\"@example.net", vec!["\"two words\"@example.net"]),
            ("drop@[192.0.2.7]", vec!["drop@[192.0.2.7]"]),
            ("dröp@exämple.net.", vec!["dröp@exämple.net"]),
            ("a+b=c@example.net", vec!["a+b=c@example.net"]),
            ("alex", vec![]),
            ("@", vec![]),
            ("a@", vec![]),
            ("@b", vec![]),
            ("\"@b", vec![]),
            ("a@[", vec![]),
            ("a@b@c", vec!["a@b", "b@c"]),
        ] {
            assert_eq!(scanned(text), expected, "{text}");
        }
    }

    #[test]
    fn only_actions_that_send_mail_on_count() {
        for (rule, expected) in [
            (r#"[{"ActionType":"Forward","Recipients":["a@x.example","b@x.example"],"ForwardFlags":"None"}]"#, 2),
            (r#"[{"ActionType":"Redirect","Recipients":[{"Type":"SMTP","Address":"a@x.example"}]}]"#, 1),
            (r#"[{"ActionType":"Move","DestinationFolderId":"a@x.example"},{"ActionType":"Delete"}]"#, 0),
            (
                r#"{"Conditions":[{"Recipients":["c@x.example"]}],"Actions":[{"Recipients":[{"Values":[{"Value":"a@x.example"}]}]}]}"#,
                1,
            ),
            (r#"["{\"ActionType\":\"Forward\",\"Recipients\":[\"a@x.example\"]}"]"#, 1),
            (r#"{"Type":"Rule","ForwardTo":"a@x.example"}"#, 1),
            (r#"[{"ActionType":"Forward","Recipients":["a@x.example","b@x.exa"#, 2),
            ("ForwardToRecipientsAction", 0),
            ("[]", 0),
        ] {
            assert_eq!(of_rule(rule).len(), expected, "{rule}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_scanned(text in "[a@.\"'\\[\\] ;é]{0,30}") {
            scan(&text, &mut BTreeSet::new());
            rule_text(&text, &mut BTreeSet::new());
        }
    }
}
