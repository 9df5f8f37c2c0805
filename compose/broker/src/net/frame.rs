//! Frames: four bytes of length, then a request. Reading is bounded in bytes and in time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

const READ_AHEAD: usize = 16 << 10;
/// A frame that has begun must be complete within this time.
const FRAME_TIME: Duration = Duration::from_secs(60);

/// Why there is no next frame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the client closed the connection")]
    Closed,
    #[error("no request came for too long")]
    Idle,
    #[error("a frame of {0} bytes is not accepted")]
    TooLong(i64),
    #[error("a frame was not completed in time")]
    Slow,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads frames from one connection.
pub(crate) struct Frames<R> {
    from: R,
    buffer: BytesMut,
    inflight: Arc<Semaphore>,
    idle: Duration,
}

impl<R: AsyncRead + Unpin> Frames<R> {
    /// `inflight` bounds the bytes of all connections together.
    pub(crate) fn new(from: R, inflight: Arc<Semaphore>, idle: Duration) -> Self {
        Self {
            from,
            buffer: BytesMut::new(),
            inflight,
            idle,
        }
    }

    /// The next frame, without its length, of at most `most` bytes; and its share of the bound.
    pub(crate) async fn next(&mut self, most: usize) -> Result<(Bytes, OwnedSemaphorePermit), End> {
        match timeout(self.idle, self.fill(4)).await {
            Ok(filled) => filled?,
            Err(_) => return Err(End::Idle),
        }
        let length = i64::from(self.buffer.get_i32());
        let bytes = usize::try_from(length)
            .ok()
            .filter(|bytes| *bytes <= most)
            .ok_or(End::TooLong(length))?;
        let share = u32::try_from(bytes).map_err(|_| End::TooLong(length))?;
        let read = async {
            let permit = Arc::clone(&self.inflight)
                .acquire_many_owned(share)
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::Interrupted))?;
            self.fill(bytes).await?;
            Ok::<_, End>((self.buffer.split_to(bytes).freeze(), permit))
        };
        timeout(FRAME_TIME, read).await.map_err(|_| End::Slow)?
    }

    async fn fill(&mut self, bytes: usize) -> Result<(), End> {
        if self.buffer.len() < bytes {
            self.buffer
                .reserve((bytes - self.buffer.len()).max(READ_AHEAD));
        }
        while self.buffer.len() < bytes {
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Err(End::Closed);
            }
        }
        Ok(())
    }
}
