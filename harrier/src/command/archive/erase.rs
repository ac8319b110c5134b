//! `harrier archive erase`: a person's data goes, under a signature, and what is left of it elsewhere is said.

use std::io::Write;

use archive::erasure::{Decision, Eraser, Share, Subject};
use archive::retention::Hold;
use archive::sql::Sql;
use chrono::Utc;
use runtime::config::Config;
use runtime::log::{Consumer, Topic};
use schemas::text::escape_controls;

use crate::cli::Erase;
use crate::exit::Outcome;
use crate::services;
use crate::show::grouped;

pub async fn run(config: &Config, options: &Erase) -> anyhow::Result<Outcome> {
    let Erase { tenant, users, mailboxes, from, until, .. } = options;
    let subject = Subject::new(tenant.clone(), users, mailboxes, *from, *until);
    let decision = decision(options, &subject)?;
    refuse_held(config, &subject)?;
    let holds = config.archive.holds.iter();
    let holds = holds.map(|hold| Hold { tenant: hold.tenant.clone(), from: hold.from, until: hold.until });
    let store = crate::store::to_read(config).await?.signed_by(services::signer(config)?);
    let eraser = Eraser::new(store.clone(), holds.collect());
    let sql = Sql::over(store);
    let findings = findings(&sql, &subject).await?;
    let mut out = std::io::stdout();
    if !options.yes {
        let shares = eraser.look(&subject).await?;
        print_shares(&mut out, &shares)?;
        findings.iter().try_for_each(|line| writeln!(out, "  {line}"))?;
        writeln!(out, "nothing was erased: --yes does it, and it cannot be undone")?;
        return Ok(Outcome::Done);
    }
    // Before: what comes into the archive meanwhile may have been looked for already.
    let unread = unread(config).await?;
    let gone = eraser.erase(&subject, &decision, Utc::now()).await?;
    print_shares(&mut out, &gone)?;
    let rows: u64 = gone.iter().map(|share| share.rows).sum();
    if options.now {
        let files = eraser.purge(tenant).await?;
        writeln!(out, "{} rows were erased, and {} replaced files deleted", grouped(rows), grouped(files))?;
    } else {
        writeln!(
            out,
            "{} rows were erased; the files that held them are deleted a day later by `harrier run`",
            grouped(rows)
        )?;
    }
    left(&mut out, config, (named_elsewhere(&sql, &subject).await?, unread), options.now)?;
    Ok(Outcome::Done)
}

/// What is signed must not say whom it is about.
fn decision(options: &Erase, subject: &Subject) -> anyhow::Result<Decision> {
    let named = |text: &str| subject.is_named_in(text);
    anyhow::ensure!(
        subject.names().all(|name| !name.is_empty()),
        "--user and --mailbox need a name: an empty one would be everybody without one"
    );
    anyhow::ensure!(
        !options.reason.trim().is_empty() && !options.by.trim().is_empty(),
        "--reason and --by must say something"
    );
    anyhow::ensure!(!named(&options.reason), "--reason stays for ever: it must not name the person");
    anyhow::ensure!(!named(&options.by), "--by stays for ever: it must not name the person");
    if let (Some(from), Some(until)) = (options.from, options.until) {
        anyhow::ensure!(from <= until, "--from is later than --until");
    }
    Ok(Decision { reason: options.reason.trim().to_owned(), by: options.by.trim().to_owned() })
}

fn refuse_held(config: &Config, subject: &Subject) -> anyhow::Result<()> {
    for held in &config.archive.holds {
        let hold = Hold { tenant: held.tenant.clone(), from: held.from, until: held.until };
        if subject.held_by(std::slice::from_ref(&hold)).is_some() {
            anyhow::bail!(
                "tenant {} is under a hold from {} until {} ({}): nothing of these days is erased; --from and --until can leave them out",
                held.tenant,
                held.from,
                held.until,
                escape_controls(&held.reason)
            );
        }
    }
    Ok(())
}

