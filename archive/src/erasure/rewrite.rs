//! A file once more, without some of its rows.

use arrow::compute::{filter_record_batch, not};
use bytes::Bytes;

use super::Subject;
use super::choice::{Known, of_subject};
pub(super) use crate::compactor::content;
use crate::compactor::{Reader, Source};
use crate::content::Content;
use crate::error::Error;
use crate::file::{FileWriter, Written};
use crate::table::Table;

/// What became of a file.
pub(super) struct Rewritten {
    /// The rows of others; nothing, if there were none.
    pub(super) left: Option<Written>,
    /// What is not in it any more.
    pub(super) gone: Content,
}

/// A batch at a time. Fails if the file is not what its commit says: what is erased must be what was archived.
pub(super) fn rewrite(
    table: &'static Table,
    path: String,
    bytes: Bytes,
    content: Option<Content>,
    subject: &Subject,
    known: &Known,
) -> Result<Rewritten, Error> {
    let schema = std::sync::Arc::new(table.file_schema());
    let (mut reader, rows) = Reader::open(table, schema, Source { path, bytes, content })?;
    let mut writer = FileWriter::new(table, rows, true)?;
    let (mut gone, mut left) = (Content::default(), 0);
    while let Some(batch) = reader.next()? {
        let is_gone = of_subject(table, &batch, subject, known);
        gone.add_batch(&filter_record_batch(&batch, &is_gone)?)?;
        let others = filter_record_batch(&batch, &not(&is_gone)?)?;
        left += others.num_rows();
        writer.write(&others)?;
    }
    reader.check()?;
    Ok(Rewritten { left: if left > 0 { Some(writer.finish()?) } else { None }, gone })
}
