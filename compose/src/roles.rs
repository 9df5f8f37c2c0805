//! The roles and what each is made of. This is the one place that chooses
//! implementations; `weir up` and the lone roles use the same functions.
//!
//! Read from the last stage to the first, each starts before what feeds it:
//!
//! ```text
//! query   lake ∪ tail of weir.verdicts → SQL
//! sink    weir.verdicts → history, lake
//! process weir.messages → normalise → score → decide → weir.verdicts
//! ingest  HTTP → weir.messages; weir.verdicts → whoever waits
//! ```

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use weir_auth::Auth;
use weir_bus::{Erased, Producer, Worker};
use weir_processors::Judge;
use weir_records::topic;
use weir_store::History;

use crate::admin::{self, erase::Erasing};
use crate::config::Config;
use crate::retention;
use crate::serve::Readiness;

/// Records that a stage takes at a time. Enough for the model to sort by length, few
/// enough that a verdict does not wait long for its neighbours.
const PROCESS_RECORDS: usize = 256;
const SINK_RECORDS: usize = 2_000;
const TICK: Duration = Duration::from_millis(250);

/// A part of Weir that can run on a machine of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// The HTTP door for messages, accounts and history
    Ingest,
    /// Normalise, score, decide
    Process,
    /// Write verdicts into history and lake
    Sink,
    /// SQL over lake and tail
    Query,
}

impl Role {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Process => "process",
            Self::Sink => "sink",
            Self::Query => "query",
        }
    }
}

/// Where the paths begin that a role serves.
const PATHS: [(&str, Role); 13] = [
    ("/v1/admin/dead-letters", Role::Process),
    ("/v1/admin/erasures", Role::Ingest),
    ("/v1/admin/keys", Role::Ingest),
    ("/v1/admin/log", Role::Ingest),
    ("/v1/admin/users", Role::Ingest),
    ("/v1/channels", Role::Ingest),
    ("/v1/me", Role::Ingest),
    ("/v1/messages", Role::Ingest),
    ("/v1/register", Role::Ingest),
    ("/v1/score", Role::Process),
    ("/v1/senders", Role::Ingest),
    ("/v1/sql", Role::Query),
    ("/v1/token", Role::Ingest),
];

/// What to tell somebody who asks a process with these roles for a path that it lacks.
pub(crate) fn elsewhere(roles: &[Role], path: &str) -> String {
    let begins = |start: &str| {
        let rest = path.strip_prefix(start);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let serves = PATHS.iter().find(|(start, _)| begins(start));
    let other = serves.filter(|(_, role)| !roles.contains(role));
    let here: Vec<_> = roles.iter().map(|role| role.name()).collect();
    let here = here.join("`, `");
    match other {
        Some((_, role)) => format!(
            "this page is of the role `{}`; this process runs `{here}`",
            role.name()
        ),
        None if roles.len() < Role::value_variants().len() => {
            format!(
                "there is no such page; this process runs `{here}`, and `/docs` lists its pages"
            )
        }
        None => "there is no such page; `/docs` lists them".to_owned(),
    }
}

/// What the roles of one process share.
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) bus: weir_bus::Config,
    pub(crate) producer: Producer,
    pub(crate) history: Arc<dyn History>,
    /// For the roles that have callers.
    pub(crate) auth: Option<Auth>,
    /// Folder; empty where a lone role needs none.
    pub(crate) lake: String,
    pub(crate) registry: Registry,
}

impl Parts {
    fn auth(&self) -> Result<Auth> {
        self.auth
            .clone()
            .context("this role has callers, and nothing to check them by")
    }
}

/// A role that runs: its doors, and the threads to wait for after its token is cancelled.
#[derive(Default)]
pub(crate) struct Running {
    pub(crate) routers: Vec<OpenApiRouter>,
    pub(crate) workers: Vec<JoinHandle<Result<(), weir_bus::Error>>>,
}

pub(crate) async fn query(
    parts: &Parts,
    ready: &mut Readiness,
    stop: &CancellationToken,
) -> Result<Running> {
    let config = weir_analytics_sql::Config {
        lake: parts.lake.clone(),
        ..parts.config.sql.clone()
    };
    let engine =
        weir_analytics_sql::Engine::start(config, parts.bus.clone(), &parts.registry, stop.clone())
            .await
            .context("SQL can't start")?;
    let tail = engine.clone();
    ready.add("query", move || {
        let caught_up = tail.ready();
        async move {
            if caught_up {
                Ok(())
            } else {
                Err("reading the tail".to_owned())
            }
        }
    });
    Ok(Running {
        routers: vec![weir_analytics_sql::router(engine, parts.auth()?)],
        workers: Vec::new(),
    })
}

