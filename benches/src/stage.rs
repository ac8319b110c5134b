//! Single stages, so that a profile can be taken of each.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use archive::Store;
use archive::archiver::{Archiver, Settings};
use detect::matcher::Matcher;
use detect::rule::{RuleSet, Source, Tuning};
use runtime::clock::Clock;
use runtime::log::embedded::Embedded;
use runtime::log::{Log, Output, To, Topic, Txn};
use runtime::metrics::Metrics;
use runtime::shutdown;
use schemas::Event;
use schemas::envelope::{Envelope, Received};
use schemas::message::Verdicts;
use schemas::tenant::Tenant;

use crate::record::imported;

/// Records of one step, as the services commit them.
const STEP_RECORDS: usize = 2_000;

fn lines(file: &Path) -> anyhow::Result<impl Iterator<Item = std::io::Result<Vec<u8>>>> {
    Ok(std::io::BufReader::new(std::fs::File::open(file)?).split(b'\n'))
}

/// Reading and judging on one thread: records are in memory before the clock starts.
pub fn matching(rounds: u32, records: usize, file: &Path) -> anyhow::Result<()> {
    let tenant: Tenant = "t1".parse()?;
    let loaded: Vec<Received> =
        lines(file)?.take(records).map(|line| Ok(imported(&tenant, line?))).collect::<std::io::Result<_>>()?;
    let sources = rules::pack().iter().map(|(file, text)| Source { file: (*file).into(), text: (*text).into() });
    let rules = RuleSet::load(sources.collect(), &Tuning::default()).map_err(|errors| anyhow::anyhow!("{errors}"))?;
    let count = rules.rules().len();
    let matcher = Matcher::new(rules, BTreeMap::from([(tenant, vec!["contoso.example".to_owned()])]));
    for round in 1..=rounds {
        let started = Instant::now();
        let events: Vec<Event> = loaded.iter().map(Event::read).collect::<Result<_, _>>()?;
        let read = started.elapsed();
        let mut found = Vec::new();
        for event in &events {
            matcher.matches(event, &mut found);
        }
        let judged = started.elapsed() - read;
        let rate = |elapsed: std::time::Duration| loaded.len() as f64 / elapsed.as_secs_f64();
        println!(
            "match round {round}: {} records, {count} rules, {} messages: read {:.0} records/s, judge {:.0} records/s, both {:.0} records/s",
            loaded.len(),
            found.len(),
            rate(read),
            rate(judged),
            rate(read + judged)
        );
    }
    Ok(())
}

/// From a filled log to committed Parquet.
pub fn archiving(rounds: u32, file: &Path) -> anyhow::Result<()> {
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    for round in 1..=rounds {
        let folder = tempfile::tempdir()?;
        std::fs::create_dir(folder.path().join("archive"))?;
        let log: Arc<dyn Log> = Arc::new(Embedded::open(&folder.path().join("log.sqlite"), 4)?);
        let records = executor.block_on(fill(&*log, file))?;
        let store = Store::folder(&folder.path().join("archive"))?;
        let archiver = Archiver::new(log, store, Clock::system(), Settings::default(), Metrics::new("bench"));
        let (trigger, shutdown) = shutdown::channel();
        trigger.stop();
        let started = Instant::now();
        executor.block_on(archiver.run(shutdown))?;
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "archive round {round}: {records} records in {seconds:.1} s = {:.0} records/s",
            records as f64 / seconds
        );
    }
    Ok(())
}

/// Puts every line into the log as an admitted record. Returns how many.
async fn fill(log: &dyn Log, file: &Path) -> anyhow::Result<u64> {
    let tenant: Tenant = "t1".parse()?;
    let mut next = vec![0; log.partitions() as usize];
    let (mut step, mut records, mut partition) = (Vec::new(), 0, 0);
    let mut lines = lines(file)?.peekable();
    while let Some(line) = lines.next() {
        let value = Envelope::Record(imported(&tenant, line?)).encode();
        step.push(Output { topic: Topic::Records, to: To::Partition(partition), value });
        records += 1;
        if step.len() == STEP_RECORDS || lines.peek().is_none() {
            let verdicts =
                Verdicts { partition, from: next[partition as usize], codes: "a".repeat(step.len()), gaps: Vec::new() };
            next[partition as usize] += step.len() as u64;
            let value = serde_json::to_vec(&verdicts)?;
            step.push(Output { topic: Topic::Verdicts, to: To::Partition(partition), value });
            log.commit(Txn { outputs: std::mem::take(&mut step), ..Txn::default() }).await?;
            partition = (partition + 1) % log.partitions();
        }
    }
    Ok(records)
}
