//! Many files into one, in the table's order, a batch at a time.
//!
//! Files that say they are sorted are merged as they are read; others, from before harrier sorted by these columns, are
//! sorted first. The rows that go in are summed up ([`Content`]), so that what comes out can be held against them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{RecordBatch, new_null_array};
use arrow::compute::{concat_batches, interleave_record_batch};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::row::{OwnedRow, RowConverter, Rows, SortField};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::content::Content;
use crate::error::Error;
use crate::file::{FileWriter, Written, is_sorted, sorted};
use crate::table::Table;

/// Rows of a batch: of each file one is in memory.
const BATCH_ROWS: usize = 512;

/// Rows under way to the file, or so many bytes of them, whichever comes first.
const CHUNK_ROWS_MAX: usize = 1_024;
const CHUNK_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A file to merge.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) bytes: Bytes,
    /// What its commit says it holds; nothing for files from before commits said so.
    pub(crate) content: Option<Content>,
}

/// What a merge gave.
pub(super) struct Merged {
    pub(super) written: Written,
    /// What was read.
    pub(super) content: Content,
}

/// Merges files of one partition. Ends early, with an error, when `stop` is set.
pub(super) fn merge(table: &'static Table, sources: Vec<Source>, stop: &AtomicBool) -> Result<Merged, Error> {
    let schema: SchemaRef = Arc::new(table.file_schema());
    let order = Order::new(table, &schema)?;
    let mut readers = Vec::with_capacity(sources.len());
    let mut rows = 0;
    for source in sources {
        let (reader, reader_rows) = Reader::open(table, schema.clone(), source)?;
        rows += reader_rows;
        readers.push(reader);
    }
    let mut merging = Merging {
        order,
        readers,
        held: Vec::new(),
        heads: Vec::new(),
        heap: BinaryHeap::new(),
        chunk: Chunk::default(),
        writer: FileWriter::new(table, rows, true)?,
    };
    merging.start()?;
    while let Some(Reverse((_, run))) = merging.heap.pop() {
        merging.take(run)?;
        if merging.chunk.is_full() {
            if stop.load(Ordering::Relaxed) {
                return Err(Error::Worker);
            }
            merging.write_chunk()?;
        }
    }
    merging.write_chunk()?;
    let mut content = Content::default();
    for reader in &merging.readers {
        reader.check()?;
        content.add(&reader.read);
    }
    Ok(Merged { written: merging.writer.finish()?, content })
}

/// The rows of a stored file, summed up.
pub(crate) fn content(bytes: Bytes) -> Result<Content, Error> {
    let mut content = Content::default();
    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes)?.with_batch_size(BATCH_ROWS).build()? {
        content.add_batch(&batch?)?;
    }
    Ok(content)
}

/// The columns that rows are ordered by, in a form that compares as bytes.
struct Order {
    positions: Vec<usize>,
    converter: RowConverter,
}

impl Order {
    fn new(table: &Table, schema: &Schema) -> Result<Order, Error> {
        let positions: Vec<usize> =
            table.sorted_by.iter().map(|name| schema.index_of(name)).collect::<Result<_, _>>()?;
        let fields = positions.iter().map(|&position| SortField::new(schema.field(position).data_type().clone()));
        Ok(Order { converter: RowConverter::new(fields.collect())?, positions })
    }

    fn rows(&self, batch: &RecordBatch) -> Result<Rows, Error> {
        let columns: Vec<_> = self.positions.iter().map(|&position| batch.column(position).clone()).collect();
        Ok(self.converter.convert_columns(&columns)?)
    }
}

struct Merging {
    order: Order,
    readers: Vec<Reader>,
    /// Batches that rows under way lie in, those of the heads among them.
    held: Vec<RecordBatch>,
    /// For each reader, where it stands.
    heads: Vec<Option<Head>>,
    heap: BinaryHeap<Reverse<(OwnedRow, usize)>>,
    chunk: Chunk,
    writer: FileWriter,
}

struct Head {
    /// Position in `held`.
    batch: usize,
    rows: Rows,
    at: usize,
    row_bytes: usize,
}

/// Rows chosen and not written yet: (batch in `held`, row).
#[derive(Default)]
struct Chunk {
    rows: Vec<(usize, usize)>,
    bytes: usize,
}

impl Chunk {
    fn is_full(&self) -> bool {
        self.rows.len() >= CHUNK_ROWS_MAX || self.bytes >= CHUNK_BYTES_MAX
    }
}

