//! The topics between the services, and what travels in each. The services never import one another: they meet here.
//!
//! | topic | written by | read by | keyed by |
//! |---|---|---|---|
//! | `records` | ingest, match | match, archive | (tenant, record id); marks, heartbeats and rule sets go to every partition |
//! | `verdicts` | match | archive | the partition of `records` it speaks of |
//! | `matches` | match | correlate | (tenant, rule or feature, shard) |
//! | `findings` | correlate, archive (its heads) | archive, notify | (tenant, finding id) |
//! | `coverage` | ingest | archive | tenant |
//! | `dead_letters` | every stage | archive | tenant |

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

use crate::envelope::{Heartbeat, Mark};
use crate::finding::Finding;
use crate::rule_book::RuleBook;
use crate::tenant::Tenant;

/// A topic of the log. The list is closed: a topic is never made from data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    Records,
    Verdicts,
    Matches,
    Findings,
    Coverage,
    DeadLetters,
}

impl Topic {
    pub const ALL: [Topic; 6] =
        [Topic::Records, Topic::Verdicts, Topic::Matches, Topic::Findings, Topic::Coverage, Topic::DeadLetters];

    /// The topic's name in the log.
    pub fn name(self) -> &'static str {
        match self {
            Topic::Records => "records",
            Topic::Verdicts => "verdicts",
            Topic::Matches => "matches",
            Topic::Findings => "findings",
            Topic::Coverage => "coverage",
            Topic::DeadLetters => "dead_letters",
        }
    }
}

/// Admit's answer for one offset of `records`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[repr(u8)]
pub enum Verdict {
    /// First sight: a row of the archive, and judged by the rules.
    Admitted = b'a',
    /// Known id, other content: a row of its own, judged like any other.
    Variant = b'v',
    /// Known id and content: counted, nothing more.
    Duplicate = b'd',
    /// Not a record that can be read; it went to `dead_letters`.
    Rejected = b'r',
    /// A mark or a heartbeat.
    Control = b'c',
}

/// Verdicts for a stretch of one partition of `records`. Its offsets follow one another, but for the gaps that a log on
/// Kafka has: there the markers of transactions take some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdicts {
    /// The partition of `records`; the message itself lies in the partition of the same number.
    pub partition: u32,
    /// The offset of the first record.
    pub from: u64,
    /// One [`Verdict`] code a record, as ASCII letters.
    pub codes: String,
    /// Where offsets are left out: before the record of this index, so many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<(u32, u64)>,
}

impl Verdicts {
    /// Verdicts on the records at these offsets, which rise; `from` where there are none.
    pub fn new(partition: u32, from: u64, offsets: &[u64], codes: String) -> Verdicts {
        let from = offsets.first().copied().unwrap_or(from);
        let pairs = (1..).zip(offsets.windows(2));
        let gaps = pairs.filter_map(|(index, pair)| match pair {
            [before, after] if *after > before + 1 => Some((index, after - before - 1)),
            _ => None,
        });
        Verdicts { partition, from, codes, gaps: gaps.collect() }
    }

    /// Each record's offset and code.
    pub fn each(&self) -> impl Iterator<Item = (u64, u8)> {
        let mut gaps = self.gaps.iter().peekable();
        let mut offset = self.from;
        self.codes.bytes().enumerate().map(move |(index, code)| {
            while let Some((_, left_out)) = gaps.next_if(|(before, _)| *before as usize <= index) {
                offset += left_out;
            }
            offset += 1;
            (offset - 1, code)
        })
    }

    /// One past the last record's offset.
    pub fn end(&self) -> u64 {
        self.each().last().map_or(self.from, |(offset, _)| offset + 1)
    }
}

impl Verdict {
    /// The verdict that a code letter stands for.
    pub fn from_code(code: u8) -> Option<Verdict> {
        [Verdict::Admitted, Verdict::Variant, Verdict::Duplicate, Verdict::Rejected, Verdict::Control]
            .into_iter()
            .find(|verdict| *verdict as u8 == code)
    }
}

