//! The routes: messages in, and messages with their verdicts out.

mod history;
mod parameters;
mod read;
pub mod schema;
mod send;

use axum::extract::FromRef;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use weir_auth::Auth;

use crate::Ingest;

/// What the routes work with.
#[derive(Clone)]
struct Door {
    ingest: Ingest,
    auth: Auth,
}

impl FromRef<Door> for Auth {
    fn from_ref(door: &Door) -> Self {
        door.auth.clone()
    }
}

/// The routes of this crate, with their documentation.
#[must_use]
pub fn router(ingest: Ingest, auth: Auth) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(send::message))
        .routes(routes!(send::batch))
        .routes(routes!(read::message))
        .routes(routes!(history::channel))
        .routes(routes!(history::sender))
        .with_state(Door { ingest, auth })
}
