//! Episodes as findings: identity, revisions, texts.
//!
//! | what happened to an episode | the old id | the new id |
//! |---|---|---|
//! | it has a new earliest member | superseded by the new one | revision 1, or one more than it ever had |
//! | it joined an earlier one | merged into it | next revision |
//! | none of its windows stands any more | retracted | |
//! | it stands again | open, next revision | |
//! | nothing a reader could see changed | silent | |
//! | it was told by another meaning of the rule | open, next revision; alerts nobody if it reads the same | |
//! | it covers what another meaning told as another one | superseded by the new one | next revision |
//!
//! What happened to a finding that does not stand any more is told once and not part of what two runs are compared by:
//! its texts are rendered from its members as they were. `created`, `updated` and `notify` tell of the causing records
//! (those of the batch inside the episode, else those of the batch in the group, else, where only an observation came,
//! the episode's own) and are not part of the comparison either. An observation that only changes the wording of a
//! finding alerts nobody.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use schemas::finding::{Entity, Finding, NextStep, RuleReference, SCHEMA, Status};
use schemas::json::key_id;

use super::GROUP_MEMBERS_MAX;
use super::episode::{Former, Turn};
use super::state::{About, Group, GroupId, MemberKey, Record, Rows};
use super::summary::{NAMED_MAX, Told};
use super::window::Span;
use crate::rule::model::Rule;
use crate::rule::text::Quoting;

/// What a finding rests on besides its members.
#[derive(Clone, Debug, Default)]
pub(super) struct Context {
    pub notes: Vec<String>,
    /// What is usual for the group, in words; empty where the operator knows no usual.
    pub usual: String,
}

/// The id of the episode that begins with this member.
pub(super) fn identity(rule: &Rule, about: &About, first: &(DateTime<Utc>, Arc<str>)) -> String {
    let group: Vec<&str> = about.key.iter().map(String::as_str).collect();
    let time = format!("{}.{:09}", first.0.timestamp(), first.0.timestamp_subsec_nanos());
    key_id(&["finding", &rule.id, about.tenant.as_str(), &key_id(&group), &time, &first.1])
}

/// Turns what happened to a group's episodes into revisions: those that ended first, so that a reader knows what a new
/// one continues when it comes.
pub(super) fn settle(
    rule: &Rule,
    (id, group): (GroupId, &mut Group),
    turn: Turn,
    fresh: &[MemberKey],
    context: impl Fn(&Group, &Told) -> Context,
    rows: &mut Rows,
) -> Vec<Finding> {
    let causes = Causes::of(group, fresh);
    let mut findings = Vec::new();
    let mut taken = BTreeSet::new();
    let mut formers = turn.formers;
    formers.sort_by_key(|former| former.hull);
    for former in formers {
        let now = group.episodes.get(&former.hull.start);
        if now.is_some_and(|episode| episode.id == former.id && episode.summary.is_enough(rule)) {
            continue;
        }
        let Some(before) = group.records.get(&former.id).filter(|record| record.status.stands()).cloned() else {
            continue;
        };
        let successor = successor(rule, group, former.hull);
        let status = match &successor {
            None => Status::Retracted,
            Some(new) if group.records.get(new).is_some_and(|record| record.status.stands()) => Status::Merged,
            Some(new) if taken.contains(new) => Status::Merged,
            Some(_) => Status::Superseded,
        };
        taken.extend(successor.clone());
        let end = Ending { status, superseded_by: successor };
        findings.push(end_finding(rule, (id, group), &former, before, end, &causes, &context, rows));
    }
    for start in turn.changed {
        findings.extend(revise(rule, (id, group), start, &causes, &context, rows));
    }
    findings
}

/// Id of the first episode that now covers some of what a former one did, and is told.
fn successor(rule: &Rule, group: &Group, hull: Span) -> Option<String> {
    let start = group.episode_at(hull.start).unwrap_or(hull.start);
    let mut now = group.episodes.range(start..=hull.end).map(|(_, episode)| episode);
    now.find(|episode| episode.summary.is_enough(rule)).map(|episode| episode.id.clone())
}

struct Ending {
    status: Status,
    superseded_by: Option<String>,
}

