//! A rule as it runs: parsed, checked, and with nothing left that could fail on a record.

use chrono::{DateTime, TimeDelta, Utc};
use schemas::finding::Level;
use schemas::path::Path;

use super::condition::Detection;
pub use super::predicate::Comparison;
use super::text::Template;
use crate::places::Place;

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The rule's `id`, or its `name` where it has none: the key of its state and of its findings.
    pub id: String,
    /// The human alias by which correlations refer to it; the id where it has none.
    pub name: String,
    /// First 12 hex digits of the hash of the rule's meaning: what it selects and when it fires, not its texts.
    pub version: String,
    pub title: String,
    pub description: String,
    pub level: Level,
    /// Technique ids from the tags (`attack.t1564.008` -> `T1564.008`).
    pub attack: Vec<String>,
    pub false_positives: Vec<String>,
    pub references: Vec<String>,
    /// Which of the six questions it helps to answer: how, when, only_one, taken, launched, left_behind.
    pub answers: Vec<String>,
    pub needs: Needs,
    /// What it selects. A correlation selects through the rules it names.
    pub kind: Kind,
    /// The correlations inside it, the innermost first; empty where it only refers to detection rules.
    pub stages: Vec<Stage>,
    /// Names of the fields that identify what the rule groups by, as written, in order.
    pub group_by: Vec<String>,
    /// When satisfied windows of one group are nearer than this, they are one episode.
    pub gap: TimeDelta,
    pub operator: Operator,
    /// How much a record counts for in a sum: a path to a number; none counts 1.
    pub weight: Option<Path>,
    /// What the operator compares: the fields of `value_count` and its kin, of a new value. Several make one value.
    pub values: Vec<Path>,
    /// Keep only matches with a mail address or domain here that is not known to be the tenant's own.
    pub outside: Option<Path>,
    /// Whether the rule makes findings by itself. A rule that correlations refer to does not, unless it says `generate: true`.
    pub generates: bool,
    /// The sentence that tells what happened.
    pub reason: Template,
    /// What is done next, evidence first.
    pub next: Vec<NextTemplate>,
    /// Kind of entity (`user`, `mailbox`, `ip`, `session`, `app`, `address`) and the field that holds it.
    pub entities: Vec<(String, String)>,
    /// Every field that reason, commands, entities and `fields` show: what a match must carry.
    pub shown: Vec<(String, Path)>,
    /// The tests the rule carries.
    pub tests: Vec<RuleTest>,
    /// The file it came from, for messages.
    pub file: String,
    /// Line of its first key in that file, from 1.
    pub line: usize,
}

impl Rule {
    /// What it selects by itself, if it is not a correlation.
    pub fn detection(&self) -> Option<&Detection> {
        match &self.kind {
            Kind::Detection(detection) => Some(detection),
            Kind::Correlation { .. } => None,
        }
    }
}

/// What a rule can only see if it is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs {
    /// Content types (`Audit.Exchange`).
    pub feeds: Vec<String>,
    pub operations: Vec<String>,
    /// Free text: a licence or a setting without which the records do not exist.
    pub setting: Option<String>,
}

/// What selects records for a rule.
#[derive(Clone, Debug)]
pub enum Kind {
    /// A Sigma detection rule.
    Detection(Box<Detection>),
    /// A correlation of detection rules, by name, directly or by way of other correlations.
    Correlation { members: Vec<Member>, learn_from: Vec<String> },
}

/// One detection rule that a correlation looks at.
#[derive(Clone, Debug)]
pub struct Member {
    /// What the operator calls it: the rule's name, or the way to it: `inner_correlation/rule`.
    pub name: String,
    /// The detection rule's name.
    pub rule: String,
    /// Ids of the correlations on the way: their exceptions hold as well.
    pub through: Vec<String>,
    /// The paths of the group key of the correlation that refers to it, in the order of its `group_by`.
    pub group_by: Vec<Path>,
    /// For a rule of an inner correlation: which parts of that key make the keys of the correlations around it, from
    /// the outside in.
    pub levels: Vec<Vec<usize>>,
    /// What the correlation that refers to it compares and counts.
    pub reads: Reads,
    pub values: Vec<Path>,
    pub weight: Option<Path>,
}

/// A correlation inside another one.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The way to it: its name, after those of the correlations around it.
    pub name: String,
    pub operator: Operator,
    /// Which parts of its group key the correlation around it compares.
    pub exposes: Vec<usize>,
}

