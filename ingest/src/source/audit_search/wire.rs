//! The shapes of the audit search. Pure.

use chrono::{SecondsFormat, TimeDelta};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use url::Url;

use super::plan::Window;

/// Where a search reaches its limit. Newer answers say so themselves; this is what others have measured.
pub const RECORDS_MAX: u64 = 1_000_000;

/// Records on one page: the most that others have been given.
const PAGE: &str = "1000";

/// Longest id of a search that is believed: it becomes part of addresses and rows.
const QUERY_ID_BYTES_MAX: usize = 256;

/// The collection of searches.
pub fn queries(graph: &Url) -> Url {
    under(graph, &["v1.0", "security", "auditLog", "queries"])
}

/// One search.
pub fn query(graph: &Url, id: &str) -> Url {
    under(graph, &["v1.0", "security", "auditLog", "queries", id])
}

/// The first page of what a search has found.
pub fn records(graph: &Url, id: &str) -> Url {
    let mut url = under(graph, &["v1.0", "security", "auditLog", "queries", id, "records"]);
    url.query_pairs_mut().append_pair("$top", PAGE);
    url
}

/// The next page, if it lies where the token may go.
pub fn next_page(graph: &Url, link: &str) -> Option<Url> {
    let url = Url::parse(link).ok()?;
    let is_ours = url.origin() == graph.origin() && url.username().is_empty() && url.password().is_none();
    is_ours.then_some(url)
}

fn under(root: &Url, path: &[&str]) -> Url {
    let mut url = root.clone();
    url.set_query(None);
    // Fails only for addresses that cannot have a path; endpoints are http or https.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    url
}

/// The body that begins a search. It reaches a second further on both sides: nobody says whether the ends belong to it,
/// and what comes twice is admitted once.
pub fn body(window: Window) -> Value {
    let stamp = |time: chrono::DateTime<chrono::Utc>| time.to_rfc3339_opts(SecondsFormat::Secs, true);
    json!({
        "@odata.type": "#microsoft.graph.security.auditLogQuery",
        "displayName": format!("harrier {}", window.id()),
        "filterStartDateTime": stamp(window.start - TimeDelta::seconds(1)),
        "filterEndDateTime": stamp(window.end + TimeDelta::seconds(1)),
    })
}

/// How a search stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub id: String,
    pub progress: Progress,
    /// It found more than it returns.
    pub is_cut_short: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Running,
    Succeeded,
    /// Or cancelled.
    Failed,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawStanding {
    id: String,
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    is_record_count_limit_exceeded: Option<bool>,
}

pub fn read_standing(body: &[u8]) -> Option<Standing> {
    let raw: RawStanding = serde_json::from_slice(body).ok()?;
    let is_plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if raw.id.is_empty() || raw.id.len() > QUERY_ID_BYTES_MAX || !raw.id.bytes().all(is_plain) {
        return None;
    }
    let progress = match raw.status.as_deref() {
        Some("succeeded") => Progress::Succeeded,
        Some("failed" | "cancelled") => Progress::Failed,
        // Also what is not known yet, and nothing at all.
        _ => Progress::Running,
    };
    let is_cut_short = raw.is_record_count_limit_exceeded == Some(true);
    Some(Standing { id: raw.id, progress, is_cut_short })
}

#[derive(Deserialize)]
struct RawPage<'a> {
    #[serde(borrow)]
    value: Vec<&'a RawValue>,
    #[serde(rename = "@odata.nextLink", default)]
    next: Option<String>,
}

/// A page: what stands for each record, and the address of the next page.
pub struct Page<'a> {
    pub entries: Vec<&'a str>,
    pub next: Option<String>,
}

pub fn read_page(body: &[u8]) -> Option<Page<'_>> {
    let raw: RawPage<'_> = serde_json::from_slice(body).ok()?;
    Some(Page { entries: raw.value.into_iter().map(RawValue::get).collect(), next: raw.next })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEntry<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    created_date_time: Option<String>,
    #[serde(borrow, default)]
    audit_data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Probe<'a> {
    #[serde(borrow, rename = "Id", default)]
    id: Option<&'a RawValue>,
    #[serde(borrow, rename = "CreationTime", default)]
    time: Option<&'a RawValue>,
}

