//! Which findings tell one story.
//!
//! Two findings of one tenant belong together when they share a session, an address together with a user, or an
//! application, and lie within [`JOIN_HOURS`] of each other; belonging is transitive. A pure function of the set of
//! findings, so every run agrees; `incident_id` is made from the earliest finding of the group.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::finding::Finding;
use crate::json::key_id;

/// How far apart two findings of one incident may lie. A takeover that pauses over a weekend is still one story.
pub const JOIN_HOURS: i64 = 72;

/// The incident of each finding, in the order given. Findings of different tenants never join. Cost: sorting.
pub fn assign(findings: &[&Finding]) -> Vec<String> {
    let mut group = Groups::new(findings.len());
    let mut by_key: HashMap<(&str, String), Vec<usize>> = HashMap::new();
    for (index, finding) in findings.iter().enumerate() {
        for key in link_keys(finding) {
            by_key.entry((finding.tenant.as_str(), key)).or_default().push(index);
        }
    }
    for members in by_key.values_mut() {
        // Sorted by start, the furthest end seen so far decides whether the next one still joins.
        members.sort_by_key(|&index| (findings[index].first_event, index));
        let mut reach: Option<(usize, DateTime<Utc>)> = None;
        for &index in members.iter() {
            let end = findings[index].last_event;
            reach = match reach {
                Some((previous, until)) if findings[index].first_event - until <= TimeDelta::hours(JOIN_HOURS) => {
                    group.join(previous, index);
                    Some((index, until.max(end)))
                }
                _ => Some((index, end)),
            };
        }
    }
    let mut earliest: HashMap<usize, usize> = HashMap::new();
    for index in 0..findings.len() {
        let root = group.root(index);
        let first = earliest.entry(root).or_insert(index);
        let order = |i: usize| (findings[i].first_event, &findings[i].id);
        if order(index) < order(*first) {
            *first = index;
        }
    }
    (0..findings.len())
        .map(|index| {
            let first = earliest[&group.root(index)];
            format!("i_{}", &key_id(&["incident", findings[first].tenant.as_str(), &findings[first].id])[..16])
        })
        .collect()
}

/// What may tie a finding to another. A user alone does not: two unrelated stories of one person stay two.
fn link_keys(finding: &Finding) -> Vec<String> {
    let of = |kind: &'static str| finding.entities.iter().filter(move |e| e.kind == kind).map(|e| e.id.as_str());
    let people = || of("user").chain(of("mailbox"));
    let mut keys: Vec<String> = of("session").map(|id| format!("session {id}")).collect();
    keys.extend(of("app").map(|id| format!("app {id}")));
    for ip in of("ip") {
        keys.extend(people().map(|user| format!("ip {ip} user {user}")));
    }
    keys
}

struct Groups {
    parent: Vec<usize>,
}

impl Groups {
    fn new(size: usize) -> Groups {
        Groups { parent: (0..size).collect() }
    }

    fn root(&mut self, mut index: usize) -> usize {
        while self.parent[index] != index {
            self.parent[index] = self.parent[self.parent[index]];
            index = self.parent[index];
        }
        index
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parent[b.max(a)] = a.min(b);
    }
}
