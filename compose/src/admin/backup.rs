//! `/v1/admin/backup/store`: the embedded store copies itself, for `weir backup`.
//!
//! The caller names no path: the copy always goes to the same place in the data folder,
//! where only the owner of that folder can take it.

use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use weir_auth::door::{Authenticated, Code, Problem};
use weir_auth::{Auth, Scope};
use weir_store::embedded;

use super::http::OPERATORS;

#[derive(Clone)]
struct Copying {
    auth: Auth,
    store: Arc<embedded::Store>,
    to: PathBuf,
    /// One copy at a time.
    turn: Arc<Mutex<()>>,
}

/// What was copied.
#[derive(Serialize, ToSchema)]
struct Copied {
    /// Messages.
    messages: u64,
}

pub(crate) fn router(auth: Auth, store: Arc<embedded::Store>, to: PathBuf) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(copy_store))
        .with_state(Copying {
            auth,
            store,
            to,
            turn: Arc::default(),
        })
}

impl axum::extract::FromRef<Copying> for Auth {
    fn from_ref(copying: &Copying) -> Self {
        copying.auth.clone()
    }
}

/// Copies the embedded store into the data folder
#[utoipa::path(post, path = "/v1/admin/backup/store", tag = "administration", security(("bearer" = [])),
    responses((status = 200, body = Copied), (status = "4XX", body = Problem)))]
async fn copy_store(
    State(copying): State<Copying>,
    Authenticated(caller): Authenticated,
) -> Result<axum::Json<Copied>, Problem> {
    caller.require(Scope::Admin)?;
    if caller.tenant != OPERATORS {
        let detail =
            "a copy holds all tenants: only administrators of the tenant `default` may make one";
        return Err(Problem::new(Code::Forbidden, detail));
    }
    let Ok(turn) = copying.turn.clone().try_lock_owned() else {
        return Err(Problem::new(Code::Conflict, "another copy is being made"));
    };
    let failed = |reason: &dyn std::fmt::Display| {
        tracing::error!(%reason, "the store can't be copied");
        Problem::new(
            Code::Unavailable,
            "the store can't be copied now; the reason is in the log",
        )
    };
    // One that nobody came for.
    match tokio::fs::remove_dir_all(&copying.to).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(&error)),
        _ => {}
    }
    // To its end, even if the caller goes: only then is it the next one's turn.
    let work = tokio::spawn(async move {
        let _turn = turn;
        copying.store.backup(&copying.to).await
    });
    let copied = work.await.map_err(|error| failed(&error))?;
    let copied = copied.map_err(|error| failed(&error))?;
    Ok(axum::Json(Copied {
        messages: copied.messages,
    }))
}
