//! Signed assertions at the token endpoint, checked for real: signature, audience, time, and that none comes twice.
//!
//! Signatures are verified by webpki against the registered certificate, so that whoever signs is tested by code that
//! has nothing in common with it.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;
use sha2::{Digest, Sha256};
use webpki::EndEntityCert;
use webpki::ring::{RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256_LEGACY_KEY};

use crate::Options;
use crate::broken::TokenRefusal;

/// What clocks may differ by.
const LEEWAY_SECS: i64 = 300;
/// What federated assertions are made for.
const EXCHANGE: &str = "api://AzureADTokenExchange";
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Who signs assertions for the application, as its federated credential says.
#[derive(Clone, Debug)]
pub struct Federated {
    pub issuer: String,
    pub subject: String,
    /// PEM. Stands for the key set that a real issuer publishes.
    pub certificate: String,
}

/// The assertions that were taken, by id.
#[derive(Default)]
pub(crate) struct Assertions(Mutex<HashSet<String>>);

struct Parts {
    body: String,
    signature: Vec<u8>,
    header: Value,
    claims: Value,
}

impl Assertions {
    /// Whether the form shows an assertion that this application may sign in with.
    pub(crate) fn check(
        &self,
        form: &HashMap<String, String>,
        options: &Options,
        endpoint: &str,
        now: DateTime<Utc>,
    ) -> Result<(), TokenRefusal> {
        let wrong_type = TokenRefusal::client(7_000_218, "The request must contain client_assertion or client_secret.");
        if form.get("client_assertion_type").map(String::as_str) != Some(ASSERTION_TYPE) {
            return Err(wrong_type);
        }
        let malformed = TokenRefusal::client(50_027, "The assertion is malformed.");
        let parts = form.get("client_assertion").and_then(|text| parts(text)).ok_or(malformed)?;
        let claim = |name: &str| parts.claims.get(name).and_then(Value::as_str).unwrap_or_default();
        match &options.federated {
            Some(federated) if claim("iss") == federated.issuer => {
                verify(&parts, &federated.certificate)?;
                if claim("sub") != federated.subject {
                    return Err(TokenRefusal::client(700_213, "No matching federated identity record: subject."));
                }
                if claim("aud") != EXCHANGE {
                    return Err(TokenRefusal::client(700_212, "No matching federated identity record: audience."));
                }
            }
            _ if claim("iss") != options.client_id && claim("iss").contains(':') => {
                return Err(TokenRefusal::client(700_211, "No matching federated identity record: issuer."));
            }
            _ => {
                let certificate = options.certificate.as_deref().unwrap_or_default();
                verify(&parts, certificate)?;
                if claim("iss") != options.client_id || claim("sub") != options.client_id {
                    return Err(TokenRefusal::client(700_021, "The assertion is not that of client_id."));
                }
                if claim("aud") != endpoint {
                    return Err(TokenRefusal::client(700_023, "The assertion's audience is not this endpoint."));
                }
                if claim("jti").is_empty() || !self.first_time(claim("jti")) {
                    return Err(TokenRefusal::client(700_027, "The assertion was used before, or has no id."));
                }
            }
        }
        let second = |name: &str| parts.claims.get(name).and_then(Value::as_i64);
        let (from, until) = (second("nbf").or(second("iat")).unwrap_or(i64::MAX), second("exp").unwrap_or_default());
        let is_valid = from - LEEWAY_SECS <= now.timestamp() && now.timestamp() < until + LEEWAY_SECS;
        if is_valid {
            Ok(())
        } else {
            Err(TokenRefusal::client(700_024, "The assertion is not within its valid time."))
        }
    }

    fn first_time(&self, id: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned())
    }
}

fn parts(text: &str) -> Option<Parts> {
    let (body, signature) = text.rsplit_once('.')?;
    let (header, claims) = body.split_once('.')?;
    let json = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    Some(Parts { body: body.to_owned(), signature, header: json(header)?, claims: json(claims)? })
}

fn verify(parts: &Parts, certificate: &str) -> Result<(), TokenRefusal> {
    let unknown = || TokenRefusal::client(700_027, "The certificate used to sign the assertion is not registered.");
    let der = CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(|_| unknown())?;
    // A federated issuer names its key in another way.
    if let Some(named) = parts.header.get("x5t#S256").and_then(Value::as_str)
        && named != URL_SAFE_NO_PAD.encode(Sha256::digest(&der))
    {
        return Err(unknown());
    }
    let algorithm = match parts.header.get("alg").and_then(Value::as_str) {
        Some("PS256") => RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
        Some("RS256") => RSA_PKCS1_2048_8192_SHA256,
        _ => return Err(unknown()),
    };
    let certificate = EndEntityCert::try_from(&der).map_err(|_| unknown())?;
    certificate.verify_signature(algorithm, parts.body.as_bytes(), &parts.signature).map_err(|_| unknown())
}
