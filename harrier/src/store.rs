//! The archive of a configuration, wherever it lies: the one way to it for every command.

use archive::{Error, Store};
use runtime::config::Config;

use crate::exit::ConfigurationError;

/// The archive, for whoever reads it.
pub async fn to_read(config: &Config) -> anyhow::Result<Store> {
    let name = config.archive.store.as_ref().map(ToString::to_string);
    Store::find(config).await.map_err(|error| told(name.as_deref().unwrap_or_default(), error))
}

/// The archive, for whoever writes it: made if it is missing, and signed.
pub fn to_write(config: &Config) -> anyhow::Result<Store> {
    let name = config.archive.store.as_ref().map(ToString::to_string);
    let store = Store::make(config).map_err(|error| told(name.as_deref().unwrap_or_default(), error))?;
    Ok(store.signed_by(crate::services::signer(config)?))
}

/// What is wrong with the archive's place: for the operator, if it is for them to change.
pub fn told(name: &str, error: Error) -> anyhow::Error {
    let is_remote = !name.is_empty() && matches!(error, Error::Store(_));
    let text = if is_remote { format!("the archive at {name}: {error}") } else { error.to_string() };
    match error.is_for_operator() {
        true => ConfigurationError(text).into(),
        false if is_remote => anyhow::anyhow!(text),
        false => error.into(),
    }
}
