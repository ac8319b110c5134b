//! What a shard remembers, and the rows it is kept in.
//!
//! One row is one fact (a member, a sighting, a finding's standing), so what a batch writes is proportional to what the
//! batch changed. Everything else in memory is derived from these rows and rebuilt after a load.
//!
//! | key | value (after the version byte) |
//! |---|---|
//! | `c`, nothing | where an `absence` has decided: see [`absence`](super::absence) |
//! | `f`, group hash, finding id | [`Record`]: where the finding stands; standing ones are the group's episodes, but for those that another meaning of the rule has told |
//! | `g`, group hash | the tenant and the group key in words |
//! | `h`, nothing | how far the shard has forgotten members before others of its rule |
//! | `m`, group hash, event time, hash of id, content and member name | [`Member`] |
//! | `o`, value hash, day | nothing: the key says it |
//! | `t`, group hash, event time, hash of id, half of a member's hash | its weight: what is left of a member deep inside an episode, see [`crowd`](super::crowd) |
//!
//! Times are big-endian with the sign bit turned, so that rows lie in event-time order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, NaiveDate, Utc};
use schemas::finding::Status;
use schemas::json::key_hash;
use schemas::message::Match;
use schemas::tenant::Tenant;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::chain::Chain;
use super::crowd::{Crowd, Thin};
use super::episode::Episode;
use super::same::ByValue;
use super::spike::Days;
use super::window::Span;
use crate::rule::model::Rule;

/// First byte of every row's value. A reader refuses what it does not know.
const VERSION: u8 = 1;

/// The same of members that were brought back: a reader of version 1 would take them for judged.
const VERSION_OF_BROUGHT: u8 = 2;

pub(super) type GroupId = u128;

/// A member's place: event time, then a hash of what tells members of one moment apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MemberKey {
    pub time: DateTime<Utc>,
    pub tie: u128,
}

impl MemberKey {
    pub fn of(matched: &Match) -> MemberKey {
        let content = matched.content.to_string();
        let mut parts: Vec<&str> = vec![&matched.event_id, &content, &matched.member];
        // One record may stand in several groups of an inner correlation.
        parts.extend(matched.within.iter().flatten().map(String::as_str));
        MemberKey { time: matched.event_time, tie: key_hash(&parts) }
    }

    /// Before every member of this moment.
    pub fn first_at(time: DateTime<Utc>) -> MemberKey {
        MemberKey { time, tie: 0 }
    }

    /// After every member of this moment.
    pub fn last_at(time: DateTime<Utc>) -> MemberKey {
        MemberKey { time, tie: u128::MAX }
    }
}

/// One match as a window sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Member {
    #[serde(rename = "i", with = "shared_text")]
    pub event_id: Arc<str>,
    /// The rule that selected it.
    #[serde(rename = "m")]
    pub name: Box<str>,
    /// In a correlation of correlations: the group keys on the way to it, from the outside in.
    #[serde(rename = "k", default, skip_serializing_if = "Vec::is_empty")]
    pub within: Vec<Vec<String>>,
    /// Folded.
    #[serde(rename = "v", default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Box<str>>,
    #[serde(rename = "w")]
    pub weight: u64,
    /// The shown fields as JSON text: read only when a finding tells of them, and a tenth of the memory of a map.
    #[serde(rename = "f")]
    pub fields: Box<RawValue>,
    #[serde(rename = "r", with = "stamp")]
    pub received: DateTime<Utc>,
    #[serde(rename = "n")]
    pub notify: bool,
    /// That it came from the archive for others to be judged by, and not by itself: its own match may still be on its way.
    #[serde(rename = "b", default, skip_serializing_if = "std::ops::Not::not")]
    pub brought: bool,
    /// Whether it counts at all: operators with a history take known values out again. Derived.
    #[serde(skip, default = "yes")]
    pub stands: bool,
    /// The values that made it stand, where that is not all of them. Derived.
    #[serde(skip)]
    pub remarkable: Option<Vec<Box<str>>>,
}

