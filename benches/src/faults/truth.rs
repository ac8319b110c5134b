//! What must be in the archive in the end, what is there, and the difference.
//!
//! The truth about records is the generated world; the truth about findings is an import of the same records, in order
//! and in one piece, into a fresh embedded log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;
use simulate::{Options, World};

use super::group::Group;

/// How long a command on an archive may take on a busy machine.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(300);

/// Asks archives with the real binary, as a user would.
#[derive(Clone)]
pub struct Reader {
    pub harrier: PathBuf,
}

/// Rows of `events` by id and raw bytes, with how often each is there.
pub type Events = BTreeMap<(String, String), u32>;

/// A finding without what depends on the run, and its evidence.
pub type Standing = BTreeMap<String, (Value, Vec<String>)>;

/// What an archive holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archived {
    pub events: Events,
    pub standing: Standing,
    pub dead_letters: u64,
}

/// How an archive differs from the truth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    pub lost: u64,
    /// Rows beyond the first of a record, and rows of no record of the world.
    pub doubled: u64,
    pub findings_missing: u64,
    pub findings_extra: u64,
    /// How many letters there are more than there must be.
    pub dead_letters: u64,
}

impl Reader {
    fn run(&self, group: &Group, arguments: &[&str]) -> anyhow::Result<String> {
        let folder = group.folder();
        let (out, err) = (folder.join("answer.out"), folder.join("answer.err"));
        let mut command = group.command(&self.harrier);
        command.args(arguments).env_remove("HARRIER_FAILPOINT").env_remove("HARRIER_BREAK");
        command.stdin(Stdio::null()).stdout(std::fs::File::create(&out)?).stderr(std::fs::File::create(&err)?);
        let mut child = command.spawn().with_context(|| format!("cannot start {}", self.harrier.display()))?;
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if began.elapsed() > COMMAND_TIME_MAX {
                child.kill()?;
                child.wait()?;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        let said = std::fs::read_to_string(err)?;
        anyhow::ensure!(status.success(), "harrier {arguments:?} ended with {status}: {said}");
        Ok(std::fs::read_to_string(out)?)
    }

    pub fn rows(&self, group: &Group, data_dir: &Path, query: &str) -> anyhow::Result<Vec<Value>> {
        let data_dir = data_dir.to_string_lossy();
        let text = self.run(group, &["sql", "--data-dir", &data_dir, "--format", "ndjson", query])?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    pub fn number(&self, group: &Group, data_dir: &Path, query: &str) -> anyhow::Result<u64> {
        let rows = self.rows(group, data_dir, query)?;
        let value = rows.first().and_then(Value::as_object).and_then(|row| row.values().next());
        value.and_then(Value::as_u64).with_context(|| format!("no number: {query}"))
    }

    /// Everything that is compared.
    pub fn archived(&self, group: &Group, data_dir: &Path) -> anyhow::Result<Archived> {
        let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let mut archived = Archived::default();
        for row in self.rows(group, data_dir, "SELECT id, raw FROM events WHERE source <> 'harrier'")? {
            *archived.events.entry((text(&row, "id"), text(&row, "raw"))).or_default() += 1;
        }
        let findings = "SELECT tenant, id, status, rule_id, rule_version, title, level, entity, first_event, last_event, \
                        event_count, reason, notes FROM findings WHERE status IN ('open', 'final')";
        for row in self.rows(group, data_dir, findings)? {
            archived.standing.insert(text(&row, "id"), (row, Vec::new()));
        }
        for row in self.rows(group, data_dir, "SELECT finding_id, event_id FROM evidence ORDER BY 1, 2")? {
            if let Some((_, evidence)) = archived.standing.get_mut(&text(&row, "finding_id")) {
                evidence.push(text(&row, "event_id"));
            }
        }
        archived.dead_letters = self.number(group, data_dir, "SELECT count(*) FROM dead_letters")?;
        Ok(archived)
    }

    /// What an undisturbed import of the world makes of it.
    pub fn truth(&self, group: &Group, world: &World, options: &Options) -> anyhow::Result<Archived> {
        let file = group.folder().join("truth.jsonl");
        let lines: String = world.records.iter().map(|record| format!("{}\n", record.json)).collect();
        std::fs::write(&file, lines)?;
        let data_dir = group.folder().join("truth");
        let (path, place) = (file.to_string_lossy(), data_dir.to_string_lossy());
        let domain = options.domain.as_str();
        self.run(group, &["import", &path, "--tenant", "contoso", "--domains", domain, "--data-dir", &place])?;
        let truth = self.archived(group, &data_dir)?;
        let mut events = Events::new();
        for record in &world.records {
            *events.entry((record.id.clone(), record.json.clone())).or_default() += 1;
        }
        anyhow::ensure!(truth.events == events, "the import of the world is not the world");
        anyhow::ensure!(truth.standing.len() >= 3, "the story of this seed makes too few findings to lose any");
        Ok(truth)
    }
}

impl Difference {
    pub fn between(truth: &Archived, found: &Archived) -> Difference {
        let mut difference = Difference::default();
        for event in truth.events.keys() {
            match found.events.get(event) {
                None => difference.lost += 1,
                Some(times) => difference.doubled += u64::from(times - 1),
            }
        }
        let foreign = found.events.iter().filter(|(event, _)| !truth.events.contains_key(event));
        difference.doubled += foreign.map(|(_, times)| u64::from(*times)).sum::<u64>();
        // One that is told differently is missing as it should be, and there as it should not.
        let unequal = |of: &Standing, to: &Standing| of.iter().filter(|(id, one)| to.get(*id) != Some(one)).count();
        difference.findings_missing = unequal(&truth.standing, &found.standing) as u64;
        difference.findings_extra = unequal(&found.standing, &truth.standing) as u64;
        difference.dead_letters = found.dead_letters.saturating_sub(truth.dead_letters);
        difference
    }

    pub fn is_none(&self) -> bool {
        *self == Difference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archived(events: &[(&str, u32)], findings: &[&str]) -> Archived {
        let event = |&(id, times): &(&str, u32)| ((id.to_owned(), "{}".to_owned()), times);
        let finding = |&id: &&str| (id.to_owned(), (Value::Null, vec!["e".to_owned()]));
        Archived {
            events: events.iter().map(event).collect(),
            standing: findings.iter().map(finding).collect(),
            dead_letters: 0,
        }
    }

    #[test]
    fn every_way_to_be_wrong_is_counted() {
        let truth = archived(&[("a", 1), ("b", 1), ("c", 1)], &["f", "g"]);
        assert!(Difference::between(&truth, &truth).is_none());
        let mut wrong = archived(&[("a", 1), ("c", 3), ("d", 1)], &["g", "h"]);
        wrong.dead_letters = 2;
        wrong.standing.entry("g".to_owned()).and_modify(|(_, evidence)| evidence.clear());
        let expected = Difference { lost: 1, doubled: 3, findings_missing: 2, findings_extra: 2, dead_letters: 2 };
        assert_eq!(Difference::between(&truth, &wrong), expected);
    }
}
