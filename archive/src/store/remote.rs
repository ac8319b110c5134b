//! Object stores: S3 and what speaks like it, Azure, Google.
//!
//! Two things are asked of a store. What was written once is there for everybody at once, which all of them promise. And of
//! two who put the same name if it is absent, one succeeds: a commit of the archive is such a put. A store, or a proxy before
//! it, that passes over the condition would lose commits without a sign, so it is asked first ([`keeps_what_it_has`]).
//!
//! Keys are read where they are needed, so that one that is replaced is picked up.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use object_store::aws::{AmazonS3Builder, AwsCredential};
use object_store::azure::{AzureAccessKey, AzureCredential, MicrosoftAzureBuilder};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, CredentialProvider, ObjectStore, PutMode, PutPayload, RetryConfig,
};
use runtime::config::{AzureAccess, GoogleAccess, ObjectStoreConfig, ObjectStoreKind, S3Access, SecretFile};

use super::put_options;
use crate::error::Error;

/// How long a request is tried again. Whoever asked tries again in turn, and says so; longer than this it looks dead.
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);

const RETRIES_MAX: usize = 5;

/// A file of 128 MiB over a slow line.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where the store is asked whether it keeps what it has. It stays: asking again needs no right to delete.
pub(crate) const ASKED: &str = "_put_if_absent";

/// What lies there.
pub(crate) const ASKED_TEXT: &str = "harrier has asked here whether this store keeps what it has.\n";

/// The store that a configuration names. Nobody is asked anything yet.
pub(super) fn connect(config: &ObjectStoreConfig) -> Result<Arc<dyn ObjectStore>, Error> {
    let objects = match &config.kind {
        ObjectStoreKind::S3 { region, access } => s3(config, region.as_deref(), access)?,
        ObjectStoreKind::Azure { account, access } => azure(config, account, access)?,
        ObjectStoreKind::Google { access } => google(config, access)?,
    };
    Ok(if config.prefix.is_empty() { objects } else { Arc::new(PrefixStore::new(objects, config.prefix.as_str())) })
}

/// Whether a put if absent is refused where something is. Both puts have the same text, so that a store that failed this once
/// and was mended holds what it should.
pub(super) async fn keeps_what_it_has(objects: &dyn ObjectStore) -> Result<bool, object_store::Error> {
    let path = Path::from(ASKED);
    for _ in 0..2 {
        let put = PutPayload::from_static(ASKED_TEXT.as_bytes());
        match objects.put_opts(&path, put, put_options(PutMode::Create)).await {
            Ok(_) => {}
            Err(object_store::Error::AlreadyExists { .. }) => return Ok(true),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

fn s3(config: &ObjectStoreConfig, region: Option<&str>, access: &S3Access) -> Result<Arc<dyn ObjectStore>, Error> {
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&config.bucket)
        .with_retry(retry())
        .with_client_options(client_options(config)?);
    if let Some(region) = region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    builder = match access {
        S3Access::Key { id, secret } => {
            builder.with_credentials(Arc::new(KeyOfS3 { id: id.clone(), secret: secret.clone() }))
        }
        S3Access::Role { arn, token_file } => builder
            .with_config(object_store::aws::AmazonS3ConfigKey::RoleArn, arn)
            .with_config(object_store::aws::AmazonS3ConfigKey::RoleSessionName, "harrier")
            .with_config(object_store::aws::AmazonS3ConfigKey::WebIdentityTokenFile, token_file.to_string_lossy()),
        S3Access::Machine => builder,
    };
    Ok(Arc::new(builder.build()?))
}

fn azure(config: &ObjectStoreConfig, account: &str, access: &AzureAccess) -> Result<Arc<dyn ObjectStore>, Error> {
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(account)
        .with_container_name(&config.bucket)
        .with_retry(retry())
        .with_client_options(client_options(config)?);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    builder = match access {
        AzureAccess::Key(key) => builder.with_credentials(Arc::new(KeyOfAzure(key.clone()))),
        AzureAccess::Federated { client_id, tenant_id, token_file } => builder
            .with_client_id(client_id)
            .with_tenant_id(tenant_id)
            .with_federated_token_file(token_file.to_string_lossy()),
        AzureAccess::Machine { client_id: Some(client_id) } => builder.with_client_id(client_id),
        AzureAccess::Machine { client_id: None } => builder,
    };
    Ok(Arc::new(builder.build()?))
}

fn google(config: &ObjectStoreConfig, access: &GoogleAccess) -> Result<Arc<dyn ObjectStore>, Error> {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&config.bucket)
        .with_retry(retry())
        .with_client_options(client_options(config)?);
    if let Some(endpoint) = &config.endpoint {
        builder = builder.with_base_url(endpoint);
    }
    if let GoogleAccess::Key(key) = access {
        builder = builder.with_service_account_key(key.read()?.expose());
    }
    Ok(Arc::new(builder.build()?))
}

fn client_options(config: &ObjectStoreConfig) -> Result<ClientOptions, Error> {
    let mut options = ClientOptions::new()
        .with_allow_http(config.allow_http)
        .with_timeout(REQUEST_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT);
    if let Some(file) = &config.tls_ca_file {
        let unreadable = |source| Error::Authority { path: file.clone(), source };
        for certificate in Certificate::from_pem_bundle(&std::fs::read(file).map_err(unreadable)?)? {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

fn retry() -> RetryConfig {
    let backoff = BackoffConfig { max_backoff: Duration::from_secs(5), ..BackoffConfig::default() };
    RetryConfig { backoff, max_retries: RETRIES_MAX, retry_timeout: RETRY_TIMEOUT }
}

/// A key of S3, whose secret half is read for each request.
#[derive(Debug)]
struct KeyOfS3 {
    id: String,
    secret: SecretFile,
}

#[async_trait]
impl CredentialProvider for KeyOfS3 {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let secret_key = read(&self.secret, "S3")?.expose().to_owned();
        Ok(Arc::new(AwsCredential { key_id: self.id.clone(), secret_key, token: None }))
    }
}

/// A key of a storage account, read for each request.
#[derive(Debug)]
struct KeyOfAzure(SecretFile);

#[async_trait]
impl CredentialProvider for KeyOfAzure {
    type Credential = AzureCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AzureCredential>> {
        let key = read(&self.0, "MicrosoftAzure")?;
        // The error would hold a part of what is no key.
        let key = AzureAccessKey::try_new(key.expose()).map_err(|_| object_store::Error::Generic {
            store: "MicrosoftAzure",
            source: format!("{} is not the key of a storage account", self.0).into(),
        })?;
        Ok(Arc::new(AzureCredential::AccessKey(key)))
    }
}

fn read(file: &SecretFile, store: &'static str) -> object_store::Result<runtime::config::Secret> {
    file.read().map_err(|error| object_store::Error::Generic { store, source: Box::new(error) })
}