impl Member {
    pub fn of(matched: &Match) -> Member {
        let mut values: Vec<Box<str>> = Vec::with_capacity(matched.values.len());
        for value in &matched.values {
            let folded = fold(value).into_boxed_str();
            if !values.contains(&folded) {
                values.push(folded);
            }
        }
        Member {
            event_id: Arc::from(matched.event_id.as_str()),
            name: matched.member.as_str().into(),
            within: matched.within.clone(),
            values,
            weight: matched.weight,
            // A map of texts always is JSON; were it not, the finding would show no fields.
            fields: serde_json::value::to_raw_value(&matched.fields).unwrap_or_else(|_| RawValue::NULL.to_owned()),
            received: matched.received,
            notify: matched.notify,
            brought: false,
            stands: true,
            remarkable: None,
        }
    }

    /// The values a finding tells of.
    pub fn told(&self) -> &[Box<str>] {
        self.remarkable.as_deref().unwrap_or(&self.values)
    }
}

/// How values are compared. Idempotent, so it does not matter whether the matcher has folded them already.
pub(super) fn fold(value: &str) -> String {
    value.trim().to_lowercase()
}

/// The name of a value in keys: of fixed size, whatever a record says.
pub(super) fn value_hash(folded: &str) -> u128 {
    key_hash(&["value", folded])
}

/// Members in event-time order. Boxed, as groups are: a tree keeps room for eleven entries even where there is one, and most windows hold a few.
pub(super) type Members = BTreeMap<MemberKey, Box<Member>>;

/// The groups of a shard; mostly one.
pub(super) type Groups = BTreeMap<GroupId, Box<Group>>;

/// Where a finding stands. Kept for ever, also when it no longer stands: a revision is never given twice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// What the rule meant when it was told: [`Rule::version`].
    #[serde(rename = "by", default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    pub revision: u32,
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<String>,
    #[serde(with = "stamp")]
    pub start: DateTime<Utc>,
    #[serde(with = "stamp")]
    pub end: DateTime<Utc>,
    #[serde(with = "stamp")]
    pub created: DateTime<Utc>,
    #[serde(with = "stamp")]
    pub updated: DateTime<Utc>,
    /// Hash of what the newest revision showed.
    pub shown: String,
}

impl Record {
    /// Whether the rule meant the same when this was told. Where that is not said, what the shard holds is of one meaning.
    pub fn is_by(&self, rule: &Rule) -> bool {
        self.version.is_empty() || self.version == rule.version
    }
}

/// All that is known of one group key.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub about: About,
    pub members: Members,
    /// Members of which only numbers are left.
    pub crowd: Crowd,
    /// By finding id.
    pub records: BTreeMap<String, Record>,
    /// By start; disjoint and further than the rule's gap apart. Derived.
    pub episodes: BTreeMap<DateTime<Utc>, Episode>,
    /// Kept by `spike` only. Derived.
    pub days: Days,
    /// Kept by `aggregate` only: the windows that stand, by anchor, with their last moment. Derived.
    pub windows: BTreeMap<DateTime<Utc>, DateTime<Utc>>,
    /// Kept by correlations of correlations only. Derived.
    pub chain: Chain,
    /// Kept by sequences that share a value only. Derived.
    pub by_value: ByValue,
}

/// The group's own row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct About {
    pub tenant: Tenant,
    pub key: Vec<String>,
    /// That members were refused because the group was full.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub limited: bool,
}

impl About {
    pub fn of(matched: &Match) -> About {
        About { tenant: matched.tenant.clone(), key: matched.group.clone(), limited: false }
    }
}

impl Group {
    pub fn new(about: About) -> Group {
        Group {
            about,
            members: Members::new(),
            crowd: Crowd::default(),
            records: BTreeMap::new(),
            episodes: BTreeMap::new(),
            days: Days::default(),
            windows: BTreeMap::new(),
            chain: Chain::default(),
            by_value: ByValue::default(),
        }
    }

    /// Start of the episode that covers a moment.
    pub fn episode_at(&self, time: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let (start, episode) = self.episodes.range(..=time).next_back()?;
        (episode.end >= time).then_some(*start)
    }
}

pub(super) fn group_id(key: &[String]) -> GroupId {
    let mut parts = vec!["group"];
    parts.extend(key.iter().map(String::as_str));
    key_hash(&parts)
}

