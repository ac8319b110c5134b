//! A finding: one episode that a rule saw, as it is delivered, archived and shown. Every sink's form is a pure
//! function of this one.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::tenant::Tenant;

/// The schema name that every finding carries.
pub const SCHEMA: &str = "harrier.finding/1";

/// Most event ids kept inside a finding; the `evidence` table has them all up to [`EVIDENCE_MAX`].
pub const EVIDENCE_SHOWN_MAX: usize = 20;

/// Most event ids a finding names at all; `event_count` still counts every one.
pub const EVIDENCE_MAX: usize = 10_000;

/// One episode of one rule, newest revision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    pub schema: String,
    pub tenant: Tenant,
    /// Hash of rule id, tenant, group key and the earliest member of the earliest satisfied window: the same in
    /// every run over the same records.
    pub id: String,
    /// Counts from 1; every change that is emitted adds one.
    pub revision: u32,
    pub status: Status,
    /// The finding that took over, where `status` is superseded or merged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<String>,
    pub rule: RuleReference,
    /// Who, what, whose, whence, when, and why that is unusual: one sentence for a person.
    pub reason: String,
    /// The group key as text.
    pub entity: String,
    pub entities: Vec<Entity>,
    /// Event times (UTC) of the first and the last member.
    pub first_event: DateTime<Utc>,
    pub last_event: DateTime<Utc>,
    /// Distinct record ids.
    pub event_count: u64,
    /// Ids of the members, in event-time order, at most [`EVIDENCE_MAX`].
    pub evidence: Vec<String>,
    /// Values of the fields the rule shows, over all members: at most 10 a field.
    #[serde(default)]
    pub fields: BTreeMap<String, Vec<String>>,
    /// What weakens the answer: warm-up, unknown domains, throttling.
    #[serde(default)]
    pub notes: Vec<String>,
    /// First preserve evidence, then act.
    pub next: Vec<NextStep>,
    /// Received time (UTC) of the record that caused the first and the newest revision.
    pub created: DateTime<Utc>,
    pub updated: DateTime<Utc>,
    /// False if only records that must alert nobody caused this revision.
    pub notify: bool,
    /// The incident it belongs to; filled where all findings of a tenant are seen together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident_id: Option<String>,
}

/// Where a finding stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// More records may still change it.
    Open,
    /// The completeness mark has passed it.
    Final,
    /// A late record gave the episode another id: see `superseded_by`.
    Superseded,
    /// A late record joined it to another episode: see `superseded_by`.
    Merged,
    /// A late record showed that there was nothing unusual.
    Retracted,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Open => "open",
            Status::Final => "final",
            Status::Superseded => "superseded",
            Status::Merged => "merged",
            Status::Retracted => "retracted",
        }
    }

    /// Whether the episode stands: what two runs are compared by.
    pub fn stands(self) -> bool {
        matches!(self, Status::Open | Status::Final)
    }
}

/// The rule that saw it, as far as a reader needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RuleReference {
    pub id: String,
    /// First 12 hex digits of the hash of the rule's meaning.
    pub version: String,
    pub title: String,
    pub level: Level,
    /// ATT&CK technique ids (`T1564.008`).
    pub attack: Vec<String>,
    pub false_positives: Vec<String>,
    /// Which of the six questions of a breach it helps to answer: how, when, only_one, taken, launched, left_behind.
    pub answers: Vec<String>,
}

/// How bad it is, in Sigma's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Informational,
    Low,
    Medium,
    High,
    Critical,
}

impl Level {
    pub const ALL: [Level; 5] = [Level::Informational, Level::Low, Level::Medium, Level::High, Level::Critical];

    pub fn as_str(self) -> &'static str {
        match self {
            Level::Informational => "informational",
            Level::Low => "low",
            Level::Medium => "medium",
            Level::High => "high",
            Level::Critical => "critical",
        }
    }
}

/// Someone or something the finding is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Entity {
    /// `user`, `mailbox`, `ip`, `session`, `app`, `address`, `domain`.
    pub kind: String,
    pub id: String,
}

/// One thing to do, with the command that does it where there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextStep {
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}
