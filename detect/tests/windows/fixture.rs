//! A rule around an operator, and a shard that is restarted after every batch and compared with one that never is.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use detect::correlate::{Change, Past, Shard, look_back};
use detect::rule::model::{Kind, Needs, Operator, Rule};
use detect::rule::text::Template;
use schemas::finding::{Finding, Level};
use schemas::message::{Match, Observation};

use super::oracle;

/// Midnight of the day that tests count from.
pub fn base() -> DateTime<Utc> {
    "2026-10-05T00:00:00Z".parse().unwrap()
}

pub fn rule(operator: Operator, gap: TimeDelta) -> Rule {
    Rule {
        id: "rule".to_owned(),
        name: "rule".to_owned(),
        version: "0123456789ab".to_owned(),
        title: "A rule".to_owned(),
        description: String::new(),
        level: Level::Medium,
        attack: Vec::new(),
        false_positives: Vec::new(),
        references: Vec::new(),
        answers: Vec::new(),
        needs: Needs::default(),
        kind: Kind::Correlation { members: Vec::new(), learn_from: Vec::new() },
        group_by: vec!["group".to_owned()],
        gap,
        operator,
        weight: None,
        values: Vec::new(),
        stages: Vec::new(),
        outside: None,
        generates: true,
        reason: Template::parse("{user}: {count} of {weight} [{values}] in {minutes} min, usual {usual}").unwrap(),
        next: Vec::new(),
        entities: vec![("user".to_owned(), "user".to_owned())],
        shown: Vec::new(),
        tests: Vec::new(),
        file: String::new(),
        line: 1,
    }
}

/// How late matches are judged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Thaw {
    AsAsked,
    /// Broken on purpose.
    Not,
    /// Broken on purpose: only what shares a window with them.
    NearOnly,
}

/// A shard under test.
pub struct Runner {
    pub rule: Rule,
    shard: Shard,
    pub rows: BTreeMap<Vec<u8>, Vec<u8>>,
    /// How far the set is complete, as this batch is told; nothing, like after a restart.
    pub complete: Option<DateTime<Utc>>,
    /// From when on; none: from the beginning.
    pub since: Option<DateTime<Utc>>,
    /// What was imported whole.
    pub imported: Vec<(DateTime<Utc>, DateTime<Utc>)>,
    /// What may have been forgotten, and the archive that has it.
    pub horizon: Option<DateTime<Utc>>,
    pub archive: Vec<Match>,
    pub thaw: Thaw,
    /// How many batches asked the archive.
    pub thaws: usize,
    /// Newest revision of every finding.
    pub findings: BTreeMap<String, Finding>,
}

impl Runner {
    pub fn new(rule: Rule) -> Runner {
        Runner {
            rule,
            shard: Shard::default(),
            rows: BTreeMap::new(),
            complete: None,
            since: None,
            imported: Vec::new(),
            horizon: None,
            archive: Vec::new(),
            thaw: Thaw::AsAsked,
            thaws: 0,
            findings: BTreeMap::new(),
        }
    }

    /// Is told the same of where the set is whole.
    pub fn stand_where(&mut self, other: &Runner) {
        (self.complete, self.since, self.imported) = (other.complete, other.since, other.imported.clone());
    }

    /// Where the set is whole, as this batch is told.
    pub fn whole(&self) -> Vec<(DateTime<Utc>, DateTime<Utc>)> {
        let Operator::Absence(absence) = &self.rule.operator else { return Vec::new() };
        let since = self.since.unwrap_or(DateTime::<Utc>::MIN_UTC);
        let of_feeds = self.complete.map(|until| absence.whole(since, until));
        of_feeds.into_iter().chain(self.imported.iter().copied()).collect()
    }

