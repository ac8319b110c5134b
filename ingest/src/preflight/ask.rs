//! Requests, and what comes of them. Decides nothing.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::DATE;
use runtime::config::Secret;
use url::Url;

use crate::identity::Form;

/// Somebody is waiting in front of the screen.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Largest answer. A day's listing is one page here.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

pub struct Client(reqwest::Client);

/// What came of a request.
#[derive(Clone, Debug)]
pub enum Reply {
    Answer {
        status: u16,
        date: Option<DateTime<Utc>>,
        body: Vec<u8>,
    },
    /// No answer; why, safe to print.
    Nothing(&'static str),
    /// It could not even be made.
    Unmade(String),
}

impl Client {
    pub fn new() -> Result<Client, reqwest::Error> {
        let builder = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none());
        Ok(Client(builder.user_agent(concat!("harrier/", env!("CARGO_PKG_VERSION"))).build()?))
    }

    pub async fn post(&self, url: Url, form: &Form) -> Reply {
        read(self.0.post(url).form(form)).await
    }

    pub async fn get(&self, url: Url, token: &Secret) -> Reply {
        read(self.0.get(url).bearer_auth(token.expose())).await
    }
}

async fn read(request: reqwest::RequestBuilder) -> Reply {
    let why = |error: &reqwest::Error| match error {
        error if error.is_timeout() => "no answer within 30 seconds",
        error if error.is_connect() => "no connection: the name is not known, nothing listens, or TLS is not trusted",
        _ => "the connection broke off",
    };
    let mut response = match request.send().await {
        Ok(response) => response,
        Err(error) => return Reply::Nothing(why(&error)),
    };
    let date = response.headers().get(DATE).and_then(|value| value.to_str().ok());
    let date = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok()).map(|date| date.to_utc());
    let status = response.status().as_u16();
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > ANSWER_BYTES_MAX => {
                return Reply::Nothing("the answer is larger than 32 MiB");
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Reply::Answer { status, date, body },
            Err(error) => return Reply::Nothing(why(&error)),
        }
    }
}
