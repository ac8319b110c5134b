//! What files say of themselves at their end, kept between questions together with the index of their pages.
//!
//! The engine asks for a footer first without the index and then, file by file, for the index, which it does not keep if
//! it was not there when the footer was: so every question read and parsed the index of every column of every file that it
//! opened, which took longer than the rows. Here whoever opens a file gets both, and both stay.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::error::Result;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::ParquetMetaData;

/// Readers of files, over one cache of footers.
#[derive(Clone, Debug)]
pub(super) struct Footers {
    /// Gives what is asked for: a look at the filters needs no index.
    pub(super) plain: Arc<CachedParquetFileReaderFactory>,
}

impl ParquetFileReaderFactory for Footers {
    fn create_reader(
        &self,
        partition_index: usize,
        file: PartitionedFile,
        footer_bytes: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        Ok(Box::new(Indexed(self.plain.create_reader(partition_index, file, footer_bytes, metrics)?)))
    }
}

/// A reader that gives the index of pages with the footer.
struct Indexed(Box<dyn AsyncFileReader + Send>);

impl AsyncFileReader for Indexed {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.0.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        self.0.get_byte_ranges(ranges)
    }

    /// What is asked for may be without the index. Whoever asks for nothing gets, and keeps, all there is.
    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        self.0.get_metadata(None)
    }
}
