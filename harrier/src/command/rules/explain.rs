//! `harrier rules explain`: why a rule finds something in some records, or does not.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use detect::explain::{RECORDS_MAX, explain};
use detect::matcher::Matcher;
use detect::rule::RuleSet;
use ingest::splitter::{Body, Framing, Splitter};
use runtime::config::Config;
use schemas::envelope::{Origin, Received};
use schemas::tenant::Tenant;
use schemas::text::escape_controls;

use crate::exit::Outcome;

/// Largest file of records: one story, read as a whole.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

pub fn run(config: &Config, rules: RuleSet, name: &str, file: &Path, domains: &[String]) -> anyhow::Result<Outcome> {
    let rule = super::named(&rules, name)?;
    // The only tenant there is, or one of no name of its own: rules see what is inside by its domains.
    let own = match config.tenants.as_slice() {
        [tenant] => Some((tenant.name.clone(), tenant.domains.clone())),
        _ => None,
    };
    let (tenant, configured) = match own {
        Some(own) => own,
        None => ("tenant".parse().context("the name of a tenant")?, Vec::new()),
    };
    let domains = if domains.is_empty() { configured } else { domains.to_vec() };
    let matcher = Matcher::new(rules, BTreeMap::from([(tenant.clone(), domains)]));
    let place = escape_controls(&file.display().to_string());
    let records = read(file, &tenant).with_context(|| place.clone())?;
    let page = explain(&matcher, &rule, &records).with_context(|| format!("{place}: a record cannot be read"))?;
    write!(std::io::stdout().lock(), "{page}")?;
    Ok(Outcome::Done)
}

/// One record, several, lines of them, or an array.
fn read(file: &Path, tenant: &Tenant) -> anyhow::Result<Vec<Received>> {
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    ensure!(
        bytes.len() as u64 <= FILE_BYTES_MAX,
        "larger than {} MiB: take the records in question",
        FILE_BYTES_MAX >> 20
    );
    let mut splitter = Splitter::new(Framing::Document);
    let (mut records, mut count, mut too_long) = (Vec::new(), 0, false);
    let mut take = |element: ingest::splitter::Element<'_>| {
        count += 1;
        match element.body {
            Body::Whole(bytes) if count <= RECORDS_MAX => {
                let origin = Origin {
                    tenant: tenant.clone(),
                    source: "file".into(),
                    content_type: String::new(),
                    blob_id: String::new(),
                    received: chrono::DateTime::UNIX_EPOCH,
                    notify: false,
                };
                records.push(Received { origin, bytes: bytes.to_vec() });
            }
            Body::Whole(_) => {}
            Body::TooLong(_) => too_long = true,
        }
    };
    splitter.push(&bytes, &mut take);
    splitter.finish(&mut take)?;
    ensure!(!too_long, "a record is longer than {} MiB", ingest::splitter::ELEMENT_BYTES_MAX >> 20);
    ensure!(
        count <= RECORDS_MAX,
        "{count} records, and at most {RECORDS_MAX} are explained at once: take those in question"
    );
    if records.is_empty() {
        bail!("there is no record in it");
    }
    Ok(records)
}
