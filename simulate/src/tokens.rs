//! Access tokens: made, checked, taken back.
//!
//! A token looks like the real one (three base64url parts, the claims readable) because clients read its tenant and
//! roles when they start. Its signature is a keyed digest, enough to tell our own tokens from invented ones.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub(crate) const LIFETIME_SECS: i64 = 3_599;

pub(crate) struct Tokens {
    key: String,
    issued: AtomicU64,
    revoked: Mutex<HashSet<String>>,
}

impl Tokens {
    pub(crate) fn new(key: &str) -> Tokens {
        Tokens { key: key.to_owned(), issued: AtomicU64::new(0), revoked: Mutex::new(HashSet::new()) }
    }

    pub(crate) fn issued(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
    }

    pub(crate) fn issue(
        &self,
        tenant_id: &str,
        client_id: &str,
        audience: &str,
        roles: &[&str],
        now: DateTime<Utc>,
    ) -> String {
        let serial = self.issued.fetch_add(1, Ordering::Relaxed);
        let header = json!({"typ": "JWT", "alg": "RS256", "x5t": "c2ltdWxhdGVkLXNpbXVsYXRlZA"});
        let claims = json!({
            "aud": audience,
            "iss": format!("https://sts.windows.net/{tenant_id}/"),
            "iat": now.timestamp(),
            "nbf": now.timestamp(),
            "exp": now.timestamp() + LIFETIME_SECS,
            "appid": client_id,
            "roles": roles,
            "tid": tenant_id,
            "uti": format!("simulated-{serial}"),
            "ver": "1.0",
        });
        let body = format!("{}.{}", encoded(&header), encoded(&claims));
        format!("{body}.{}", self.signature(&body))
    }

    /// Ours, not taken back, and not too old.
    pub(crate) fn is_valid(&self, token: &str, now: DateTime<Utc>) -> bool {
        let Some((body, signature)) = token.rsplit_once('.') else { return false };
        if signature != self.signature(body) || self.revoked().contains(token) {
            return false;
        }
        let expiry = Tokens::claims(token).and_then(|claims| claims.get("exp")?.as_i64());
        expiry.and_then(|seconds| DateTime::from_timestamp(seconds, 0)).is_some_and(|expiry| now < expiry)
    }

    /// What a token says. Whether it is ours is another question.
    pub(crate) fn claims(token: &str) -> Option<Value> {
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?).ok()
    }

    pub(crate) fn revoke(&self, token: &str) {
        self.revoked().insert(token.to_owned());
    }

    fn revoked(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.revoked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signature(&self, body: &str) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{}.{body}", self.key)))
    }
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn a_token_lives_an_hour_and_only_where_it_was_made() {
        let now = DateTime::from_timestamp(1_795_255_471, 0).unwrap();
        let tokens = Tokens::new("key");
        let token = tokens.issue("t", "c", "https://manage.office.com", &["ActivityFeed.Read"], now);
        assert!(tokens.is_valid(&token, now));
        assert!(!tokens.is_valid(&token, now + TimeDelta::seconds(LIFETIME_SECS)));
        assert!(!Tokens::new("other").is_valid(&token, now));
        let other = tokens.issue("t", "c", "https://manage.office.com", &["ActivityFeed.Read"], now);
        assert_ne!(token, other);
        tokens.revoke(&token);
        assert!(!tokens.is_valid(&token, now) && tokens.is_valid(&other, now));
    }
}
