//! `weir up`: all roles in one process. What the settings leave empty is embedded:
//! broker, store and lake in one folder, with nothing else installed.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use crate::backends::Backends;
use crate::config::{self, Config};
use crate::data::{self, DataDir, STORE_COPY};
use crate::roles::Role;
use crate::run::{self, Limits, Stages};
use crate::{admin, check, first_run, logs, memory, retention, runtime, serve, signals};

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
    let data = DataDir::open(&config.data, Duration::ZERO)?;
    data.warn_of_onlookers();
    let listener = serve::listen(config.listen).await?;
    let base = format!("http://{}", listener.local_addr()?);
    let registry = Registry::new();
    run::build_info(&registry)?;
    // Most that can be missing is missing here, so it is looked at before anything runs.
    let judge = roles
        .contains(&Role::Process)
        .then(|| runtime::judge(&config.model, &registry))
        .transpose()?;
    let Some(backends) = until(&stop, Backends::open(&config, &data, &registry)).await? else {
        return Ok(());
    };
    let stages = Stages::new(&stop);
    let limits = Limits::of(&config);
    let kept = config.retention.clone();
    let work = async {
        let accounts = backends.accounts.clone();
        let accounts = first_run::accounts(&config, &data, accounts, &registry, &base, false);
        let Some((auth, first)) = until(&stop, accounts).await? else {
            return Ok(());
        };
        let started = run::start(
            config,
            roles,
            judge,
            &backends,
            Some(&auth),
            &registry,
            &stages,
        );
        let Some(mut started) = until(&stop, started).await? else {
            return Ok(());
        };
        if let Some(store) = &backends.embedded {
            let copy = data.path(STORE_COPY);
            if let Err(error) = data::remove_left_copy(&data.path("")) {
                tracing::warn!(%error, copy = %copy.display(), "can't remove what a backup left");
            }
            started.offer(admin::backup::router(auth.clone(), store.clone(), copy));
            let stop = stages.door().clone();
            tokio::spawn(retention::expire(store.clone(), kept, stop));
        }
        if welcome(&base, first.as_deref(), roles.contains(&Role::Query)).is_err() {
            tracing::warn!("nobody reads standard output; Weir runs all the same");
        }
        tracing::info!(%base, "ready");
        started
            .serve(listener, registry.clone(), limits, &stages)
            .await
    };
    let result = work.await;
    stages.cancel();
    backends.shutdown().await;
    tracing::info!("stopped");
    result
}

/// `None` when a stop was asked for before it was done.
pub(crate) async fn until<T>(
    stop: &CancellationToken,
    work: impl Future<Output = Result<T>>,
) -> Result<Option<T>> {
    tokio::select! {
        done = work => done.map(Some),
        () = stop.cancelled() => Ok(None),
    }
}

fn welcome(base: &str, first: Option<&str>, sql: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "Weir is running at {base}")?;
    if let Some(path) = first {
        writeln!(
            out,
            "An administrator was made; name, password and API key are in {path}"
        )?;
    }
    check::addresses(&mut out, base, sql)?;
    out.flush()?;
    Ok(())
}