/// What an operator reads of a record beside its time, id and weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    Nothing,
    Texts,
    Numbers,
    /// The place of the address that the first path names, and the values of the others together.
    Places,
}

/// When matches become a finding. Every operator is a function of the set of matches.
#[derive(Clone, Debug, PartialEq)]
pub enum Operator {
    /// Every match is a finding; those nearer than the gap are one.
    Each,
    /// At least so much weight within the timespan.
    EventCount { at_least: u64, timespan: TimeDelta },
    /// At least so many distinct values within the timespan.
    ValueCount { at_least: u64, timespan: TimeDelta },
    /// At least so many distinct member rules within the timespan.
    Temporal { at_least: usize, timespan: TimeDelta },
    /// All steps, in this order (equal times in any order), within the timespan.
    TemporalOrdered(Sequence),
    /// A measure within bounds, within the timespan, where more records may make that false again.
    Aggregate(Aggregate),
    /// A value that the group has not shown on any earlier day within the history.
    NewValue(NewValue),
    /// More weight within the timespan than the group's own history explains.
    Spike(Spike),
    /// Two places further apart than anybody travels in the time between.
    Travel(Travel),
    /// What was to follow and did not.
    Absence(Absence),
    /// The operator of every rule with `x-outside`. A match without `values` was decided by the matcher, which knows the
    /// tenant's domains: it stands, as under `Each`. A match with `values` (domains) comes from a tenant whose domains
    /// are not configured, in the shard "": it stands unless all of them were seen as mailbox owners' domains, and is
    /// retracted when they turn out to be the tenant's own.
    Outside,
}

/// A measure of the records in a window, and what it must be.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    pub measure: Measure,
    /// All of them hold.
    pub bounds: Vec<Bound>,
    pub timespan: TimeDelta,
}

/// What is measured. Numbers are decimals to the millionth, so that their sum does not depend on the order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Measure {
    /// The weights of distinct event ids.
    Events,
    /// Distinct values.
    Values,
    /// Distinct member rules.
    Rules,
    Sum,
    Average,
    /// The value at so many millionths of a percent, by the nearest rank.
    Percentile(i64),
    /// The share of some value among all, in percent: one of them is within the bounds.
    Share,
    /// What some of the rules are of all, in percent.
    Ratio(Ratio),
}

/// See `correlate/ratio.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ratio {
    /// Names of the member rules whose records are the part.
    pub of: Vec<String>,
    /// With less in all nothing is said.
    pub floor: u64,
}

/// One bound, in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    pub comparison: Comparison,
    pub millionths: i128,
}

impl Operator {
    /// Whether it is a condition that more records can only make truer, and therefore one that correlations of
    /// correlations can rest on.
    pub fn only_grows(&self) -> bool {
        matches!(
            self,
            Operator::EventCount { .. }
                | Operator::ValueCount { .. }
                | Operator::Temporal { .. }
                | Operator::TemporalOrdered(_)
        )
    }

    /// How long a window is; nothing for those without one.
    pub fn timespan(&self) -> TimeDelta {
        match self {
            Operator::EventCount { timespan, .. }
            | Operator::ValueCount { timespan, .. }
            | Operator::Temporal { timespan, .. } => *timespan,
            Operator::TemporalOrdered(sequence) => sequence.timespan,
            Operator::Aggregate(aggregate) => aggregate.timespan,
            Operator::Spike(spike) => spike.timespan,
            Operator::Travel(travel) => travel.timespan,
            Operator::Absence(absence) => absence.timespan,
            Operator::Each | Operator::NewValue(_) | Operator::Outside => TimeDelta::zero(),
        }
    }

    /// What an episode must hold to be told.
    pub fn least(&self) -> Option<&Least> {
        match self {
            Operator::NewValue(new) => new.least.as_ref(),
            _ => None,
        }
    }

    pub fn reads(&self) -> Reads {
        match self {
            Operator::ValueCount { .. } | Operator::NewValue(_) => Reads::Texts,
            Operator::Travel(_) => Reads::Places,
            Operator::Aggregate(aggregate) => match aggregate.measure {
                Measure::Events | Measure::Rules | Measure::Ratio(_) => Reads::Nothing,
                Measure::Values | Measure::Share => Reads::Texts,
                Measure::Sum | Measure::Average | Measure::Percentile(_) => Reads::Numbers,
            },
            _ => Reads::Nothing,
        }
    }
}

