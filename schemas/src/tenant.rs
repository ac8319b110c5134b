//! The name an operator gives a tenant. It becomes a folder, a label and part of keys, so its alphabet is closed:
//! lower-case letters, digits and hyphens, at most 63, beginning with a letter or a digit.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest tenant name: one DNS label, so that it fits everywhere a name may have to go.
pub const NAME_LENGTH_MAX: usize = 63;

/// A validated tenant name. It stands in every record, so a copy costs no memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Tenant(Arc<str>);

impl Tenant {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a tenant name. The operator's mistake; retrying does not help.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a tenant name has 1 to 63 characters a-z, 0-9 and '-', and begins with a letter or a digit")]
pub struct InvalidTenant;

impl FromStr for Tenant {
    type Err = InvalidTenant;

    fn from_str(text: &str) -> Result<Self, InvalidTenant> {
        let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let valid = (1..=NAME_LENGTH_MAX).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('-');
        if valid { Ok(Tenant(text.into())) } else { Err(InvalidTenant) }
    }
}

impl TryFrom<String> for Tenant {
    type Error = InvalidTenant;

    fn try_from(text: String) -> Result<Self, InvalidTenant> {
        text.parse()
    }
}

impl From<Tenant> for String {
    fn from(tenant: Tenant) -> String {
        tenant.0.as_ref().to_owned()
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        for text in ["", "-a", "A", "a/b", "..", "a b", "a.b", "é", &"a".repeat(64)] {
            assert_eq!(text.parse::<Tenant>(), Err(InvalidTenant), "{text:?}");
        }
        for text in ["t1", "contoso", "0-9", &"a".repeat(63)] {
            assert_eq!(text.parse::<Tenant>().unwrap().as_str(), text);
        }
    }
}
