//! `weir up`: everything in one process, on the embedded backends.
//!
//! A graceful stop goes with the stream: first the door closes, then the processor,
//! then the sinks, then the broker. What did not get through stays in the log and
//! goes on with the next start.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use prometheus::{IntGauge, Opts, Registry};
use tokio_util::sync::CancellationToken;
use weir_auth::Auth;
use weir_broker::Broker;
use weir_bus::Producer;
use weir_processors::Judge;
use weir_store::embedded;

use crate::accept;
use crate::config::{self, Config};
use crate::data::{Admin, DataDir};
use crate::roles::{self, Parts, Role, Running};
use crate::serve::{self, Readiness};
use crate::{check, logs, memory, runtime, signals};

const ADMIN: &str = "admin";
/// Between two looks at whether the workers still run.
const LOOK: Duration = Duration::from_millis(500);

/// `weir up`
#[derive(Debug, Args)]
pub(crate) struct Up {
    /// Folder that holds everything [default: data]
    #[arg(long, env = "WEIR_DATA")]
    data: Option<PathBuf>,
    /// Address of the HTTP door [default: 127.0.0.1:8080]
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Run only these parts, such as the door alone while the model is being changed
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["ingest", "process", "sink", "query"])]
    roles: Vec<Role>,
}

impl Up {
    pub(crate) fn run(self, source: &config::Source) -> Result<ExitCode> {
        memory::settle();
        logs::start(false);
        let mut config = source.load()?;
        config.data = self.data.unwrap_or(config.data);
        config.listen = self.listen.unwrap_or(config.listen);
        let runtime = tokio::runtime::Runtime::new()?;
        let done = runtime.block_on(up(config, &self.roles));
        // Blocking work that is left (a query, a slow disk) must not hold up the exit.
        runtime.shutdown_timeout(Duration::from_secs(1));
        done.map(|()| ExitCode::SUCCESS)
    }
}

