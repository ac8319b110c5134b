//! Observations that the log has already, so that they are not said again.
//!
//! A baseline learns that a user was seen from a network on a day; the user's next hundred records of that day say the
//! same. An observation is a set's member, so leaving out what is committed changes nothing. The guarantee rests on
//! one rule: only what has been committed is noted here. A step that fails or is refused notes nothing, and the records
//! are read again.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use schemas::json::key_hash;
use schemas::message::Observation;

/// Observations of one generation; two are kept. About 25 bytes each, so 25 MiB at most: the users of a large tenant
/// times their networks for a day. Forgetting one costs a repeated message, nothing more.
const GENERATION_MAX: usize = 500_000;

/// Shared by the workers of a process: the partitions of `records` all see every user.
#[derive(Default)]
pub(super) struct Sighted(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    newer: HashSet<u128>,
    older: HashSet<u128>,
}

/// Names one observation.
pub(super) fn key(observation: &Observation) -> u128 {
    let Observation { tenant, rule_id, epoch, shard, value, day } = observation;
    // By epoch: a rule that means something else now has to learn it anew.
    key_hash(&[tenant.as_str(), rule_id, &epoch.to_string(), shard, value, &day.to_string()])
}

impl Sighted {
    /// Whether the log has it. False says nothing.
    pub(super) fn has(&self, key: u128) -> bool {
        let generations = self.generations();
        generations.newer.contains(&key) || generations.older.contains(&key)
    }

    /// Notes what a step has committed.
    pub(super) fn note(&self, keys: impl IntoIterator<Item = u128>) {
        let mut generations = self.generations();
        generations.newer.extend(keys);
        if generations.newer.len() > GENERATION_MAX {
            generations.older = std::mem::take(&mut generations.newer);
        }
    }

    fn generations(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_known_for_a_generation_at_least_and_memory_is_bounded() {
        let sighted = Sighted::default();
        assert!(!sighted.has(7));
        sighted.note([7]);
        assert!(sighted.has(7));
        sighted.note(1_000..1_000 + GENERATION_MAX as u128);
        assert!(sighted.has(7));
        sighted.note(10_000_000..10_000_001 + GENERATION_MAX as u128);
        assert!(!sighted.has(7));
        let generations = sighted.generations();
        assert!(generations.newer.len() + generations.older.len() <= 2 * GENERATION_MAX + 2);
    }

    #[test]
    fn every_part_of_an_observation_counts() {
        let one = Observation {
            tenant: "t1".parse().unwrap(),
            rule_id: "r".into(),
            epoch: 1,
            shard: "s".into(),
            value: "v".into(),
            day: chrono::NaiveDate::default(),
        };
        let others = [
            Observation { tenant: "t2".parse().unwrap(), ..one.clone() },
            Observation { rule_id: "q".into(), ..one.clone() },
            Observation { epoch: 2, ..one.clone() },
            Observation { shard: "sv".into(), value: String::new(), ..one.clone() },
            Observation { value: "w".into(), ..one.clone() },
            Observation { day: chrono::NaiveDate::MAX, ..one.clone() },
        ];
        let keys: HashSet<u128> = others.iter().chain([&one]).map(key).collect();
        assert_eq!(keys.len(), others.len() + 1);
    }
}
