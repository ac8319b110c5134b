//! What a rule can see of a tenant: whether it is live, unheard, cold or deaf, and why.
//!
//! A silent rule is good news only if it could have spoken. Each rule is held against what was received in a stretch of
//! time: the feeds it reads, the operations it names, the fields it asks for, and the days its history needs. Nothing is
//! taken for absent on little evidence: an operation that is rare is *unheard*, and only one that ordinary life makes
//! every day is called missing, where many records of its feed came without it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use schemas::{Event, operation_key};

use crate::rule::condition::{Detection, OperationName};
use crate::rule::pattern::fold_text;
use crate::rule::{Never, Operator, Rule, RuleSet, known_spelling};

/// Least records of an operation that must lack a field before it is said that they all do.
const RECORDS_WITHOUT_FIELD_MIN: usize = 100;

/// Least records of a feed in which ordinary life makes every operation of [`EVERYDAY`].
const FEED_RECORDS_MIN: u64 = 2_000;

/// Operations that people who work make every day, where they are recorded, and their feed.
const EVERYDAY: &[(&str, &str)] = &[
    ("UserLoggedIn", "Audit.AzureActiveDirectory"),
    ("MailItemsAccessed", "Audit.Exchange"),
    ("Send", "Audit.Exchange"),
    ("FileAccessed", "Audit.SharePoint"),
];

/// What a tenant's archive shows of a stretch of time.
#[derive(Debug)]
pub struct Seen {
    first: DateTime<Utc>,
    until: DateTime<Utc>,
    /// By content type.
    feeds: BTreeMap<String, Feed>,
    /// By the operation as records write it.
    operations: BTreeMap<String, Operation>,
    has_places: bool,
}

#[derive(Debug, Default)]
struct Feed {
    records: u64,
    is_collected: bool,
    trouble: Option<String>,
}

#[derive(Debug, Default)]
struct Operation {
    records: u64,
    sample: Vec<Event>,
}

impl Seen {
    /// Nothing yet. `first`: when the tenant's first record ever was; `until`: when the stretch ends.
    pub fn new(first: DateTime<Utc>, until: DateTime<Utc>) -> Seen {
        Seen { first, until, feeds: BTreeMap::new(), operations: BTreeMap::new(), has_places: false }
    }

    /// Counts records of a workload's operation.
    pub fn add(&mut self, workload: &str, operation: &str, records: u64) {
        self.feeds.entry(feed_of(workload).to_owned()).or_default().records += records;
        self.operations.entry(operation.to_owned()).or_default().records += records;
    }

    /// Notes what is known of a feed: whether anything was collected, and what is wrong with it.
    pub fn note_feed(&mut self, name: &str, is_collected: bool, trouble: Option<String>) {
        let feed = self.feeds.entry(name.to_owned()).or_default();
        feed.is_collected |= is_collected;
        feed.trouble = trouble.or(feed.trouble.take());
    }

    /// Notes that there is a table of places.
    pub fn note_places(&mut self) {
        self.has_places = true;
    }

    /// Takes a record as an example of its operation. Whether more of it are of use.
    pub fn sample(&mut self, event: Event) -> bool {
        let name = event.text(schemas::field::OPERATION).unwrap_or_default().to_owned();
        let Some(operation) = self.operations.get_mut(&name) else { return false };
        if operation.sample.len() < RECORDS_WITHOUT_FIELD_MIN {
            operation.sample.push(event);
        }
        !operation.is_sampled()
    }

    /// Whether every operation has as many examples as are of use.
    pub fn is_sampled(&self) -> bool {
        self.operations.values().all(Operation::is_sampled)
    }

    fn has_feed(&self, name: &str) -> bool {
        self.feeds.get(name).is_some_and(|feed| feed.records > 0 || feed.is_collected)
    }

    fn of<'s>(&'s self, name: &'s OperationName) -> impl Iterator<Item = &'s Operation> {
        let has = move |written: &str| match name {
            OperationName::Written(name) => fold_text(written) == *name,
            OperationName::Key(key) => operation_key(written) == *key,
        };
        self.operations.iter().filter(move |(written, _)| has(written)).map(|(_, operation)| operation)
    }
}

