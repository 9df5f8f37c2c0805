//! `weir ingest`, `process`, `sink`, `query`: one role, on brokers, a database and a lake
//! that it shares with the others. As many of each as wanted, on any machines.
//!
//! Everything that several processes need was made once by `weir migrate`; here nothing
//! is made, only checked.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::Args;
use prometheus::Registry;
use weir_auth::Auth;

use crate::backends::Backends;
use crate::config::{self, Config, Store};
use crate::roles::Role;
use crate::run::{self, Limits, Stages};
use crate::up::until;
use crate::{logs, memory, runtime, serve, signals};

/// One role.
#[derive(Debug, Args)]
pub(crate) struct Lone {
    /// Address of its HTTP door: metrics and health, and what the role itself offers
    /// [default: 127.0.0.1:8080]
    #[arg(long)]
    listen: Option<SocketAddr>,
}

impl Lone {
    pub(crate) fn run(self, role: Role, source: &config::Source) -> Result<ExitCode> {
        memory::settle();
        logs::start(false);
        let mut config = source.load()?;
        config.listen = self.listen.unwrap_or(config.listen);
        check(role, &config)?;
        let runtime = tokio::runtime::Runtime::new()?;
        let done = runtime.block_on(serve(role, config));
        // Blocking work that is left (a query, a slow disk) must not hold up the exit.
        runtime.shutdown_timeout(Duration::from_secs(1));
        done.map(|()| ExitCode::SUCCESS)
    }
}

/// A role by itself needs backends that the others can reach too.
fn check(role: Role, config: &Config) -> Result<()> {
    let name = role.name();
    if config.bus.brokers.is_empty() {
        bail!(
            "`weir {name}` runs one role and meets the others in Kafka: set `bus.brokers` \
             (or run everything on this machine with `weir up`)"
        );
    }
    if config.store == Store::Embedded {
        bail!(
            "`weir {name}` needs a store that several processes share: set `store = \"scylla\"` and `cql.nodes` \
             (`store = \"embedded\"` belongs to the one process of `weir up`)"
        );
    }
    if config.lake.is_empty() && matches!(role, Role::Sink | Role::Query) {
        bail!(
            "`weir {name}` needs a lake that every sink and query reaches: set `lake` to its folder"
        );
    }
    Ok(())
}

/// Whether the role checks who asks.
const fn has_callers(role: Role) -> bool {
    !matches!(role, Role::Sink)
}

async fn serve(role: Role, config: Config) -> Result<()> {
    let stop = signals::stop_token()?;
    let listener = serve::listen(config.listen).await?;
    let registry = Registry::new();
    run::build_info(&registry)?;
    let judge = (role == Role::Process)
        .then(|| runtime::judge(&config.model, &registry))
        .transpose()?;
    let limits = Limits::of(&config);
    let stages = Stages::new(&stop);
    let start = async {
        let Some(backends) = until(&stop, Backends::reach(&config)).await? else {
            return Ok(None);
        };
        let auth = has_callers(role)
            .then(|| auth(&config, &backends, &registry))
            .transpose()?;
        let roles = [role];
        let started = run::start(
            config,
            &roles,
            judge,
            &backends,
            auth.as_ref(),
            &registry,
            &stages,
        );
        until(&stop, started).await
    };
    let (listener, started) = serve::meanwhile(listener, &registry, limits, start).await?;
    let work = async {
        let Some(started) = started? else {
            return Ok(());
        };
        tracing::info!(role = role.name(), address = %listener.local_addr()?, "ready");
        started
            .serve(listener, registry.clone(), limits, &stages)
            .await
    };
    let result = work.await;
    stages.cancel();
    tracing::info!(role = role.name(), "stopped");
    result
}

/// Accounts, with the keys that every process signs and checks tokens by.
fn auth(config: &Config, backends: &Backends, registry: &Registry) -> Result<Auth> {
    ensure!(
        weir_auth::has_signing_key(&backends.secrets),
        "there is no signing key in {}: copy the folder from where `weir migrate` ran; run it where nobody did yet",
        backends.secrets.display()
    );
    Ok(Auth::open(
        config.auth.clone(),
        &backends.secrets,
        backends.accounts.clone(),
        registry,
    )?)
}
