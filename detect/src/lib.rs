//! From records to findings: the rule language, the matcher, windows and baselines, and the two services that run them.
//!
//! Everything but [`service`] is pure: no clock, no I/O. Findings are a function of the *set* of records, so any order
//! of arrival, any batching and any restart give the same ones.

pub mod admit;
pub mod backtest;
pub mod correlate;
mod decimal;
pub mod explain;
mod index;
pub mod matcher;
pub mod offline;
pub mod places;
pub mod rule;
pub mod rule_test;
pub mod service;
pub mod sight;

use schemas::json::key_hash;
use schemas::tenant::Tenant;

/// Names what was told of one shard, whatever the rule meant when it was: a finding goes on when its rule changes.
fn told_key(tenant: &Tenant, rule: &rule::Rule, shard: &str) -> u128 {
    key_hash(&[tenant.as_str(), &rule.id, "told", shard])
}

/// Names one shard of state. State belongs to a rule's meaning: when that changes, it begins anew.
fn shard_key(tenant: &Tenant, rule: &rule::Rule, shard: &str) -> u128 {
    key_hash(&[tenant.as_str(), &rule.id, &rule.version, shard])
}