impl Operation {
    fn is_sampled(&self) -> bool {
        self.sample.len() as u64 >= self.records.min(RECORDS_WITHOUT_FIELD_MIN as u64)
    }
}

/// The content type in which records of a workload come.
fn feed_of(workload: &str) -> &'static str {
    match workload {
        "AzureActiveDirectory" => "Audit.AzureActiveDirectory",
        "Exchange" => "Audit.Exchange",
        "SharePoint" | "OneDrive" => "Audit.SharePoint",
        _ => "Audit.General",
    }
}

/// How much a rule can see, from most to least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Records that it looks at came.
    Live,
    /// None of its operations came. They may be rare.
    Unheard,
    /// Its history is too short to judge by.
    Cold,
    /// What it looks at does not come.
    Deaf,
}

impl State {
    pub const ALL: [State; 4] = [State::Deaf, State::Cold, State::Unheard, State::Live];

    pub fn as_str(self) -> &'static str {
        match self {
            State::Live => "live",
            State::Unheard => "unheard",
            State::Cold => "cold",
            State::Deaf => "deaf",
        }
    }
}

/// A rule's state in a tenant, with its reasons. A live rule may have some as well: what it sees only in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sight {
    pub state: State,
    pub reasons: Vec<Reason>,
}

/// Why a rule does not see, or not all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    Never(Never),
    FeedMissing { feed: String, trouble: Option<String> },
    NotRecorded { operation: &'static str, feed: &'static str, records: u64, setting: Option<String> },
    NotOccurred { operations: Vec<String> },
    FieldsMissing { fields: Vec<String>, records: usize },
    HistoryUntil(NaiveDate),
    NoPlaces,
    Member { rule: String, reason: Box<Reason> },
}

/// Most operations named in one reason.
const NAMED_MAX: usize = 4;

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Never(never) => never.fmt(f),
            Reason::FeedMissing { feed, trouble: None } => write!(f, "nothing of {feed} was collected"),
            Reason::FeedMissing { feed, trouble: Some(trouble) } => {
                write!(f, "nothing of {feed} was collected: {trouble}")
            }
            Reason::NotRecorded { operation, feed, records, setting } => {
                write!(f, "{operation} is not recorded: {records} records of {feed} came without one")?;
                setting.as_ref().map_or(Ok(()), |setting| write!(f, " ({setting})"))
            }
            Reason::NotOccurred { operations } => {
                write!(f, "has not occurred: {}", operations[..operations.len().min(NAMED_MAX)].join(", "))?;
                match operations.len().saturating_sub(NAMED_MAX) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
            Reason::FieldsMissing { fields, records } => {
                write!(f, "none of {records} records looked at has {}", fields.join(", "))
            }
            Reason::HistoryUntil(day) => write!(f, "learns until {day} at the earliest, for each account by itself"),
            Reason::NoPlaces => write!(f, "nobody says where addresses are: set [rules] places_file"),
            Reason::Member { rule, reason } => write!(f, "{rule}: {reason}"),
        }
    }
}

/// What a rule of this set can see.
pub fn sight(rules: &RuleSet, rule: &Rule, seen: &Seen) -> Sight {
    let mut sight = match &rule.kind {
        crate::rule::Kind::Detection(detection) => of_detection(rule, detection, seen),
        crate::rule::Kind::Correlation { members, .. } => {
            let names: BTreeSet<&str> = members.iter().map(|member| member.rule.as_str()).collect();
            let sights: Vec<(&str, Sight)> = names
                .into_iter()
                .filter_map(|name| rules.find(name).map(|member| (name, sight_of_member(member, seen))))
                .collect();
            of_members(needed(&rule.operator, sights.len()), sights)
        }
    };
    if matches!(rule.operator, Operator::Travel(_)) && !seen.has_places {
        return Sight { state: State::Deaf, reasons: vec![Reason::NoPlaces] };
    }
    let missing: Vec<Reason> =
        rule.needs.feeds.iter().filter(|feed| !seen.has_feed(feed)).map(|feed| missing(feed, seen)).collect();
    if !missing.is_empty() && missing.len() == rule.needs.feeds.len() {
        return Sight { state: State::Deaf, reasons: missing };
    }
    // What the rule lacks as a whole is not said of its members again.
    sight.reasons.retain(|reason| !matches!(reason, Reason::Member { reason, .. } if missing.contains(reason)));
    sight.reasons.extend(missing);
    if let (State::Live | State::Unheard, Some(day)) = (sight.state, learns_until(rule, seen)) {
        sight.state = State::Cold;
        sight.reasons.insert(0, Reason::HistoryUntil(day));
    }
    sight
}

