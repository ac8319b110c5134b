//! TLS of the door, by rustls with ring, as everything else here. What cannot be read is an error: there is no going on
//! without it.

use std::sync::Arc;

use runtime::config::PostgresTls;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::DoorError;

pub(super) fn acceptor(files: &PostgresTls) -> Result<TlsAcceptor, DoorError> {
    // What the libraries say of a key does not repeat it, and is said of its form only.
    let unusable = |what: &str| DoorError::Tls(format!("{}: {what}", files.certificate_file.display()));
    let pem = std::fs::read(&files.certificate_file).map_err(|error| unusable(&error.to_string()))?;
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|_| unusable("not PEM"))?;
    if certificates.is_empty() {
        return Err(unusable("there is no certificate in it"));
    }
    let key = files.key_file.read().map_err(DoorError::Key)?;
    let key = PrivateKeyDer::from_pem_slice(key.expose().as_bytes())
        .map_err(|_| DoorError::Tls(format!("{}: there is no private key in it", files.key_file)))?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .map_err(|error| unusable(&error.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
