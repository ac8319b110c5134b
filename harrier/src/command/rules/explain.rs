//! `harrier rules explain`: why a rule finds something in some records, or does not.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use detect::explain::{RECORDS_MAX, explain};
use detect::rule::RuleSet;
use runtime::config::Config;
use schemas::text::escape_controls;

use super::records;
use crate::exit::Outcome;
use crate::services;

pub fn run(config: &Config, rules: RuleSet, name: &str, file: &Path, domains: &[String]) -> anyhow::Result<Outcome> {
    let rule = super::named(&rules, name)?;
    let (tenant, domains) = records::tenant(config, domains)?;
    let matcher = services::matcher(config, rules, BTreeMap::from([(tenant.clone(), domains)]))?;
    let place = escape_controls(&file.display().to_string());
    let records = records::read(file, &tenant, RECORDS_MAX).with_context(|| place.clone())?;
    let page = explain(&matcher, &rule, &records).with_context(|| format!("{place}: a record cannot be read"))?;
    write!(std::io::stdout().lock(), "{page}")?;
    Ok(Outcome::Done)
}
