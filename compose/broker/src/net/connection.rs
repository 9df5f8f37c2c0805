//! One connection: requests in, answers out in the same order.
//!
//! What it keeps true: a produce request is under way as soon as it is read, so the requests of one
//! client share an fdatasync; everything else waits for its turn. Whatever is wrong with a frame ends
//! this connection and no other. Before authentication only the requests that lead to it are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kafka_protocol::messages::ApiKey;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{sleep, timeout};

use super::frame::{End, Frames};
use super::{Peer, Shared, sasl};
use crate::api::{self, produce};
use crate::config::Auth;
use crate::wire::{EncodeError, Malformed, Request};

/// Requests of one connection that are read and not yet answered.
const AHEAD: usize = 16;
/// Bytes of a request before authentication.
const STRANGER_BYTES: usize = 64 << 10;
/// Bytes of a request that carries no records.
const PLAIN_BYTES: usize = 4 << 20;
/// How long a client may take to take an answer, and a stopping broker to give the last ones.
const WRITE_TIME: Duration = Duration::from_secs(60);
const DRAIN_TIME: Duration = Duration::from_secs(5);
/// How long a wrong password waits for its answer.
const WRONG_PASSWORD_DELAY: Duration = Duration::from_millis(100);

/// A request on its way to its answer.
enum Turn {
    Produce(produce::Pending),
    Other(Request, OwnedSemaphorePermit),
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Frame(#[from] End),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("a request came before authentication")]
    Stranger,
    #[error("a record batch that wants no answer was refused")]
    Unanswered,
    #[error("the broker stops")]
    Stopping,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Closing {
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("the client doesn't take its answers: {0}")]
    Write(std::io::Error),
    #[error("authentication failed")]
    Denied,
}

struct Connection {
    shared: Arc<Shared>,
    peer: Peer,
    authenticated: AtomicBool,
}

/// Serves one client until it goes, misbehaves, or the broker stops.
pub(crate) async fn serve(stream: TcpStream, shared: Arc<Shared>, peer: Peer) {
    // Without it small answers wait for the client's acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "can't set TCP_NODELAY");
    }
    let (read, write) = stream.into_split();
    let authenticated = AtomicBool::new(matches!(shared.auth, Auth::None));
    let connection = Connection {
        shared,
        peer,
        authenticated,
    };
    let (turns, queue) = mpsc::channel(AHEAD);
    let answers = connection.answers(write, queue);
    tokio::pin!(answers);
    let fault = tokio::select! {
        fault = connection.requests(read, turns) => fault,
        closing = &mut answers => {
            connection.note_closing(closing);
            return;
        }
    };
    connection.note_fault(&fault);
    if !matches!(fault, Fault::Frame(End::Closed | End::Io(_))) {
        // What was asked before is still answered.
        if let Ok(closing) = timeout(DRAIN_TIME, answers).await {
            connection.note_closing(closing);
        }
    }
}

impl Connection {
    fn note_fault(&self, fault: &Fault) {
        let reason = match fault {
            Fault::Frame(End::Closed | End::Io(_) | End::Idle) | Fault::Stopping => return,
            Fault::Frame(End::TooLong(_)) => "frame_too_long",
            Fault::Frame(End::Slow) => "frame_too_slow",
            Fault::Malformed(malformed) => malformed.reason(),
            Fault::Stranger => "unauthenticated",
            Fault::Unanswered => "unanswered",
        };
        self.shared.metrics.refuse(reason);
        tracing::warn!(client = %self.peer.remote, error = %fault, "closing a connection");
    }

    fn note_closing(&self, closing: Result<(), Closing>) {
        if let Err(error) = closing {
            if let Closing::Denied = error {
                self.shared.metrics.refuse("authentication");
            }
            tracing::warn!(client = %self.peer.remote, %error, "closing a connection");
        }
    }

    /// Reads requests and starts them; answers why it ended.
    async fn requests(&self, read: OwnedReadHalf, turns: mpsc::Sender<Turn>) -> Fault {
        let limits = &self.shared.limits;
        let mut frames = Frames::new(
            read,
            Arc::clone(&self.shared.inflight),
            limits.connection_idle,
        );
        loop {
            let known = self.authenticated.load(Ordering::Acquire);
            let most = if known {
                limits.request_bytes
            } else {
                STRANGER_BYTES
            };
            let next = tokio::select! {
                next = frames.next(most) => next,
                () = self.shared.stop.cancelled() => return Fault::Stopping,
            };
            let turn = match next
                .map_err(Fault::from)
                .and_then(|(frame, permit)| self.start(frame, permit))
            {
                Ok(Some(turn)) => turn,
                Ok(None) => continue,
                Err(fault) => return fault,
            };
            if turns.send(turn).await.is_err() {
                return Fault::Frame(End::Closed);
            }
        }
    }

    fn start(
        &self,
        frame: bytes::Bytes,
        permit: OwnedSemaphorePermit,
    ) -> Result<Option<Turn>, Fault> {
        let bytes = frame.len();
        let request = Request::parse(frame)?;
        self.shared
            .metrics
            .requests
            .with_label_values(&[request.api.name])
            .inc();
        let leads_to_authentication = matches!(
            request.api.key,
            ApiKey::ApiVersions | ApiKey::SaslHandshake | ApiKey::SaslAuthenticate
        );
        if !leads_to_authentication && !self.authenticated.load(Ordering::Acquire) {
            return Err(Fault::Stranger);
        }
        if request.api.key != ApiKey::Produce {
            if bytes > PLAIN_BYTES {
                return Err(Fault::Frame(End::TooLong(
                    i64::try_from(bytes).unwrap_or(i64::MAX),
                )));
            }
            return Ok(Some(Turn::Other(request, permit)));
        }
        let pending = produce::submit(&self.shared, &request, permit)?;
        if pending.wants_answer() {
            return Ok(Some(Turn::Produce(pending)));
        }
        if pending.refused() {
            Err(Fault::Unanswered)
        } else {
            Ok(None)
        }
    }

    /// Answers one after the other.
    async fn answers(
        &self,
        mut write: OwnedWriteHalf,
        mut queue: mpsc::Receiver<Turn>,
    ) -> Result<(), Closing> {
        let mut shaken = false;
        while let Some(turn) = queue.recv().await {
            let mut out = self.shared.buffers.take();
            let mut denied = false;
            match turn {
                Turn::Produce(pending) => pending.finish(&mut out).await?,
                Turn::Other(request, permit) => match request.api.key {
                    ApiKey::SaslHandshake => {
                        let (answer, known) =
                            sasl::handshake(&self.shared.auth, &request.decode()?);
                        shaken = known;
                        api::put(&mut out, &request, &answer)?;
                    }
                    ApiKey::SaslAuthenticate => {
                        let (answer, right) =
                            sasl::authenticate(&self.shared.auth, &request.decode()?, shaken);
                        api::put(&mut out, &request, &answer)?;
                        if right {
                            self.authenticated.store(true, Ordering::Release);
                        } else {
                            sleep(WRONG_PASSWORD_DELAY).await;
                            denied = true;
                        }
                    }
                    _ => out = api::answer(&self.shared, &self.peer, request, permit, out).await?,
                },
            }
            timeout(WRITE_TIME, write.write_all(&out))
                .await
                .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
                .map_err(Closing::Write)?;
            self.shared.buffers.put(out);
            if denied {
                return Err(Closing::Denied);
            }
        }
        Ok(())
    }
}
