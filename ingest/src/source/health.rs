//! What keeps sources from being polled, for readiness and for people. Empty is well.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use schemas::tenant::Tenant;

/// The problems of all sources of a process: by tenant and feed, the feed empty where it is the whole tenant.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<(Tenant, String), String>>>);

impl Health {
    /// One line for each problem; empty if there is none. Safe to print.
    pub fn problems(&self) -> Vec<String> {
        let problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let line = |((tenant, feed), reason): (&(Tenant, String), &String)| match feed.as_str() {
            "" => format!("{tenant}: {reason}"),
            feed => format!("{tenant} {feed}: {reason}"),
        };
        problems.iter().map(line).collect()
    }

    /// Whether nothing needs anybody's attention.
    pub fn is_well(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Replaces what was known of a tenant.
    pub(crate) fn set<'a>(&self, tenant: &Tenant, now: impl Iterator<Item = (Option<&'a str>, &'a str)>) {
        let mut problems = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        problems.retain(|(of, _), _| of != tenant);
        problems.extend(now.map(|(feed, reason)| ((tenant.clone(), feed.unwrap_or("").to_owned()), reason.to_owned())));
    }
}
