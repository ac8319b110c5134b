//! Records from a file, for those who ask something of rules.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use ingest::splitter::{Body, Framing, Splitter};
use runtime::config::Config;
use schemas::envelope::{Origin, Received};
use schemas::tenant::Tenant;

/// Largest file of records: it is read as a whole.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Whose records they are: of the only tenant there is, or of one of no name of its own. And what is inside: `domains`, if
/// there are any, or the tenant's.
pub fn tenant(config: &Config, domains: &[String]) -> anyhow::Result<(Tenant, Vec<String>)> {
    let (tenant, configured) = match config.tenants.as_slice() {
        [tenant] => (tenant.name.clone(), tenant.domains.clone()),
        _ => ("tenant".parse().context("the name of a tenant")?, Vec::new()),
    };
    Ok((tenant, if domains.is_empty() { configured } else { domains.to_vec() }))
}

/// One record, several, lines of them, or an array.
pub fn read(file: &Path, tenant: &Tenant, records_max: usize) -> anyhow::Result<Vec<Received>> {
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
            Body::Whole(bytes) if count <= records_max => {
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
        count <= records_max,
        "{count} records, and at most {records_max} are taken at once: take those in question"
    );
    if records.is_empty() {
        bail!("there is no record in it");
    }
    Ok(records)
}
