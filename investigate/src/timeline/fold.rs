//! Folding repeated records into one line.

use std::collections::HashMap;

use chrono::TimeDelta;

use super::{Entry, Record};

/// Records alike that are nearer than this are one line.
const NEAR: TimeDelta = TimeDelta::minutes(30);

/// Longest text of what a record was about.
const WHAT_CHARACTERS_MAX: usize = 80;

/// What records of one line have in common: operation, actor, address, session, outcome, mailbox; and marks.
type Alike = ([String; 6], Vec<usize>);

/// Records must be in order of time; entries come out in order of their first record.
pub(super) fn fold(records: Vec<Record>, marks: &HashMap<String, Vec<usize>>) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut open: HashMap<Alike, usize> = HashMap::new();
    for record in records {
        let marks = marks.get(&record.id).cloned().unwrap_or_default();
        let entry = entry(record, marks);
        let texts = [&entry.operation, &entry.actor, &entry.from, &entry.session, &entry.outcome, &entry.mailbox];
        let key = (texts.map(Clone::clone), entry.marks.clone());
        match open.get(&key).map(|&index| &mut entries[index]) {
            Some(known) if entry.first - known.last <= NEAR => {
                known.last = entry.last;
                known.records += 1;
                known.items = known.items.saturating_add(entry.items);
                if known.what != entry.what {
                    known.what.clear();
                }
            }
            _ => {
                open.insert(key, entries.len());
                entries.push(entry);
            }
        }
    }
    entries
}

fn entry(record: Record, marks: Vec<usize>) -> Entry {
    let actor = record.user_id.unwrap_or_default();
    let mailbox = record.mailbox_owner.filter(|owner| *owner != actor).unwrap_or_default();
    Entry {
        first: record.event_time,
        last: record.event_time,
        actor,
        from: record.client_ip.unwrap_or_default(),
        session: record.session_id.unwrap_or_default(),
        operation: record.operation.unwrap_or_default(),
        outcome: record.outcome.filter(|outcome| outcome == "failure" || outcome == "interrupted").unwrap_or_default(),
        mailbox,
        what: record.object_id.unwrap_or_default().chars().take(WHAT_CHARACTERS_MAX).collect(),
        records: 1,
        items: record.item_count.unwrap_or(1),
        marks,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str, time: &str, operation: &str) -> Record {
        Record {
            id: id.into(),
            event_time: time.parse().unwrap(),
            user_id: Some("a@contoso.example".into()),
            mailbox_owner: Some("a@contoso.example".into()),
            client_ip: Some("203.0.113.7".into()),
            session_id: None,
            operation: Some(operation.into()),
            outcome: Some("success".into()),
            item_count: Some(3),
            object_id: None,
        }
    }

    #[test]
    fn what_repeats_is_one_line_and_marked_records_stand_apart() {
        let records = vec![
            record("1", "2026-11-22T10:00:00Z", "Send"),
            record("2", "2026-11-22T10:05:00Z", "New-InboxRule"),
            record("3", "2026-11-22T10:10:00Z", "Send"),
            record("4", "2026-11-22T10:20:00Z", "Send"),
            record("5", "2026-11-22T11:00:00Z", "Send"),
        ];
        let marks = HashMap::from([("4".to_owned(), vec![1])]);
        let lines: Vec<_> =
            fold(records, &marks).into_iter().map(|e| (e.operation, e.records, e.items, e.marks)).collect();
        assert_eq!(
            lines,
            [
                ("Send".to_owned(), 2, 6, vec![]),
                ("New-InboxRule".to_owned(), 1, 3, vec![]),
                ("Send".to_owned(), 1, 3, vec![1]),
                ("Send".to_owned(), 1, 3, vec![]),
            ]
        );
    }
}
