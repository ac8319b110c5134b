//! What a token allows, as it says itself. Nothing is decided by it but what to tell: whether a request is allowed is
//! the API's to say, so the signature is not looked at.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use runtime::config::Secret;
use serde::Deserialize;

/// Microsoft's own applications, by the ids that they have in every tenant.
pub const MANAGEMENT_APP_ID: &str = "c5393580-f805-4401-95e8-94b7a6ef2fc2";
pub const GRAPH_APP_ID: &str = "00000003-0000-0000-c000-000000000000";

/// The claims of a token that say what it is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Grant {
    #[serde(default)]
    pub aud: String,
    #[serde(default)]
    pub tid: String,
    /// Application permissions.
    #[serde(default)]
    pub roles: Vec<String>,
}

impl Grant {
    /// Reads a token. None if it is not one that can be read, which is its right.
    pub fn read(token: &Secret) -> Option<Grant> {
        let claims = token.expose().split('.').nth(1)?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
    }

    pub fn has(&self, role: &str) -> bool {
        self.roles.iter().any(|held| held == role)
    }
}
