//! Which incident a finding is delivered under: told by [`schemas::incident::assign`] over the tenant's standing
//! findings, which are kept for it in `Store::Incidents`.
//!
//! # Once told, kept
//!
//! `assign` is a function of the set of findings, so a finding that comes late can give the whole group another id. A
//! receiver that has filed the first alerts under one id must not see them move. So an id is fixed to a finding when
//! its first message is put into the outbox, and a finding that joins takes the id of the earliest one that has its
//! own. Where a late finding ties two incidents together that had both been told, each keeps its id.
//!
//! # What is kept
//!
//! Findings that stand, with the entities that can tie, for [`KEEP`] after their last change and at most
//! [`FINDINGS_MAX`] a tenant. What goes over it forgets the findings whose last event is the oldest; a finding that
//! would have joined them begins an incident of its own.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use runtime::log::{StateChange, Store};
use schemas::finding::{Entity, Finding, Level, RuleReference, Status};
use schemas::incident;
use schemas::tenant::Tenant;
use serde::{Deserialize, Serialize};

/// Most findings kept a tenant: `assign` looks at all of them for every batch that has something new to tell.
pub const FINDINGS_MAX: usize = 2_000;

/// How long an unchanged finding is kept: a weekend's pause (72 h) several times over.
pub const KEEP: TimeDelta = TimeDelta::days(14);

/// Most entities kept a finding.
const ENTITIES_MAX: usize = 50;

/// The kinds of entity that can tie two findings.
const TYING: [&str; 5] = ["user", "mailbox", "ip", "session", "app"];

/// As much of a finding as can tie it to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Standing {
    tenant: Tenant,
    id: String,
    first_event: DateTime<Utc>,
    last_event: DateTime<Utc>,
    entities: Vec<Entity>,
    /// Fixed when the first message about it was put into the outbox.
    incident_id: Option<String>,
    changed: DateTime<Utc>,
    #[serde(skip)]
    pub partition: u32,
}

impl Standing {
    fn key(tenant: &Tenant, id: &str) -> Vec<u8> {
        format!("{tenant}/{id}").into_bytes()
    }

    /// A finding that has what `assign` looks at.
    fn as_finding(&self) -> Finding {
        Finding {
            schema: String::new(),
            tenant: self.tenant.clone(),
            id: self.id.clone(),
            revision: 1,
            status: Status::Open,
            superseded_by: None,
            rule: RuleReference {
                id: String::new(),
                version: String::new(),
                title: String::new(),
                level: Level::Informational,
                attack: Vec::new(),
                false_positives: Vec::new(),
                answers: Vec::new(),
            },
            reason: String::new(),
            entity: String::new(),
            entities: self.entities.clone(),
            first_event: self.first_event,
            last_event: self.last_event,
            event_count: 0,
            evidence: Vec::new(),
            fields: BTreeMap::new(),
            notes: Vec::new(),
            next: Vec::new(),
            created: self.changed,
            updated: self.changed,
            notify: true,
            incident_id: None,
        }
    }
}

/// The standing findings of every tenant.
#[derive(Clone, Debug, Default)]
pub(crate) struct Incidents(BTreeMap<Tenant, BTreeMap<String, Standing>>);

/// What a step changes in them: `None` removes.
pub(crate) type Changes = BTreeMap<(Tenant, String), (u32, Option<Standing>)>;

impl Incidents {
    pub(crate) fn insert(&mut self, standing: Standing) {
        self.0.entry(standing.tenant.clone()).or_default().insert(standing.id.clone(), standing);
    }

    pub(crate) fn apply(&mut self, changes: Changes) {
        for ((tenant, id), (_, standing)) in changes {
            match standing {
                Some(standing) => self.insert(standing),
                None => {
                    self.0.get_mut(&tenant).and_then(|findings| findings.remove(&id));
                }
            }
        }
    }

    /// What has not changed for long.
    pub(crate) fn outdated(&self, now: DateTime<Utc>) -> Changes {
        let all = self.0.values().flat_map(BTreeMap::values);
        all.filter(|standing| standing.changed + KEEP < now).map(removal).collect()
    }
}

fn removal(standing: &Standing) -> ((Tenant, String), (u32, Option<Standing>)) {
    ((standing.tenant.clone(), standing.id.clone()), (standing.partition, None))
}

/// The rows that a step changes.
pub(crate) fn state_changes(changes: &Changes) -> Vec<StateChange> {
    let row = |((tenant, id), (partition, standing)): (&(Tenant, String), &(u32, Option<Standing>))| StateChange {
        store: Store::Incidents,
        partition: *partition,
        key: Standing::key(tenant, id),
        value: standing.as_ref().and_then(|standing| serde_json::to_vec(standing).ok()),
    };
    changes.iter().map(row).collect()
}

