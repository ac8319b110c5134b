//! What a client says: bytes in, messages out. Pure.
//!
//! Reading is total: whatever the bytes are, there is a message or [`Malformed`], and never a panic. Whoever can reach the
//! port speaks to this module before anything is known of them. The crate `pgwire` (0.42) reads integers of a message
//! that is cut short with calls that panic, which is one reason why this is ours.

use bytes::Bytes;

/// Protocol 3.0. Clients that ask for a later minor version are told that this is what is spoken.
pub(super) const VERSION_MAJOR: i32 = 3;

const CANCEL: i32 = 80_877_102;
const TLS: i32 = 80_877_103;
const GSS: i32 = 80_877_104;

/// The bytes are not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message is not one of the protocol")]
pub(super) struct Malformed;

/// The first message of a connection, which has no type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Startup {
    Tls,
    /// Encryption by GSSAPI, which is not had here.
    Gss,
    Cancel {
        process: i32,
        secret: i32,
    },
    Login {
        major: i32,
        minor: i32,
        parameters: Vec<(String, String)>,
    },
}

impl Startup {
    /// Reads what follows the length.
    pub(super) fn read(body: &[u8]) -> Result<Startup, Malformed> {
        let mut rest = Rest(body);
        let code = rest.int32()?;
        let startup = match code {
            TLS => Startup::Tls,
            GSS => Startup::Gss,
            CANCEL => Startup::Cancel { process: rest.int32()?, secret: rest.int32()? },
            version => {
                let mut parameters = Vec::new();
                loop {
                    let name = rest.text()?;
                    if name.is_empty() {
                        break;
                    }
                    parameters.push((name, rest.text()?));
                }
                Startup::Login { major: version >> 16, minor: version & 0xffff, parameters }
            }
        };
        rest.end(startup)
    }
}

/// Whether a message is about a prepared statement or a portal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Statement,
    Portal,
}

/// A message of a client that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Query(String),
    Parse {
        name: String,
        query: String,
        types: Vec<u32>,
    },
    Bind(Bind),
    Describe(Subject, String),
    Execute {
        portal: String,
        rows_max: usize,
    },
    Close(Subject, String),
    Flush,
    Sync,
    /// A step of signing in.
    Password(Bytes),
    Terminate,
    /// What belongs to COPY, which is refused; clients may send it before they have read so.
    Copy,
    /// Calls a function by number.
    Call,
}

/// Values for the parameters of a prepared statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bind {
    pub portal: String,
    pub statement: String,
    pub formats: Vec<i16>,
    pub values: Vec<Option<Bytes>>,
    pub result_formats: Vec<i16>,
}

impl Message {
    /// Reads the body of a message of this type.
    pub(super) fn read(kind: u8, body: &Bytes) -> Result<Message, Malformed> {
        let mut rest = Rest(body);
        let message = match kind {
            b'Q' => Message::Query(rest.text()?),
            b'P' => Message::Parse {
                name: rest.text()?,
                query: rest.text()?,
                types: rest.list(4, |rest| Ok(rest.int32()? as u32))?,
            },
            b'B' => Message::Bind(Bind {
                portal: rest.text()?,
                statement: rest.text()?,
                formats: rest.list(2, Rest::int16)?,
                values: rest.list(4, |rest| {
                    let length = rest.int32()?;
                    if length == -1 {
                        return Ok(None);
                    }
                    let taken = rest.take(usize::try_from(length).map_err(|_| Malformed)?)?;
                    Ok(Some(body.slice_ref(taken)))
                })?,
                result_formats: rest.list(2, Rest::int16)?,
            }),
            b'D' => Message::Describe(rest.subject()?, rest.text()?),
            b'C' => Message::Close(rest.subject()?, rest.text()?),
            // Negative counts mean the same as 0: all rows.
            b'E' => {
                Message::Execute { portal: rest.text()?, rows_max: usize::try_from(rest.int32()?).unwrap_or_default() }
            }
            b'H' => Message::Flush,
            b'S' => Message::Sync,
            b'X' => Message::Terminate,
            b'p' => return Ok(Message::Password(body.clone())),
            b'd' | b'c' | b'f' => return Ok(Message::Copy),
            b'F' => return Ok(Message::Call),
            _ => return Err(Malformed),
        };
        rest.end(message)
    }
}

/// The first message of a sign-in by SASL: the mechanism and what it begins with.
pub(super) fn sasl_begin(body: &[u8]) -> Result<(String, &[u8]), Malformed> {
    let mut rest = Rest(body);
    let mechanism = rest.text()?;
    let length = usize::try_from(rest.int32()?).map_err(|_| Malformed)?;
    let begin = rest.take(length)?;
    rest.end((mechanism, begin))
}

/// What of a message has not been read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn int16(&mut self) -> Result<i16, Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(i16::from_be_bytes(*taken))
    }

    fn int32(&mut self) -> Result<i32, Malformed> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed)?;
        self.0 = rest;
        Ok(i32::from_be_bytes(*taken))
    }

    /// Text up to a zero byte.
    fn text(&mut self) -> Result<String, Malformed> {
        let end = memchr_zero(self.0).ok_or(Malformed)?;
        let text = std::str::from_utf8(self.take(end)?).map_err(|_| Malformed)?;
        self.take(1)?;
        Ok(text.to_owned())
    }

    fn subject(&mut self) -> Result<Subject, Malformed> {
        match self.take(1)? {
            b"S" => Ok(Subject::Statement),
            b"P" => Ok(Subject::Portal),
            _ => Err(Malformed),
        }
    }

    /// A count and so many items, each of at least some bytes: a count that cannot be true takes no memory.
    fn list<T>(
        &mut self,
        bytes_least: usize,
        mut item: impl FnMut(&mut Rest<'a>) -> Result<T, Malformed>,
    ) -> Result<Vec<T>, Malformed> {
        let count = usize::from(self.int16()? as u16);
        if count * bytes_least > self.0.len() {
            return Err(Malformed);
        }
        (0..count).map(|_| item(self)).collect()
    }

    fn end<T>(&self, read: T) -> Result<T, Malformed> {
        if self.0.is_empty() { Ok(read) } else { Err(Malformed) }
    }
}

fn memchr_zero(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|&byte| byte == 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(kind: u8, body: &[u8]) -> Result<Message, Malformed> {
        Message::read(kind, &Bytes::copy_from_slice(body))
    }

    #[test]
    fn a_message_is_read_and_one_that_is_cut_or_goes_on_is_refused() {
        let parse = b"name\0SELECT $1\0\0\x01\0\0\0\x19";
        let expected = Message::Parse { name: "name".into(), query: "SELECT $1".into(), types: vec![25] };
        assert_eq!(read(b'P', parse), Ok(expected));
        for end in 0..parse.len() {
            assert_eq!(read(b'P', &parse[..end]), Err(Malformed), "{end}");
        }
        assert_eq!(read(b'P', b"name\0SELECT 1\0\0\0extra"), Err(Malformed));
        assert_eq!(read(b'B', b"\0\0\xff\xff"), Err(Malformed));
        assert_eq!(read(b'B', b"\0\0\0\0\0\x01\x80\0\0\0\0\0"), Err(Malformed));
        assert_eq!(read(b'Q', b"\xff\0"), Err(Malformed));
        assert_eq!(Startup::read(&[0, 3, 0, 0, b'a', 0]), Err(Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(kind: u8, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(kind, &body);
            let _ = Startup::read(&body);
            let _ = sasl_begin(&body);
            for kind in *b"QPBDCEHSXpdcfF" {
                let _ = read(kind, &body);
            }
        }
    }
}