/// What baselines have learnt: which value was seen on which day.
#[derive(Clone, Debug, Default)]
pub(super) struct Sightings {
    pub days_of: BTreeMap<u128, BTreeSet<NaiveDate>>,
    pub days: BTreeSet<NaiveDate>,
    /// Values and days.
    pub len: usize,
}

/// The rows a batch changes.
#[derive(Debug, Default)]
pub(super) struct Rows(BTreeMap<Vec<u8>, Option<Vec<u8>>>);

impl Rows {
    pub fn member(&mut self, group: GroupId, key: MemberKey, member: &Member) {
        let mut value = encode(member);
        if let (true, Some(version)) = (member.brought, value.first_mut()) {
            *version = VERSION_OF_BROUGHT;
        }
        self.0.insert(member_row(group, key.time, key.tie), Some(value));
    }

    pub fn no_member(&mut self, group: GroupId, key: MemberKey) {
        self.0.insert(member_row(group, key.time, key.tie), None);
    }

    /// A member that the batch has brought is not needed any more, or one from before.
    pub fn settled(&mut self, group: GroupId, key: MemberKey, is_fresh: bool) {
        let row = member_row(group, key.time, key.tie);
        if is_fresh { drop(self.0.remove(&row)) } else { drop(self.0.insert(row, None)) }
    }

    /// The same of a group that has nothing any more.
    pub fn settled_group(&mut self, group: GroupId) {
        let row = prefixed(b'g', &group.to_be_bytes());
        // What it wrote itself was not there before.
        if self.0.remove(&row).is_none() {
            self.0.insert(row, None);
        }
    }

    pub fn thin(&mut self, group: GroupId, time: DateTime<Utc>, thin: Thin) {
        self.0.insert(thin_row(group, time, thin), Some(encode(&thin.weight)));
    }

    pub fn no_thin(&mut self, group: GroupId, time: DateTime<Utc>, thin: Thin) {
        self.0.insert(thin_row(group, time, thin), None);
    }

    pub fn group(&mut self, group: GroupId, about: &About) {
        self.0.insert(prefixed(b'g', &group.to_be_bytes()), Some(encode(about)));
    }

    pub fn no_group(&mut self, group: GroupId) {
        self.0.insert(prefixed(b'g', &group.to_be_bytes()), None);
    }

    pub fn sighting(&mut self, value: u128, day: NaiveDate) {
        let mut row = prefixed(b'o', &value.to_be_bytes());
        row.extend_from_slice(&(chrono::Datelike::num_days_from_ce(&day) as u32 ^ SIGN_32).to_be_bytes());
        self.0.insert(row, Some(vec![VERSION]));
    }

    pub fn whole(&mut self, stretches: &[Span]) {
        let stamp = |time: DateTime<Utc>| (time.timestamp(), time.timestamp_subsec_nanos());
        let stretches: Vec<_> = stretches.iter().map(|span| (stamp(span.start), stamp(span.end))).collect();
        self.0.insert(prefixed(b'c', &[0; 16]), Some(encode(&stretches)));
    }

    pub fn early(&mut self, horizon: DateTime<Utc>) {
        let value = encode(&(horizon.timestamp(), horizon.timestamp_subsec_nanos()));
        self.0.insert(prefixed(b'h', &[0; 16]), Some(value));
    }

    pub fn record(&mut self, group: GroupId, id: &str, record: &Record) {
        let mut row = prefixed(b'f', &group.to_be_bytes());
        row.extend_from_slice(id.as_bytes());
        self.0.insert(row, Some(encode(record)));
    }

    pub fn into_vec(self) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
        self.0.into_iter().collect()
    }
}

/// State that this version did not write: harrier's fault or a damaged disk. Retrying does not help; the shard must be
/// built again from the archive.
#[derive(Debug, thiserror::Error)]
#[error("damaged window state in row {row}: {kind}")]
pub struct DamagedState {
    /// The row's key in hex.
    pub row: String,
    pub kind: DamagedStateKind,
}

/// What is wrong with the row.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DamagedStateKind {
    #[error("its key is not one of ours")]
    Key,
    #[error("it is of version {0:?}, this program reads versions {VERSION} and {VERSION_OF_BROUGHT}")]
    Version(Option<u8>),
    #[error("its value cannot be read: {0}")]
    Value(#[from] serde_json::Error),
    #[error("its group has no row")]
    Orphan,
}

