//! `/v1/admin/erasures` and `/v1/admin/log/cut`: what is to be forgotten.
//!
//! An erasure is written into `weir.erasures` first. From then on no part of Weir writes,
//! keeps or shows what it covers, wherever it comes from, and the lake's writer takes it
//! out of its files. Then the history erases it. A call that fails in between is finished
//! by the sinks, and may be made again.
//!
//! What is left is the log: its records go with its retention, or, all that every reader
//! is through with, when it is cut.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRef, Path, State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use weir_auth::door::{Authenticated, Code, Json, Problem};
use weir_auth::{Auth, Scope};
use weir_bus::{Outgoing, Producer};
use weir_ingest::Ingest;
use weir_records::{Erasure, Target, topic};
use weir_sinks::lake;
use weir_store::{Erase, History};

use super::http::{OPERATORS, managed_tenant};
use crate::data;

const RETRY: Duration = Duration::from_secs(1);
/// Erasures at a time; the next is refused with 503. Each may wait on a thread for a copy of
/// the store to end.
const AT_ONCE: usize = 8;
static TURNS: Semaphore = Semaphore::const_new(AT_ONCE);
/// The longest name of a sender or a message, in bytes; the way in takes none longer.
const LONGEST: usize = 1_024;

/// What erasing takes.
#[derive(Clone)]
pub(crate) struct Erasing {
    pub(crate) auth: Auth,
    /// Its clock is the one that messages are received by.
    pub(crate) ingest: Ingest,
    pub(crate) bus: weir_bus::Config,
    pub(crate) producer: Producer,
    pub(crate) history: Arc<dyn History>,
    /// Where the lake is, if this process was told.
    pub(crate) lake: Option<String>,
    /// The data folder, where the log lies in it: backups copy it from there.
    pub(crate) log: Option<PathBuf>,
}

impl FromRef<Erasing> for Auth {
    fn from_ref(erasing: &Erasing) -> Self {
        erasing.auth.clone()
    }
}

pub(crate) fn router(erasing: Erasing) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(erase))
        .routes(routes!(show))
        .routes(routes!(cut))
        .with_state(erasing)
}

/// Whose messages, or which one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// The caller's own unless given.
    tenant: Option<String>,
    /// Everything this sender said until now. Either this or `message`.
    #[schema(example = "ann")]
    sender: Option<String>,
    /// The message with this id.
    message: Option<String>,
}

/// An erasure, and how far it is.
#[derive(Serialize, ToSchema)]
struct Begun {
    /// Its place in `weir.erasures`.
    id: i64,
    tenant: String,
    /// What was received at this time or before is erased.
    #[schema(value_type = String)]
    up_to: Timestamp,
    /// Messages that were in the history, and are in it no more.
    history_messages: u64,
    lake: Lake,
}

/// Whether the lake's files were rewritten without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Lake {
    Done,
    Pending,
    /// This process was not told where the lake is.
    Unknown,
}

#[derive(Serialize, ToSchema)]
struct Progress {
    lake: Lake,
}

/// What is left of the log: the first offset and the end of each partition, by topic.
#[derive(Serialize, ToSchema)]
struct Cut {
    topics: BTreeMap<&'static str, BTreeMap<i32, Left>>,
}

#[derive(Serialize, ToSchema)]
struct Left {
    /// The first record that is left has this offset.
    first: i64,
    /// The next one to come will have this.
    end: i64,
}

/// Erases what a sender said, or a message
#[utoipa::path(post, path = "/v1/admin/erasures", tag = "administration", security(("bearer" = [])),
    request_body = Wanted,
    responses((status = 200, body = Begun), (status = "4XX", body = Problem), (status = 503, body = Problem)))]
async fn erase(
    State(erasing): State<Erasing>,
    Authenticated(caller): Authenticated,
    Json(wanted): Json<Wanted>,
) -> Result<axum::Json<Begun>, Problem> {
    let tenant = managed_tenant(&caller, wanted.tenant)?;
    let target = match (wanted.sender, wanted.message) {
        (Some(sender), None) => Target::Sender(sender),
        (None, Some(id)) => Target::Message(id),
        _ => {
            let rule = "either a sender or a message is to be named, and not both";
            return Err(Problem::new(Code::InvalidField, rule).field("sender"));
        }
    };
    let (Target::Sender(name) | Target::Message(name)) = &target;
    if name.is_empty() || name.len() > LONGEST {
        let rule = "a sender or a message is named by 1 to 1024 bytes";
        return Err(Problem::new(Code::InvalidField, rule));
    }
    let erasure = Erasure {
        tenant,
        target,
        up_to: erasing.ingest.erase_up_to(),
        requested_at: Timestamp::now(),
        by: caller.id.clone(),
    };
    let turn = TURNS
        .try_acquire()
        .map_err(|_| away("too many erasures are under way"))?;
    // To its end, even if the caller goes.
    let work = tokio::spawn(async move {
        let _turn = turn;
        erasing.begin(erasure).await
    });
    let begun = work
        .await
        .map_err(|_| Problem::new(Code::Internal, "the work was broken off"))?;
    begun.map(axum::Json)
}