/// One message of the `matches` topic. Everything one operator instance needs lies in one partition, because the
/// partition follows from (tenant, rule or feature, shard).
///
/// On the wire: a letter that says which it is, then the thing itself as JSON. A tag inside the JSON would make every
/// reader hold it twice, and there are more of these than of anything else in the log.
#[derive(Clone, Debug, PartialEq)]
pub enum MatchMessage {
    /// A record that a rule selected.
    Match(Match),
    /// What a baseline learns from, combined over one batch.
    Observation(Observation),
    Mark(Passed),
    Heartbeat(Heartbeat),
    /// The rule set of an epoch. It comes before everything that was made by it.
    Rules(RulesOfEpoch),
    /// A partition of `records` is judged by that epoch from now on.
    Followed(Followed),
}

/// A rule set and its epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesOfEpoch {
    pub epoch: u64,
    pub book: RuleBook,
}

/// A completeness mark that a partition of `records` has passed on, behind all that it made of what the mark speaks of; or
/// none, when no rule is behind any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    pub partition: u32,
    /// The rule set that the partition judges by.
    pub epoch: u64,
    /// The rules that have not been shown all of the archive; said by partition 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub behind: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<Mark>,
}

/// How far a partition of `records` has followed the changes of rule sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    pub partition: u32,
    pub epoch: u64,
}

/// The bytes in the log are not a message of `matches`.
#[derive(Debug, thiserror::Error)]
#[error("not a message of matches")]
pub struct InvalidMatchMessage;

impl MatchMessage {
    /// The bytes that go into the log.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(512);
        // Structs of strings, numbers and times always serialise.
        let _ = match self {
            MatchMessage::Match(found) => tagged(b'm', found, &mut out),
            MatchMessage::Observation(seen) => tagged(b'o', seen, &mut out),
            MatchMessage::Mark(mark) => tagged(b'c', mark, &mut out),
            MatchMessage::Heartbeat(heartbeat) => tagged(b'h', heartbeat, &mut out),
            MatchMessage::Rules(rules) => tagged(b'r', rules, &mut out),
            MatchMessage::Followed(followed) => tagged(b'f', followed, &mut out),
        };
        out
    }

    /// The message that [`MatchMessage::encode`] wrote.
    pub fn decode(wire: &[u8]) -> Result<MatchMessage, InvalidMatchMessage> {
        fn read<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, InvalidMatchMessage> {
            serde_json::from_slice(json).map_err(|_| InvalidMatchMessage)
        }
        Ok(match wire {
            [b'm', json @ ..] => MatchMessage::Match(read(json)?),
            [b'o', json @ ..] => MatchMessage::Observation(read(json)?),
            [b'c', json @ ..] => MatchMessage::Mark(read(json)?),
            [b'h', json @ ..] => MatchMessage::Heartbeat(read(json)?),
            [b'r', json @ ..] => MatchMessage::Rules(read(json)?),
            [b'f', json @ ..] => MatchMessage::Followed(read(json)?),
            _ => return Err(InvalidMatchMessage),
        })
    }
}

fn tagged<T: Serialize>(tag: u8, message: &T, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    out.push(tag);
    serde_json::to_writer(out, message)
}

/// A record that a rule selected, with the values that rule's windows and texts need.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Match {
    pub tenant: Tenant,
    /// The rule whose operator judges this match: a detection rule itself, or the correlation that refers to it.
    pub rule_id: String,
    /// The epoch of the rule set that made it.
    #[serde(default)]
    pub epoch: u64,
    /// The member rule that selected the record (for `temporal` and its kin); equal to `rule_id` for a rule by itself.
    pub member: String,
    /// Decides the partition and which state is loaded; usually the group key as text.
    pub shard: String,
    /// The group key: the values of `group-by`, in its order, folded.
    pub group: Vec<String>,
    /// For a correlation of correlations: the group keys of those on the way to the member, from the outside in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub within: Vec<Vec<String>>,
    pub event_id: String,
    /// Tells variants of one id apart: the first 64 bits of the content hash.
    pub content: u64,
    pub event_time: DateTime<Utc>,
    pub received: DateTime<Utc>,
    /// False if the record must alert nobody.
    pub notify: bool,
    /// What `value_count`, a new-value baseline or `outside` looks at; empty where the operator needs none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
    /// How much the record counts for in a sum: items, not records.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: u64,
    /// The values shown in reason, entities and commands, by field name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Vec<String>>,
}