async fn up(config: Config, roles: &[Role]) -> Result<()> {
    let stop = signals::stop_token()?;
    let data = DataDir::open(&config.data)?;
    let listener = serve::listen(config.listen).await?;
    let base = format!("http://{}", listener.local_addr()?);
    let registry = Registry::new();
    build_info(&registry)?;
    // Most that can be missing is missing here, so it is looked at before anything runs.
    let judge = roles
        .contains(&Role::Process)
        .then(|| runtime::judge(&config.model, &registry))
        .transpose()?;
    anyhow::ensure!(
        config.bus.brokers.is_empty(),
        "`weir up` runs a broker of its own; leave the setting `bus.brokers` empty"
    );

    let broker = start_broker(&config, &data, &registry).await?;
    let stages = Stages {
        door: stop.clone(),
        ..Stages::default()
    };
    let connections = accept::fitting(config.connections);
    let started = tokio::select! {
        started = start(config, roles, judge, &data, &broker, registry.clone(), &stages) => started.map(Some),
        () = stop.cancelled() => Ok(None),
    };
    let result = match started {
        Ok(Some(up)) => {
            let first = first_run(&up.auth, &data, &base).await?;
            welcome(&base, first.as_deref())?;
            tracing::info!(%base, "ready");
            let limit = Duration::from_secs(up.stop_seconds);
            let served = serve::run(
                listener,
                up.routers,
                registry,
                up.readiness,
                connections,
                stop.clone(),
            );
            tokio::pin!(served);
            let ended = tokio::select! {
                () = &mut served => None,
                // Connections that stay open must not hold up the stop.
                () = async { stop.cancelled().await; tokio::time::sleep(limit / 3).await } => None,
                role = up.workers.one_ended() => Some(role),
            };
            stages.process.cancel();
            let drained = tokio::time::timeout(limit / 2, up.workers.join_after(&stages)).await;
            if drained.is_err() {
                tracing::warn!(
                    "not everything was drained in time; it goes on with the next start"
                );
            }
            ended.map_or(Ok(()), |role| {
                Err(anyhow!(
                    "the role `{role}` has ended by a fault (see the log); nothing accepted is lost, \
                     and goes on with the next start"
                ))
            })
        }
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    stages.cancel();
    broker.shutdown().await;
    tracing::info!("stopped");
    result
}

/// Stop tokens in the order of the stream.
#[derive(Default)]
struct Stages {
    door: CancellationToken,
    process: CancellationToken,
    sink: CancellationToken,
    readers: CancellationToken,
}

impl Stages {
    fn cancel(&self) {
        self.process.cancel();
        self.sink.cancel();
        self.readers.cancel();
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

struct Started {
    auth: Auth,
    routers: Vec<utoipa_axum::router::OpenApiRouter>,
    readiness: Readiness,
    workers: Workers,
    stop_seconds: u64,
}

async fn start_broker(config: &Config, data: &DataDir, registry: &Registry) -> Result<Broker> {
    let mut broker = weir_broker::Config::new(config.bus.listen, data.path("broker"));
    broker.auth = weir_broker::Auth::Plain {
        username: roles::BROKER_USER.to_owned(),
        password: data.broker_secret()?,
    };
    Broker::start(broker, registry)
        .await
        .context("the embedded broker can't start")
}

/// Last stage first, so that nothing waits for a reader that is not there yet.
async fn start(
    config: Config,
    roles: &[Role],
    judge: Option<Judge>,
    data: &DataDir,
    broker: &Broker,
    registry: Registry,
    stages: &Stages,
) -> Result<Started> {
    let bus = config.bus(
        broker.address().to_string(),
        config::embedded_security(data.broker_secret()?),
    );
    let retention = Duration::from_secs(u64::from(config.bus.retention_hours) * 3600);
    weir_bus::create_topics(&bus, retention)
        .await
        .context("the topics can't be made")?;
    let store = embedded::Store::open(&data.path("store")).context("the store can't be opened")?;
    let accounts: Arc<dyn weir_store::Accounts> = Arc::clone(&store) as _;
    let auth = Auth::open(config.auth.clone(), &data.secrets(), accounts, &registry)?;
    let stop_seconds = config.stop_seconds;
    let parts = Parts {
        lake: roles::lake_url(&config, &config.data),
        producer: Producer::new(&bus, &registry)?,
        history: store,
        auth: auth.clone(),
        config,
        bus,
        registry,
    };
    let mut readiness = Readiness::default();
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
        ingest = roles::ingest(&parts, &mut readiness, &stages.door).await?;
    }
    let routers = [&mut query, &mut process, &mut ingest]
        .into_iter()
        .flat_map(|role: &mut Running| std::mem::take(&mut role.routers));
    let routers = routers.collect();
    Ok(Started {
        auth,
        routers,
        readiness,
        workers: Workers { process, sink },
        stop_seconds,
    })
}

/// Makes the administrator where there is none; answers where the credentials are.
async fn first_run(auth: &Auth, data: &DataDir, base: &str) -> Result<Option<String>> {
    use secrecy::ExposeSecret as _;
    let mut kept = None;
    let made = auth
        .ensure_admin(ADMIN, |username, password, api_key| {
            let path = data.write_admin(&Admin {
                url: base.to_owned(),
                username: username.to_owned(),
                password: password.expose_secret().to_owned(),
                api_key: api_key.expose_secret().to_owned(),
            })?;
            kept = Some(path.display().to_string());
            anyhow::Ok(())
        })
        .await?;
    if !made {
        data.refresh_admin(base)?;
    }
    Ok(kept)
}

fn welcome(base: &str, first: Option<&str>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "Weir is running at {base}")?;
    if let Some(path) = first {
        writeln!(
            out,
            "An administrator was made; name, password and API key are in {path}"
        )?;
    }
    check::addresses(&mut out, base)?;
    out.flush()?;
    Ok(())
}

fn build_info(registry: &Registry) -> Result<()> {
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