/// The standing findings as a step leaves them.
pub(crate) struct Draft<'a> {
    base: &'a Incidents,
    pub changes: Changes,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(base: &'a Incidents) -> Draft<'a> {
        Draft { base, changes: Changes::new() }
    }

    fn get(&self, tenant: &Tenant, id: &str) -> Option<&Standing> {
        match self.changes.get(&(tenant.clone(), id.to_owned())) {
            Some((_, standing)) => standing.as_ref(),
            None => self.base.0.get(tenant).and_then(|findings| findings.get(id)),
        }
    }

    /// Takes in a revision: a finding that does not stand ties nothing.
    pub(crate) fn take(&mut self, finding: &Finding, partition: u32, now: DateTime<Utc>) {
        let known = self.get(&finding.tenant, &finding.id);
        let partition = known.map_or(partition, |known| known.partition);
        let incident_id = known.and_then(|known| known.incident_id.clone());
        let key = (finding.tenant.clone(), finding.id.clone());
        if !finding.status.stands() {
            if known.is_some() {
                self.changes.insert(key, (partition, None));
            }
            return;
        }
        let tying = finding.entities.iter().filter(|entity| TYING.contains(&entity.kind.as_str()));
        let standing = Standing {
            tenant: finding.tenant.clone(),
            id: finding.id.clone(),
            first_event: finding.first_event,
            last_event: finding.last_event,
            entities: tying.take(ENTITIES_MAX).cloned().collect(),
            incident_id,
            changed: now,
            partition,
        };
        self.changes.insert(key, (partition, Some(standing)));
    }

    /// Fixes an id that a finding has from the one it took over from.
    pub(crate) fn fix(&mut self, tenant: &Tenant, id: &str, incident_id: &str) {
        if let Some(standing) = self.get(tenant, id)
            && standing.incident_id.is_none()
        {
            let mut standing = standing.clone();
            standing.incident_id = Some(incident_id.to_owned());
            self.changes.insert((tenant.clone(), id.to_owned()), (standing.partition, Some(standing)));
        }
    }

    /// The incidents of these findings, fixed from now on. A finding that is not kept has none here.
    pub(crate) fn assign(&mut self, tenant: &Tenant, ids: &[String]) -> HashMap<String, String> {
        let standing = self.standing(tenant);
        let findings: Vec<Finding> = standing.iter().map(Standing::as_finding).collect();
        let groups = incident::assign(&findings.iter().collect::<Vec<_>>());
        let mut fixed: HashMap<&str, &Standing> = HashMap::new();
        for (standing, group) in standing.iter().zip(&groups) {
            if standing.incident_id.is_some() {
                let first = fixed.entry(group).or_insert(standing);
                if (standing.first_event, &standing.id) < (first.first_event, &first.id) {
                    *first = standing;
                }
            }
        }
        let mut assigned = HashMap::new();
        for (standing, group) in standing.iter().zip(&groups) {
            if ids.contains(&standing.id) {
                let of_group = fixed.get(group.as_str()).and_then(|first| first.incident_id.as_ref());
                let id = standing.incident_id.as_ref().or(of_group).unwrap_or(group);
                assigned.insert(standing.id.clone(), id.clone());
            }
        }
        for (id, incident_id) in &assigned {
            self.fix(tenant, id, incident_id);
        }
        assigned
    }

    /// Keeps to the limit: forgets those whose last event is the oldest.
    pub(crate) fn evict(&mut self, tenant: &Tenant) {
        let mut standing = self.standing(tenant);
        let surplus = standing.len().saturating_sub(FINDINGS_MAX);
        if surplus > 0 {
            standing.sort_by(|a, b| (a.last_event, &a.id).cmp(&(b.last_event, &b.id)));
            self.changes.extend(standing.iter().take(surplus).map(removal));
        }
    }

    fn standing(&self, tenant: &Tenant) -> Vec<Standing> {
        let mut all = self.base.0.get(tenant).cloned().unwrap_or_default();
        for ((of, id), (_, standing)) in &self.changes {
            if of == tenant {
                match standing {
                    Some(standing) => all.insert(id.clone(), standing.clone()),
                    None => all.remove(id),
                };
            }
        }
        all.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{finding, start};

    fn at(id: &str, hour: i64, session: &str) -> Finding {
        let mut finding = finding(id, 1);
        finding.first_event = start() + TimeDelta::hours(hour);
        finding.last_event = finding.first_event;
        finding.entities = vec![Entity { kind: "session".into(), id: session.into() }];
        finding
    }

    fn told(incidents: &mut Incidents, finding: &Finding) -> String {
        let mut draft = Draft::new(incidents);
        draft.take(finding, 0, start());
        let assigned = draft.assign(&finding.tenant, std::slice::from_ref(&finding.id));
        let changes = draft.changes;
        incidents.apply(changes);
        assigned[&finding.id].clone()
    }

    #[test]
    fn an_incident_once_told_is_kept_and_joined() {
        let mut incidents = Incidents::default();
        let first = told(&mut incidents, &at("b", 10, "s"));
        // Earlier in event time: by itself it would rename the group.
        assert_eq!(told(&mut incidents, &at("a", 5, "s")), first);
        assert_eq!(told(&mut incidents, &at("b", 10, "s")), first);
        let other = told(&mut incidents, &at("c", 10, "other"));
        assert_ne!(other, first);
        let mut both = at("d", 11, "s");
        both.entities.push(Entity { kind: "session".into(), id: "other".into() });
        assert_eq!(told(&mut incidents, &both), first);
        assert_eq!(told(&mut incidents, &at("c", 10, "other")), other);
        // Beyond 72 hours it is another story.
        assert_ne!(told(&mut incidents, &at("e", 300, "s")), first);
    }

    #[test]
    fn the_number_kept_is_bounded_and_the_oldest_go() {
        let mut incidents = Incidents::default();
        let mut draft = Draft::new(&incidents);
        for number in 0..FINDINGS_MAX + 3 {
            draft.take(&at(&format!("{number:05}"), number as i64, "s"), 0, start());
        }
        let tenant: Tenant = "contoso".parse().unwrap();
        draft.evict(&tenant);
        let changes = draft.changes;
        incidents.apply(changes);
        assert_eq!(incidents.0[&tenant].len(), FINDINGS_MAX);
        assert_eq!(incidents.0[&tenant].keys().next().unwrap(), "00003");
        assert_eq!(incidents.outdated(start() + KEEP).len(), 0);
        assert_eq!(incidents.outdated(start() + KEEP + TimeDelta::hours(1)).len(), FINDINGS_MAX);
    }
}