/// That a value was seen for a group on a day. A set: saying it twice changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Observation {
    pub tenant: Tenant,
    /// The operator instance that learns from it.
    pub rule_id: String,
    /// The epoch of the rule set that made it.
    #[serde(default)]
    pub epoch: u64,
    pub shard: String,
    pub value: String,
    pub day: NaiveDate,
}

/// One message of the `findings` topic.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FindingMessage {
    /// The newest revision of a finding: an upsert by (tenant, id).
    Finding(Box<Finding>),
    Heartbeat(Heartbeat),
    /// Once a day, for the sinks that keep them: it goes the way of findings, to the same reader.
    ArchiveHeads(ArchiveHeads),
}

/// The newest commit of each table of the archive. Kept elsewhere they prove that nobody has brought it back to an older
/// state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveHeads {
    pub taken: DateTime<Utc>,
    /// Fingerprint of the key that commits are signed with.
    pub public_key: Option<String>,
    pub heads: Vec<ArchiveHead>,
}

/// The newest commit of one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveHead {
    pub table: String,
    pub version: u64,
    /// How many there are, the oldest included.
    pub commits: u64,
    /// SHA-256 of what the commit says, which the next one names.
    pub head: String,
}

/// What the topic of coverage carries. They are told apart by what they hold, because the first of them came before there
/// was another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum CoverageMessage {
    Blob(Blob),
    Coverage(Coverage),
}

/// What became of one content blob: in the same step as its last records, so that whoever has them can be asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    pub tenant: Tenant,
    /// Which door it came through: `management_activity`, `audit_search`.
    pub source: String,
    pub content_type: String,
    /// As records name it.
    pub blob_id: String,
    /// When it became available (UTC); of a search, the start of what was searched.
    pub created: DateTime<Utc>,
    /// When it was taken, or known to be lost.
    pub finished: DateTime<Utc>,
    pub end: BlobEnd,
}

/// How a blob ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum BlobEnd {
    /// All of it is in the log.
    Taken {
        records: u64,
        /// Elements that were no records: in the dead letters.
        rejected: u64,
        bytes: u64,
        /// Of the body as received, in hex.
        sha256: String,
    },
    /// The service does not have it.
    Gone { reason: String },
    /// It could not be fetched within its seven days.
    Expired,
}

impl BlobEnd {
    pub fn as_str(&self) -> &'static str {
        match self {
            BlobEnd::Taken { .. } => "taken",
            BlobEnd::Gone { .. } => "gone",
            BlobEnd::Expired => "expired",
        }
    }
}

/// What is known of one stretch of one feed: what the answers drawn from it rest on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    pub tenant: Tenant,
    /// The content type, or `import:` and the file's name.
    pub feed: String,
    pub window_start: DateTime<Utc>,
    pub window_end: DateTime<Utc>,
    pub state: CoverageState,
    /// Why, in plain words; empty for complete.
    pub reason: String,
}

/// How much of a stretch has been had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CoverageState {
    /// All that the source listed is in the archive.
    Complete,
    /// Some of it is; `reason` says what may be missing.
    Partial,
    /// It cannot be had any more.
    Missing,
}

impl CoverageState {
    pub fn as_str(self) -> &'static str {
        match self {
            CoverageState::Complete => "complete",
            CoverageState::Partial => "partial",
            CoverageState::Missing => "missing",
        }
    }
}

/// Longest dead letter kept whole. Above it: SHA-256, length and a prefix, so that one hostile line cannot fill the log.
pub const DEAD_LETTER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How much of a longer one is kept.
pub const DEAD_LETTER_PREFIX_BYTES: usize = 64 * 1024;

