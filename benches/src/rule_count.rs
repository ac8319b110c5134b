//! What a record costs on one thread, from received bytes to matches, by the number of rules.
//!
//! The rules are made, in the shape that rules for Microsoft 365 have: an operation, of which a tenant has some twenty
//! that are frequent, and a value that is rare. The records are generated ones. Time is the thread's own, so that other
//! work on the machine disturbs little. `--write` leaves the rules in files for another engine.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use detect::matcher::Matcher;
use detect::rule::{RuleSet, Source, Tuning};
use schemas::Event;
use schemas::envelope::Received;
use schemas::tenant::Tenant;

use crate::process::thread_cpu_seconds;
use crate::record::imported;

/// Operations that rules ask for, the frequent ones first.
const OPERATIONS: &[&str] = &[
    "MailItemsAccessed",
    "FileAccessed",
    "UserLoggedIn",
    "UserLoginFailed",
    "Send",
    "FileDownloaded",
    "FileModified",
    "New-InboxRule",
    "Set-Mailbox",
    "HardDelete",
    "MoveToDeletedItems",
    "SharingSet",
    "AnonymousLinkCreated",
    "Add member to role.",
    "Consent to application.",
    "MessageSent",
    "TeamsSessionStarted",
    "Set-InboxRule",
    "UpdateInboxRules",
    "Add service principal credentials.",
];

/// A file of rules has at most five hundred.
const RULES_A_FILE: usize = 500;

pub fn run(counts: &[u32], records: usize, write: Option<&Path>, file: &Path) -> anyhow::Result<()> {
    let tenant: Tenant = "t1".parse()?;
    let loaded: Vec<Received> = std::io::BufReader::new(std::fs::File::open(file)?)
        .split(b'\n')
        .take(records)
        .map(|line| Ok(imported(&tenant, line?)))
        .collect::<std::io::Result<_>>()?;
    let bytes: usize = loaded.iter().map(|received| received.bytes.len()).sum();
    let rate = |seconds: f64| format!("{:.0} records/s", loaded.len() as f64 / seconds);
    println!("{} records, {} bytes each", loaded.len(), bytes / loaded.len().max(1));
    let json = timed(|| {
        for received in &loaded {
            let value: serde_json::Value = serde_json::from_slice(&received.bytes)?;
            std::hint::black_box(&value);
        }
        Ok(())
    })?;
    println!("serde_json to a tree, nothing else: {}", rate(json));
    let read = timed(|| {
        for received in &loaded {
            std::hint::black_box(Event::read(received)?);
        }
        Ok(())
    })?;
    println!("Event::read, nothing else: {}", rate(read));
    for &count in counts {
        let rules: Vec<String> = (0..count).map(rule).collect();
        if let Some(folder) = write {
            std::fs::write(folder.join(format!("rules-{count}.yml")), rules.join("---\n"))?;
        }
        let began = Instant::now();
        let file = |rules: &[String]| Source { file: "rules.yml".into(), text: rules.join("---\n") };
        let sources = rules.chunks(RULES_A_FILE).map(file).collect();
        let set = RuleSet::load(sources, &Tuning::default()).map_err(|errors| anyhow::anyhow!("{errors}"))?;
        let matcher = Matcher::new(set, BTreeMap::new());
        let loading = began.elapsed().as_secs_f64();
        for round in 1..=3 {
            let mut found = Vec::new();
            let seconds = timed(|| {
                for received in &loaded {
                    matcher.matches(&Event::read(received)?, &mut found);
                }
                Ok(())
            })?;
            println!(
                "{count} rules, loaded in {loading:.1} s, round {round}: {}, {} matches",
                rate(seconds),
                found.len()
            );
        }
    }
    Ok(())
}

fn timed(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let before = thread_cpu_seconds().context("no /proc")?;
    work()?;
    Ok(thread_cpu_seconds().context("no /proc")? - before)
}

/// A number of its own in each, so that no two ask for the same.
fn rule(number: u32) -> String {
    let operation = OPERATIONS[number as usize % OPERATIONS.len()];
    let condition = match number / OPERATIONS.len() as u32 % 8 {
        0 => format!("UserId|startswith: 'alex.maple{number}@'"),
        1 => format!("ClientIP|cidr: '100.{}.{}.0/24'", 64 + number / 256 % 64, number % 256),
        2 => format!("ClientInfoString|contains: 'Tool/{number}.'"),
        3 => format!("AffectedItems.Subject|contains: ['invoice {number}', 'payment {number}']"),
        4 => format!("ObjectId|startswith: 'https://contoso-{number}.sharepoint.example/'"),
        5 => format!("AppId: '{number:08x}-0000-4000-8000-000000000000'"),
        6 => format!("UserAgent|re: '^bot-{number}/[0-9]+'"),
        _ => format!("SourceFileName|contains|all: ['secret', '{number}']"),
    };
    format!(
        "title: Made rule {number}\nid: {number:08x}-1111-4111-8111-111111111111\nlevel: low\n\
         logsource:\n  product: m365\ndetection:\n  selection:\n    Operation: '{operation}'\n    {condition}\n  \
         condition: selection\n"
    )
}