/// The record in an entry: its bytes as they came, unless Graph has put something into it or left something out. None if
/// there is no record in it.
pub fn record(entry: &str) -> Option<String> {
    let raw: RawEntry<'_> = serde_json::from_str(entry).ok()?;
    let text = raw.audit_data?.get();
    let probe: Probe<'_> = serde_json::from_str(text).ok()?;
    if probe.id.is_some() && probe.time.is_some() && !text.contains("\"@odata") {
        return Some(text.to_owned());
    }
    let mut record: Value = serde_json::from_str(text).ok()?;
    without_annotations(&mut record);
    let object = record.as_object_mut()?;
    if let (false, Some(id)) = (object.contains_key("Id"), raw.id) {
        object.insert("Id".to_owned(), id.into());
    }
    if let (false, Some(time)) = (object.contains_key("CreationTime"), raw.created_date_time) {
        // Records carry no zone.
        object.insert("CreationTime".to_owned(), time.trim_end_matches('Z').into());
    }
    Some(record.to_string())
}

fn without_annotations(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|key, _| !key.starts_with("@odata") && !key.ends_with("@odata.type"));
            object.values_mut().for_each(without_annotations);
        }
        Value::Array(members) => members.iter_mut().for_each(without_annotations),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_what_the_feed_would_have_brought() {
        for (entry, expected) in [
            (
                r#"{"id":"1","auditData":{"Id":"1",  "CreationTime":"t","x":1.0}}"#,
                r#"{"Id":"1",  "CreationTime":"t","x":1.0}"#,
            ),
            (
                r##"{"id":"1","auditData":{"@odata.type":"#microsoft.graph.security.x","Id":"1","CreationTime":"t","a":[{"@odata.type":"y","b":1}],"c@odata.type":"z"}}"##,
                r#"{"Id":"1","CreationTime":"t","a":[{"b":1}]}"#,
            ),
            (
                r#"{"id":"1","createdDateTime":"2026-05-01T00:00:00Z","auditData":{"x":1}}"#,
                r#"{"x":1,"Id":"1","CreationTime":"2026-05-01T00:00:00"}"#,
            ),
        ] {
            assert_eq!(record(entry).as_deref(), Some(expected), "{entry}");
        }
        for entry in ["{}", "1", r#"{"auditData":null}"#, r#"{"auditData":"x"}"#, r#"{"auditData":[]}"#] {
            assert_eq!(record(entry), None, "{entry}");
        }
    }

    #[test]
    fn a_search_is_done_only_when_it_says_so() {
        let progress =
            |body: &str| read_standing(body.as_bytes()).map(|standing| (standing.progress, standing.is_cut_short));
        assert_eq!(progress(r#"{"id":"a","status":"succeeded"}"#), Some((Progress::Succeeded, false)));
        assert_eq!(
            progress(r#"{"id":"a","status":"succeeded","isRecordCountLimitExceeded":true}"#),
            Some((Progress::Succeeded, true))
        );
        assert_eq!(progress(r#"{"id":"a","status":"cancelled"}"#), Some((Progress::Failed, false)));
        for status in [r#""unknownFutureValue""#, r#""notStarted""#, "null"] {
            assert_eq!(progress(&format!(r#"{{"id":"a","status":{status}}}"#)), Some((Progress::Running, false)));
        }
        for body in ["", "[]", r#"{"status":"succeeded"}"#, r#"{"id":"../x"}"#, r#"{"id":""}"#] {
            assert_eq!(progress(body), None, "{body}");
        }
    }

    #[test]
    fn tokens_go_nowhere_else() {
        let graph: Url = "https://graph.microsoft.com".parse().unwrap();
        assert!(next_page(&graph, "https://graph.microsoft.com/v1.0/x?$skiptoken=1").is_some());
        for foreign in ["https://graph.microsoft.com.evil.example/x", "http://graph.microsoft.com/x", "/x", ""] {
            assert_eq!(next_page(&graph, foreign), None);
        }
    }
}