/// Something that could not be used, kept with its place and its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub tenant: Tenant,
    /// The stage and door: `import`, `management_activity`, `sink:soc`.
    pub source: String,
    /// File and line, blob and index, or sink and finding.
    pub place: String,
    /// What is wrong, in plain words.
    pub reason: String,
    pub received: DateTime<Utc>,
    /// The bytes; capped, and then `whole` says what they were. As JSON they travel in base64 or as text.
    #[serde(with = "bytes_as_text")]
    pub bytes: Vec<u8>,
    /// Length and SHA-256 of the whole where `bytes` is only its beginning.
    pub whole: Option<WholeBytes>,
}

/// What a capped dead letter was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WholeBytes {
    pub length: u64,
    pub sha256: String,
}

fn one() -> u64 {
    1
}

fn is_one(weight: &u64) -> bool {
    *weight == 1
}

/// Bytes in JSON without a size penalty for text: a string where they are UTF-8, else an array of numbers.
mod bytes_as_text {
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(bytes) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_seq(bytes),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        Ok(match Either::deserialize(deserializer)? {
            Either::Text(text) => text.into_bytes(),
            Either::Bytes(bytes) => bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_name_their_offsets_across_gaps() {
        for offsets in [&[][..], &[7], &[7, 8, 9], &[0, 2], &[3, 4, 6, 7, 20], &[1, 3, 5, 7]] {
            let codes: String = "avdrc".chars().cycle().take(offsets.len()).collect();
            let verdicts = Verdicts::new(1, 5, offsets, codes.clone());
            let wire = serde_json::to_string(&verdicts).unwrap();
            let read: Verdicts = serde_json::from_str(&wire).unwrap();
            let expected: Vec<(u64, u8)> = offsets.iter().copied().zip(codes.bytes()).collect();
            assert_eq!(read.each().collect::<Vec<_>>(), expected, "{wire}");
            assert_eq!(read.end(), offsets.last().map_or(5, |last| last + 1));
        }
        let dense = serde_json::to_string(&Verdicts::new(0, 0, &[4, 5], "ad".into())).unwrap();
        assert_eq!(dense, r#"{"partition":0,"from":4,"codes":"ad"}"#, "without gaps nothing is said of them");
    }

    #[test]
    fn messages_of_matches_come_back_and_damage_is_an_error() {
        let tenant: Tenant = "t1".parse().unwrap();
        let time: DateTime<Utc> = "2026-11-22T10:00:00Z".parse().unwrap();
        let messages = [
            MatchMessage::Match(Match {
                tenant: tenant.clone(),
                rule_id: "r".into(),
                epoch: 1,
                member: "m".into(),
                shard: "s|t".into(),
                group: vec!["s".into(), "t".into()],
                within: vec![vec!["s".into()]],
                event_id: "e".into(),
                content: u64::MAX,
                event_time: time,
                received: time,
                notify: false,
                values: vec!["v".into()],
                weight: 7,
                fields: BTreeMap::from([("user_id".into(), vec!["u".into()])]),
            }),
            MatchMessage::Observation(Observation {
                tenant: tenant.clone(),
                rule_id: "r".into(),
                epoch: 1,
                shard: "s".into(),
                value: "v".into(),
                day: time.date_naive(),
            }),
            MatchMessage::Mark(Passed {
                partition: 1,
                epoch: 2,
                behind: vec!["r".into()],
                mark: Some(Mark { tenant, content_type: "Audit.General".into(), since: Some(time), until: time }),
            }),
            MatchMessage::Heartbeat(Heartbeat { sent: time }),
        ];
        for message in messages {
            let wire = message.encode();
            assert_eq!(MatchMessage::decode(&wire).unwrap(), message);
            assert!(MatchMessage::decode(&wire[1..]).is_err());
            assert!(MatchMessage::decode(&wire[..wire.len() - 1]).is_err());
        }
        assert!(MatchMessage::decode(b"").is_err());
    }
}
