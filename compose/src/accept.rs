//! Connections of the HTTP door: how many there may be, and how long one may idle.
//!
//! Each connection is a file handle, and the log, the store and the lake need handles
//! too; so they are counted, and one that sends nothing is closed. Past the bound a new
//! connection waits in the system's queue until another ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

/// How long a connection may take for the head of its next request.
const IDLE: Duration = Duration::from_secs(75);
/// After a failed accept, mostly for want of handles.
const PAUSE: Duration = Duration::from_millis(100);

/// Raises the process's limit of open files as far as it may go, and answers how many
/// connections fit: as many as wanted, but half of the handles are for files.
pub(crate) fn fitting(wanted: usize) -> usize {
    let handles = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
        tracing::warn!(%error, "the limit of open files can't be raised");
        1_024
    });
    let fit = usize::try_from(handles / 2).unwrap_or(usize::MAX);
    if fit < wanted {
        tracing::warn!(
            handles,
            connections = fit,
            "the limit of open files allows fewer connections than set"
        );
    }
    wanted.min(fit).max(1)
}

/// Serves until `stop`, then lets requests under way finish.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Router,
    connections: usize,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(connections));
    let open = TaskTracker::new();
    loop {
        let next = async {
            // Never closed.
            let permit = Arc::clone(&room).acquire_owned().await.ok()?;
            Some((permit, listener.accept().await))
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = next => accepted,
        };
        match accepted {
            Some((permit, Ok((stream, peer)))) => {
                open.spawn(one(stream, peer, app.clone(), permit, stop.clone()));
            }
            Some((_, Err(error))) => {
                tracing::warn!(%error, "a connection can't be taken");
                tokio::time::sleep(PAUSE).await;
            }
            None => break,
        }
    }
    drop(listener);
    open.close();
    open.wait().await;
}

async fn one(
    stream: TcpStream,
    peer: SocketAddr,
    app: Router,
    _permit: OwnedSemaphorePermit,
    stop: CancellationToken,
) {
    // Small answers must not wait for each other.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY can't be set");
    }
    let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        app.clone().oneshot(request.map(Body::new))
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
