//! Certificates and assertions as data. That a real verifier takes the signature is shown in `tests/identity.rs`.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use runtime::config::{SecretFile, SigningAlgorithm};
use serde_json::Value;

use super::*;

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/identity").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap()
}

fn certificate(certificate: &str, key: Option<&str>, algorithm: SigningAlgorithm) -> Credential {
    let path = |name: &str| SecretFile::Path(file(name));
    Credential::Files(Files::Certificate { certificate: path(certificate), key: key.map(path), algorithm })
}

fn now() -> DateTime<Utc> {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

fn form(credential: &Credential) -> Result<Form, IdentityError> {
    let endpoint = "https://login.example/t/oauth2/v2.0/token".parse().unwrap();
    credential.form(Asked { client_id: "app", endpoint: &endpoint, audience: "https://manage.office.com/" }, now())
}

fn value<'a>(form: &'a Form, name: &str) -> &'a str {
    &form.iter().find(|(key, _)| *key == name).unwrap().1
}

#[test]
fn an_assertion_says_who_for_whom_and_how_long() {
    for algorithm in [SigningAlgorithm::Ps256, SigningAlgorithm::Rs256] {
        let credential = certificate("certificate.pem", Some("key.pem"), algorithm);
        let (one, other) = (form(&credential).unwrap(), form(&credential).unwrap());
        let part = |form: &Form, at: usize| -> Value {
            let part = value(form, "client_assertion").split('.').nth(at).unwrap().to_owned();
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        assert_eq!(value(&one, "scope"), "https://manage.office.com/.default");
        assert_eq!(part(&one, 0)["alg"], algorithm.as_str());
        let claims = part(&one, 1);
        assert_eq!(claims["aud"], "https://login.example/t/oauth2/v2.0/token");
        assert_eq!((&claims["iss"], &claims["sub"]), (&"app".into(), &"app".into()));
        assert_eq!(claims["exp"].as_i64().unwrap() - now().timestamp(), 600);
        assert_ne!(claims["jti"], part(&other, 1)["jti"], "each has an id of its own");
    }
}

#[test]
fn dates_are_those_that_openssl_wrote() {
    let read = |name: &str| Certificate::read(&text(name), &text("key.pem")).unwrap();
    let dates = |read: Certificate| (read.not_before().to_rfc3339(), read.not_after().to_rfc3339());
    assert_eq!(dates(read("expiring.pem")), ("2026-01-01T00:00:00+00:00".into(), "2026-12-10T00:00:00+00:00".into()));
    assert_eq!(dates(read("certificate.pem")).1, "2126-01-01T00:00:00+00:00");
}

#[test]
fn one_file_may_hold_both_and_older_keys_are_read() {
    let both = format!("{}{}", text("key-pkcs1.pem"), text("certificate.pem"));
    assert!(Certificate::read(&both, &both).is_ok());
    assert!(Certificate::read(&both.replace('\n', "\r\n"), &both).is_ok());
}

#[test]
fn what_is_wrong_with_a_certificate_is_said() {
    let certificate = text("certificate.pem");
    for (certificate, key, error) in [
        ("", text("key.pem"), CertificateError::NoCertificate),
        (
            "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----",
            text("key.pem"),
            CertificateError::NoCertificate,
        ),
        (
            "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----",
            text("key.pem"),
            CertificateError::Certificate,
        ),
        (&certificate, certificate.clone(), CertificateError::NoKey),
        (&certificate, text("key-encrypted.pem"), CertificateError::Encrypted),
        (&certificate, text("key-ec.pem"), CertificateError::Key),
        (&certificate, text("other-key.pem"), CertificateError::OtherKey),
    ] {
        assert_eq!(Certificate::read(certificate, &key).unwrap_err(), error);
    }
}

#[test]
fn files_are_read_anew_and_nothing_of_them_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    let credential = Credential::Files(Files::Federated(SecretFile::Path(path.clone())));
    for token in ["a.b.c", "d.e.f"] {
        std::fs::write(&path, format!("{token}\n")).unwrap();
        assert_eq!(value(&form(&credential).unwrap(), "client_assertion"), token);
    }
    std::fs::write(&path, "hunter2").unwrap();
    let error = form(&credential).unwrap_err();
    assert!(!format!("{error}{error:?}{credential:?}").contains("hunter2"));
    std::fs::remove_file(&path).unwrap();
    assert!(form(&credential).unwrap_err().to_string().contains("token"));
    let certificate = super::tests::certificate("certificate.pem", Some("key.pem"), SigningAlgorithm::Ps256);
    assert!(!format!("{:?}", certificate.certificate()).contains("RsaKeyPair"));
}
