//! The outbox in memory, as the log has it, and the drafts that steps are made of.
//!
//! A step reads the tables through a [`Draft`], which holds what it changes; the draft becomes one [`Txn`], and only
//! when the log has taken it do the tables change. So memory never runs ahead of the log, and a step that is refused
//! leaves nothing behind.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use runtime::log::{Log, LogError, Output, StateChange, Store, To, Topic, Txn};
use schemas::json::key_hash;
use schemas::message::DeadLetter;
use schemas::tenant::Tenant;

use crate::digest::{self, Digest};
use crate::entry::{Entry, How};
use crate::heads::DayHeads;
use crate::incidents::{self, Incidents, Standing};

/// More messages than this in [`STORM_WINDOW`] are a storm: a person reads no more, and a channel drops them.
pub const STORM_MESSAGES_MAX: usize = 60;
pub const STORM_WINDOW: TimeDelta = TimeDelta::minutes(10);

/// Most findings that wait one by one for a sink; what comes above goes into digests. Bounds the memory while an
/// endpoint is down for days, without holding up the other sinks.
pub const WAITING_MAX: usize = 10_000;

/// How long a row is remembered after its last change, so that a late revision is still known for an update.
pub const KEEP: TimeDelta = TimeDelta::days(90);

/// Most rows removed in one step.
const SWEEP_ROWS_MAX: usize = 5_000;

/// One sink's rows.
#[derive(Debug, Default)]
pub(crate) struct Table {
    pub entries: BTreeMap<String, Entry>,
    pub digests: BTreeMap<String, Digest>,
    /// Heads of the archive by day.
    pub heads: BTreeMap<NaiveDate, DayHeads>,
    /// Entries that have something to tell.
    pub waiting: BTreeSet<String>,
    /// When the messages of the last [`STORM_WINDOW`] went out.
    pub sent: VecDeque<DateTime<Utc>>,
    pub last_storm: Option<DateTime<Utc>>,
    pub last_old: BTreeMap<Tenant, DateTime<Utc>>,
    /// Entries whose newest revision was given up.
    pub dead: usize,
}

impl Table {
    /// Messages sent within the window.
    pub(crate) fn sent_lately(&mut self, now: DateTime<Utc>) -> usize {
        while self.sent.front().is_some_and(|&at| at + STORM_WINDOW <= now) {
            self.sent.pop_front();
        }
        self.sent.len()
    }

    pub(crate) fn queue_length(&self) -> usize {
        self.waiting.len() + self.digests.len() + self.waiting_heads().count()
    }

    pub(crate) fn oldest_pending(&self) -> Option<DateTime<Utc>> {
        let entries = self.waiting.iter().filter_map(|id| self.entries.get(id)?.waiting.as_ref()).map(|w| w.since);
        let heads = self.waiting_heads().map(|heads| heads.since);
        entries.chain(self.digests.values().map(|digest| digest.created)).chain(heads).min()
    }

    pub(crate) fn waiting_heads(&self) -> impl Iterator<Item = &DayHeads> {
        self.heads.values().filter(|heads| !heads.ended)
    }

    fn insert(&mut self, entry: Entry) {
        let id = entry.finding_id.clone();
        if entry.waiting.is_some() {
            self.waiting.insert(id.clone());
        } else {
            self.waiting.remove(&id);
        }
        match &entry.told {
            Some(told) if told.how == How::Storm => self.last_storm = self.last_storm.max(Some(told.at)),
            Some(told) if told.how != How::Single => {
                let last = self.last_old.entry(entry.tenant.clone()).or_insert(told.at);
                *last = told.at.max(*last);
            }
            _ => {}
        }
        self.dead += usize::from(entry.dead.is_some());
        if let Some(replaced) = self.entries.insert(id, entry) {
            self.dead = self.dead.saturating_sub(usize::from(replaced.dead.is_some()));
        }
    }

    fn remove(&mut self, id: &str) {
        self.waiting.remove(id);
        if let Some(removed) = self.entries.remove(id) {
            self.dead = self.dead.saturating_sub(usize::from(removed.dead.is_some()));
        }
    }

    fn insert_digest(&mut self, digest: Digest) {
        if digest.how != How::Storm {
            let last = self.last_old.entry(digest.tenant.clone()).or_insert(digest.not_before);
            *last = digest.not_before.max(*last);
        }
        self.digests.insert(digest.id.clone(), digest);
    }
}

