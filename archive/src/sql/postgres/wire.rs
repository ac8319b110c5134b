//! One connection's bytes: messages as they come, answers as they go, each within a bound and a time.
//!
//! Memory grows with what has come, never with what a client says will come.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use super::failure::Failure;
use super::message::{Malformed, Message, Startup};
use super::reply::Replies;

/// What is read of a client while its question is carried out: to see that it is still there, and no more.
const AHEAD_BYTES_MAX: usize = 64 * 1024;

/// How long a client may take to accept what it was sent. A person who looks at a page holds psql's pager, not this.
const WRITE_WITHIN: Duration = Duration::from_secs(60);

/// Answers are sent in pieces of this size.
const PIECE_BYTES: usize = 64 * 1024;

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    /// The client has gone, or takes nothing.
    #[error("the client has gone")]
    Gone,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("a message of {length} bytes: at most {most} are read")]
    TooLong { length: usize, most: usize },
}

impl From<std::io::Error> for Ended {
    fn from(_: std::io::Error) -> Ended {
        Ended::Gone
    }
}

impl Ended {
    /// What the client is told, if it is there to be told.
    pub(super) fn failure(&self) -> Option<Failure> {
        match self {
            Ended::Gone => None,
            Ended::Malformed(malformed) => Some((*malformed).into()),
            Ended::TooLong { .. } => Some(Failure::fatal("08P01", self.to_string())),
        }
    }
}

/// A connection.
pub(super) struct Wire<S> {
    stream: S,
    come: BytesMut,
    pub replies: Replies,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    pub(super) fn new(stream: S) -> Wire<S> {
        Wire { stream, come: BytesMut::new(), replies: Replies::default() }
    }

    /// The stream itself, if nothing has been read ahead: what came in the clear must not be taken for what came
    /// encrypted.
    pub(super) fn into_inner(self) -> Result<S, Ended> {
        if self.come.is_empty() { Ok(self.stream) } else { Err(Malformed.into()) }
    }

    pub(super) async fn startup(&mut self, most: usize) -> Result<Startup, Ended> {
        self.filled(4).await?;
        let body = self.body(4, most).await?;
        Ok(Startup::read(&body)?)
    }

    pub(super) async fn message(&mut self, most: usize) -> Result<Message, Ended> {
        self.filled(5).await?;
        let kind = self.come[0];
        let body = self.body(5, most).await?;
        Ok(Message::read(kind, &body)?)
    }

    /// The bytes of a message after its head, which ends with the length.
    async fn body(&mut self, head: usize, most: usize) -> Result<Bytes, Ended> {
        let mut length = [0; 4];
        length.copy_from_slice(&self.come[head - 4..head]);
        // The length counts itself.
        let length = usize::try_from(i32::from_be_bytes(length)).map_err(|_| Malformed)?;
        let length = length.checked_sub(4).ok_or(Malformed)?;
        if length > most {
            return Err(Ended::TooLong { length, most });
        }
        self.filled(head + length).await?;
        self.come.advance(head);
        Ok(self.come.split_to(length).freeze())
    }

    /// Waits until so many bytes are there. Exactly as many are read as are needed while nobody is known to be there.
    async fn filled(&mut self, count: usize) -> Result<(), Ended> {
        while self.come.len() < count {
            let missing = (count - self.come.len()) as u64;
            if (&mut self.stream).take(missing).read_buf(&mut self.come).await? == 0 {
                return Err(Ended::Gone);
            }
        }
        Ok(())
    }

    /// Returns when the client has gone. What it says meanwhile is kept for later, up to a bound; who has said more than that
    /// is seen to have gone when it is written to.
    pub(super) async fn gone(&mut self) {
        while self.come.len() < AHEAD_BYTES_MAX {
            let room = (AHEAD_BYTES_MAX - self.come.len()) as u64;
            match (&mut self.stream).take(room).read_buf(&mut self.come).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
        std::future::pending().await
    }

    pub(super) fn is_full(&self) -> bool {
        self.replies.len() >= PIECE_BYTES
    }

    /// Sends what has been said.
    pub(super) async fn flush(&mut self) -> Result<(), Ended> {
        let sending = async {
            self.stream.write_all(self.replies.bytes()).await?;
            self.stream.flush().await
        };
        timeout(WRITE_WITHIN, sending).await.map_err(|_| Ended::Gone)??;
        self.replies.clear();
        Ok(())
    }

    /// One byte that is no message.
    pub(super) async fn byte(&mut self, byte: u8) -> Result<(), Ended> {
        timeout(WRITE_WITHIN, self.stream.write_all(&[byte])).await.map_err(|_| Ended::Gone)??;
        Ok(())
    }

    /// Says why it ends, and ends, as far as the client still takes anything.
    pub(super) async fn farewell(&mut self, failure: Option<&Failure>) {
        if let Some(failure) = failure {
            self.replies.failure(failure);
            let _ = self.flush().await;
        }
        let _ = timeout(Duration::from_secs(1), self.stream.shutdown()).await;
    }
}
