//! A certificate and its key, from PEM.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use ring::signature::RsaKeyPair;
use sha2::{Digest, Sha256};

use super::der;

/// A certificate that the application can sign with.
pub struct Certificate {
    der: Vec<u8>,
    key: RsaKeyPair,
    not_before: DateTime<Utc>,
    not_after: DateTime<Utc>,
}

/// Why a file is no credential. Says what was expected, never what was found.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateError {
    #[error("holds no certificate (-----BEGIN CERTIFICATE-----)")]
    NoCertificate,
    #[error("the certificate cannot be read")]
    Certificate,
    #[error(
        "no private key (-----BEGIN PRIVATE KEY-----) beside the certificate: add it, or name its file with `client_key_file`"
    )]
    NoKey,
    #[error(
        "the private key has a passphrase: write one without (openssl pkey -in KEY -out NEW), readable by harrier only"
    )]
    Encrypted,
    #[error("the private key is not an RSA key of 2048 to 4096 bits, which is what Entra takes")]
    Key,
    #[error("the private key is not that of the certificate")]
    OtherKey,
}

impl Certificate {
    /// The first certificate and the first private key of two texts, which may be one and the same.
    pub fn read(certificate: &str, key: &str) -> Result<Certificate, CertificateError> {
        let der = block(certificate, &["CERTIFICATE"]).ok_or(CertificateError::NoCertificate)?.1;
        let (not_before, not_after) = der::validity(&der).ok_or(CertificateError::Certificate)?;
        if key.contains("BEGIN ENCRYPTED PRIVATE KEY") || key.contains("Proc-Type: 4,ENCRYPTED") {
            return Err(CertificateError::Encrypted);
        }
        let (label, bytes) = block(key, &["PRIVATE KEY", "RSA PRIVATE KEY"]).ok_or(CertificateError::NoKey)?;
        let pair = if label == "PRIVATE KEY" { RsaKeyPair::from_pkcs8(&bytes) } else { RsaKeyPair::from_der(&bytes) };
        let key = pair.map_err(|_| CertificateError::Key)?;
        // The certificate holds the public key in this very form.
        let public = key.public().as_ref();
        if memchr::memmem::find(&der, public).is_none() {
            return Err(CertificateError::OtherKey);
        }
        Ok(Certificate { der, key, not_before, not_after })
    }

    pub(super) fn key(&self) -> &RsaKeyPair {
        &self.key
    }

    pub fn not_before(&self) -> DateTime<Utc> {
        self.not_before
    }

    pub fn not_after(&self) -> DateTime<Utc> {
        self.not_after
    }

    /// Its SHA-256, as an assertion names it.
    pub fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(&self.der))
    }

    /// The same in hex: what Entra's page calls the thumbprint SHA-256.
    pub fn thumbprint_hex(&self) -> String {
        crate::hex(&Sha256::digest(&self.der)).to_uppercase()
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("thumbprint", &self.thumbprint()).finish_non_exhaustive()
    }
}

/// The first PEM block with one of these labels.
fn block<'a>(text: &str, labels: &[&'a str]) -> Option<(&'a str, Vec<u8>)> {
    let found = labels.iter().filter_map(|label| {
        let begin = format!("-----BEGIN {label}-----");
        let start = text.find(&begin)?;
        Some((start, *label, start + begin.len()))
    });
    let (_, label, body) = found.min()?;
    let end = text[body..].find(&format!("-----END {label}-----"))?;
    let letters: String = text[body..body + end].chars().filter(|c| !c.is_ascii_whitespace()).collect();
    Some((label, STANDARD.decode(letters).ok()?))
}
