//! Where the archive's files lie: a folder, or anything else that `object_store` speaks to; and who signs for them.

mod counted;

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::path::Path;

use self::counted::Counted;
pub use self::counted::{Counts, Reads};
use crate::error::Error;
use crate::signer::Signer;

/// A store, and what makes its files durable. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    /// The folder of a local store. Object stores acknowledge only what is durable; a file system does not.
    folder: Option<Arc<PathBuf>>,
    signer: Option<Arc<Signer>>,
}

impl Store {
    /// A folder, which must exist.
    pub fn folder(path: &FilePath) -> Result<Store, Error> {
        let objects = Arc::new(LocalFileSystem::new_with_prefix(path)?);
        Ok(Store { objects, folder: Some(Arc::new(path.to_owned())), signer: None })
    }

    /// Whoever commits through this store signs.
    pub fn signed_by(self, signer: Signer) -> Store {
        Store { signer: Some(Arc::new(signer)), ..self }
    }

    /// The same store, and counts of what is read through it.
    pub fn counted(self) -> (Store, Counts) {
        let counts = Counts::default();
        let objects = Arc::new(Counted { inner: self.objects, counts: counts.clone() });
        (Store { objects, ..self }, counts)
    }

    pub(crate) fn signer(&self) -> Option<&Signer> {
        self.signer.as_deref()
    }

    pub(crate) fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// Returns when these files survive a power cut, with the folders that name them. A commit must not be able to
    /// outlive the files it names.
    pub(crate) async fn make_durable(&self, files: Vec<Path>) -> Result<(), Error> {
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        let synced = tokio::task::spawn_blocking(move || {
            let mut folders = std::collections::BTreeSet::new();
            for file in files {
                let path = folder.join(file.as_ref());
                std::fs::File::open(&path)?.sync_all()?;
                // Every folder up to the archive's own may have been made for this file.
                folders.extend(
                    path.ancestors().skip(1).take_while(|parent| parent.starts_with(&*folder)).map(FilePath::to_owned),
                );
            }
            folders.iter().try_for_each(|folder| std::fs::File::open(folder)?.sync_all())
        });
        synced.await.map_err(|_| Error::Worker)?.map_err(Error::Sync)
    }
}
