//! What happened around a user, an address, a session, a finding or an incident, in order.
//!
//! Records that repeat (a hundred messages sent, a thousand opened) are one line with a count; what a finding rests on
//! is marked. The window is said, and so is what it rests on.

mod fold;
mod print;

use std::collections::HashMap;

use archive::sql::Sql;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::coverage;
use crate::error::Error;
use crate::rows;

pub use print::print;

/// How much is shown before and after what the findings rest on, where no window is given.
const AROUND: TimeDelta = TimeDelta::hours(24);

/// Most records of one timeline. The earliest are shown; the rest is counted and said.
const RECORDS_MAX: usize = 200_000;

/// What to show.
#[derive(Clone, Debug)]
pub struct Question {
    /// A user, mailbox, address, session id, application id, finding id or incident id.
    pub value: String,
    pub since: Option<DateTime<Utc>>,
    pub until: Option<DateTime<Utc>>,
}

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct Timeline {
    pub value: String,
    /// The time shown; `None` where there is no record at all.
    pub window: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// Why this window.
    pub window_reason: &'static str,
    pub entries: Vec<Entry>,
    pub records: usize,
    /// Whether there were more records than are shown.
    pub cut: bool,
    /// Findings that the entries are marked with.
    pub findings: Vec<Mark>,
    pub coverage: Vec<String>,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Entry {
    pub first: DateTime<Utc>,
    pub last: DateTime<Utc>,
    pub actor: String,
    pub from: String,
    pub session: String,
    pub operation: String,
    pub outcome: String,
    pub mailbox: String,
    pub what: String,
    pub records: usize,
    pub items: i64,
    /// Numbers of [`Timeline::findings`], from 1.
    pub marks: Vec<usize>,
}

/// A finding that marks entries.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Mark {
    pub id: String,
    pub title: String,
    pub level: String,
    pub reason: String,
    pub incident_id: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Record {
    id: String,
    event_time: DateTime<Utc>,
    #[serde(default)]
    user_id: Option<String>,
    #[serde(default)]
    mailbox_owner: Option<String>,
    #[serde(default)]
    client_ip: Option<String>,
    #[serde(default)]
    session_id: Option<String>,
    #[serde(default)]
    operation: Option<String>,
    #[serde(default)]
    outcome: Option<String>,
    #[serde(default)]
    item_count: Option<i64>,
    #[serde(default)]
    object_id: Option<String>,
}

#[derive(Deserialize)]
struct Evidence {
    event_id: String,
    id: String,
    title: String,
    level: String,
    reason: String,
    #[serde(default)]
    incident_id: Option<String>,
}

#[derive(Deserialize)]
struct Span {
    first: Option<DateTime<Utc>>,
    last: Option<DateTime<Utc>>,
}

/// Which records belong to the value: by the columns a person would name, or through a finding's evidence.
const BELONGS: &str = "(user_id = $value OR mailbox_owner = $value OR client_ip = $value OR session_id = $value OR app_id = $value \
    OR id IN (SELECT e.event_id FROM evidence e JOIN findings f ON f.id = e.finding_id AND f.tenant = e.tenant \
              WHERE f.status IN ('open', 'final') AND (f.id = $value OR f.incident_id = $value)))";

/// The type of `event_time`. SQL's own TIMESTAMP counts nanoseconds and ends in 2262, before the far future.
const TIME: &str = "Timestamp(Microsecond, Some(\"UTC\"))";

/// Asks the archive.
pub async fn timeline(sql: &Sql, question: &Question) -> Result<Timeline, Error> {
    let value = question.value.trim().to_lowercase();
    let (from, to, window_reason) = window(sql, question, &value).await?;
    let mut timeline = Timeline {
        value: value.clone(),
        window: None,
        window_reason,
        entries: Vec::new(),
        records: 0,
        cut: false,
        findings: Vec::new(),
        coverage: coverage::statement(sql, from, to).await?,
    };
    let (from_text, to_text) = (from.to_rfc3339(), to.to_rfc3339());
    let parameters = [("value", value.as_str()), ("from", &from_text), ("to", &to_text)];
    let text = format!(
        "SELECT id, event_time, user_id, mailbox_owner, client_ip, session_id, operation, outcome, item_count, object_id \
         FROM events WHERE event_time >= arrow_cast($from, '{TIME}') AND event_time <= arrow_cast($to, '{TIME}') AND {BELONGS} \
         ORDER BY event_time, id LIMIT {}",
        RECORDS_MAX + 1
    );
    let mut records: Vec<Record> = rows::query(sql, &text, &parameters).await?;
    timeline.cut = records.len() > RECORDS_MAX;
    records.truncate(RECORDS_MAX);
    timeline.records = records.len();
    if let (Some(first), Some(last)) = (records.first(), records.last()) {
        timeline.window = Some((first.event_time, last.event_time));
    }
    let marks = marks(sql, &mut timeline.findings).await?;
    timeline.entries = fold::fold(records, &marks);
    keep_used(&mut timeline);
    Ok(timeline)
}

/// The window asked for; else the time around the findings of this value; else everything.
async fn window(
    sql: &Sql,
    question: &Question,
    value: &str,
) -> Result<(DateTime<Utc>, DateTime<Utc>, &'static str), Error> {
    if question.since.is_some() || question.until.is_some() {
        let from = question.since.unwrap_or(DateTime::UNIX_EPOCH);
        return Ok((from, question.until.unwrap_or(far_future()), "as asked"));
    }
    let text = format!(
        "SELECT min(v.event_time) AS first, max(v.event_time) AS last FROM events v \
         JOIN evidence n ON n.event_id = v.id AND n.tenant = v.tenant \
         JOIN findings g ON g.id = n.finding_id AND g.tenant = n.tenant \
         WHERE g.status IN ('open', 'final') AND g.level IN ('medium', 'high', 'critical') AND {}",
        BELONGS.replace("(user_id", "(v.user_id").replace("OR id IN", "OR v.id IN")
    );
    let spans: Vec<Span> = rows::query(sql, &text, &[("value", value)]).await?;
    Ok(match spans.first() {
        Some(Span { first: Some(first), last: Some(last) }) => {
            (*first - AROUND, *last + AROUND, "24 hours around the findings; --since and --until show more")
        }
        _ => (DateTime::UNIX_EPOCH, far_future(), "all that is archived: no finding names it"),
    })
}

fn far_future() -> DateTime<Utc> {
    DateTime::from_timestamp(253_402_300_799, 0).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// Which findings each record is evidence of.
async fn marks(sql: &Sql, findings: &mut Vec<Mark>) -> Result<HashMap<String, Vec<usize>>, Error> {
    let text = "SELECT e.event_id, f.id, f.title, f.level, f.reason, f.incident_id \
                FROM evidence e JOIN findings f ON f.id = e.finding_id AND f.tenant = e.tenant \
                WHERE f.status IN ('open', 'final') ORDER BY f.first_event, f.id";
    let rows: Vec<Evidence> = rows::query(sql, text, &[]).await?;
    let mut numbers: HashMap<String, usize> = HashMap::new();
    let mut marks: HashMap<String, Vec<usize>> = HashMap::new();
    for row in rows {
        let number = *numbers.entry(row.id.clone()).or_insert_with(|| {
            let incident_id = row.incident_id.clone().unwrap_or_default();
            findings.push(Mark { id: row.id, title: row.title, level: row.level, reason: row.reason, incident_id });
            findings.len()
        });
        marks.entry(row.event_id).or_default().push(number);
    }
    Ok(marks)
}

/// Drops the findings that mark nothing here, and numbers the rest anew.
fn keep_used(timeline: &mut Timeline) {
    let mut renumbered: HashMap<usize, usize> = HashMap::new();
    let mut kept = Vec::new();
    for entry in &mut timeline.entries {
        for mark in &mut entry.marks {
            *mark = *renumbered.entry(*mark).or_insert_with(|| {
                kept.push(timeline.findings[*mark - 1].clone());
                kept.len()
            });
        }
    }
    timeline.findings = kept;
}
