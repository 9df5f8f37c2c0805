//! From opened backends to a graceful end: the one way in which roles run, whether all
//! of them in `weir up` or one by itself.
//!
//! A graceful stop goes with the stream: first the door closes, then the processor,
//! then the sinks, then the readers. What did not get through stays in the log and
//! goes on with the next start.

use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};
use prometheus::{IntGauge, Opts, Registry};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use weir_auth::Auth;
use weir_bus::Producer;
use weir_processors::Judge;

use crate::accept;
use crate::backends::Backends;
use crate::config::Config;
use crate::roles::{self, Parts, Role, Running};
use crate::serve::{self, Offer, Readiness};

/// Between two looks at whether the workers still run.
const LOOK: Duration = Duration::from_millis(500);

/// Stop tokens in the order of the stream.
#[derive(Clone)]
pub(crate) struct Stages {
    door: CancellationToken,
    process: CancellationToken,
    sink: CancellationToken,
    readers: CancellationToken,
}

impl Stages {
    /// `stop` closes the door; the rest follows when the door is closed.
    pub(crate) fn new(stop: &CancellationToken) -> Self {
        Self {
            door: stop.clone(),
            process: CancellationToken::new(),
            sink: CancellationToken::new(),
            readers: CancellationToken::new(),
        }
    }

    /// Cancelled when a stop is asked for.
    pub(crate) const fn door(&self) -> &CancellationToken {
        &self.door
    }

    /// For a start that did not come to its end.
    pub(crate) fn cancel(&self) {
        self.process.cancel();
        self.sink.cancel();
        self.readers.cancel();
    }
}

/// Roles that have started.
pub(crate) struct Started {
    roles: Vec<Role>,
    routers: Vec<OpenApiRouter>,
    readiness: Readiness,
    workers: Workers,
}

/// Starts the roles, the last stage first, so that nothing waits for a reader that is
/// not there yet. `auth`: for those that have callers.
pub(crate) async fn start(
    config: Config,
    roles: &[Role],
    judge: Option<Judge>,
    backends: &Backends,
    auth: Option<&Auth>,
    registry: &Registry,
    stages: &Stages,
) -> Result<Started> {
    let mut readiness = Readiness::default();
    backends.watch(&mut readiness);
    let parts = Parts {
        lake: backends.lake.clone(),
        producer: Producer::new(&backends.bus, registry)?,
        history: backends.history.clone(),
        auth: auth.cloned(),
        bus: backends.bus.clone(),
        registry: registry.clone(),
        config,
    };
    let (mut query, mut sink, mut process, mut ingest) = Default::default();
    if roles.contains(&Role::Query) {
        query = roles::query(&parts, &mut readiness, &stages.readers).await?;
    }
    if roles.contains(&Role::Sink) {
        sink = roles::sink(&parts, &stages.sink).await?;
    }
    if let Some(judge) = judge {
        process = roles::process(&parts, judge, &stages.process)?;
    }
    if roles.contains(&Role::Ingest) {
        ingest = roles::ingest(&parts, &stages.door).await?;
    }
    let routers = [&mut query, &mut process, &mut ingest]
        .into_iter()
        .flat_map(|role: &mut Running| std::mem::take(&mut role.routers));
    let routers = routers.collect();
    Ok(Started {
        roles: roles.to_vec(),
        routers,
        readiness,
        workers: Workers { process, sink },
    })
}

impl Started {
    /// Routes that belong to no role.
    pub(crate) fn offer(&mut self, router: OpenApiRouter) {
        self.routers.push(router);
    }

    /// Serves until `stop`, then lets the stream run dry for as long as the settings allow.
    ///
    /// # Errors
    /// A role has ended by a fault.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        registry: Registry,
        limits: Limits,
        stages: &Stages,
    ) -> Result<()> {
        let stop = &stages.door;
        let offer = Offer {
            roles: self.roles,
            routers: self.routers,
            registry,
            readiness: self.readiness,
        };
        let served = serve::run(listener, offer, limits.connections(), stop.clone());
        tokio::pin!(served);
        let ended = tokio::select! {
            () = &mut served => None,
            // Connections that stay open must not hold up the stop.
            () = async { stop.cancelled().await; tokio::time::sleep(limits.stop / 3).await } => None,
            role = self.workers.one_ended() => Some(role),
        };
        stages.process.cancel();
        let drained = tokio::time::timeout(limits.stop / 2, self.workers.join_after(stages)).await;
        if drained.is_err() {
            tracing::warn!("not everything was drained in time; it goes on with the next start");
        }
        ended.map_or(Ok(()), |role| {
            Err(anyhow!(
                "the role `{role}` has ended by a fault (see the log); nothing accepted is lost, \
                 and goes on with the next start"
            ))
        })
    }
}

/// What the settings allow a server.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    connections: usize,
    stop: Duration,
}

impl Limits {
    /// Connections at a time, as far as the system lets us.
    pub(crate) fn connections(self) -> usize {
        accept::fitting(self.connections)
    }

    pub(crate) const fn of(config: &Config) -> Self {
        Self {
            connections: config.connections,
            stop: Duration::from_secs(config.stop_seconds),
        }
    }
}

/// The threads to wait for, by stage.
struct Workers {
    process: Running,
    sink: Running,
}

impl Workers {
    /// Returns when a worker has ended although nobody told it to; answers its role.
    async fn one_ended(&self) -> &'static str {
        let ended = |running: &Running| running.workers.iter().any(JoinHandle::is_finished);
        loop {
            tokio::time::sleep(LOOK).await;
            if ended(&self.process) {
                return Role::Process.name();
            }
            if ended(&self.sink) {
                return Role::Sink.name();
            }
        }
    }

    /// The processor first; then the sinks still write what it published.
    async fn join_after(self, stages: &Stages) {
        join(self.process).await;
        stages.sink.cancel();
        join(self.sink).await;
        stages.readers.cancel();
    }
}

async fn join(running: Running) {
    for worker in running.workers {
        match tokio::task::spawn_blocking(move || worker.join()).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::error!(%error, "a worker ended with an error"),
            Ok(Err(_)) | Err(_) => tracing::error!("a worker panicked"),
        }
    }
}

pub(crate) fn build_info(registry: &Registry) -> Result<()> {
    let info = Opts::new(
        "weir_build_info",
        "1, with the version of this build as a label",
    )
    .const_label("version", env!("CARGO_PKG_VERSION"));
    let info = IntGauge::with_opts(info)?;
    info.set(1);
    registry.register(Box::new(info))?;
    Ok(())
}
