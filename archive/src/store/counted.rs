//! A store that says what was read of it: what a question costs, in requests rather than in seconds.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};

use crate::delta::{LOG_FOLDER, PROOF_FOLDER};

/// What was read so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Data files of which anything was read.
    pub files: BTreeSet<String>,
    /// Requests for them.
    pub file_reads: u64,
    /// Bytes of them.
    pub file_bytes: u64,
    /// Requests for Delta logs and for what was copied of them, those for entries that are not there among them.
    pub log_reads: u64,
    /// Tables whose logs were read.
    pub tables: BTreeSet<String>,
}

/// Counts for one store.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Mutex<Reads>>);

impl Counts {
    /// What was read since the last time, or the beginning.
    pub fn take(&self) -> Reads {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn count(&self, location: &Path, bytes: u64) {
        let mut reads = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut parts = location.parts();
        let table = parts.next().map(|part| part.as_ref().to_owned());
        if parts.next().is_some_and(|part| [LOG_FOLDER, PROOF_FOLDER].contains(&part.as_ref())) {
            reads.log_reads += 1;
            reads.tables.extend(table);
        } else {
            reads.file_reads += 1;
            reads.file_bytes += bytes;
            reads.files.insert(location.to_string());
        }
    }
}

/// Another store, and counts of what is read of it.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) inner: Arc<dyn ObjectStore>,
    pub(super) counts: Counts,
}

impl std::fmt::Display for Counted {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Counted({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Counted {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let result = self.inner.get_opts(location, options).await;
        let bytes = result.as_ref().map_or(0, |result| result.range.end - result.range.start);
        self.counts.count(location, bytes);
        result
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.counts.count(location, ranges.iter().map(|range| range.end - range.start).sum());
        self.inner.get_ranges(location, ranges).await
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