/// Every sink's rows and the standing findings.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub names: Vec<String>,
    pub tables: Vec<Table>,
    pub incidents: Incidents,
}

/// `<sink>/f/<finding>`, `<sink>/d/<digest>` and `<sink>/h/<day>`: names of sinks hold no slash.
fn entry_key(sink: &str, id: &str) -> Vec<u8> {
    format!("{sink}/f/{id}").into_bytes()
}

fn digest_key(sink: &str, id: &str) -> Vec<u8> {
    format!("{sink}/d/{id}").into_bytes()
}

fn heads_key(sink: &str, day: &str) -> Vec<u8> {
    format!("{sink}/h/{day}").into_bytes()
}

impl Outbox {
    pub(crate) fn new(names: Vec<String>) -> Outbox {
        let tables = names.iter().map(|_| Table::default()).collect();
        Outbox { names, tables, incidents: Incidents::default() }
    }

    /// Reads everything back from the log. Rows of sinks that are not configured stay in the log untouched: a sink
    /// that comes back under its name goes on where it was.
    pub(crate) async fn load(names: Vec<String>, log: &dyn Log, now: DateTime<Utc>) -> Result<Outbox, LogError> {
        let mut outbox = Outbox::new(names);
        for partition in 0..log.partitions() {
            for (index, name) in outbox.names.iter().enumerate() {
                let table = &mut outbox.tables[index];
                for (key, value) in log.scan(Store::Outbox, partition, &entry_key(name, "")).await? {
                    if let Some(entry) = decode::<Entry>(&key, &value) {
                        table.insert(Entry { partition, ..entry });
                    }
                }
                for (key, value) in log.scan(Store::Outbox, partition, &digest_key(name, "")).await? {
                    if let Some(mut digest) = decode::<Digest>(&key, &value) {
                        digest.partition = partition;
                        table.insert_digest(digest);
                    }
                }
                for (key, value) in log.scan(Store::Outbox, partition, &heads_key(name, "")).await? {
                    if let Some(heads) = decode::<DayHeads>(&key, &value) {
                        table.heads.insert(heads.day(), DayHeads { partition, ..heads });
                    }
                }
            }
            for (key, value) in log.scan(Store::Incidents, partition, b"").await? {
                if let Some(mut standing) = decode::<Standing>(&key, &value) {
                    standing.partition = partition;
                    outbox.incidents.insert(standing);
                }
            }
        }
        for table in &mut outbox.tables {
            let told = table.entries.values().filter_map(|entry| entry.told.as_ref());
            let single = told.filter(|told| told.how == How::Single && told.at + STORM_WINDOW > now);
            let mut sent: Vec<DateTime<Utc>> = single.map(|told| told.at).collect();
            sent.sort();
            table.sent = sent.into();
        }
        Ok(outbox)
    }

    pub(crate) fn draft(&self) -> Draft<'_> {
        Draft {
            base: self,
            entries: BTreeMap::new(),
            digests: BTreeMap::new(),
            heads: BTreeMap::new(),
            incidents: incidents::Draft::new(&self.incidents),
            outputs: Vec::new(),
        }
    }

    /// Changes the tables as a committed step has changed the log.
    pub(crate) fn apply(&mut self, changes: Changes) {
        for ((sink, id), change) in changes.entries {
            let Some(table) = self.tables.get_mut(sink) else { continue };
            match change {
                (_, Some(entry)) => table.insert(entry),
                (_, None) => table.remove(&id),
            }
        }
        for ((sink, id), change) in changes.digests {
            let Some(table) = self.tables.get_mut(sink) else { continue };
            match change {
                (_, Some(digest)) => table.insert_digest(digest),
                (_, None) => {
                    table.digests.remove(&id);
                }
            }
        }
        for ((sink, day), change) in changes.heads {
            let Some(table) = self.tables.get_mut(sink) else { continue };
            match change {
                (_, Some(heads)) => table.heads.insert(day, heads),
                (_, None) => table.heads.remove(&day),
            };
        }
        self.incidents.apply(changes.incidents);
    }

    /// A step that forgets what has not changed for long; `None` if there is nothing.
    pub(crate) fn sweep(&self, now: DateTime<Utc>) -> Option<Changes> {
        let mut changes = Changes { incidents: self.incidents.outdated(now), ..Changes::default() };
        for (sink, table) in self.tables.iter().enumerate() {
            let old = table.entries.values().filter(|entry| entry.waiting.is_none() && entry.changed + KEEP < now);
            let room = SWEEP_ROWS_MAX.saturating_sub(changes.entries.len());
            changes.entries.extend(old.take(room).map(|e| ((sink, e.finding_id.clone()), (e.partition, None))));
        }
        let empty = changes.entries.is_empty() && changes.incidents.is_empty();
        if empty { None } else { Some(changes) }
    }
}

