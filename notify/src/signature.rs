//! Standard Webhooks signatures, version `v1`: base64 of HMAC-SHA256 over `{id}.{timestamp}.{body}`, one for each
//! secret, so that a receiver can change keys without missing a delivery. The exact bytes sent are signed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::settings::SigningSecret;

/// The value of `webhook-signature`; `None` without a secret.
pub(crate) fn header(secrets: &[SigningSecret], id: &str, timestamp_seconds: i64, body: &[u8]) -> Option<String> {
    let signatures: Vec<String> =
        secrets.iter().filter_map(|secret| sign(secret, id, timestamp_seconds, body)).collect();
    if signatures.is_empty() { None } else { Some(signatures.join(" ")) }
}

fn sign(secret: &SigningSecret, id: &str, timestamp_seconds: i64, body: &[u8]) -> Option<String> {
    // HMAC takes keys of any length: there is no error to come.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.bytes()).ok()?;
    mac.update(id.as_bytes());
    mac.update(b".");
    mac.update(timestamp_seconds.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_standard() {
        let secret: SigningSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLjSw".parse().unwrap();
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let body = br#"{"test": 2432232314}"#;
        let one = "v1,q6KMVIJHk4Gs770FfR5f591Ftx7uVJSGl5wHV1ri978=";
        assert_eq!(header(std::slice::from_ref(&secret), id, 1_614_265_330, body).as_deref(), Some(one));
        let both = header(&[secret.clone(), secret], id, 1_614_265_330, body).unwrap();
        assert_eq!(both, format!("{one} {one}"));
        assert_eq!(header(&[], id, 1_614_265_330, body), None);
    }

    #[test]
    fn secrets_are_checked_and_not_shown() {
        for text in ["", "whsec_", "whsec_AAAA", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLjSw", "whsec_!"] {
            assert!(text.parse::<SigningSecret>().is_err(), "{text:?}");
        }
        let secret: SigningSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLjSw\n".parse().unwrap();
        assert!(!format!("{secret:?}").contains("MfKQ"));
    }
}
