//! The Purview / Search-UnifiedAuditLog CSV: the records are in the `AuditData` column, and only that one is read.

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::sync::atomic::Ordering;

use runtime::shutdown::Shutdown;

use super::{FileError, Item, OwnedBody, Progress, Sink};
use crate::splitter::{Body, Element};

/// The column that holds the record.
pub(super) const AUDIT_DATA: &str = "AuditData";

/// Longest row. A quote that is never closed makes the rest of a file one row; it must not be held in memory.
const ROW_BYTES_MAX: u64 = 128 * 1024 * 1024;

/// Excel cuts cells at this length.
const EXCEL_CELL_CHARACTERS: usize = 32_767;

pub(super) fn read(
    probe: Vec<u8>,
    file: File,
    name: &str,
    sink: &mut Sink<'_>,
    shutdown: &Shutdown,
) -> Result<(), FileError> {
    let input = Limited {
        inner: Cursor::new(probe).chain(file),
        since_row: std::cell::Cell::new(0).into(),
        progress: sink.progress,
    };
    let since_row = input.since_row.clone();
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(input);
    let headers = reader.byte_headers().map_err(|error| csv_error(1, &error))?;
    let is_audit_data = |column: &[u8]| column.trim_ascii().eq_ignore_ascii_case(AUDIT_DATA.as_bytes());
    let column = headers.iter().position(is_audit_data).ok_or(FileError::NoAuditData)?;
    let mut row = csv::ByteRecord::new();
    let mut number = 1;
    while !shutdown.is_requested() {
        since_row.set(0);
        number += 1;
        match reader.read_byte_record(&mut row) {
            Ok(false) => break,
            Ok(true) => {}
            Err(error) => return Err(csv_error(number, &error)),
        }
        let place = format!("{name}: row {number}");
        match row.get(column) {
            Some(cell) if !cell.trim_ascii().is_empty() => match cut_by_excel(cell) {
                false => sink.element(Element { index: number, offset: 0, body: Body::Whole(cell) }, place),
                true => {
                    let reason = "cut at 32,767 characters: the file went through Excel; export it again".to_owned();
                    sink.item(Item { place, body: OwnedBody::Bad(cell.to_vec(), reason) });
                }
            },
            _ => {
                let whole: Vec<u8> = row.iter().collect::<Vec<_>>().join(&b","[..]);
                sink.item(Item { place, body: OwnedBody::Bad(whole, "the row has no AuditData".into()) });
            }
        }
    }
    Ok(())
}

fn csv_error(row: u64, error: &csv::Error) -> FileError {
    let reason = match error.kind() {
        csv::ErrorKind::Io(error) => error.to_string(),
        _ => "not CSV".to_owned(),
    };
    FileError::Csv { row, reason }
}

fn cut_by_excel(cell: &[u8]) -> bool {
    cell.len() >= EXCEL_CELL_CHARACTERS
        && !cell.trim_ascii_end().ends_with(b"}")
        && std::str::from_utf8(cell).is_ok_and(|text| text.encode_utf16().count() == EXCEL_CELL_CHARACTERS)
}

/// Counts what is read and refuses a row that does not end.
struct Limited<'a, R> {
    inner: R,
    since_row: std::rc::Rc<std::cell::Cell<u64>>,
    progress: &'a Progress,
}

impl<R: Read> Read for Limited<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.progress.bytes_read.fetch_add(read as u64, Ordering::Relaxed);
        self.since_row.set(self.since_row.get() + read as u64);
        if self.since_row.get() > ROW_BYTES_MAX {
            return Err(io::Error::other("a row of more than 128 MiB: a quote is not closed"));
        }
        Ok(read)
    }
}