#[expect(clippy::too_many_arguments, reason = "a private step of `settle`, split off for its length only")]
fn end_finding(
    rule: &Rule,
    (id, group): (GroupId, &mut Group),
    former: &Former,
    before: Record,
    end: Ending,
    causes: &Causes<'_>,
    context: &impl Fn(&Group, &Told) -> Context,
    rows: &mut Rows,
) -> Finding {
    let own = Cause { received: former.told.received, notify: former.told.notify };
    let cause = causes.inside(group, former.hull).unwrap_or(own);
    let record = Record {
        revision: before.revision.saturating_add(1),
        status: end.status,
        superseded_by: end.superseded_by,
        updated: before.updated.max(cause.received),
        ..before
    };
    let finding = render(rule, group, &former.id, &former.told, context(group, &former.told));
    let finding = revision(finding, &record, cause.notify);
    rows.record(id, &former.id, &record);
    group.records.insert(former.id.clone(), record);
    finding
}

/// The next revision of the episode at `start`, if a reader could see a difference, after what it supersedes.
fn revise(
    rule: &Rule,
    (id, group): (GroupId, &mut Group),
    start: DateTime<Utc>,
    causes: &Causes<'_>,
    context: &impl Fn(&Group, &Told) -> Context,
    rows: &mut Rows,
) -> Vec<Finding> {
    let episode = group.episodes.get(&start).filter(|episode| episode.summary.is_enough(rule));
    let Some((episode, told)) = episode.and_then(|episode| Some((episode, episode.summary.told()?))) else {
        return Vec::new();
    };
    let (finding_id, hull) = (episode.id.clone(), Span { start, end: episode.end });
    let finding = render(rule, group, &finding_id, &told, context(group, &told));
    let shown = visible(&finding);
    let before = group.records.get(&finding_id);
    let is_as_told = before.is_some_and(|record| record.status.stands() && record.shown == shown);
    if is_as_told && before.is_some_and(|record| record.is_by(rule)) {
        return Vec::new();
    }
    let is_rewording = before.is_some_and(|record| record.status.stands());
    let own = Cause { received: told.received, notify: told.notify && !is_rewording };
    let mut cause = causes.inside(group, hull).unwrap_or(own);
    cause.notify &= !is_as_told;
    let record = Record {
        version: rule.version.clone(),
        revision: before.map_or(0, |record| record.revision).saturating_add(1),
        status: Status::Open,
        superseded_by: None,
        start: hull.start,
        end: hull.end,
        created: before.map_or(cause.received, |record| record.created),
        updated: before.map_or(cause.received, |record| record.updated.max(cause.received)),
        shown,
    };
    let finding = revision(finding, &record, cause.notify);
    rows.record(id, &finding_id, &record);
    group.records.insert(finding_id, record);
    let mut findings = supersede(rule, (id, group), &finding, hull, cause, rows);
    findings.push(finding);
    findings
}

/// Ends what another meaning of the rule has told of the same time: the new finding goes on with it.
fn supersede(
    rule: &Rule,
    (id, group): (GroupId, &mut Group),
    new: &Finding,
    hull: Span,
    cause: Cause,
    rows: &mut Rows,
) -> Vec<Finding> {
    let meets = |record: &Record| record.start <= hull.end && record.end >= hull.start;
    let olds = group.records.iter_mut().filter(|(_, old)| old.status.stands() && !old.is_by(rule) && meets(old));
    let ended = olds.map(|(old_id, old)| {
        old.revision = old.revision.saturating_add(1);
        old.status = Status::Superseded;
        old.superseded_by = Some(new.id.clone());
        old.updated = old.updated.max(cause.received);
        rows.record(id, old_id, old);
        // Its members are not known any more: it reads as the one that goes on.
        revision(Finding { id: old_id.clone(), ..new.clone() }, old, cause.notify)
    });
    ended.collect()
}

/// The records of a batch, as causes of what it changes. Summed up once, because a batch may change many findings.
struct Causes<'a> {
    fresh: &'a [MemberKey],
    all: Option<Cause>,
}

#[derive(Clone, Copy)]
struct Cause {
    received: DateTime<Utc>,
    notify: bool,
}

impl Causes<'_> {
    fn of<'a>(group: &Group, fresh: &'a [MemberKey]) -> Causes<'a> {
        Causes { fresh, all: sum(group, fresh) }
    }

    /// Those inside the hull, else all of the group; `None` where only an observation came.
    fn inside(&self, group: &Group, hull: Span) -> Option<Cause> {
        let from = self.fresh.partition_point(|key| key.time < hull.start);
        let until = self.fresh.partition_point(|key| key.time <= hull.end);
        self.fresh.get(from..until).and_then(|inside| sum(group, inside)).or(self.all)
    }
}