fn decode<T: serde::de::DeserializeOwned>(key: &[u8], value: &[u8]) -> Option<T> {
    serde_json::from_slice(value)
        .inspect_err(|error| {
            // One damaged row must not silence every sink. It stays where it is for somebody to look at.
            let key = String::from_utf8_lossy(key).escape_debug().to_string();
            tracing::error!(event = "outbox_row_unreadable", key, error = %error);
        })
        .ok()
}

/// What a step changes, by sink and id: the partition of the row, and `None` to remove it.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    entries: BTreeMap<(usize, String), (u32, Option<Entry>)>,
    digests: BTreeMap<(usize, String), (u32, Option<Digest>)>,
    heads: BTreeMap<(usize, NaiveDate), (u32, Option<DayHeads>)>,
    incidents: incidents::Changes,
    outputs: Vec<Output>,
}

impl Changes {
    /// The step for the log. Its outputs are moved into it.
    pub(crate) fn take_txn(&mut self, names: &[String]) -> Txn {
        let mut state = incidents::state_changes(&self.incidents);
        for ((sink, id), (partition, entry)) in &self.entries {
            let Some(name) = names.get(*sink) else { continue };
            let value = entry.as_ref().and_then(|entry| serde_json::to_vec(entry).ok());
            state.push(StateChange { store: Store::Outbox, partition: *partition, key: entry_key(name, id), value });
        }
        for ((sink, id), (partition, digest)) in &self.digests {
            let Some(name) = names.get(*sink) else { continue };
            let value = digest.as_ref().and_then(|digest| serde_json::to_vec(digest).ok());
            state.push(StateChange { store: Store::Outbox, partition: *partition, key: digest_key(name, id), value });
        }
        for ((sink, day), (partition, heads)) in &self.heads {
            let Some(name) = names.get(*sink) else { continue };
            let value = heads.as_ref().and_then(|heads| serde_json::to_vec(heads).ok());
            let key = heads_key(name, &day.to_string());
            state.push(StateChange { store: Store::Outbox, partition: *partition, key, value });
        }
        Txn { outputs: std::mem::take(&mut self.outputs), state, ..Txn::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        let rows_are_empty = self.entries.is_empty() && self.digests.is_empty() && self.heads.is_empty();
        rows_are_empty && self.incidents.is_empty() && self.outputs.is_empty()
    }
}

/// A step in the making.
pub(crate) struct Draft<'a> {
    base: &'a Outbox,
    entries: BTreeMap<(usize, String), (u32, Option<Entry>)>,
    digests: BTreeMap<(usize, String), (u32, Option<Digest>)>,
    heads: BTreeMap<(usize, NaiveDate), (u32, Option<DayHeads>)>,
    pub incidents: incidents::Draft<'a>,
    outputs: Vec<Output>,
}