impl Merging {
    fn start(&mut self) -> Result<(), Error> {
        for run in 0..self.readers.len() {
            self.heads.push(None);
            self.next_batch(run)?;
        }
        Ok(())
    }

    fn next_batch(&mut self, run: usize) -> Result<(), Error> {
        self.heads[run] = None;
        if let Some(batch) = self.readers[run].next()? {
            let rows = self.order.rows(&batch)?;
            let row_bytes = batch.get_array_memory_size() / batch.num_rows().max(1);
            self.heap.push(Reverse((rows.row(0).owned(), run)));
            self.heads[run] = Some(Head { batch: self.held.len(), rows, at: 0, row_bytes });
            self.held.push(batch);
        }
        Ok(())
    }

    /// Moves the head of a reader to the chunk.
    fn take(&mut self, run: usize) -> Result<(), Error> {
        let Some(head) = &mut self.heads[run] else { return Ok(()) };
        self.chunk.rows.push((head.batch, head.at));
        self.chunk.bytes += head.row_bytes;
        head.at += 1;
        if head.at == head.rows.num_rows() {
            return self.next_batch(run);
        }
        if head.rows.row(head.at) < head.rows.row(head.at - 1) {
            return Err(Error::Unsorted { path: self.readers[run].path.clone() });
        }
        self.heap.push(Reverse((head.rows.row(head.at).owned(), run)));
        Ok(())
    }

    fn write_chunk(&mut self) -> Result<(), Error> {
        if self.chunk.rows.is_empty() {
            return Ok(());
        }
        let held: Vec<&RecordBatch> = self.held.iter().collect();
        self.writer.write(&interleave_record_batch(&held, &self.chunk.rows)?)?;
        self.chunk = Chunk::default();
        // Only the batches that the heads stand in are needed on.
        let mut kept = Vec::with_capacity(self.heads.len());
        for head in self.heads.iter_mut().flatten() {
            kept.push(self.held[head.batch].clone());
            head.batch = kept.len() - 1;
        }
        self.held = kept;
        Ok(())
    }
}

/// A file being read, in the table's order and columns.
pub(crate) struct Reader {
    path: String,
    schema: SchemaRef,
    batches: Batches,
    /// What has been read.
    read: Content,
    expected: Option<Content>,
}

enum Batches {
    Stored(ParquetRecordBatchReader),
    /// Sorted in memory; what is left of it.
    Sorted(RecordBatch),
}

impl Reader {
    pub(crate) fn open(table: &'static Table, schema: SchemaRef, source: Source) -> Result<(Reader, u64), Error> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(source.bytes)?;
        let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        if let Some(unknown) = builder.schema().fields().iter().find(|field| schema.index_of(field.name()).is_err()) {
            return Err(Error::UnknownColumn { path: source.path, column: unknown.name().clone() });
        }
        let is_sorted = is_sorted(table, builder.metadata());
        let stored = builder.with_batch_size(BATCH_ROWS).build()?;
        let Source { path, content: expected, .. } = source;
        let mut reader = Reader { path, schema, batches: Batches::Stored(stored), read: Content::default(), expected };
        if !is_sorted {
            let mut all = Vec::new();
            while let Some(batch) = reader.next()? {
                all.push(batch);
            }
            let all = concat_batches(&reader.schema, &all)?;
            reader.batches = Batches::Sorted(sorted(table, all)?);
        }
        Ok((reader, rows))
    }

    pub(crate) fn next(&mut self) -> Result<Option<RecordBatch>, Error> {
        let batch = match &mut self.batches {
            Batches::Sorted(left) if left.num_rows() == 0 => return Ok(None),
            Batches::Sorted(left) => {
                let next = left.slice(0, BATCH_ROWS.min(left.num_rows()));
                *left = left.slice(next.num_rows(), left.num_rows() - next.num_rows());
                return Ok(Some(next));
            }
            Batches::Stored(stored) => match stored.next() {
                None => return Ok(None),
                Some(batch) => batch?,
            },
        };
        self.read.add_batch(&batch)?;
        // A column that came later has no values here.
        let columns = self.schema.fields().iter().map(|field| match batch.column_by_name(field.name()) {
            Some(column) => column.clone(),
            None => new_null_array(field.data_type(), batch.num_rows()),
        });
        Ok(Some(RecordBatch::try_new(self.schema.clone(), columns.collect())?))
    }

    /// Whether the file held what its commit says.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match self.expected {
            Some(expected) if expected != self.read => Err(Error::Altered { path: self.path.clone() }),
            _ => Ok(()),
        }
    }
}
