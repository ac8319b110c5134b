//! JSON files: lines, and documents of any length without holding more than one record.

use std::fs::File;
use std::io::Read;
use std::sync::atomic::Ordering;

use runtime::shutdown::Shutdown;
use sha2::{Digest, Sha256};

use super::format::Format;
use super::{FileError, Item, OwnedBody, Sink};
use crate::hex;
use crate::splitter::{Framing, Splitter, TOO_LONG_PREFIX_BYTES, TooLong};

/// How much is read at a time.
const READ_BYTES: usize = 1024 * 1024;

/// Reads records from `probe` and then the rest of the file.
pub(super) fn read(
    probe: Vec<u8>,
    mut file: File,
    name: &str,
    format: Format,
    sink: &mut Sink<'_>,
    shutdown: &Shutdown,
) -> Result<(), FileError> {
    let lines = format == Format::Lines;
    let place =
        |index: u64| if lines { format!("{name}:{}", index + 1) } else { format!("{name}: record {}", index + 1) };
    let mut splitter = Splitter::new(if lines { Framing::Lines } else { Framing::Document });
    let mut bytes = probe;
    while !bytes.is_empty() && !shutdown.is_requested() {
        sink.progress.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        splitter.push(&bytes, &mut |element| {
            let place = place(element.index);
            sink.element(element, place);
        });
        bytes.resize(READ_BYTES, 0);
        let read = file.read(&mut bytes)?;
        bytes.truncate(read);
    }
    let ended = splitter.finish(&mut |element| {
        let place = place(element.index);
        sink.element(element, place);
    });
    if let Err(early) = ended {
        // The beginning of the record that was cut off is kept; those before it are good.
        let reason = "the file ends within a record: it was cut off".to_owned();
        sink.item(Item { place: place(early.elements), body: OwnedBody::Bad(early.tail, reason) });
    }
    Ok(())
}

/// Keeps a file that is nothing we know as one dead letter: its beginning, its length and its hash.
pub(super) fn read_unknown(probe: Vec<u8>, mut file: File, name: &str, sink: &mut Sink<'_>) -> Result<(), FileError> {
    let mut hash = Sha256::new();
    hash.update(&probe);
    let mut length = probe.len() as u64;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hash.update(&buffer[..read]);
        length += read as u64;
    }
    let body = if length <= probe.len() as u64 {
        OwnedBody::Bad(probe, "not an audit record in any format that harrier knows".into())
    } else {
        let mut prefix = probe;
        prefix.truncate(TOO_LONG_PREFIX_BYTES);
        OwnedBody::TooLong(TooLong { length_bytes: length, sha256: hex(&hash.finalize()), prefix })
    };
    sink.item(Item { place: name.to_owned(), body });
    Ok(())
}