fn sight_of_member(rule: &Rule, seen: &Seen) -> Sight {
    match rule.detection() {
        Some(detection) => of_detection(rule, detection, seen),
        None => Sight { state: State::Live, reasons: Vec::new() },
    }
}

/// How many of its members a correlation cannot do without.
fn needed(operator: &Operator, members: usize) -> usize {
    match operator {
        Operator::Temporal { at_least, .. } => *at_least,
        Operator::TemporalOrdered(_) => members,
        // What is expected must be seen, or everything would be missing.
        Operator::Absence(_) => members,
        _ => 1,
    }
}

fn of_members(needed: usize, sights: Vec<(&str, Sight)>) -> Sight {
    let up_to = |worst: State| sights.iter().filter(|(_, sight)| sight.state <= worst).count();
    let state = [State::Live, State::Unheard, State::Cold]
        .into_iter()
        .find(|state| up_to(*state) >= needed)
        .unwrap_or(State::Deaf);
    // What has not occurred to one of many is no news as long as others did.
    let told = |sight: &Sight| sight.state == State::Deaf || (state != State::Live && sight.state >= state);
    let reasons = sights.into_iter().filter(|(_, sight)| told(sight)).flat_map(|(name, sight)| {
        let of_member = move |reason| Reason::Member { rule: name.to_owned(), reason: Box::new(reason) };
        sight.reasons.into_iter().map(of_member)
    });
    Sight { state, reasons: reasons.collect() }
}

fn of_detection(rule: &Rule, detection: &Detection, seen: &Seen) -> Sight {
    if let Some(never) = detection.never() {
        return Sight { state: State::Deaf, reasons: vec![Reason::Never(never)] };
    }
    let feeds: BTreeSet<&str> = detection.logsource_workloads().iter().map(|workload| feed_of(workload)).collect();
    if !feeds.is_empty() && !feeds.iter().any(|feed| seen.has_feed(feed)) {
        let reasons = feeds.into_iter().map(|feed| missing(feed, seen)).collect();
        return Sight { state: State::Deaf, reasons };
    }
    let Some(names) = detection.operations() else { return Sight { state: State::Live, reasons: Vec::new() } };
    let found: Vec<&Operation> = names.iter().flat_map(|name| seen.of(name)).filter(|one| one.records > 0).collect();
    if found.is_empty() {
        return not_heard(rule, &names, seen);
    }
    let sample: Vec<&Event> = found.iter().flat_map(|operation| &operation.sample).collect();
    if sample.len() >= RECORDS_WITHOUT_FIELD_MIN && !sample.iter().any(|event| detection.could_select(event)) {
        let fields = detection.fields_absent(&sample);
        if !fields.is_empty() {
            return Sight {
                state: State::Deaf,
                reasons: vec![Reason::FieldsMissing { fields, records: sample.len() }],
            };
        }
    }
    Sight { state: State::Live, reasons: Vec::new() }
}

