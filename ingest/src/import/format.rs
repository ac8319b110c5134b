//! What a file is, told from its content: names lie.

use std::io::Read;

use super::FileError;

/// How much of a file is looked at.
const PROBE_BYTES: usize = 256 * 1024;

/// The formats an import reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One record a line.
    Lines,
    /// An array of records, or records written over several lines.
    Document,
    /// An export with an `AuditData` column.
    Csv,
    Unknown,
}

/// The beginning of a file.
pub(super) fn probe(file: &mut std::fs::File) -> Result<Vec<u8>, std::io::Error> {
    let mut probe = Vec::with_capacity(PROBE_BYTES);
    file.take(PROBE_BYTES as u64).read_to_end(&mut probe)?;
    Ok(probe)
}

pub(super) fn detect(probe: &[u8]) -> Result<Format, FileError> {
    if probe.starts_with(b"\xff\xfe") || probe.starts_with(b"\xfe\xff") {
        return Err(FileError::Utf16);
    }
    let text = probe.strip_prefix(b"\xef\xbb\xbf").unwrap_or(probe).trim_ascii_start();
    match text.first() {
        None => Err(FileError::Empty),
        Some(b'[') => Ok(Format::Document),
        // Damaged lines at the beginning must not hide good ones after them.
        Some(_) if has_object_line(text) => Ok(Format::Lines),
        Some(b'{') if begins_an_object(text) => Ok(Format::Document),
        Some(b'{') => Ok(Format::Lines),
        Some(_) => csv_or_unknown(text),
    }
}

/// Whether any whole line of the probe is a JSON object.
fn has_object_line(text: &[u8]) -> bool {
    let is_object = |line: &[u8]| {
        line.trim_ascii().starts_with(b"{") && serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
    };
    text.split(|&byte| byte == b'\n').any(is_object)
}

/// Whether the text is an object that goes on over lines: its first line ends inside it, and another key follows.
fn begins_an_object(text: &[u8]) -> bool {
    let mut lines = text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let first_is_open = lines.next().is_some_and(|line| line == b"{" || line.ends_with(b","));
    first_is_open && lines.next().is_none_or(|line| !line.starts_with(b"{"))
}

fn csv_or_unknown(text: &[u8]) -> Result<Format, FileError> {
    let header = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(header);
    let Some(Ok(columns)) = reader.records().next() else { return Ok(Format::Unknown) };
    if columns.iter().any(|column| column.trim().eq_ignore_ascii_case(super::csv::AUDIT_DATA)) {
        return Ok(Format::Csv);
    }
    // Several columns of text are a table that somebody took for an export; anything else is not ours to name.
    if columns.len() > 1 { Err(FileError::NoAuditData) } else { Ok(Format::Unknown) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_it_contains() {
        for (content, expected) in [
            ("{\"a\":1}\n{\"a\":2}\n", "Ok(Lines)"),
            ("{\"a\":1}", "Ok(Lines)"),
            ("{\"a\":1", "Ok(Lines)"),
            ("garbage\n{\"a\":1}\n", "Ok(Lines)"),
            ("{\"a\":\n{\"a\":1}\n", "Ok(Lines)"),
            ("{\n  \"a\": 1\n}\n{\n \"a\": 2\n}", "Ok(Document)"),
            ("{\"a\":1,\n  \"b\": 1}", "Ok(Document)"),
            ("\u{feff} [ {\"a\":1} ]", "Ok(Document)"),
            ("[]", "Ok(Document)"),
            ("CreationDate,UserIds,Operations,AuditData\n", "Ok(Csv)"),
            ("\u{feff}\"CreationDate\",\"AuditData\"\r\n", "Ok(Csv)"),
            ("CreationDate,UserIds\nx,y\n", "Err(NoAuditData)"),
            ("hello", "Ok(Unknown)"),
            ("", "Err(Empty)"),
            (" \n", "Err(Empty)"),
        ] {
            assert_eq!(format!("{:?}", detect(content.as_bytes())), expected, "{content:?}");
        }
        assert!(matches!(detect(b"\xff\xfe{\0"), Err(FileError::Utf16)));
    }
}
