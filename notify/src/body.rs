//! What a receiver reads: the finding as one line of JSON, a pure function of the finding and of what has been told
//! about it before. The same delivery has the same bytes on every attempt, in every process.
//!
//! Values come from whoever is being watched. JSON escapes the C0 controls; the characters that act on a terminal or
//! turn text around although JSON lets them pass (DEL and C1 controls, bidirectional overrides, line and paragraph
//! separators) are written as `\u` escapes too, which a JSON reader does not notice.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use schemas::finding::{EVIDENCE_MAX, EVIDENCE_SHOWN_MAX, Entity, Finding, NextStep, Status};
use serde::Serialize;

/// Largest body. Standard Webhooks asks for less than 20 kB.
pub const BODY_BYTES_MAX: usize = 20_000;

/// What a delivery is to the receiver, who keeps one alert for each `dedup_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Nothing has been confirmed under this `dedup_key` before.
    Created,
    Updated,
    /// The finding does not stand any more: retracted, or taken over by one that has an alert of its own.
    Closed,
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Created => "finding.created",
            Kind::Updated => "finding.updated",
            Kind::Closed => "finding.closed",
        }
    }
}

/// What a body says beside the finding.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    pub kind: Kind,
    pub incident_id: Option<&'a str>,
    /// The id under which the episode was first delivered.
    pub dedup_key: &'a str,
    /// The finding that this one took over from.
    pub previous_id: Option<&'a str>,
}

/// `webhook-id`: names one revision of one finding, the same on every attempt. The signature's text is divided by dots,
/// so there are none in it.
pub fn webhook_id(finding: &Finding) -> String {
    format!("{}_{}_{}", finding.id, finding.revision, finding.status.as_str()).replace('.', "-")
}

/// How much of a finding is shown. What is tried in order until the body is small enough.
struct Measure {
    evidence: usize,
    fields: bool,
    text_characters: usize,
    list: usize,
}

/// Evidence goes first, because the archive has it by finding id; then fields, then texts are cut. The last measure
/// fits whatever the values are, as the longest escape of a character is six bytes.
const MEASURES: [Measure; 6] = [
    Measure { evidence: EVIDENCE_SHOWN_MAX, fields: true, text_characters: usize::MAX, list: usize::MAX },
    Measure { evidence: 0, fields: true, text_characters: usize::MAX, list: usize::MAX },
    Measure { evidence: 0, fields: false, text_characters: usize::MAX, list: usize::MAX },
    Measure { evidence: 0, fields: false, text_characters: 1_000, list: 50 },
    Measure { evidence: 0, fields: false, text_characters: 300, list: 20 },
    Measure { evidence: 0, fields: false, text_characters: 60, list: 5 },
];

/// The body of one delivery.
pub fn body(finding: &Finding, context: &Context<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for measure in &MEASURES {
        bytes = to_line(&Message {
            kind: context.kind.as_str(),
            timestamp: finding.updated,
            data: data(&cut(finding, measure), context),
        });
        if bytes.len() <= BODY_BYTES_MAX {
            break;
        }
    }
    debug_assert!(bytes.len() <= BODY_BYTES_MAX);
    bytes
}

/// What every sink is told, whatever it is about.
#[derive(Serialize)]
pub(crate) struct Message<T> {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub timestamp: DateTime<Utc>,
    pub data: T,
}

#[derive(Serialize)]
struct Data<'a> {
    schema: &'a str,
    id: &'a str,
    revision: u32,
    status: Status,
    tenant: &'a str,
    rule: Rule<'a>,
    reason: &'a str,
    window: Window,
    created: DateTime<Utc>,
    updated: DateTime<Utc>,
    first_event: DateTime<Utc>,
    last_event: DateTime<Utc>,
    entities: &'a [Entity],
    evidence: &'a [String],
    event_count: u64,
    fields: &'a BTreeMap<String, Vec<String>>,
    notes: &'a [String],
    dedup_key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    superseded_by: Option<&'a str>,
    incident_id: Option<&'a str>,
    answers: &'a [String],
    next: &'a [NextStep],
}

#[derive(Serialize)]
struct Rule<'a> {
    id: &'a str,
    version: &'a str,
    title: &'a str,
    level: &'static str,
    attack: &'a [String],
    false_positives: &'a [String],
}