fn not_heard(rule: &Rule, names: &BTreeSet<OperationName>, seen: &Seen) -> Sight {
    let text = |name: &OperationName| match name {
        OperationName::Written(name) | OperationName::Key(name) => known_spelling(name).to_owned(),
    };
    let everyday = |name: &OperationName| {
        let (operation, feed) =
            EVERYDAY.iter().find(|(known, _)| operation_key(known) == operation_key(&text(name)))?;
        let records = seen.feeds.get(*feed)?.records;
        let setting = rule.needs.setting.clone();
        (records >= FEED_RECORDS_MIN).then_some(Reason::NotRecorded { operation, feed, records, setting })
    };
    match names.iter().map(everyday).collect::<Option<Vec<Reason>>>() {
        Some(reasons) => Sight { state: State::Deaf, reasons },
        None => {
            let operations = names.iter().map(text).collect();
            Sight { state: State::Unheard, reasons: vec![Reason::NotOccurred { operations }] }
        }
    }
}

fn missing(feed: &str, seen: &Seen) -> Reason {
    let trouble = seen.feeds.get(feed).and_then(|feed| feed.trouble.clone());
    Reason::FeedMissing { feed: feed.to_owned(), trouble }
}

/// Until when a baseline learns, if it still does: counted from the tenant's first record.
fn learns_until(rule: &Rule, seen: &Seen) -> Option<NaiveDate> {
    let days = match &rule.operator {
        Operator::NewValue(new) => new.min_days,
        Operator::Spike(spike) => spike.min_days,
        _ => return None,
    };
    let until = seen.first.min(seen.until).date_naive().checked_add_signed(TimeDelta::days(i64::from(days)))?;
    (seen.until.date_naive() < until).then_some(until)
}

#[cfg(test)]
mod tests {
    use schemas::envelope::{Origin, Received};

    use super::*;
    use crate::rule::{Source, Tuning};

    const RULES: &str = "
title: Mail read
id: read
logsource: {product: m365, service: exchange}
detection: {s: {Operation: MailItemsAccessed}, condition: s}
---
title: Role given
id: role
logsource: {product: azure, service: auditlogs}
detection: {s: {Operation: Add member to role.}, condition: s}
---
title: File on a system
id: file
logsource: {product: m365, service: sharepoint}
detection: {s: {Operation: FileDownloaded, Platform: Kiosk}, t: {Operation: FileDownloaded, UserId: x}, condition: s and not t}
---
title: Rule that forwards
id: rule
logsource: {product: m365, service: exchange}
detection: {s: {Operation: New-InboxRule, 'Parameters[Name=ForwardTo].Value|exists': true}, condition: s}
---
title: Talk
id: talk
logsource: {product: m365, service: teams}
detection: {s: {Operation: ChatCreated}, condition: s}
---
title: Either
id: either
correlation: {type: event_count, rules: [talk, rule], group-by: [user_id], timespan: 1h, condition: {gte: 1}}
---
title: Both
id: both
correlation: {type: temporal, rules: [talk, rule], group-by: [user_id], timespan: 1h}
---
title: New
id: new
correlation: {type: x_new_value, rules: [rule], group-by: [user_id]}
x-field: client_ip
x-history: 30d
x-min-days: 7
";

