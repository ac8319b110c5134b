//! What a client is told: messages as bytes, appended to one buffer. Pure.

use bytes::{BufMut, BytesMut};

use super::failure::{Failure, Severity};
use super::types::{Column, Format};

/// Whether a transaction is open. Nothing is done in one; drivers keep count of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Idle,
    Open,
    /// A statement has failed: all but the end of the transaction is refused.
    Failed,
}

/// Bytes on their way to a client.
#[derive(Debug, Default)]
pub(super) struct Replies(BytesMut);

impl Replies {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// A message: its type, its length, its body.
    fn message(&mut self, kind: u8, body: impl FnOnce(&mut BytesMut)) {
        self.0.put_u8(kind);
        let at = self.0.len();
        self.0.put_i32(0);
        body(&mut self.0);
        // No message that is made here comes near two gigabytes: a value is at most what a batch holds.
        let length = i32::try_from(self.0.len() - at).unwrap_or(i32::MAX);
        self.0[at..at + 4].copy_from_slice(&length.to_be_bytes());
    }

    /// Which protocol is spoken, for a client that asked for more.
    pub(super) fn negotiate(&mut self, options: &[&str]) {
        self.message(b'v', |body| {
            body.put_i32(0);
            body.put_i32(options.len() as i32);
            options.iter().for_each(|option| text(body, option));
        });
    }

    pub(super) fn authentication(&mut self, code: i32, data: &[u8]) {
        self.message(b'R', |body| {
            body.put_i32(code);
            body.put_slice(data);
        });
    }

    pub(super) fn parameter(&mut self, name: &str, value: &str) {
        self.message(b'S', |body| {
            text(body, name);
            text(body, value);
        });
    }

    /// What a request to cancel has to name.
    pub(super) fn key(&mut self, process: i32, secret: i32) {
        self.message(b'K', |body| {
            body.put_i32(process);
            body.put_i32(secret);
        });
    }

    pub(super) fn ready(&mut self, status: Status) {
        let status = match status {
            Status::Idle => b'I',
            Status::Open => b'T',
            Status::Failed => b'E',
        };
        self.message(b'Z', |body| body.put_u8(status));
    }

    pub(super) fn columns(&mut self, columns: &[Column], formats: &[Format]) {
        self.message(b'T', |body| {
            body.put_i16(columns.len() as i16);
            for (column, format) in columns.iter().zip(formats) {
                text(body, &column.name);
                body.put_i32(0);
                body.put_i16(0);
                body.put_u32(column.oid());
                body.put_i16(column.size());
                body.put_i32(-1);
                body.put_i16(format.code());
            }
        });
    }

    pub(super) fn parameters(&mut self, oids: &[u32]) {
        self.message(b't', |body| {
            body.put_u16(oids.len() as u16);
            oids.iter().for_each(|oid| body.put_u32(*oid));
        });
    }

    /// A row: `fields` puts each value with its length. If it fails, nothing has been said.
    pub(super) fn row(
        &mut self,
        count: usize,
        fields: impl FnOnce(&mut BytesMut) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let begin = self.0.len();
        let mut put = Ok(());
        self.message(b'D', |body| {
            body.put_i16(count as i16);
            put = fields(body);
        });
        if put.is_err() {
            self.0.truncate(begin);
        }
        put
    }

    pub(super) fn complete(&mut self, tag: &str) {
        self.message(b'C', |body| text(body, tag));
    }

    pub(super) fn empty(&mut self) {
        self.message(b'I', |_| {});
    }

    pub(super) fn parsed(&mut self) {
        self.message(b'1', |_| {});
    }

    pub(super) fn bound(&mut self) {
        self.message(b'2', |_| {});
    }

    pub(super) fn closed(&mut self) {
        self.message(b'3', |_| {});
    }

    pub(super) fn no_data(&mut self) {
        self.message(b'n', |_| {});
    }

    pub(super) fn suspended(&mut self) {
        self.message(b's', |_| {});
    }

    pub(super) fn failure(&mut self, failure: &Failure) {
        let severity = match failure.severity {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
        };
        self.said(b'E', severity, failure.code, &failure.message);
    }

    /// Said beside an answer.
    pub(super) fn warning(&mut self, code: &str, message: &str) {
        self.said(b'N', "WARNING", code, message);
    }

    fn said(&mut self, kind: u8, severity: &str, code: &str, message: &str) {
        self.message(kind, |body| {
            for (field, value) in [(b'S', severity), (b'V', severity), (b'C', code), (b'M', message)] {
                body.put_u8(field);
                text(body, value);
            }
            body.put_u8(0);
        });
    }
}

/// Text with a zero at its end, which therefore cannot be within.
fn text(body: &mut BytesMut, text: &str) {
    body.extend(text.bytes().filter(|byte| *byte != 0));
    body.put_u8(0);
}
