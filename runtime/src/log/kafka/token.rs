//! Tokens for OAUTHBEARER: the client-credentials grant (RFC 6749, 4.4) at an authority of the operator's.
//!
//! librdkafka asks for a token when a client begins and again after four fifths of its life, in whatever thread serves
//! the client. All clients of a log share one token, so that a dozen partitions are one request and not fifty.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::client::OAuthToken;
use serde::Deserialize;

use super::settings::Sasl;
use crate::config::Secret;

/// How long the authority may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Largest answer: a token is kilobytes.
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// Life of a token whose answer does not say; RFC 6749 leaves that open.
const LIFE_DEFAULT: Duration = Duration::from_secs(300);

/// What every message about an authority that cannot be reached begins with; [`super::fault`] knows it by this.
pub(super) const NO_ANSWER: &str = "the token endpoint gives no token now";

/// Fetches tokens and keeps the newest.
#[derive(Debug)]
pub(super) struct Tokens {
    endpoint: String,
    client_id: String,
    client_secret: Secret,
    scope: Option<String>,
    newest: Mutex<Option<Token>>,
}

#[derive(Clone, Debug)]
struct Token {
    secret: Secret,
    fetched: SystemTime,
    ends: SystemTime,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct Denied {
    error: String,
}

impl Tokens {
    /// Nothing where the sign-in takes no token.
    pub(super) fn of(sasl: Option<&Sasl>) -> Option<Tokens> {
        let Some(Sasl::Token { endpoint, client_id, client_secret, scope }) = sasl else { return None };
        Some(Tokens {
            endpoint: endpoint.clone(),
            client_id: client_id.clone(),
            client_secret: client_secret.clone(),
            scope: scope.clone(),
            newest: Mutex::default(),
        })
    }

    /// A token in the first half of its life, which may be another client's; else a new one.
    pub(super) fn token(&self) -> Result<OAuthToken, String> {
        // Held while it is fetched: the others wait for it instead of asking as well.
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let now = SystemTime::now();
        let is_fresh = |token: &Token| {
            let life = token.ends.duration_since(token.fetched).unwrap_or_default();
            now >= token.fetched && now < token.fetched + life / 2
        };
        let token = match newest.as_ref().filter(|token| is_fresh(token)) {
            Some(token) => token.clone(),
            None => newest.insert(self.fetch()?).clone(),
        };
        let lifetime_ms = token.ends.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Ok(OAuthToken {
            token: token.secret.expose().to_owned(),
            principal_name: self.client_id.clone(),
            lifetime_ms: i64::try_from(lifetime_ms).unwrap_or(i64::MAX),
        })
    }

    fn fetch(&self) -> Result<Token, String> {
        let fetched = SystemTime::now();
        // A thread of its own, because librdkafka may ask in one that belongs to an executor, where none may be started.
        let (status, body) = std::thread::scope(|scope| scope.spawn(|| self.ask()).join())
            .map_err(|_| format!("{NO_ANSWER}: asking failed"))?
            .map_err(|error| format!("{NO_ANSWER}: {}", error.without_url()))?;
        match serde_json::from_slice::<Granted>(&body) {
            Ok(granted) if status == 200 => {
                let life = granted.expires_in.map_or(LIFE_DEFAULT, Duration::from_secs);
                Ok(Token { secret: Secret::new(&granted.access_token), fetched, ends: fetched + life })
            }
            _ if status == 429 || status >= 500 => Err(format!("{NO_ANSWER}: HTTP {status}")),
            _ => {
                let reason = serde_json::from_slice::<Denied>(&body).map(|denied| denied.error).unwrap_or_default();
                // The authority's own word for it (RFC 6749, 5.2): letters and underscores.
                let reason: String =
                    reason.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(60).collect();
                Err(format!("the token endpoint refuses the client: HTTP {status} {reason}"))
            }
        }
    }

    fn ask(&self) -> Result<(u16, Vec<u8>), reqwest::Error> {
        // One thread's executor for one request an hour; it fails to start only where no file can be opened any more,
        // and then nothing else works either.
        let Ok(executor) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            return Ok((503, Vec::new()));
        };
        executor.block_on(async {
            let client = reqwest::Client::builder()
                .timeout(ANSWER_TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .build()?;
            let mut form = vec![("grant_type", "client_credentials")];
            form.extend(self.scope.as_deref().map(|scope| ("scope", scope)));
            let request = client.post(&self.endpoint).basic_auth(&self.client_id, Some(self.client_secret.expose()));
            let mut response = request.form(&form).send().await?;
            let (status, mut body) = (response.status().as_u16(), Vec::new());
            while let Some(piece) = response.chunk().await? {
                if body.len() + piece.len() > ANSWER_BYTES_MAX {
                    return Ok((503, Vec::new()));
                }
                body.extend_from_slice(&piece);
            }
            Ok((status, body))
        })
    }
}