/// The facts of one shard as loaded.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub groups: Groups,
    pub sightings: Sightings,
    /// Where an absence has decided.
    pub whole: Vec<Span>,
    /// How far members were forgotten early.
    pub early: Option<DateTime<Utc>>,
    /// What was told of groups that have no member: the rule means something else now, or members were forgotten.
    pub told: BTreeMap<GroupId, BTreeMap<String, Record>>,
}

/// Where an absence has decided, as its row says.
#[derive(Deserialize)]
#[serde(untagged)]
enum Decided {
    Stretches(Vec<(Stamp, Stamp)>),
    /// As it was said before there were stretches: everything up to a moment.
    Until(Stamp),
}

#[derive(Deserialize)]
struct Stamp(#[serde(with = "stamp")] DateTime<Utc>);

impl Decided {
    fn stretches(self) -> Vec<Span> {
        match self {
            Decided::Stretches(stretches) => {
                stretches.into_iter().map(|(Stamp(start), Stamp(end))| Span { start, end }).collect()
            }
            Decided::Until(Stamp(end)) => vec![Span { start: DateTime::<Utc>::MIN_UTC, end }],
        }
    }
}

/// Reads rows in any order.
pub(super) fn decode(rows: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Facts, DamagedState> {
    let mut facts = Facts::default();
    let mut members: BTreeMap<GroupId, Members> = BTreeMap::new();
    let mut crowds: BTreeMap<GroupId, Crowd> = BTreeMap::new();
    let mut records: BTreeMap<GroupId, BTreeMap<String, Record>> = BTreeMap::new();
    for (key, value) in rows {
        let damaged = |kind| DamagedState { row: hex(&key), kind };
        let Some((&(VERSION | VERSION_OF_BROUGHT), value)) = value.split_first() else {
            return Err(damaged(DamagedStateKind::Version(value.first().copied())));
        };
        let row = Key::parse(&key).ok_or_else(|| damaged(DamagedStateKind::Key))?;
        let unreadable = |error: serde_json::Error| damaged(error.into());
        match row {
            Key::Group(group) => {
                facts.groups.insert(group, Box::new(Group::new(serde_json::from_slice(value).map_err(unreadable)?)));
            }
            Key::Member(group, key) => {
                let member = serde_json::from_slice(value).map_err(unreadable)?;
                members.entry(group).or_default().insert(key, member);
            }
            Key::Thin(group, time, (id, tie)) => {
                let weight = serde_json::from_slice(value).map_err(unreadable)?;
                crowds.entry(group).or_default().insert(time, Thin { id, tie, weight });
            }
            Key::Record(group, id) => {
                let record = serde_json::from_slice(value).map_err(unreadable)?;
                records.entry(group).or_default().insert(id.to_owned(), record);
            }
            Key::Complete => {
                let decided: Decided = serde_json::from_slice(value).map_err(unreadable)?;
                facts.whole = decided.stretches();
            }
            Key::Early => {
                let Stamp(early) = serde_json::from_slice(value).map_err(unreadable)?;
                facts.early = Some(early);
            }
            Key::Sighting(value, day) => {
                let is_new = facts.sightings.days_of.entry(value).or_default().insert(day);
                facts.sightings.len += usize::from(is_new);
                facts.sightings.days.insert(day);
            }
        }
    }
    let orphan = |group: GroupId| DamagedState { row: hex(&group.to_be_bytes()), kind: DamagedStateKind::Orphan };
    for (group, members) in members {
        facts.groups.get_mut(&group).ok_or_else(|| orphan(group))?.members = members;
    }
    for (group, crowd) in crowds {
        facts.groups.get_mut(&group).ok_or_else(|| orphan(group))?.crowd = crowd;
    }
    for (group, records) in records {
        match facts.groups.get_mut(&group) {
            Some(group) => group.records = records,
            None => drop(facts.told.insert(group, records)),
        }
    }
    Ok(facts)
}

/// The event day that a row is about; none for rows about the shard as a whole.
pub(crate) fn row_day(row: &[u8]) -> Option<NaiveDate> {
    match Key::parse(row)? {
        Key::Member(_, MemberKey { time, .. }) | Key::Thin(_, time, _) => Some(time.date_naive()),
        Key::Sighting(_, day) => Some(day),
        Key::Complete | Key::Early | Key::Group(_) | Key::Record(..) => None,
    }
}

/// Whether a row says where a finding stands.
pub(crate) fn is_record_row(row: &[u8]) -> bool {
    row.first() == Some(&b'f')
}

/// The key of a member's row.
pub(crate) fn member_row(group: GroupId, time: DateTime<Utc>, tie: u128) -> Vec<u8> {
    let mut row = prefixed(b'm', &group.to_be_bytes());
    push_time(&mut row, time);
    row.extend_from_slice(&tie.to_be_bytes());
    row
}

/// The key of the row of what is left of a member.
pub(super) fn thin_row(group: GroupId, time: DateTime<Utc>, thin: Thin) -> Vec<u8> {
    let mut row = prefixed(b't', &group.to_be_bytes());
    push_time(&mut row, time);
    row.extend_from_slice(&thin.id.to_be_bytes());
    row.extend_from_slice(&thin.tie.to_be_bytes());
    row
}

enum Key<'a> {
    Complete,
    Early,
    Group(GroupId),
    Member(GroupId, MemberKey),
    Record(GroupId, &'a str),
    Sighting(u128, NaiveDate),
    Thin(GroupId, DateTime<Utc>, (u64, u64)),
}

impl Key<'_> {
    fn parse(key: &[u8]) -> Option<Key<'_>> {
        let (kind, rest) = key.split_first()?;
        let (hash, rest) = rest.split_first_chunk::<16>()?;
        let hash = u128::from_be_bytes(*hash);
        Some(match kind {
            b'c' if rest.is_empty() => Key::Complete,
            b'h' if rest.is_empty() => Key::Early,
            b'g' if rest.is_empty() => Key::Group(hash),
            b'm' | b't' => {
                let (seconds, rest) = rest.split_first_chunk::<8>()?;
                let (nanos, rest) = rest.split_first_chunk::<4>()?;
                let seconds = (u64::from_be_bytes(*seconds) ^ SIGN_64) as i64;
                let time = DateTime::from_timestamp(seconds, u32::from_be_bytes(*nanos))?;
                let tie = u128::from_be_bytes(rest.try_into().ok()?);
                match kind {
                    b'm' => Key::Member(hash, MemberKey { time, tie }),
                    _ => Key::Thin(hash, time, ((tie >> 64) as u64, tie as u64)),
                }
            }
            b'f' => Key::Record(hash, std::str::from_utf8(rest).ok()?),
            b'o' => {
                let day = (u32::from_be_bytes(rest.try_into().ok()?) ^ SIGN_32) as i32;
                Key::Sighting(hash, NaiveDate::from_num_days_from_ce_opt(day)?)
            }
            _ => return None,
        })
    }
}

