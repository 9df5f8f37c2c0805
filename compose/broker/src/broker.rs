//! Starting and stopping: the folder's lock and version, the listener, and who looks after what.

use std::fs::{self, File, TryLockError};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{Config, Limits};
use crate::error::Error;
use crate::groups::Coordinator;
use crate::groups::commits::Commits;
use crate::log::Log;
use crate::log::producer_ids::ProducerIds;
use crate::metrics::Metrics;
use crate::net::buffers::Buffers;
use crate::net::{Peer, Shared, connection};
use crate::state_file;

/// Version of the files in the data folder.
const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "format-version";
/// How long open connections may take to end.
const STOP_TIME: Duration = Duration::from_secs(8);
/// How often group time-outs are looked after.
const TICK: Duration = Duration::from_millis(100);

/// A running broker.
pub struct Broker {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    /// Locked while the broker runs.
    _lock: File,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Broker")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Broker {
    /// Opens the data folder, recovers what a crash left, and listens.
    ///
    /// # Errors
    /// See [`Error`]: an occupied address; a folder that is locked, unreadable, or of a newer version.
    pub async fn start(config: Config, registry: &prometheus::Registry) -> Result<Self, Error> {
        let Config {
            listen,
            data,
            auth,
            limits,
        } = config;
        let limits = Arc::new(limits);
        // First, so that an occupied address is said before a long recovery.
        let listener = listen_on(listen).await?;
        let address = listener.local_addr().map_err(|source| Error::Listen {
            address: listen,
            source,
        })?;
        let metrics = Metrics::new(registry)?;
        let opened = {
            let (limits, metrics) = (Arc::clone(&limits), metrics.clone());
            tokio::task::spawn_blocking(move || Folder::open(&data, &limits, &metrics)).await
        };
        let Folder {
            lock,
            log,
            commits,
            producer_ids,
            cluster_id,
        } = opened.map_err(|panicked| Error::Thread(io::Error::other(panicked)))??;
        let coordinator = Arc::new(Coordinator::new(
            commits,
            Arc::clone(&limits),
            metrics.clone(),
        ));
        let shared = Arc::new(Shared {
            log: Arc::new(log),
            coordinator,
            producer_ids: Arc::new(producer_ids),
            auth,
            metrics,
            cluster_id,
            buffers: Buffers::new(limits.fetch_bytes.saturating_mul(2)),
            inflight: Arc::new(Semaphore::new(
                limits.inflight_bytes.max(limits.request_bytes),
            )),
            fetching: Arc::new(Semaphore::new(
                limits.inflight_bytes.max(limits.fetch_bytes),
            )),
            stop: CancellationToken::new(),
            limits,
        });
        let tasks = TaskTracker::new();
        tasks.spawn(accept(listener, Arc::clone(&shared), tasks.clone()));
        tasks.spawn(watch_groups(Arc::clone(&shared)));
        tasks.spawn(maintain(Arc::clone(&shared)));
        tasks.close();
        tracing::info!(%address, "broker listens");
        Ok(Self {
            address,
            shared,
            tasks,
            _lock: lock,
        })
    }

    /// The address it listens on, with the real port.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    #[cfg(test)]
    pub(crate) fn log_for_tests(&self) -> &Log {
        &self.shared.log
    }

    /// Stops: no new requests, answers to those that were read, everything on disk, and checkpoints so
    /// that the next start is quick.
    pub async fn shutdown(self) {
        self.shared.stop.cancel();
        if timeout(STOP_TIME, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                open = self.tasks.len(),
                "some connections did not end in time"
            );
        }
        let shared = Arc::clone(&self.shared);
        let closed = tokio::task::spawn_blocking(move || {
            shared.log.close();
            shared.coordinator.commits.close();
        });
        if closed.await.is_err() {
            tracing::error!("closing the log panicked");
        }
        tracing::info!("broker stopped");
    }
}

impl Drop for Broker {
    /// Ends the tasks and threads without waiting for them. What is acknowledged is on disk anyway.
    fn drop(&mut self) {
        self.shared.stop.cancel();
        self.shared.log.writers.stop();
        self.shared.coordinator.commits.stop();
    }
}

async fn listen_on(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => Error::AddressInUse(address),
            _ => Error::Listen { address, source },
        })
}

struct Folder {
    lock: File,
    log: Log,
    commits: Commits,
    producer_ids: ProducerIds,
    cluster_id: String,
}