    /// Applies a batch, checks what must hold of every change, and returns it.
    pub fn apply(&mut self, matches: &[Match], observations: &[Observation]) -> Change {
        let mut restarted = Shard::load(self.rows.clone()).unwrap();
        let archived = self.ask(&restarted, matches);
        assert_eq!(archived, self.ask(&self.shard, matches));
        self.thaws += usize::from(archived.is_some());
        let archived = archived.unwrap_or_default();
        let whole = self.whole();
        let past = Past { horizon: self.horizon, whole: &whole, archived: &archived };
        let after_restart = restarted.apply_after(&self.rule, &past, matches, observations);
        let change = self.shard.apply_after(&self.rule, &past, matches, observations);
        assert_eq!(after_restart, change, "a restart before this batch changes it");
        assert_eq!(self.ask(&self.shard, matches), None, "what has been judged is asked for again");
        let past = Past { archived: &[], ..past };
        let again = self.shard.apply_after(&self.rule, &past, matches, observations);
        assert_eq!(again, Change::default(), "the same batch twice changes something");
        for (key, value) in &change.rows {
            match value {
                Some(value) => assert_ne!(self.rows.insert(key.clone(), value.clone()).as_ref(), Some(value)),
                None => assert!(self.rows.remove(key).is_some()),
            }
        }
        for finding in &change.findings {
            let before = self.findings.insert(finding.id.clone(), finding.clone());
            assert_eq!(finding.revision, before.as_ref().map_or(1, |before| before.revision + 1));
            assert_eq!(finding.superseded_by.is_some(), ["superseded", "merged"].contains(&finding.status.as_str()));
            if let Some(before) = before {
                assert!(before.status.stands() || finding.status.stands(), "told twice that it ended");
                let reads_the_same = oracle::of_finding(&before) == oracle::of_finding(finding);
                assert!(before.status != finding.status || !reads_the_same, "told twice");
                assert_eq!(before.created, finding.created);
                assert!(before.updated <= finding.updated);
            }
        }
        for successor in self.findings.values().filter_map(|finding| finding.superseded_by.as_ref()) {
            assert!(self.findings.contains_key(successor), "a successor that was never told");
        }
        change
    }

    /// What the archive says of what the shard asks for; none if it asks for nothing.
    fn ask(&self, shard: &Shard, matches: &[Match]) -> Option<Vec<Match>> {
        let horizon = shard.horizon(&self.rule, self.horizon)?;
        let past = Past { horizon: self.horizon, whole: &self.whole(), archived: &[] };
        let mut asked = shard.missing(&self.rule, &past, matches);
        if asked.is_empty() {
            return None;
        }
        match self.thaw {
            Thaw::AsAsked => {}
            Thaw::Not => asked.clear(),
            Thaw::NearOnly => {
                let late = matches.iter().filter(|one| one.event_time < horizon);
                let timespan = self.rule.operator.timespan();
                asked = late.map(|one| (one.event_time - timespan, one.event_time + timespan)).collect();
            }
        }
        let is_asked =
            |one: &&Match| asked.iter().any(|(start, end)| *start <= one.event_time && one.event_time <= *end);
        Some(self.archive.iter().filter(is_asked).cloned().collect())
    }

    /// Forgets what nothing from the horizon on needs, but for what is `kept`. Returns how many rows went.
    pub fn forget(&mut self, kept: impl Fn(&[u8]) -> bool) -> usize {
        let (Some(reach), Some(horizon)) = (look_back(&self.rule), self.horizon) else { return 0 };
        let mut restarted = Shard::load(self.rows.clone()).unwrap();
        assert_eq!(restarted.may_forget(&self.rule), self.shard.may_forget(&self.rule));
        if !restarted.may_forget(&self.rule) {
            return 0;
        }
        let gone = self.shard.forget(reach, horizon, &kept);
        assert_eq!(restarted.forget(reach, horizon, &kept), gone, "a restart before forgetting changes it");
        for (key, value) in &gone {
            assert!(value.is_none() && self.rows.remove(key).is_some());
        }
        gone.len()
    }

    /// The same of this shard alone, by a horizon of its own.
    pub fn forget_early(&mut self, horizon: DateTime<Utc>, kept: impl Fn(&[u8]) -> bool) -> usize {
        let Some(reach) = look_back(&self.rule).filter(|_| self.shard.may_forget(&self.rule)) else { return 0 };
        let mut restarted = Shard::load(self.rows.clone()).unwrap();
        let gone = self.shard.forget_early(reach, horizon, &kept);
        assert_eq!(restarted.forget_early(reach, horizon, &kept), gone, "a restart before forgetting changes it");
        let before = self.rows.len();
        for (key, value) in gone {
            match value {
                Some(value) => drop(self.rows.insert(key, value)),
                None => assert!(self.rows.remove(&key).is_some()),
            }
        }
        before.saturating_sub(self.rows.len())
    }

    pub fn entries(&self) -> usize {
        self.shard.entries()
    }

    /// From here on, a shard that was loaded from rows.
    pub fn restart(&mut self) {
        self.shard = Shard::load(self.rows.clone()).unwrap();
    }

    pub fn standing(&self) -> Vec<&Finding> {
        self.findings.values().filter(|finding| finding.status.stands()).collect()
    }
}