#[derive(Serialize)]
struct Window {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
}

fn data<'a>(finding: &'a Finding, context: &Context<'a>) -> Data<'a> {
    Data {
        schema: &finding.schema,
        id: &finding.id,
        revision: finding.revision,
        status: finding.status,
        tenant: finding.tenant.as_str(),
        rule: Rule {
            id: &finding.rule.id,
            version: &finding.rule.version,
            title: &finding.rule.title,
            level: finding.rule.level.as_str(),
            attack: &finding.rule.attack,
            false_positives: &finding.rule.false_positives,
        },
        reason: &finding.reason,
        window: Window { start: finding.first_event, end: finding.last_event },
        created: finding.created,
        updated: finding.updated,
        first_event: finding.first_event,
        last_event: finding.last_event,
        entities: &finding.entities,
        evidence: &finding.evidence,
        event_count: finding.event_count,
        fields: &finding.fields,
        notes: &finding.notes,
        dedup_key: context.dedup_key,
        previous_id: context.previous_id,
        superseded_by: finding.superseded_by.as_deref(),
        incident_id: context.incident_id,
        answers: &finding.rule.answers,
        next: &finding.next,
    }
}

/// The finding by one measure, with what was left out said in its notes. Its id is never cut.
fn cut(finding: &Finding, measure: &Measure) -> Finding {
    let mut cut = finding.clone();
    let mut said = Vec::new();
    cut.evidence.truncate(measure.evidence);
    if (cut.evidence.len() as u64) < finding.event_count {
        let (shown, all) = (cut.evidence.len(), finding.event_count);
        let most = EVIDENCE_MAX;
        said.push(format!(
            "evidence: {shown} of {all} events are named here; the archive's evidence table has up to {most}"
        ));
    }
    if !measure.fields && !cut.fields.is_empty() {
        cut.fields.clear();
        said.push("the fields were left out to keep this message small".to_owned());
    }
    let mut scissors = Scissors { measure, used: false };
    for text in [&mut cut.schema, &mut cut.reason, &mut cut.rule.id, &mut cut.rule.version, &mut cut.rule.title] {
        scissors.text(text);
    }
    for list in [&mut cut.rule.attack, &mut cut.rule.false_positives, &mut cut.rule.answers, &mut cut.notes] {
        scissors.list(list);
        list.iter_mut().for_each(|text| scissors.text(text));
    }
    scissors.list(&mut cut.entities);
    for entity in &mut cut.entities {
        scissors.text(&mut entity.kind);
        scissors.text(&mut entity.id);
    }
    scissors.list(&mut cut.next);
    for step in &mut cut.next {
        scissors.text(&mut step.text);
        // Half a command is worse than none: somebody might run it.
        if step.command.as_ref().is_some_and(|command| command.chars().count() > measure.text_characters) {
            step.command = None;
            scissors.used = true;
        }
    }
    if scissors.used {
        said.push("long texts and lists were cut to keep this message small; the archive has them whole".to_owned());
    }
    cut.notes.extend(said);
    cut
}

struct Scissors<'a> {
    measure: &'a Measure,
    used: bool,
}

impl Scissors<'_> {
    fn text(&mut self, text: &mut String) {
        if let Some((end, _)) = text.char_indices().nth(self.measure.text_characters) {
            text.truncate(end);
            text.push('…');
            self.used = true;
        }
    }

    fn list<T>(&mut self, list: &mut Vec<T>) {
        if list.len() > self.measure.list {
            list.truncate(self.measure.list);
            self.used = true;
        }
    }
}

/// JSON on one line, without a character that acts on whoever shows it.
pub(crate) fn to_line(value: &impl Serialize) -> Vec<u8> {
    // Structs of strings, numbers and times always serialise.
    let json = serde_json::to_string(value).unwrap_or_default();
    let mut line = String::with_capacity(json.len());
    for character in json.chars() {
        if acts(character) {
            line.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            line.push(character);
        }
    }
    line.into_bytes()
}

/// Characters that act rather than show, beyond those that JSON escapes. All lie below U+10000: one escape is enough.
fn acts(character: char) -> bool {
    matches!(character,
        '\u{7f}'..='\u{9f}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests;