    fn moment(day: u32) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::days(20_000 + i64::from(day))
    }

    fn example(operation: &str, more: &str) -> Event {
        let origin = Origin {
            tenant: "t".parse().unwrap(),
            source: "test".into(),
            content_type: String::new(),
            blob_id: String::new(),
            received: moment(0),
            notify: true,
        };
        let text = format!(
            r#"{{"Id":"a","CreationTime":"2026-11-01T10:00:00","Workload":"SharePoint","Operation":"{operation}"{more}}}"#
        );
        Event::read(&Received { origin, bytes: text.into_bytes() }).unwrap()
    }

    #[track_caller]
    fn check(seen: &Seen, rule: &str, state: State, reason: &str) {
        let text = RULES.to_owned();
        let rules = RuleSet::load(vec![Source { file: "t.yml".into(), text }], &Tuning::default())
            .unwrap_or_else(|errors| panic!("{errors}"));
        let sight = sight(&rules, rules.find(rule).unwrap(), seen);
        let reasons: Vec<String> = sight.reasons.iter().map(ToString::to_string).collect();
        assert_eq!((sight.state, reasons.join("; ").as_str()), (state, reason), "{rule}");
    }

    #[test]
    fn a_feed_that_does_not_come_makes_deaf_and_its_trouble_is_said() {
        let mut seen = Seen::new(moment(0), moment(60));
        seen.add("Exchange", "New-InboxRule", 3);
        seen.note_feed("Audit.AzureActiveDirectory", false, Some("disabled".into()));
        check(&seen, "role", State::Deaf, "nothing of Audit.AzureActiveDirectory was collected: disabled");
        check(&seen, "talk", State::Deaf, "nothing of Audit.General was collected");
        check(&seen, "rule", State::Live, "");
        // What was collected and had nothing in it is a quiet feed.
        seen.note_feed("Audit.General", true, None);
        check(&seen, "talk", State::Unheard, "has not occurred: ChatCreated");
    }

    #[test]
    fn only_what_every_day_makes_is_missing_where_it_does_not_come() {
        let mut seen = Seen::new(moment(0), moment(60));
        seen.add("Exchange", "Send", FEED_RECORDS_MIN - 1);
        check(&seen, "read", State::Unheard, "has not occurred: MailItemsAccessed");
        seen.add("Exchange", "Send", 1);
        check(
            &seen,
            "read",
            State::Deaf,
            "MailItemsAccessed is not recorded: 2000 records of Audit.Exchange came without one",
        );
        check(&seen, "rule", State::Unheard, "has not occurred: New-InboxRule");
        seen.add("Exchange", "MailItemsAccessed", 1);
        check(&seen, "read", State::Live, "");
    }

    #[test]
    fn a_field_that_no_record_of_the_operation_has_makes_deaf() {
        let mut seen = Seen::new(moment(0), moment(60));
        seen.add("SharePoint", "FileDownloaded", 200);
        check(&seen, "file", State::Live, "");
        for _ in 0..RECORDS_WITHOUT_FIELD_MIN {
            seen.sample(example("FileDownloaded", ""));
        }
        check(&seen, "file", State::Deaf, "none of 100 records looked at has Platform, UserId");
        let mut seen = Seen::new(moment(0), moment(60));
        seen.add("SharePoint", "FileDownloaded", 200);
        for number in 0..RECORDS_WITHOUT_FIELD_MIN {
            // Another value than the rule wants, in one of them: it could be that value.
            seen.sample(example("FileDownloaded", if number == 7 { r#","Platform":"Web""# } else { "" }));
        }
        check(&seen, "file", State::Live, "");
    }

    #[test]
    fn parameters_that_nobody_uses_are_no_deafness() {
        let mut seen = Seen::new(moment(0), moment(60));
        seen.add("Exchange", "New-InboxRule", 200);
        let more = r#","Workload":"Exchange","Parameters":[{"Name":"MoveToFolder","Value":"x"}]"#;
        for _ in 0..RECORDS_WITHOUT_FIELD_MIN {
            seen.sample(example("New-InboxRule", more));
        }
        check(&seen, "rule", State::Live, "");
    }

    #[test]
    fn a_correlation_sees_what_it_needs_of_its_members() {
        let mut seen = Seen::new(moment(0), moment(60));
        seen.add("Exchange", "New-InboxRule", 3);
        let deaf = "talk: nothing of Audit.General was collected";
        check(&seen, "either", State::Live, deaf);
        check(&seen, "both", State::Deaf, deaf);
        seen.add("MicrosoftTeams", "MessageSent", 1);
        check(&seen, "either", State::Live, "");
        check(&seen, "both", State::Unheard, "talk: has not occurred: ChatCreated");
    }

    #[test]
    fn a_baseline_is_cold_until_its_days_have_passed() {
        for (days, state) in [(6, State::Cold), (7, State::Live)] {
            let mut seen = Seen::new(moment(0), moment(days));
            seen.add("Exchange", "New-InboxRule", 3);
            let until = moment(7).date_naive();
            let reason = format!("learns until {until} at the earliest, for each account by itself");
            check(&seen, "new", state, if state == State::Cold { &reason } else { "" });
        }
    }
}