impl Draft<'_> {
    pub(crate) fn finish(self) -> Changes {
        Changes {
            entries: self.entries,
            digests: self.digests,
            heads: self.heads,
            incidents: self.incidents.changes,
            outputs: self.outputs,
        }
    }

    pub(crate) fn entry(&self, sink: usize, id: &str) -> Option<&Entry> {
        match self.entries.get(&(sink, id.to_owned())) {
            Some((_, entry)) => entry.as_ref(),
            None => self.base.tables.get(sink)?.entries.get(id),
        }
    }

    pub(crate) fn put(&mut self, sink: usize, entry: Entry) {
        self.entries.insert((sink, entry.finding_id.clone()), (entry.partition, Some(entry)));
    }

    pub(crate) fn digest(&self, sink: usize, id: &str) -> Option<&Digest> {
        match self.digests.get(&(sink, id.to_owned())) {
            Some((_, digest)) => digest.as_ref(),
            None => self.base.tables.get(sink)?.digests.get(id),
        }
    }

    pub(crate) fn put_digest(&mut self, sink: usize, digest: Digest) {
        self.digests.insert((sink, digest.id.clone()), (digest.partition, Some(digest)));
    }

    pub(crate) fn remove_digest(&mut self, sink: usize, digest: &Digest) {
        self.digests.insert((sink, digest.id.clone()), (digest.partition, None));
    }

    /// The newest heads that the sink has a row of, as this step leaves them.
    pub(crate) fn newest_heads(&self, sink: usize) -> Option<&DayHeads> {
        let drafted = self.heads.iter().filter(|((of, _), _)| *of == sink).filter_map(|(_, (_, heads))| heads.as_ref());
        let base = self.base.tables.get(sink).and_then(|table| table.heads.values().next_back());
        drafted.chain(base).max_by_key(|heads| heads.day())
    }

    pub(crate) fn heads(&self, sink: usize, day: NaiveDate) -> Option<&DayHeads> {
        match self.heads.get(&(sink, day)) {
            Some((_, heads)) => heads.as_ref(),
            None => self.base.tables.get(sink)?.heads.get(&day),
        }
    }

    pub(crate) fn put_heads(&mut self, sink: usize, heads: DayHeads) {
        self.heads.insert((sink, heads.day()), (heads.partition, Some(heads)));
    }

    /// Removes the rows of days that need not be known any more.
    pub(crate) fn forget_ended_heads(&mut self, sink: usize) {
        let newest = self.newest_heads(sink).map(DayHeads::day);
        let Some(table) = self.base.tables.get(sink) else { return };
        for (&day, row) in &table.heads {
            let has_ended = self.heads(sink, day).is_some_and(|heads| heads.ended);
            if has_ended && Some(day) != newest {
                self.heads.insert((sink, day), (row.partition, None));
            }
        }
    }

    /// Entries this step has changed and that still have something to tell.
    pub(crate) fn changed_waiting(&self) -> Vec<(usize, Entry)> {
        let changed = self.entries.iter().filter_map(|((sink, _), (_, entry))| Some((*sink, entry.as_ref()?)));
        changed.filter(|(_, entry)| entry.waiting.is_some()).map(|(sink, entry)| (sink, entry.clone())).collect()
    }

    /// Whether as many wait one by one as are kept so. Counts what is committed: a batch more does no harm.
    pub(crate) fn is_backlogged(&self, sink: usize) -> bool {
        self.base.tables.get(sink).is_some_and(|table| table.waiting.len() >= WAITING_MAX)
    }

    /// The digest that takes in one more finding, made if there is none that may still change. A digest that follows
    /// another keeps its distance, and takes in what comes meanwhile.
    pub(crate) fn open_digest(
        &self,
        sink: usize,
        finding: &schemas::finding::Finding,
        how: How,
        partition: u32,
        now: DateTime<Utc>,
    ) -> Digest {
        let fits = |digest: &&Digest| digest.tenant == finding.tenant && digest.how == how && digest.is_untouched();
        let drafted = self.digests.iter().filter(|((of, _), _)| *of == sink);
        let drafted = drafted.filter_map(|(_, (_, digest))| digest.as_ref()).find(fits);
        let table = self.base.tables.get(sink);
        let standing = || {
            let digests = table?.digests.values();
            digests.filter(|digest| !self.digests.contains_key(&(sink, digest.id.clone()))).find(fits)
        };
        if let Some(open) = drafted.or_else(standing) {
            return open.clone();
        }
        let mut digest = self.new_digest(sink, finding, how, partition, now);
        if let Some(&last) = table.and_then(|table| table.last_old.get(&finding.tenant)) {
            digest.not_before = now.max(last + digest::INTERVAL);
        }
        digest
    }

    pub(crate) fn new_digest(
        &self,
        sink: usize,
        first: &schemas::finding::Finding,
        how: How,
        partition: u32,
        now: DateTime<Utc>,
    ) -> Digest {
        let name = self.base.names.get(sink).map_or("", String::as_str);
        Digest::new(name, first, how, partition, now)
    }

    /// Puts what was given up where an operator finds it.
    pub(crate) fn dead_letter(&mut self, letter: &DeadLetter) {
        let Ok(value) = serde_json::to_vec(letter) else { return };
        let to = To::Key(key_hash(&[letter.tenant.as_str()]));
        self.outputs.push(Output { topic: Topic::DeadLetters, to, value });
    }
}
