//! A client assertion: a token that the application signs itself, to show that it holds the certificate's key.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaEncoding};
use runtime::config::SigningAlgorithm;
use serde_json::json;

use super::{Asked, Certificate, IdentityError};
use crate::hex;

/// How long an assertion is valid: as in Microsoft's example, and more than any request takes.
const LIFETIME: TimeDelta = TimeDelta::minutes(10);

pub(super) fn sign(
    certificate: &Certificate,
    algorithm: SigningAlgorithm,
    asked: Asked<'_>,
    now: DateTime<Utc>,
) -> Result<String, IdentityError> {
    let random = SystemRandom::new();
    let mut id = [0; 16];
    random.fill(&mut id).map_err(|_| IdentityError::Signing)?;
    let header = json!({"alg": algorithm.as_str(), "typ": "JWT", "x5t#S256": certificate.thumbprint()});
    let claims = json!({
        "aud": asked.endpoint.as_str(),
        "iss": asked.client_id,
        "sub": asked.client_id,
        "jti": hex(&id),
        "nbf": now.timestamp(),
        "exp": (now + LIFETIME).timestamp(),
    });
    let encoded = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let body = format!("{}.{}", encoded(&header), encoded(&claims));
    let encoding: &dyn RsaEncoding = match algorithm {
        SigningAlgorithm::Ps256 => &RSA_PSS_SHA256,
        SigningAlgorithm::Rs256 => &RSA_PKCS1_SHA256,
    };
    let mut signature = vec![0; certificate.key().public().modulus_len()];
    let signed = certificate.key().sign(encoding, &random, body.as_bytes(), &mut signature);
    signed.map_err(|_| IdentityError::Signing)?;
    Ok(format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