impl Folder {
    fn open(data: &Path, limits: &Arc<Limits>, metrics: &Metrics) -> Result<Self, Error> {
        let begin = Instant::now();
        let within = |path: PathBuf| move |source| Error::Folder { path, source };
        fs::create_dir_all(data).map_err(within(data.to_owned()))?;
        let lock = lock(data)?;
        check_format(data)?;
        let cluster_id = cluster_id(data)?;
        let path = data.join("offsets");
        let commits = Commits::open(&path).map_err(within(path))?;
        let producer_ids = ProducerIds::open(data).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => Error::Damaged {
                path: data.join("producer-ids"),
                reason: error.to_string(),
            },
            _ => Error::folder(&data.join("producer-ids"), error),
        });
        let log = producer_ids.and_then(|ids| {
            let log = Log::open(&data.join("topics"), Arc::clone(limits), metrics.clone())?;
            Ok((ids, log))
        });
        let (producer_ids, log) = log.inspect_err(|_| commits.stop())?;
        tracing::info!(
            seconds = begin.elapsed().as_secs_f64(),
            topics = log.all().len(),
            "log is open"
        );
        Ok(Self {
            lock,
            log,
            commits,
            producer_ids,
            cluster_id,
        })
    }
}

fn lock(data: &Path) -> Result<File, Error> {
    let path = data.join("lock");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| Error::folder(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked(data.to_owned())),
        Err(TryLockError::Error(error)) => Err(Error::folder(&path, error)),
    }
}

fn check_format(data: &Path) -> Result<(), Error> {
    let path = data.join(FORMAT_FILE);
    match fs::read_to_string(&path) {
        Ok(content) => match content.trim().parse::<u32>() {
            Ok(found) if found > FORMAT => Err(Error::NewerFormat {
                path: data.to_owned(),
                found,
                known: FORMAT,
            }),
            Ok(_) => Ok(()),
            Err(_) => Err(Error::Damaged {
                path,
                reason: "it holds no number".to_owned(),
            }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let temporary = path.with_extension("new");
            fs::write(&temporary, format!("{FORMAT}\n"))
                .and_then(|()| File::open(&temporary)?.sync_all())
                .and_then(|()| fs::rename(&temporary, &path))
                .and_then(|()| state_file::sync_folder(data))
                .map_err(|error| Error::folder(&path, error))
        }
        Err(error) => Err(Error::folder(&path, error)),
    }
}

/// The cluster's id: made once, 22 characters as in Kafka.
fn cluster_id(data: &Path) -> Result<String, Error> {
    let path = data.join("cluster-id");
    match state_file::read::<String>(&path) {
        Ok(Some(id)) => return Ok(id),
        Ok(None) => {}
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            tracing::warn!("the cluster id is damaged: making a new one");
        }
        Err(error) => return Err(Error::folder(&path, error)),
    }
    let id: String = uuid::Uuid::new_v4()
        .simple()
        .to_string()
        .chars()
        .take(22)
        .collect();
    state_file::write(&path, &id).map_err(|error| Error::folder(&path, error))?;
    Ok(id)
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: TaskTracker) {
    let places = Arc::new(Semaphore::new(shared.limits.connections));
    let ids = AtomicU64::new(0);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of handles, mostly: the next try may do.
                tracing::warn!(%error, "can't accept a connection");
                tokio::time::sleep(TICK).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            shared.metrics.refuse("connections");
            tracing::warn!(client = %remote, most = shared.limits.connections, "too many connections: closing one");
            continue;
        };
        let id = ids.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(&shared);
        tasks.spawn(async move {
            shared.metrics.connections.inc();
            converse(stream, Arc::clone(&shared), id, remote).await;
            shared.metrics.connections.dec();
            drop(place);
        });
    }
}

async fn converse(stream: TcpStream, shared: Arc<Shared>, id: u64, remote: SocketAddr) {
    // Fails only where the client has gone already.
    if let Ok(local) = stream.local_addr() {
        let peer = Peer {
            id,
            local,
            remote,
            changed: Arc::new(Notify::new()),
        };
        connection::serve(stream, shared, peer).await;
    }
}

async fn watch_groups(shared: Arc<Shared>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => shared.coordinator.tick(),
            () = shared.stop.cancelled() => return,
        }
    }
}

async fn maintain(shared: Arc<Shared>) {
    let mut ticks = interval(shared.limits.maintenance);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = shared.stop.cancelled() => return,
        }
        let shared = Arc::clone(&shared);
        let round = tokio::task::spawn_blocking(move || {
            shared.log.retain();
            shared.coordinator.expire();
        });
        if round.await.is_err() {
            tracing::error!("a round of maintenance panicked");
        }
    }
}
