//! The questions, and how long harrier takes to answer them.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use archive::sql::Sql;
use archive::store::{Reads, Store};
use rustix::fs::{Advice, fadvise};
use serde_json::Value;

use super::Told;

/// A question in the words of each engine.
pub struct Question {
    pub name: &'static str,
    harrier: String,
    pub duckdb: String,
    /// Over a column `json` of whole records, whose text is searched.
    pub json: String,
}

/// The same questions of values that the archive has.
pub async fn questions(folder: &Path) -> anyhow::Result<Vec<Question>> {
    let sql = Sql::over(Store::folder(&folder.join("archive"))?);
    let first = |text: &'static str| value(&sql, text);
    // One of the middle: neither the first nor the last of its kind.
    let user =
        first("SELECT max(user_id) AS v FROM (SELECT user_id FROM events WHERE operation = 'UserLoggedIn' LIMIT 100)")
            .await?;
    let address = first("SELECT client_ip AS v FROM events WHERE client_ip IS NOT NULL GROUP BY client_ip ORDER BY count(*), client_ip LIMIT 1").await?;
    let session = first("SELECT max(session_id) AS v FROM events WHERE day = DATE '2026-07-14'").await?;
    let message = first("SELECT max(internet_message_id) AS v FROM mail_items WHERE day = DATE '2026-07-14'").await?;
    let events = "SELECT event_time, operation, client_ip, raw FROM events WHERE";
    let search = |text: &str| format!("SELECT json FROM records WHERE contains(json, '{text}')");
    let same = |name, text: String, json| Question { name, harrier: text.clone(), duckdb: text, json };
    let paths = "SELECT $ AS program, count(*) AS n FROM events WHERE operation = 'Send' GROUP BY 1 ORDER BY 1";
    Ok(vec![
        same(
            "one user over 90 days",
            format!("{events} user_id = '{user}' ORDER BY event_time"),
            search(&format!("\"UserId\":\"{user}\"")),
        ),
        same("one address", format!("{events} client_ip = '{address}'"), search(&address)),
        same("one session", format!("{events} session_id = '{session}'"), search(&session)),
        same(
            "one message id",
            format!(
                "SELECT event_time, access, user_id, mailbox_owner FROM mail_items WHERE internet_message_id = '{message}'"
            ),
            search(&message),
        ),
        same(
            "one operation by day",
            "SELECT day, count(*) AS n FROM events WHERE operation = 'FileDownloaded' GROUP BY day ORDER BY day"
                .to_owned(),
            "SELECT substr(json_extract_string(json, '$.CreationTime'), 1, 10) AS day, count(*) FROM records \
             WHERE json_extract_string(json, '$.Operation') = 'FileDownloaded' GROUP BY 1 ORDER BY 1"
                .to_owned(),
        ),
        Question {
            name: "a JSON path",
            harrier: paths.replace('$', "field(raw, 'ClientInfoString')"),
            duckdb: paths.replace('$', "json_extract_string(raw, '$.ClientInfoString')"),
            json: "SELECT json_extract_string(json, '$.ClientInfoString') AS program, count(*) FROM records \
                   WHERE json_extract_string(json, '$.Operation') = 'Send' GROUP BY 1 ORDER BY 1"
                .to_owned(),
        },
        // By session, because no message that is made up is both read and sent; a week, so that it is the question of a hunt
        // and not of a report.
        same(
            "mail read in a session, then mail sent from it",
            "SELECT sent.user_id, count(DISTINCT seen.internet_message_id) AS n FROM mail_items sent \
             JOIN mail_items seen ON seen.session_id = sent.session_id AND seen.event_time <= sent.event_time \
             WHERE sent.day BETWEEN DATE '2026-07-06' AND DATE '2026-07-12' AND sent.access = 'send' \
             AND seen.day BETWEEN DATE '2026-07-06' AND DATE '2026-07-12' AND seen.access <> 'send' \
             GROUP BY sent.user_id ORDER BY sent.user_id"
                .to_owned(),
            String::new(),
        ),
    ])
}

async fn value(sql: &Sql, text: &str) -> anyhow::Result<String> {
    let lines = sql.query_ndjson(text, &[]).await?;
    let row: Value = serde_json::from_slice(lines.split(|&byte| byte == b'\n').next().unwrap_or_default())?;
    Ok(row["v"].as_str().context("the archive has no value to ask for")?.to_owned())
}

/// Asks cold, then so many times warm, and once more for what is touched.
pub async fn ask(
    folder: &Path,
    files: &BTreeMap<&'static str, Vec<PathBuf>>,
    question: &Question,
    rounds: u32,
) -> anyhow::Result<Told> {
    files.values().flatten().try_for_each(|file| dropped(file))?;
    let mut told = Told::default();
    let started = Instant::now();
    let (store, counts) = Store::folder(&folder.join("archive"))?.counted();
    let sql = Sql::over(store);
    told.rows = rows(&sql, &question.harrier).await?;
    told.cold_ms = started.elapsed().as_secs_f64() * 1e3;
    let cold = counts.take();
    told.warm_ms = f64::INFINITY;
    for _ in 0..rounds {
        counts.take();
        let started = Instant::now();
        rows(&sql, &question.harrier).await?;
        told.warm_ms = told.warm_ms.min(started.elapsed().as_secs_f64() * 1e3);
    }
    told.touched = Some(format!("{}, then {}", touched(&cold), touched(&counts.take())));
    Ok(told)
}

async fn rows(sql: &Sql, text: &str) -> anyhow::Result<u64> {
    Ok(sql.collect(text).await?.iter().map(|batch| batch.num_rows() as u64).sum())
}

/// Takes a file out of the page cache.
fn dropped(file: &Path) -> anyhow::Result<()> {
    Ok(fadvise(File::open(file)?, 0, None, Advice::DontNeed)?)
}

/// What was read of data files and of the tables' logs.
fn touched(reads: &Reads) -> String {
    let megabytes = reads.file_bytes as f64 / 1e6;
    format!("{} files {megabytes:.2} MB {}+{} reads", reads.files.len(), reads.file_reads, reads.log_reads)
}
