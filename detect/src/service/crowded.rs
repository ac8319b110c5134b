//! A group that grows large forgets before others of its rule, so that there is room for what comes.
//!
//! # The guarantee
//!
//! The same as of [`forgetting`](super::forgetting): what goes is in the archive, and a match that comes for it is judged
//! with what the archive has of its time. The shard remembers how far it went, as others of its rule did not.
//!
//! # How
//!
//! From a quarter of what a group may hold on, the older three quarters of its members may go, less what the younger may need.
//! How far match has come is noted: what is in the state now came before that. Once the archive has that too, they go
//! a piece at a time, but for rows that were written since. Where the archive does not come so far the group fills up, and
//! what no longer fits is refused, counted and noted.
//!
//! Nothing here is kept: the next match of the group begins it again.

use std::collections::{BTreeMap, HashMap, HashSet};

use chrono::{DateTime, Utc};
use runtime::log::{Consumer, Log, LogError, Topic};
use tokio::time::Instant;

use super::forgetting::{LOOK_INTERVAL, YOUNG_MAX, young_key};
use super::judging_again::archived;
use super::layout::{Expiry, Place};
use crate::correlate::{GROUP_MEMBERS_MAX, Shard, row_day};
use crate::rule::Rule;

/// Members of a group from which on it forgets early: at some 500 bytes each an eighth of a gigabyte, and less than a
/// partition holds in memory of all its shards.
pub(super) const CROWDED_FROM: usize = GROUP_MEMBERS_MAX / 4;

/// Where little could go, a group must have grown by such a part of that before it is looked at again.
const LOOKED_AT_PARTS: usize = 8;

/// The shards that are to forget early.
pub(super) struct Crowded {
    /// From how many members of a group on.
    from: usize,
    shards: BTreeMap<Place, Entry>,
    /// How many members there were when nothing could go.
    in_vain: HashMap<Place, usize>,
    looked: Option<Instant>,
}

struct Entry {
    expiry: Expiry,
    horizon: DateTime<Utc>,
    /// How far match was in `records`; not noted yet.
    ends: Option<Vec<u64>>,
    /// Hashes of rows that were written since, as far as they might go.
    young: HashSet<u64>,
    /// How far the archive was, once it has all before the ends.
    archived: Option<Vec<u64>>,
    /// How far that has come, and how many members have gone.
    done: Option<DateTime<Utc>>,
    gone: usize,
}

/// What is to go next.
pub(super) struct Piece {
    pub(super) place: Place,
    pub(super) expiry: Expiry,
    pub(super) horizon: DateTime<Utc>,
    pub(super) done: Option<DateTime<Utc>>,
    pub(super) archived: Vec<u64>,
}

impl Crowded {
    pub(super) fn new(from: usize) -> Crowded {
        Crowded { from, shards: BTreeMap::new(), in_vain: HashMap::new(), looked: None }
    }

    /// Takes note of what a step has written of a shard, and of one that has become large.
    pub(super) fn written(
        &mut self,
        (place, expiry): (Place, Expiry),
        (rule, shard): (&Rule, &Shard),
        rows: &[(Vec<u8>, Option<Vec<u8>>)],
    ) {
        if let Some(entry) = self.shards.get_mut(&place) {
            let last = entry.horizon.date_naive();
            let old = rows.iter().filter(|(row, value)| value.is_some() && row_day(row).is_some_and(|day| day <= last));
            entry.young.extend(old.map(|(row, _)| young_key(place.shard, row)));
            if entry.young.len() > YOUNG_MAX {
                (entry.ends, entry.archived) = (None, None);
                entry.young.clear();
            }
            return;
        }
        let members = shard.largest();
        let enough = self.in_vain.get(&place).map_or(self.from, |known| known + self.from / LOOKED_AT_PARTS);
        if members < self.from.max(enough) {
            return;
        }
        match shard.early_horizon(rule) {
            Some(horizon) => {
                let entry =
                    Entry { expiry, horizon, ends: None, young: HashSet::new(), archived: None, done: None, gone: 0 };
                self.shards.insert(place, entry);
            }
            None => drop(self.in_vain.insert(place, members)),
        }
    }

    /// What may go next, if anything may now.
    pub(super) async fn next(&mut self, log: &dyn Log) -> Result<Option<Piece>, LogError> {
        for entry in self.shards.values_mut().filter(|entry| entry.ends.is_none()) {
            let mut ends = Vec::new();
            for partition in 0..log.partitions() {
                ends.push(log.committed(Consumer::Match, Topic::Records, partition).await?);
            }
            entry.ends = Some(ends);
        }
        let may_look = self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_INTERVAL);
        for (place, entry) in &mut self.shards {
            if entry.archived.is_none() && may_look {
                self.looked = Some(Instant::now());
                let ends = entry.ends.as_deref().unwrap_or_default();
                entry.archived = archived(log, ends).await?;
                if runtime::failpoint::is_broken("forget-unarchived") {
                    entry.archived.get_or_insert_default();
                }
            }
            if let Some(archived) = &entry.archived {
                let (expiry, horizon, done) = (entry.expiry, entry.horizon, entry.done);
                return Ok(Some(Piece { place: *place, expiry, horizon, done, archived: archived.clone() }));
            }
        }
        Ok(None)
    }

    /// Whether a row was written since its shard was to forget.
    pub(super) fn is_young(&self, place: Place, row: &[u8]) -> bool {
        let young = self.shards.get(&place).map(|entry| &entry.young);
        young.is_none_or(|young| young.contains(&young_key(place.shard, row)))
            && !runtime::failpoint::is_broken("forget-young")
    }

    /// A piece is done; with it the shard, if it came to its horizon.
    pub(super) fn end_piece(&mut self, place: Place, done: DateTime<Utc>, (gone, members): (usize, usize)) {
        let Some(entry) = self.shards.get_mut(&place) else { return };
        entry.done = Some(done);
        entry.gone += gone;
        if done < entry.horizon {
            return;
        }
        self.in_vain.remove(&place);
        if entry.gone == 0 {
            self.in_vain.insert(place, members);
        }
        self.shards.remove(&place);
    }
}
