//! Signing in by SCRAM-SHA-256 (RFC 5802, 7677), the server's side. Pure: nonces and salts are given.
//!
//! The password itself never crosses the wire, and whoever listens learns nothing that signs in another time. A name that
//! is not known is asked for a password all the same, with a salt that is always the same for it: the port does not tell
//! who is known.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};

pub(super) const MECHANISM: &str = "SCRAM-SHA-256";

/// As PostgreSQL has it. More would be work for whoever floods the port with sign-ins.
const ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(4095);

/// Why somebody was not let in. The client is told the same of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the message is not one of SCRAM")]
    Malformed,
    #[error("channel binding is not offered")]
    ChannelBinding,
    #[error("the password is wrong, or nobody has this name")]
    Proof,
}

/// What is known of a password.
pub(super) struct Verifier {
    salt: [u8; 16],
    stored_key: digest::Digest,
    server_key: hmac::Key,
}

impl Verifier {
    pub(super) fn new(password: &str, salt: [u8; 16]) -> Verifier {
        let mut salted = [0; 32];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, &salt, password.as_bytes(), &mut salted);
        let salted = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        let client_key = hmac::sign(&salted, b"Client Key");
        let server_key = hmac::sign(&salted, b"Server Key");
        Verifier {
            salt,
            stored_key: digest::digest(&digest::SHA256, client_key.as_ref()),
            server_key: hmac::Key::new(hmac::HMAC_SHA256, server_key.as_ref()),
        }
    }
}

/// A sign-in that has begun.
pub(super) struct Exchange {
    /// The client's header, which it must repeat.
    header: String,
    nonce: String,
    client_first: String,
    server_first: String,
}

impl Exchange {
    /// Takes the client's first message; the answer is [`Exchange::challenge`].
    pub(super) fn begin(first: &[u8], verifier: &Verifier, server_nonce: &str) -> Result<Exchange, Refused> {
        let first = std::str::from_utf8(first).map_err(|_| Refused::Malformed)?;
        let mut parts = first.splitn(3, ',');
        let (binding, identity) = (parts.next(), parts.next());
        let bare = parts.next().ok_or(Refused::Malformed)?;
        match binding {
            Some("n" | "y") => {}
            Some(binding) if binding.starts_with("p=") => return Err(Refused::ChannelBinding),
            _ => return Err(Refused::Malformed),
        }
        // Acting for somebody else is not offered.
        if identity != Some("") {
            return Err(Refused::Malformed);
        }
        let client_nonce = bare.split(',').find_map(|part| part.strip_prefix("r=")).ok_or(Refused::Malformed)?;
        let is_printable = client_nonce.bytes().all(|byte| byte.is_ascii_graphic());
        if client_nonce.is_empty() || !is_printable {
            return Err(Refused::Malformed);
        }
        let nonce = format!("{client_nonce}{server_nonce}");
        let server_first = format!("r={nonce},s={},i={ITERATIONS}", STANDARD.encode(verifier.salt));
        let header = format!("{},,", binding.unwrap_or_default());
        Ok(Exchange { header, nonce, client_first: bare.to_owned(), server_first })
    }

    pub(super) fn challenge(&self) -> &[u8] {
        self.server_first.as_bytes()
    }

    /// Takes the client's last message; what proves to the client that we know the password too.
    pub(super) fn end(&self, last: &[u8], verifier: &Verifier) -> Result<String, Refused> {
        let last = std::str::from_utf8(last).map_err(|_| Refused::Malformed)?;
        let (without_proof, proof) = last.rsplit_once(",p=").ok_or(Refused::Malformed)?;
        let mut parts = without_proof.split(',');
        let header = parts.next().and_then(|part| part.strip_prefix("c=")).ok_or(Refused::Malformed)?;
        let nonce = parts.next().and_then(|part| part.strip_prefix("r=")).ok_or(Refused::Malformed)?;
        if header != STANDARD.encode(&self.header) || nonce != self.nonce {
            return Err(Refused::Malformed);
        }
        let proof = STANDARD.decode(proof).map_err(|_| Refused::Malformed)?;
        let said = format!("{},{},{without_proof}", self.client_first, self.server_first);
        let stored = hmac::Key::new(hmac::HMAC_SHA256, verifier.stored_key.as_ref());
        let signature = hmac::sign(&stored, said.as_bytes());
        if proof.len() != signature.as_ref().len() {
            return Err(Refused::Proof);
        }
        let client_key: Vec<u8> = proof.iter().zip(signature.as_ref()).map(|(one, other)| one ^ other).collect();
        let stored_key = digest::digest(&digest::SHA256, &client_key);
        if !are_equal(stored_key.as_ref(), verifier.stored_key.as_ref()) {
            return Err(Refused::Proof);
        }
        Ok(format!("v={}", STANDARD.encode(hmac::sign(&verifier.server_key, said.as_bytes()))))
    }
}

/// Whether two secrets are the same, in a time that does not tell how much of them is.
pub(super) fn are_equal(one: &[u8], other: &[u8]) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"compare");
    hmac::verify(&key, one, hmac::sign(&key, other).as_ref()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn salt() -> [u8; 16] {
        STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap()
    }

    /// The exchange of RFC 7677.
    #[test]
    fn the_example_of_the_specification_signs_in_and_a_wrong_password_does_not() {
        let first = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
        let last = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
            p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        let verifier = Verifier::new("pencil", salt());
        let exchange = Exchange::begin(first, &verifier, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0").unwrap();
        assert_eq!(
            exchange.challenge(),
            b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        assert_eq!(exchange.end(last, &verifier).unwrap(), "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(exchange.end(last, &Verifier::new("pencils", salt())), Err(Refused::Proof));
    }

    #[test]
    fn what_is_not_of_the_mechanism_is_refused() {
        let verifier = Verifier::new("pencil", salt());
        let begin = |first: &[u8]| Exchange::begin(first, &verifier, "s").err();
        assert_eq!(begin(b"p=tls-server-end-point,,n=,r=c"), Some(Refused::ChannelBinding));
        for first in [&b""[..], b"n", b"n,,", b"n,,n=u", b"n,,r=", b"n,a=root,n=u,r=c", b"x,,r=c", b"\xff,,r=c"] {
            assert_eq!(begin(first), Some(Refused::Malformed), "{first:?}");
        }
        let exchange = Exchange::begin(b"n,,n=u,r=c", &verifier, "s").unwrap();
        for last in
            [&b""[..], b",p=", b"c=biws,r=c,p=", b"c=biws,r=csx,p=AA==", b"c=AAAA,r=cs,p=AA==", b"c=biws,r=cs,p=!"]
        {
            assert_eq!(exchange.end(last, &verifier), Err(Refused::Malformed), "{last:?}");
        }
        for last in [&b"c=biws,r=cs,p="[..], b"c=biws,r=cs,p=AA=="] {
            assert_eq!(exchange.end(last, &verifier), Err(Refused::Proof), "{last:?}");
        }
    }
}