/// How far an erasure is
#[utoipa::path(get, path = "/v1/admin/erasures/{id}", tag = "administration", security(("bearer" = [])),
    params(("id" = i64, Path, description = "The erasure's id")),
    responses((status = 200, body = Progress), (status = "4XX", body = Problem), (status = 503, body = Problem)))]
async fn show(
    State(erasing): State<Erasing>,
    Authenticated(caller): Authenticated,
    id: Result<Path<i64>, PathRejection>,
) -> Result<axum::Json<Progress>, Problem> {
    caller.require(Scope::Admin)?;
    let lake = erasing.lake_is_through(id?.0).await?;
    Ok(axum::Json(Progress { lake }))
}

/// Deletes from the log what every reader of Weir is through with
///
/// Of all tenants, so only the administrators of the tenant `default` may. Nothing that
/// is still to be judged or stored is deleted.
#[utoipa::path(post, path = "/v1/admin/log/cut", tag = "administration", security(("bearer" = [])),
    responses((status = 200, body = Cut), (status = "4XX", body = Problem), (status = 503, body = Problem)))]
async fn cut(
    State(erasing): State<Erasing>,
    Authenticated(caller): Authenticated,
) -> Result<axum::Json<Cut>, Problem> {
    caller.require(Scope::Admin)?;
    if caller.tenant != OPERATORS {
        let rule = "the log is everybody's: only administrators of the tenant `default` may cut it";
        return Err(Problem::new(Code::Forbidden, rule));
    }
    // What a backup has in its store it has not yet in its log.
    let held = erasing.log.as_deref().map(data::hold_log).transpose();
    let held = held.map_err(|error| {
        tracing::error!(%error, "the log can't be locked");
        away("the log can't be cut now")
    })?;
    if let Some(None) = held {
        let detail =
            "a backup is being made, or the log is being cut already; ask again when that is done";
        return Err(Problem::new(Code::Conflict, detail));
    }
    let unavailable = |error: weir_bus::Error| {
        tracing::error!(%error, "the log can't be cut");
        away("the log can't be cut now")
    };
    let firsts = weir_bus::cut_settled(&erasing.bus)
        .await
        .map_err(unavailable)?;
    let mut topics = BTreeMap::new();
    for (topic, firsts) in firsts {
        let ends = weir_bus::watermarks(&erasing.bus, topic)
            .await
            .map_err(unavailable)?;
        let left = firsts.into_iter().map(|(partition, first)| {
            let end = ends.get(&partition).map_or(first, |(_, end)| *end);
            (partition, Left { first, end })
        });
        topics.insert(topic, left.collect());
    }
    tracing::info!(by = caller.id, "the log was cut");
    Ok(axum::Json(Cut { topics }))
}

impl Erasing {
    async fn begin(&self, erasure: Erasure) -> Result<Begun, Problem> {
        let record = Outgoing {
            topic: topic::ERASURES,
            partition: Some(0),
            key: Vec::new(),
            payload: erasure.clone().encode(),
        };
        let written = match self.producer.send(vec![record]) {
            Ok(delivery) => delivery.await.pop(),
            Err(_) => None,
        };
        let Some(Ok(written)) = written else {
            return Err(away("nothing was erased: the log takes no records now"));
        };
        let what = Erase::from(&erasure);
        let erased = self.history.erase(&erasure.tenant, &what).await;
        let erased = erased.map_err(|error| {
            tracing::error!(%error, "an erasure is left to the sinks");
            away("it is erased as soon as the store can be used again; asking again does no harm")
        })?;
        self.remove_left_copy().await?;
        tracing::info!(
            id = written.offset,
            tenant = erasure.tenant,
            messages = erased.messages,
            by = erasure.by,
            "erased from the history"
        );
        Ok(Begun {
            id: written.offset,
            tenant: erasure.tenant,
            up_to: erasure.up_to,
            history_messages: erased.messages,
            lake: self.lake_is_through(written.offset).await?,
        })
    }

    /// Of a backup that broke off. One that is still being copied has been waited for.
    async fn remove_left_copy(&self) -> Result<(), Problem> {
        let Some(data) = self.log.clone() else {
            return Ok(());
        };
        let remove = move || data::remove_left_copy(&data);
        let removed = tokio::task::spawn_blocking(remove).await;
        removed
            .map_err(std::io::Error::other)
            .flatten()
            .map_err(|error| {
                tracing::error!(%error, "can't remove what a backup left");
                away("a copy of the store that a backup left can't be removed; asking again does no harm")
            })
    }

    async fn lake_is_through(&self, id: i64) -> Result<Lake, Problem> {
        let Some(url) = &self.lake else {
            return Ok(Lake::Unknown);
        };
        let config = lake::Config {
            url: url.clone(),
            ..lake::Config::default()
        };
        let through = lake::erased_up_to(&config, &self.bus)
            .await
            .map_err(|error| {
                tracing::error!(%error, "the lake can't be read");
                away("the lake can't be read now")
            })?;
        Ok(if through >= Some(id) {
            Lake::Done
        } else {
            Lake::Pending
        })
    }
}

fn away(words: &'static str) -> Problem {
    Problem::new(Code::Unavailable, words).retry_after(RETRY)
}
