//! Each credential against a token endpoint that checks it for real, and through the poller up to the records.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use ingest::identity::{Asked, Credential};
use reqwest::Url;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use runtime::config::{Credential as Files, SecretFile, SigningAlgorithm};
use simulate::{FakeTenant, Federated, Options, Scenario};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/identity").join(name)
}

fn end() -> DateTime<Utc> {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

/// A tenant that trusts `certificate.pem`, as the application's own and as that of a federated issuer.
struct Entra {
    tenant: FakeTenant,
    options: Options,
}

const ISSUER: &str = "https://kubernetes.example";

impl Entra {
    async fn start() -> Entra {
        let certificate = std::fs::read_to_string(file("certificate.pem")).unwrap();
        let federated = Federated {
            issuer: ISSUER.into(),
            subject: "system:serviceaccount:harrier:harrier".into(),
            certificate: certificate.clone(),
        };
        let options = Options {
            users: 2,
            days: 0,
            story: Scenario::Quiet,
            certificate: Some(certificate),
            federated: Some(federated),
            ..Options::new(end())
        };
        Entra { tenant: FakeTenant::start(options.clone(), ([127, 0, 0, 1], 0).into()).await.unwrap(), options }
    }

    fn endpoint(&self) -> Url {
        let path = format!("http://{}/{}/oauth2/v2.0/token", self.tenant.address(), self.options.tenant_id);
        path.parse().unwrap()
    }

    fn form(&self, credential: &Credential, now: DateTime<Utc>) -> ingest::identity::Form {
        let (client_id, endpoint) = (&self.options.client_id, self.endpoint());
        credential.form(Asked { client_id, endpoint: &endpoint, audience: "https://manage.office.com" }, now).unwrap()
    }

    /// `token`, or the number of the refusal.
    async fn ask(&self, form: &ingest::identity::Form) -> String {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.post(self.endpoint()).form(form).send().await.unwrap();
        let body: serde_json::Value = answer.json().await.unwrap();
        match body["access_token"].as_str() {
            Some(_) => "token".to_owned(),
            None => body["error_codes"][0].to_string(),
        }
    }
}

fn certificate(key: &str, algorithm: SigningAlgorithm) -> Credential {
    let path = |name: &str| SecretFile::Path(file(name));
    Credential::Files(Files::Certificate { certificate: path("certificate.pem"), key: Some(path(key)), algorithm })
}

#[tokio::test]
async fn a_certificate_signs_in_once_for_each_assertion() {
    let entra = Entra::start().await;
    for algorithm in [SigningAlgorithm::Ps256, SigningAlgorithm::Rs256] {
        let credential = certificate("key.pem", algorithm);
        let form = entra.form(&credential, end());
        assert_eq!(entra.ask(&form).await, "token");
        assert_eq!(entra.ask(&form).await, "700027", "the same assertion again");
        assert_eq!(entra.ask(&entra.form(&credential, end())).await, "token");
        for (minutes, outcome) in [(-20, "700024"), (-12, "token"), (4, "token"), (6, "700024")] {
            let form = entra.form(&credential, end() + TimeDelta::minutes(minutes));
            assert_eq!(entra.ask(&form).await, outcome, "made {minutes} minutes from now");
        }
    }
    // One letter of the signature.
    let mut form = entra.form(&certificate("key.pem", SigningAlgorithm::Ps256), end());
    let assertion = &mut form.iter_mut().find(|(name, _)| *name == "client_assertion").unwrap().1;
    let at = assertion.len() - 10;
    let other = if assertion.as_bytes()[at] == b'A' { "B" } else { "A" };
    assertion.replace_range(at..=at, other);
    assert_eq!(entra.ask(&form).await, "700027");
}

#[tokio::test]
async fn a_federated_assertion_is_passed_on_as_its_issuer_signed_it() {
    let entra = Entra::start().await;
    let pem = std::fs::read_to_string(file("key.pem")).unwrap();
    let letters: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let key = RsaKeyPair::from_pkcs8(&base64::engine::general_purpose::STANDARD.decode(letters).unwrap()).unwrap();
    let signed = |claims: serde_json::Value| {
        let encoded = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = serde_json::json!({"alg": "RS256", "kid": "1"});
        let body = format!("{}.{}", encoded(&header), encoded(&claims));
        let mut signature = vec![0; key.public().modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &ring::rand::SystemRandom::new(), body.as_bytes(), &mut signature).unwrap();
        format!("{body}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let claims = |subject: &str, issuer: &str, minutes: i64| {
        let exp = (end() + TimeDelta::minutes(minutes)).timestamp();
        serde_json::json!({"iss": issuer, "sub": subject, "aud": "api://AzureADTokenExchange",
            "iat": (end() - TimeDelta::hours(2)).timestamp(), "exp": exp})
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("azure-identity-token");
    let credential = Credential::Files(Files::Federated(SecretFile::Path(path.clone())));
    let subject = "system:serviceaccount:harrier:harrier";
    for (assertion, outcome) in [
        (signed(claims(subject, ISSUER, 60)), "token"),
        (signed(claims("system:serviceaccount:other:other", ISSUER, 60)), "700213"),
        (signed(claims(subject, "https://elsewhere.example", 60)), "700211"),
        // What Kubernetes did not renew.
        (signed(claims(subject, ISSUER, -60)), "700024"),
    ] {
        std::fs::write(&path, &assertion).unwrap();
        assert_eq!(entra.ask(&entra.form(&credential, end())).await, outcome);
    }
}