fn print_shares(out: &mut impl Write, shares: &[Share]) -> std::io::Result<()> {
    writeln!(out, "{:<18}  {:>10}  {:>8}", "table", "rows", "files")?;
    for share in shares {
        writeln!(out, "{:<18}  {:>10}  {:>8}", share.table, grouped(share.rows), grouped(share.files))?;
    }
    Ok(())
}

/// The findings that would go, a line each: they may be what somebody still works on.
async fn findings(sql: &Sql, subject: &Subject) -> anyhow::Result<Vec<String>> {
    let query =
        "SELECT id, level, status, title, finding FROM findings WHERE tenant = $tenant ORDER BY first_event, id";
    let mut lines = Vec::new();
    for row in rows(sql, query, &[("tenant", subject.tenant.as_str())]).await? {
        let text = |name: &str| row.get(name).and_then(serde_json::Value::as_str).unwrap_or_default();
        if subject.is_named_in(text("finding")) {
            let (id, level, status, title) =
                (text("id"), text("level"), text("status"), escape_controls(text("title")));
            lines.push(format!("finding {id} ({level}, {status}): {title}"));
        }
    }
    Ok(lines)
}

/// How many records of others name one of these: they stay.
async fn named_elsewhere(sql: &Sql, subject: &Subject) -> anyhow::Result<u64> {
    let query = "SELECT count(*) AS n FROM events WHERE tenant = $tenant AND strpos(lower(raw), $name) > 0";
    let mut count = 0;
    for name in subject.names() {
        let found = rows(sql, query, &[("tenant", subject.tenant.as_str()), ("name", name)]).await?;
        count += found.first().and_then(|row| row.get("n")?.as_u64()).unwrap_or(0);
    }
    Ok(count)
}

/// What the log has and the archive has not read yet.
async fn unread(config: &Config) -> anyhow::Result<u64> {
    if !services::has_log(config) {
        return Ok(0);
    }
    let log = services::open_log(config)?;
    let mut unread = 0;
    for topic in Topic::ALL.into_iter().filter(|topic| Consumer::of(*topic).contains(&Consumer::Archive)) {
        for partition in 0..log.partitions() {
            let end = log.end(topic, partition).await?;
            unread += end.saturating_sub(log.committed(Consumer::Archive, topic, partition).await?);
        }
    }
    Ok(unread)
}

async fn rows(
    sql: &Sql,
    query: &str,
    parameters: &[(&str, &str)],
) -> anyhow::Result<Vec<serde_json::Map<String, serde_json::Value>>> {
    let bytes = sql.query_ndjson(query, parameters).await?;
    let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.map(serde_json::from_slice).collect::<Result<_, _>>()?)
}

/// What still holds the data: erasing is not done where somebody believes that it is.
fn left(out: &mut impl Write, config: &Config, (named, unread): (u64, u64), is_now: bool) -> std::io::Result<()> {
    let days = config.log.keep.as_secs().div_ceil(86_400);
    writeln!(out, "What still holds some of it:")?;
    if unread > 0 {
        let unread = grouped(unread);
        writeln!(
            out,
            "- {unread} messages that the archive had not read when this began, which may be of the person and come in \
             after: ask again once it has, in a minute or two where `harrier run` runs"
        )?;
    }
    if named > 0 {
        writeln!(out, "- {} records of others, which name the person and stay", grouped(named))?;
    }
    writeln!(out, "- the log: records and findings up to {days} days after all have read them ([log] keep)")?;
    if !is_now {
        writeln!(out, "- the replaced files, for a day, or until the same command is run again with --now")?;
    }
    writeln!(
        out,
        "- the log's state: windows and baselines have users and addresses as keys, and a late record may bring a finding back"
    )?;
    writeln!(
        out,
        "- admission: a hash of each record's id and content, by which one that comes again is known and stays away"
    )?;
    writeln!(out, "- whatever was delivered to sinks, watch lists, backups, and versions that a bucket keeps")
}