fn sum(group: &Group, fresh: &[MemberKey]) -> Option<Cause> {
    let members = fresh.iter().filter_map(|key| group.members.get(key));
    let causes = members.map(|member| Cause { received: member.received, notify: member.notify });
    causes.reduce(|left, right| Cause {
        received: left.received.max(right.received),
        notify: left.notify || right.notify,
    })
}

/// A finding without what changes from one revision to the next.
fn render(rule: &Rule, group: &Group, id: &str, told: &Told, context: Context) -> Finding {
    let about = &group.about;
    let values = placeholders(about, told, &context);
    let next = rule.next.iter().map(|step| NextStep {
        text: step.text.render(&values, Quoting::Plain),
        command: step.command.as_ref().map(|command| command.render(&values, Quoting::PowerShell)),
    });
    let entities: BTreeSet<Entity> = rule
        .entities
        .iter()
        .flat_map(|(kind, field)| {
            let ids = told.fields.get(field).into_iter().flatten();
            ids.map(|id| Entity { kind: kind.clone(), id: id.clone() })
        })
        .collect();
    let mut notes = context.notes;
    if told.count > NAMED_MAX as u64 {
        notes.push(format!("the evidence names the first {NAMED_MAX} records; number and weight are of all"));
    }
    if about.limited {
        notes.push(format!("more than {GROUP_MEMBERS_MAX} records of one group: those that came later are not judged"));
    }
    Finding {
        schema: SCHEMA.to_owned(),
        tenant: about.tenant.clone(),
        id: id.to_owned(),
        revision: 0,
        status: Status::Open,
        superseded_by: None,
        rule: RuleReference {
            id: rule.id.clone(),
            version: rule.version.clone(),
            title: rule.title.clone(),
            level: rule.level,
            attack: rule.attack.clone(),
            false_positives: rule.false_positives.clone(),
            answers: rule.answers.clone(),
        },
        reason: rule.reason.render(&values, Quoting::Plain),
        entity: entity(about),
        entities: entities.into_iter().collect(),
        first_event: told.first,
        last_event: told.last,
        event_count: told.count,
        evidence: told.evidence.clone(),
        fields: told.fields.clone(),
        notes,
        next: next.collect(),
        created: DateTime::UNIX_EPOCH,
        updated: DateTime::UNIX_EPOCH,
        notify: false,
        incident_id: None,
    }
}

fn entity(about: &About) -> String {
    about.key.join(", ")
}

/// The shown fields and, over them, what only the engine knows: count, weight, values, first_event, last_event,
/// minutes, group, usual.
fn placeholders(about: &About, told: &Told, context: &Context) -> BTreeMap<String, Vec<String>> {
    let time = |time: DateTime<Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
    // Rounded up: what happened within one minute did not take none.
    let minutes = told.last.signed_duration_since(told.first).num_seconds().saturating_add(59) / 60;
    let mut values = told.fields.clone();
    for (name, texts) in [
        ("count", vec![told.count.to_string()]),
        ("weight", vec![told.weight.to_string()]),
        ("values", told.values.clone()),
        ("first_event", vec![time(told.first)]),
        ("last_event", vec![time(told.last)]),
        ("minutes", vec![minutes.max(1).to_string()]),
        ("group", about.key.clone()),
        ("usual", Some(context.usual.clone()).filter(|usual| !usual.is_empty()).into_iter().collect()),
    ] {
        values.insert(name.to_owned(), texts);
    }
    values
}

fn revision(mut finding: Finding, record: &Record, notify: bool) -> Finding {
    finding.revision = record.revision;
    finding.status = record.status;
    finding.superseded_by = record.superseded_by.clone();
    finding.created = record.created;
    finding.updated = record.updated;
    finding.notify = notify;
    finding
}

/// Hash of what a reader sees; taken before the revision's own fields are filled in. What the rule meant is not seen.
fn visible(finding: &Finding) -> String {
    let rule = RuleReference { version: String::new(), ..finding.rule.clone() };
    // A finding always is JSON; were it not, it would be told more often than needed.
    key_id(&[&serde_json::to_string(&Finding { rule, ..finding.clone() }).unwrap_or_default()])
}
