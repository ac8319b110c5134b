//! From a record's bytes to the message that carries it: one function for every door.
//!
//! Guarantee: each element becomes exactly one message. What harrier can read as a record goes to `records`, keyed by
//! the id that normalisation reads, so that two deliveries of one record meet in one partition; anything else goes to
//! `dead_letters` with its place, its reason and its bytes. Neither stops its neighbours.

use chrono::{DateTime, Utc};
use runtime::log::{Output, To};
use schemas::envelope::{Envelope, IMPORT, Mark, Origin, Received};
use schemas::event::NotARecord;
use schemas::json::key_hash;
use schemas::message::{DEAD_LETTER_BYTES_MAX, DEAD_LETTER_PREFIX_BYTES, DeadLetter, Topic, WholeBytes};
use schemas::tenant::Tenant;
use schemas::{Event, field};
use sha2::{Digest, Sha256};

use crate::hex;
use crate::splitter::{Body, Element, TooLong};

/// A message ready for the log, and what is worth counting about it.
#[derive(Clone, Debug)]
pub struct Prepared {
    pub output: Output,
    pub kind: Kind,
}

/// What an element was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Record {
        /// The record's own time; 1970 where it has none.
        event_time: DateTime<Utc>,
        /// In the record's spelling; empty where it has none.
        workload: String,
    },
    /// Not a record; it is in the dead letters. The reason is a label of `events_rejected_total`.
    Rejected(&'static str),
}

/// Makes the message for an element. `place` says where it stood, for a dead letter.
pub fn prepare(origin: &Origin, element: Element<'_>, place: impl FnOnce() -> String) -> Prepared {
    let bytes = match element.body {
        Body::Whole(bytes) => bytes,
        Body::TooLong(too_long) => return reject_too_long(origin, place(), too_long),
    };
    let received = Received { origin: origin.clone(), bytes: bytes.to_vec() };
    match Event::read(&received) {
        Ok(event) => Prepared {
            output: Output {
                topic: Topic::Records,
                to: To::Key(key_hash(&[origin.tenant.as_str(), event.id()])),
                value: Envelope::Record(received).encode(),
            },
            kind: Kind::Record {
                event_time: event.time(),
                workload: event.text(field::WORKLOAD).unwrap_or_default().to_owned(),
            },
        },
        Err(reason) => {
            let label = match &reason {
                NotARecord::NotAnObject => "not_an_object",
                NotARecord::Json(_) if std::str::from_utf8(bytes).is_err() => "not_utf8",
                NotARecord::Json(_) => "not_json",
            };
            let letter = dead_letter(origin, place(), reason.to_string(), received.bytes);
            Prepared { output: post(&letter), kind: Kind::Rejected(label) }
        }
    }
}

/// A dead letter, cut to its prefix if its bytes are too many.
pub fn dead_letter(origin: &Origin, place: String, reason: String, mut bytes: Vec<u8>) -> DeadLetter {
    let whole = (bytes.len() > DEAD_LETTER_BYTES_MAX)
        .then(|| WholeBytes { length: bytes.len() as u64, sha256: hex(&Sha256::digest(&bytes)) });
    if whole.is_some() {
        bytes.truncate(DEAD_LETTER_PREFIX_BYTES);
    }
    let (tenant, source) = (origin.tenant.clone(), origin.source.clone());
    DeadLetter { tenant, source, place, reason, received: origin.received, bytes, whole }
}

/// The message that carries a dead letter.
pub fn post(letter: &DeadLetter) -> Output {
    // A struct of strings, times and bytes always serialises.
    let value = serde_json::to_vec(letter).unwrap_or_default();
    Output { topic: Topic::DeadLetters, to: To::Key(key_hash(&[letter.tenant.as_str()])), value }
}

/// The message that says of a stretch of event time, both ends in it, that all records of the tenant are there; it goes
/// behind them.
pub fn said_whole(tenant: &Tenant, (since, until): (DateTime<Utc>, DateTime<Utc>)) -> Output {
    let mark = Mark { tenant: tenant.clone(), content_type: IMPORT.to_owned(), since: Some(since), until };
    Output { topic: Topic::Records, to: To::Everywhere, value: Envelope::Mark(mark).encode() }
}

fn reject_too_long(origin: &Origin, place: String, too_long: TooLong) -> Prepared {
    let TooLong { length_bytes, sha256, prefix } = too_long;
    let mut letter = dead_letter(origin, place, format!("longer than harrier reads: {length_bytes} bytes"), prefix);
    letter.whole = Some(WholeBytes { length: length_bytes, sha256 });
    Prepared { output: post(&letter), kind: Kind::Rejected("too_large") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Origin {
        Origin {
            tenant: "t1".parse().unwrap(),
            source: "management_activity".into(),
            content_type: "Audit.Exchange".into(),
            blob_id: "b".into(),
            received: "2026-11-22T10:00:00Z".parse().unwrap(),
            notify: true,
        }
    }

    fn prepared(bytes: &[u8]) -> Prepared {
        prepare(&origin(), Element { index: 0, offset: 0, body: Body::Whole(bytes) }, || "b, record 0".into())
    }

    #[test]
    fn deliveries_of_one_record_share_a_key_and_keep_their_bytes() {
        let (one, other) = (prepared(br#"{"Id":"ABC", "x":1}"#), prepared(br#"{"x":2,"Id":" abc "}"#));
        assert_eq!(one.output.to, other.output.to);
        let Envelope::Record(received) = Envelope::decode(&one.output.value).unwrap() else { panic!() };
        assert_eq!(received.bytes, br#"{"Id":"ABC", "x":1}"#);
        assert_ne!(prepared(b"{\"x\":1}").output.to, prepared(b"{\"x\":2}").output.to);
        assert_eq!(prepared(b"{\"x\":1,\"y\":2}").output.to, prepared(b"{\"y\":2, \"x\":1}").output.to);
    }

    #[test]
    fn what_is_not_a_record_is_a_dead_letter_with_its_bytes() {
        for (bytes, label) in [
            (&b"1"[..], "not_an_object"),
            (b"[{}]", "not_an_object"),
            (b"{\"a\":", "not_json"),
            (b"", "not_json"),
            (b"{\"a\":\"\xff\"}", "not_utf8"),
        ] {
            let prepared = prepared(bytes);
            assert_eq!(prepared.kind, Kind::Rejected(label));
            let letter: DeadLetter = serde_json::from_slice(&prepared.output.value).unwrap();
            assert_eq!((letter.bytes.as_slice(), letter.place.as_str()), (bytes, "b, record 0"));
        }
    }

    #[test]
    fn a_long_dead_letter_is_cut_and_says_what_it_was() {
        let letter = dead_letter(&origin(), String::new(), String::new(), vec![b'x'; DEAD_LETTER_BYTES_MAX + 1]);
        assert_eq!(letter.bytes.len(), DEAD_LETTER_PREFIX_BYTES);
        assert_eq!(letter.whole.unwrap().length, DEAD_LETTER_BYTES_MAX as u64 + 1);
    }
}