const SIGN_64: u64 = 1 << 63;
const SIGN_32: u32 = 1 << 31;

fn prefixed(kind: u8, hash: &[u8; 16]) -> Vec<u8> {
    let mut key = Vec::with_capacity(49);
    key.push(kind);
    key.extend_from_slice(hash);
    key
}

fn push_time(key: &mut Vec<u8>, time: DateTime<Utc>) {
    key.extend_from_slice(&(time.timestamp() as u64 ^ SIGN_64).to_be_bytes());
    key.extend_from_slice(&time.timestamp_subsec_nanos().to_be_bytes());
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    // Writing our own plain structures into memory cannot fail; were it to, the row would be refused at the next load.
    let _ = serde_json::to_writer(&mut bytes, value);
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn yes() -> bool {
    true
}

/// Exact times as [seconds, nanoseconds]: the text form loses leap seconds and cannot hold every year.
mod stamp {
    use chrono::{DateTime, Utc};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub fn serialize<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
        (time.timestamp(), time.timestamp_subsec_nanos()).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
        let (seconds, nanos) = <(i64, u32)>::deserialize(deserializer)?;
        DateTime::from_timestamp(seconds, nanos).ok_or_else(|| D::Error::custom("a time out of range"))
    }
}

/// Texts that many places hold at once.
mod shared_text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(deserializer).map(Arc::from)
    }
}
