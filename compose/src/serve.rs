//! The HTTP server of a role: the routers it was given, plus what every role has:
//! metrics, health, the OpenAPI document and a page to read it on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::{BoxFuture, join_all};
use prometheus::{Encoder as _, Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;
use weir_auth::door::{Code, Problem};

use crate::accept;
use crate::roles::{Role, elsewhere};
use crate::run::Limits;

/// Answers `Ok` or why that part is not ready.
pub(crate) type Check = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

type Answers = Vec<(&'static str, Result<(), String>)>;

/// What a process says until it serves.
const STARTING: &str =
    "it is starting: brokers or database are not reached, or what waits there is not read yet";
/// How long answers hold: a check costs connections, and anybody may ask.
const FRESH: Duration = Duration::from_secs(1);

/// Checks by the name of what they look at, one round at a time.
#[derive(Clone, Default)]
pub(crate) struct Readiness {
    checks: Vec<(&'static str, Check)>,
    last: Arc<Mutex<Option<(Instant, Answers)>>>,
}

impl Readiness {
    pub(crate) fn add<F>(
        &mut self,
        name: &'static str,
        check: impl Fn() -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.checks
            .push((name, Arc::new(move || Box::pin(check()))));
    }

    async fn answers(&self) -> Answers {
        let mut last = self.last.lock().await;
        if let Some((at, answers)) = &*last
            && at.elapsed() < FRESH
        {
            return answers.clone();
        }
        let checks = self.checks.iter();
        let answers = join_all(checks.map(|(name, check)| async { (*name, check().await) })).await;
        *last = Some((Instant::now(), answers.clone()));
        answers
    }
}

#[derive(OpenApi)]
#[openapi(info(
    title = "Weir",
    description = "Self-hosted moderation for chat: messages in, verdicts out, everything open to SQL.",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
struct Document;

/// Takes the address, so that an occupied port is known before anything else starts.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("can't listen on {address}; choose another address with --listen or the setting `listen`")
    })
}

/// What a process serves.
pub(crate) struct Offer {
    pub(crate) roles: Vec<Role>,
    pub(crate) routers: Vec<OpenApiRouter>,
    pub(crate) registry: Registry,
    pub(crate) readiness: Readiness,
}

/// Serves until `stop`, then lets requests under way finish.
pub(crate) async fn run(
    listener: TcpListener,
    offer: Offer,
    connections: usize,
    stop: CancellationToken,
) {
    let Offer {
        roles,
        routers,
        registry,
        readiness,
    } = offer;
    let all = routers.into_iter().fold(
        OpenApiRouter::with_openapi(Document::openapi()),
        OpenApiRouter::merge,
    );
    let (routes, document) = all.split_for_parts();
    let app = routes
        .merge(operations(registry, readiness))
        .merge(SwaggerUi::new("/docs").url("/openapi.json", document))
        .fallback(move |uri: Uri| async move {
            Problem::new(Code::NotFound, elsewhere(&roles, uri.path()))
        })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                Code::MethodNotAllowed,
                "this page takes other methods; see `/docs`",
            )
        })
        .layer(CatchPanicLayer::custom(panicked));
    accept::serve(listener, app, connections, stop).await;
}

/// Serves while `work` goes on what can be said before it is done: that the process lives,
/// that it is not ready, its metrics, and to everybody else to come again. Answers the
/// listener too, for what then serves.
pub(crate) async fn meanwhile<T>(
    listener: TcpListener,
    registry: &Registry,
    limits: Limits,
    work: impl Future<Output = T>,
) -> Result<(TcpListener, T)> {
    let listener = listener.into_std()?;
    let shared = TcpListener::from_std(listener.try_clone()?)?;
    let mut readiness = Readiness::default();
    readiness.add("backends", || async { Err(STARTING.to_owned()) });
    let app = operations(registry.clone(), readiness)
        .fallback(|| async { Problem::new(Code::Unavailable, STARTING).retry_after(FRESH) });
    let stop = CancellationToken::new();
    let served = accept::serve(shared, app, limits.connections(), stop.clone());
    let work = async {
        let done = work.await;
        stop.cancel();
        done
    };
    let ((), done) = tokio::join!(served, work);
    Ok((TcpListener::from_std(listener)?, done))
}

/// The panic itself is in the log; what it says is not for callers.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Problem::new(Code::Internal, "a fault of ours; it is in the log").into_response()
}

fn operations(registry: Registry, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(registry)
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready).with_state(readiness))
}

async fn metrics(State(registry): State<Registry>) -> impl IntoResponse {
    let encoder = TextEncoder::new();
    let mut body = Vec::new();
    match encoder.encode(&registry.gather(), &mut body) {
        Ok(()) => (
            StatusCode::OK,
            [(header::CONTENT_TYPE, encoder.format_type().to_owned())],
            body,
        ),
        Err(error) => {
            tracing::error!(%error, "metrics can't be shown");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                [(header::CONTENT_TYPE, "text/plain".to_owned())],
                Vec::new(),
            )
        }
    }
}

/// 200 when every part is ready, else 503; either way a line for each part.
async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    let answers = readiness.answers().await;
    let status = if answers.iter().all(|(_, answer)| answer.is_ok()) {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let parts: serde_json::Map<_, _> = answers
        .into_iter()
        .map(|(name, answer)| {
            (
                name.to_owned(),
                answer.err().unwrap_or_else(|| "ready".to_owned()).into(),
            )
        })
        .collect();
    (
        status,
        axum::Json(serde_json::json!({ "ready": status == StatusCode::OK, "parts": parts })),
    )
}
