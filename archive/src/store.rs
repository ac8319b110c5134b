//! Where the archive's files lie: a folder, or anything else that `object_store` speaks to; and who signs for them.

mod counted;
pub(crate) mod remote;

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, PutMode, PutOptions};
use runtime::config::Config;
use tokio::sync::OnceCell;

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
    /// For an object store its name, and whether it has been seen to keep what it has. A file system does by its hard links.
    remote: Option<Arc<Remote>>,
}

#[derive(Debug)]
struct Remote {
    name: String,
    keeps: OnceCell<()>,
}

/// The folder of an archive that lies in the data folder.
const FOLDER_NAME: &str = "archive";

impl Store {
    /// The archive that a configuration names, if there is anything in it: for whoever reads.
    pub async fn find(config: &Config) -> Result<Store, Error> {
        let store = match &config.archive.store {
            Some(_) => Store::make(config)?,
            None => {
                let folder = config.data_dir.join(FOLDER_NAME);
                if !folder.is_dir() {
                    return Err(Error::NoArchive { place: config.data_dir.display().to_string() });
                }
                return Store::folder(&folder);
            }
        };
        match store.objects.list(None).try_next().await? {
            Some(_) => Ok(store),
            None => Err(Error::NoArchive { place: store.name() }),
        }
    }

    /// The same for whoever writes: a folder is made if it is missing. Nobody is asked anything yet: see [`Self::check`].
    pub fn make(config: &Config) -> Result<Store, Error> {
        if let Some(remote) = &config.archive.store {
            return Ok(Store::over(remote::connect(remote)?, remote.to_string()));
        }
        let folder = config.data_dir.join(FOLDER_NAME);
        std::fs::create_dir_all(&folder).map_err(|source| Error::Folder { path: folder.clone(), source })?;
        Store::folder(&folder)
    }

    /// A folder, which must exist.
    pub fn folder(path: &FilePath) -> Result<Store, Error> {
        let objects = Arc::new(LocalFileSystem::new_with_prefix(path)?);
        Ok(Store { objects, folder: Some(Arc::new(path.to_owned())), signer: None, remote: None })
    }

    /// An object store, under the name by which it is spoken of.
    pub fn over(objects: Arc<dyn ObjectStore>, name: String) -> Store {
        let remote = Remote { name, keeps: OnceCell::new() };
        Store { objects, folder: None, signer: None, remote: Some(Arc::new(remote)) }
    }

    /// Whether commits can be made here. Asked once, before the first of them at the latest: a store that does not keep what
    /// it has would lose them without a sign.
    pub async fn check(&self) -> Result<(), Error> {
        let Some(remote) = &self.remote else { return Ok(()) };
        let asked = remote.keeps.get_or_try_init(|| async {
            match remote::keeps_what_it_has(&*self.objects).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(Error::Overwrites { place: remote.name.clone() }),
                Err(error) => Err(error.into()),
            }
        });
        asked.await.copied()
    }

    /// As people know it.
    pub fn name(&self) -> String {
        match (&self.remote, &self.folder) {
            (Some(remote), _) => remote.name.clone(),
            (None, Some(folder)) => folder.display().to_string(),
            (None, None) => "the archive".to_owned(),
        }
    }

    /// Whether it is an object store, which asks itself whether it keeps what it has.
    pub(crate) fn is_remote(&self) -> bool {
        self.remote.is_some()
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

    /// How a commit is put: only if nothing is there.
    pub(crate) fn commit_options() -> PutOptions {
        put_options(PutMode::Create)
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

fn put_options(mode: PutMode) -> PutOptions {
    let broken = mode == PutMode::Create && runtime::failpoint::is_broken("archive-without-put-if-absent");
    PutOptions { mode: if broken { PutMode::Overwrite } else { mode }, ..PutOptions::default() }
}
