//! How harrier proves to Microsoft who it is: a client secret, a certificate, or an assertion that somebody else signs.
//!
//! # Guarantee
//!
//! * A credential is read from its file each time a token is asked for. One that was replaced is used from then on, and
//!   none is kept longer than the request takes.
//! * No part of a credential is in an error, a log or a debug output: errors name the file.
//! * An assertion is made for one request: it has an id of its own, ten minutes of life, and the address of the one
//!   token endpoint that may take it.
//!
//! # Why ring
//!
//! An assertion is three base64 texts and one RSA signature. ring signs, and is in the tree as the cryptography of TLS
//! already; a library for tokens would bring a second one, for reading tokens that nobody here reads. Certificates are
//! only looked at for their dates and their hash, which takes [a page](der).

pub mod aadsts;
mod assertion;
mod certificate;
mod der;
mod permission;

use chrono::{DateTime, Utc};
use runtime::config::{Credential as Files, Secret, SecretError};
use url::Url;

pub use certificate::{Certificate, CertificateError};
pub use permission::{GRAPH_APP_ID, Grant, MANAGEMENT_APP_ID};

/// What the application shows to get a token.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A client secret at hand, for whoever has no file.
    Fixed(Secret),
    /// What the configuration names.
    Files(Files),
}

/// Why no credential could be shown. Names files, never what is in them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("{file}: {source}")]
    Certificate { file: String, source: CertificateError },
    #[error("the assertion in {file} is not a signed token (three parts with dots between them)")]
    NotAnAssertion { file: String },
    #[error("the assertion could not be signed")]
    Signing,
}

/// For whom a token is asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub client_id: &'a str,
    /// The token endpoint: an assertion is valid there and nowhere else.
    pub endpoint: &'a Url,
    /// The API that the token is for, such as `https://manage.office.com`.
    pub audience: &'a str,
}

/// A form, ready to be posted.
pub type Form = Vec<(&'static str, String)>;

const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

impl Credential {
    /// The form that asks for a token. Reads the files.
    pub fn form(&self, asked: Asked<'_>, now: DateTime<Utc>) -> Result<Form, IdentityError> {
        let mut form = vec![
            ("grant_type", "client_credentials".to_owned()),
            ("client_id", asked.client_id.to_owned()),
            ("scope", format!("{}/.default", asked.audience.trim_end_matches('/'))),
        ];
        let assertion = match self {
            Credential::Fixed(secret) => {
                form.push(("client_secret", secret.expose().to_owned()));
                return Ok(form);
            }
            Credential::Files(Files::Secret(file)) => {
                form.push(("client_secret", file.read()?.expose().to_owned()));
                return Ok(form);
            }
            Credential::Files(Files::Federated(file)) => {
                let token = file.read()?;
                // Nothing of it is shown: what is in the file may be another secret.
                if token.expose().split('.').count() != 3 || !token.expose().bytes().all(|c| c.is_ascii_graphic()) {
                    return Err(IdentityError::NotAnAssertion { file: file.to_string() });
                }
                token.expose().to_owned()
            }
            Credential::Files(Files::Certificate { algorithm, .. }) => {
                // There is one: the variant says so.
                let certificate = self.certificate()?.ok_or(IdentityError::Signing)?;
                assertion::sign(&certificate, *algorithm, asked, now)?
            }
        };
        form.push(("client_assertion_type", ASSERTION_TYPE.to_owned()));
        form.push(("client_assertion", assertion));
        Ok(form)
    }

    /// The certificate, where the credential is one.
    pub fn certificate(&self) -> Result<Option<Certificate>, IdentityError> {
        let Credential::Files(Files::Certificate { certificate, key, .. }) = self else { return Ok(None) };
        let pem = certificate.read()?;
        let key_pem = key.as_ref().map(|key| key.read()).transpose()?;
        let read = Certificate::read(pem.expose(), key_pem.as_ref().map_or(pem.expose(), |key| key.expose()));
        read.map(Some).map_err(|source| IdentityError::Certificate { file: certificate.to_string(), source })
    }

    /// Whether its files can be read and used.
    pub fn check(&self, now: DateTime<Utc>) -> Result<(), IdentityError> {
        match self {
            Credential::Files(Files::Certificate { .. }) => self.certificate().map(drop),
            _ => {
                let Ok(endpoint) = Url::parse("https://localhost/") else { return Ok(()) };
                self.form(Asked { client_id: "", endpoint: &endpoint, audience: "" }, now).map(drop)
            }
        }
    }

    /// What kind it is, in Microsoft's words.
    pub fn kind(&self) -> &'static str {
        match self {
            Credential::Fixed(_) | Credential::Files(Files::Secret(_)) => "client secret",
            Credential::Files(Files::Certificate { .. }) => "certificate",
            Credential::Files(Files::Federated(_)) => "federated credential",
        }
    }
}

#[cfg(test)]
mod tests;