pub(crate) async fn sink(parts: &Parts, stop: &CancellationToken) -> Result<Running> {
    let mut lake = weir_sinks::lake(
        weir_sinks::lake::Config {
            url: parts.lake.clone(),
            every: Duration::from_millis(parts.config.sink.lake_every_ms),
            rows: parts.config.sink.lake_rows,
            keep: retention::of_lake(&parts.config.retention),
            ..weir_sinks::lake::Config::default()
        },
        &parts.registry,
    )
    .await
    .context("the lake can't be opened")?;
    lake.follow(&parts.bus, &parts.registry, stop.clone())
        .await
        .context("the lake can't be used")?;
    let mut history = weir_sinks::history(Arc::clone(&parts.history), &parts.registry)?;
    history.follow(&parts.bus, &parts.registry, stop.clone())?;
    let worker = |group| Worker {
        config: parts.bus.clone(),
        group,
        topic: topic::VERDICTS,
        max_records: SINK_RECORDS,
        tick: TICK,
    };
    let start = |stop: &CancellationToken| (parts.producer.clone(), &parts.registry, stop.clone());
    let (producer, registry, token) = start(stop);
    let history = worker(topic::GROUP_HISTORY).spawn(history, producer, registry, token)?;
    let (producer, registry, token) = start(stop);
    let lake = worker(topic::GROUP_LAKE).spawn(lake, producer, registry, token)?;
    Ok(Running {
        routers: Vec::new(),
        workers: vec![history, lake],
    })
}

pub(crate) fn process(parts: &Parts, judge: Judge, stop: &CancellationToken) -> Result<Running> {
    let erased = Erased::watch(
        "process.erasures",
        &parts.bus,
        &parts.registry,
        stop.clone(),
    )?;
    let stage = weir_processors::stage(
        judge.clone(),
        parts.producer.clone(),
        Arc::clone(&parts.history),
        parts.bus.clone(),
        erased,
        &parts.registry,
    )?;
    let worker = Worker {
        config: parts.bus.clone(),
        group: topic::GROUP_PROCESS,
        topic: topic::MESSAGES,
        max_records: PROCESS_RECORDS,
        tick: TICK,
    }
    .spawn(stage, parts.producer.clone(), &parts.registry, stop.clone())?;
    let letters = weir_processors::dead::Letters::new(
        judge.clone(),
        parts.producer.clone(),
        Arc::clone(&parts.history),
        parts.bus.clone(),
        &parts.registry,
    )?;
    Ok(Running {
        routers: vec![
            weir_processors::router(judge, parts.auth()?),
            weir_processors::dead::router(letters, parts.auth()?),
        ],
        workers: vec![worker],
    })
}

pub(crate) async fn ingest(parts: &Parts, stop: &CancellationToken) -> Result<Running> {
    let embedded = parts.config.bus.brokers.is_empty();
    let on = weir_ingest::Backends {
        bus: parts.bus.clone(),
        producer: parts.producer.clone(),
        history: Arc::clone(&parts.history),
        // The embedded broker has no clients but this process.
        alone: embedded,
    };
    let config = parts.config.ingest.clone();
    let ingest = weir_ingest::Ingest::start(config, on, &parts.registry, stop.clone())
        .await
        .context("ingest can't start")?;
    let auth = parts.auth()?;
    let erasing = Erasing {
        auth: auth.clone(),
        ingest: ingest.clone(),
        bus: parts.bus.clone(),
        producer: parts.producer.clone(),
        history: Arc::clone(&parts.history),
        lake: Some(parts.lake.clone()).filter(|lake| !lake.is_empty()),
        log: embedded.then(|| parts.config.data.clone()),
    };
    Ok(Running {
        routers: vec![
            weir_ingest::router(ingest, auth.clone()),
            weir_auth::door::router(auth.clone()),
            admin::router(auth),
            admin::erase::router(erasing),
        ],
        workers: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_another_role_is_told_from_one_that_nobody_has() {
        let told = elsewhere(&[Role::Ingest], "/v1/sql");
        assert_eq!(
            told,
            "this page is of the role `query`; this process runs `ingest`"
        );
        let told = elsewhere(&[Role::Process, Role::Query], "/v1/messages/m-1");
        assert!(told.contains("of the role `ingest`"), "{told}");
        assert!(told.contains("runs `process`, `query`"), "{told}");
        for path in ["/v1/messages/m-1/x", "/v1/mess", "/v1/messages2", "/"] {
            let told = elsewhere(&[Role::Ingest], path);
            assert!(told.starts_with("there is no such page"), "{told}");
            assert!(told.contains("`ingest`"), "{told}");
        }
        let told = elsewhere(Role::value_variants(), "/v1/sqls");
        assert_eq!(told, "there is no such page; `/docs` lists them");
    }
}
