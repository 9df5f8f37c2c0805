//! Bodies: read whole, within a size, a time, and a bound on all of them together.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use http_body_util::BodyExt as _;
use prometheus::IntGauge;
use weir_auth::door::{Code, Problem};

use super::RETRY_AFTER;

/// A body that is too large is read on and dropped for so many times its limit: a client
/// that is still sending would not see the answer otherwise.
const PATIENCE: usize = 4;

/// What all bodies in memory may take together.
pub(crate) struct Room {
    most: i64,
    used: IntGauge,
}

/// A body's share of the room, until it is dropped.
pub(crate) struct Share<'a> {
    room: &'a Room,
    bytes: i64,
}

/// A whole body.
pub(crate) struct Whole<'a> {
    pub(crate) bytes: Bytes,
    _share: Share<'a>,
}

impl Room {
    pub(crate) fn new(bytes: usize, gauge: IntGauge) -> Self {
        Self {
            most: i64::try_from(bytes).unwrap_or(i64::MAX),
            used: gauge,
        }
    }

    /// Reads a body of at most `most` bytes.
    ///
    /// # Errors
    /// Too large, too slow, broken off, compressed, or no room now.
    pub(crate) async fn read(
        &self,
        headers: &HeaderMap,
        body: Body,
        most: usize,
        timeout: Duration,
    ) -> Result<Whole<'_>, Problem> {
        plain(headers)?;
        let reading = tokio::time::timeout(timeout, self.collect(body, most));
        reading.await.unwrap_or_else(|_| {
            let detail = format!(
                "the body did not arrive within {} seconds",
                timeout.as_secs()
            );
            Err(Problem::new(Code::InvalidField, detail))
        })
    }

    async fn collect(&self, mut body: Body, most: usize) -> Result<Whole<'_>, Problem> {
        let mut share = Share {
            room: self,
            bytes: 0,
        };
        // The usual body comes in one piece and is not copied.
        let mut first = Bytes::new();
        let mut rest = Vec::new();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.map_err(|_| broken_off())?.into_data() else {
                continue;
            };
            length += piece.len();
            if length > most {
                drop((share, first, rest));
                discard(body, most.saturating_mul(PATIENCE)).await;
                return Err(too_large(most));
            }
            share.grow(piece.len())?;
            if first.is_empty() {
                first = piece;
            } else {
                if rest.is_empty() {
                    rest.extend_from_slice(&first);
                }
                rest.extend_from_slice(&piece);
            }
        }
        let bytes = if rest.is_empty() { first } else { rest.into() };
        Ok(Whole {
            bytes,
            _share: share,
        })
    }
}

impl Share<'_> {
    fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.room.used.add(bytes);
        self.bytes += bytes;
        if self.room.used.get() > self.room.most {
            let detail = "too many bytes of requests are in memory now";
            return Err(Problem::new(Code::Overloaded, detail).retry_after(RETRY_AFTER));
        }
        Ok(())
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.room.used.sub(self.bytes);
    }
}

async fn discard(mut body: Body, most: usize) {
    let mut length = 0;
    while let Some(Ok(frame)) = body.frame().await {
        length += frame.data_ref().map_or(0, Bytes::len);
        if length > most {
            return;
        }
    }
}

/// A compressed body would be called "not UTF-8", which helps nobody.
fn plain(headers: &HeaderMap) -> Result<(), Problem> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(Problem::new(
                Code::UnsupportedMediaType,
                "the body must be sent without `Content-Encoding`",
            ))
        }
        _ => Ok(()),
    }
}

fn too_large(most: usize) -> Problem {
    Problem::new(
        Code::TooLarge,
        format!("the body is larger than the {most} bytes that this door takes"),
    )
}

fn broken_off() -> Problem {
    Problem::new(Code::InvalidJson, "the body broke off before its end")
}