/// A value new to the group. Day-resolved: only observations on days before the trigger's day count, so the order of
/// arrival cannot matter. The group must be warm, else the rule is silent.
#[derive(Clone, Debug, PartialEq)]
pub struct NewValue {
    /// How many days back a sighting makes a value known.
    pub history_days: u32,
    /// And how many days it must lie back at least; at least one. What somebody does with a value that is new is often
    /// done a day or two after he has shown it first.
    pub known_after_days: u32,
    /// The first sighting of anything for the group must lie at least so many days before the trigger's day.
    pub min_days: u32,
    /// And the group must have been seen on at least so many distinct days before it.
    pub min_days_seen: u32,
    /// What an episode must hold to be told; anything, where there is none.
    pub least: Option<Least>,
}

/// The least that an episode must hold: so many distinct records of these rules, or what they stand for by `x-weight`.
/// What else is in it is told with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Least {
    pub events: u32,
    /// Names of member rules; empty for all of them.
    pub of: Vec<String>,
}

/// More than own history explains: with m the median and MAD the median absolute deviation of the weights of the
/// `history_days` whole UTC days before the window's first day (days without records count as 0, but only from the
/// group's first day on), a window of `timespan` with weight W fires when
/// W >= floor and W > ratio * m and W > m + deviations * 1.4826 * max(MAD, sqrt(m), 1).
/// With fewer than `min_days` such days there is no history: then it fires when W >= cold_floor, and says so.
#[derive(Clone, Debug, PartialEq)]
pub struct Spike {
    pub timespan: TimeDelta,
    pub floor: u64,
    pub ratio: f64,
    pub deviations: f64,
    pub history_days: u32,
    pub min_days: u32,
    pub cold_floor: u64,
}

/// Faster than anybody travels: see `correlate/travel.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Travel {
    /// The longest journey that is looked at.
    pub timespan: TimeDelta,
    pub speed_kmh: u32,
    pub distance_km: u32,
    /// Whether something else must differ as well.
    pub must_differ: bool,
}

/// A record that nothing follows: see `correlate/absence.rs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absence {
    /// Names of the member rules of which a record is expected; those of the others are waited on.
    pub expect: Vec<String>,
    pub timespan: TimeDelta,
    /// How much later than it happened a record may become available.
    pub delay: TimeDelta,
}

impl Absence {
    /// From a record to the moment up to which feeds must have come.
    pub fn wait(&self) -> TimeDelta {
        self.timespan.checked_add(&self.delay).unwrap_or(TimeDelta::MAX)
    }

    /// The stretch of event time of which everything is there once feeds have come from one moment to another.
    pub fn whole(&self, since: DateTime<Utc>, until: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
        (since, until.checked_sub_signed(self.delay).unwrap_or(DateTime::<Utc>::MIN_UTC))
    }
}

/// What follows on what: see `correlate/temporal_ordered.rs`, and `correlate/same.rs` where steps share a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    pub steps: Vec<Step>,
    pub timespan: TimeDelta,
}

/// One place of a sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Name of the member rule. A rule may stand in several places.
    pub rule: String,
    /// The field with a value that the records of all such steps have in common. All steps of a rule have it, or none;
    /// where any does, the first one does.
    pub same: Option<String>,
    /// The next step's record comes at least so much later.
    pub pause: TimeDelta,
}

impl Sequence {
    /// Whether records of some steps have a value in common.
    pub fn is_shared(&self) -> bool {
        self.steps.iter().any(|step| step.same.is_some())
    }

    /// Whether the steps of a rule share the value.
    pub fn shares(&self, rule: &str) -> bool {
        self.steps.iter().any(|step| step.same.is_some() && step.rule == rule)
    }
}

/// A step to take, with its command.
#[derive(Clone, Debug)]
pub struct NextTemplate {
    pub text: Template,
    pub command: Option<Template>,
}

/// A test that a rule carries.
#[derive(Clone, Debug)]
pub struct RuleTest {
    pub name: String,
    /// Records, each a JSON object; see `rules/README.md` for the shorthand that fills in id and time.
    pub records: Vec<serde_json::Value>,
    /// How many findings of this rule stand at the end.
    pub findings: usize,
    /// Text that must occur in the reason of one of them.
    pub reason_contains: Vec<String>,
    /// The tenant's configured domains; empty for a tenant without any.
    pub domains: Vec<String>,
    /// Where networks are, for rules that ask.
    pub places: Vec<(ipnet::IpNet, Place)>,
    pub line: usize,
}
