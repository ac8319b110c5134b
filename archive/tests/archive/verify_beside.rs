//! Verifying while others delete: what they may delete is no fault, and what they may not is one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use archive::Store;
use archive::delta::{COPY_COMMITS, DeltaTable};
use archive::signer::{PUBLIC_KEY_FILE, PublicKey};
use archive::table::EVENTS;
use archive::verify::{Kind, Report, Verifier};
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

use crate::cleaning::{ONE_COPY, fill, later};
use crate::world::{Place, World};

/// What somebody else does when the first commit of `events` is read.
#[derive(Debug)]
enum Meanwhile {
    /// Old commits are copied, then deleted.
    Clean(Store),
    /// A commit is deleted that nothing stands for.
    Delete(Path),
}

/// A folder in which something happens once.
#[derive(Debug)]
struct Eventful {
    inner: LocalFileSystem,
    meanwhile: Meanwhile,
    has_happened: AtomicBool,
}

impl std::fmt::Display for Eventful {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Eventful")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Eventful {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if location.as_ref().starts_with("events/_delta_log/") && !self.has_happened.swap(true, Ordering::Relaxed) {
            match &self.meanwhile {
                Meanwhile::Clean(store) => {
                    let delta = DeltaTable::open(store.clone(), &EVENTS).await.unwrap();
                    assert_eq!(delta.clean(later()).await.unwrap().deleted, COPY_COMMITS);
                }
                Meanwhile::Delete(path) => object_store::ObjectStoreExt::delete(&self.inner, path).await.unwrap(),
            }
        }
        self.inner.get_opts(location, options).await
    }

    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

async fn verified(world: &World, meanwhile: Meanwhile) -> Report {
    let inner = LocalFileSystem::new_with_prefix(world.folder.join("archive")).unwrap();
    let eventful = Eventful { inner, meanwhile, has_happened: AtomicBool::new(false) };
    let keys = vec![PublicKey::read(&world.folder.join(PUBLIC_KEY_FILE)).unwrap()];
    let store = Store::over(Arc::new(eventful), "eventful".to_owned());
    Verifier { store, keys, heads: Vec::new(), now: later() }.run().await.unwrap()
}

#[tokio::test]
async fn a_log_that_is_cleaned_meanwhile_is_whole() {
    let world = World::on(Place::Folder);
    fill(&world, ONE_COPY).await;
    let report = verified(&world, Meanwhile::Clean(world.store())).await;
    assert!(report.is_whole(), "{}", report.faults[0]);
    let events = report.tables.iter().find(|table| table.name == "events").unwrap();
    assert_eq!((events.copied_commits, events.commits), (COPY_COMMITS, ONE_COPY));
    assert_eq!(report.tables.iter().filter(|table| table.name == "events").count(), 1);
}

#[tokio::test]
async fn a_commit_that_is_taken_meanwhile_is_missing() {
    let world = World::on(Place::Folder);
    fill(&world, 20).await;
    let path = Path::from(format!("events/_delta_log/{:020}.json", 7));
    let report = verified(&world, Meanwhile::Delete(path.clone())).await;
    let first = &report.faults[0];
    assert_eq!((first.file.as_str(), &first.kind), (path.as_ref(), &Kind::Missing));
}
