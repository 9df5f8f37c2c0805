//! The account routes: register, token, who am I.

use axum::extract::{DefaultBodyLimit, Form, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use weir_store::{Scope, User};

use super::{Authenticated, ClientAddress, Code, Json, Problem};
use crate::limits::Door;
use crate::{Auth, Denied, Kind, Registration};

/// Bytes that an account request may have.
const BODY: usize = 16 * 1_024;

#[derive(OpenApi)]
#[openapi(modifiers(&Bearer), components(schemas(Problem)))]
struct Doc;

/// Both kinds of credential travel as `Authorization: Bearer`.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let mut scheme = Http::new(HttpAuthScheme::Bearer);
        scheme.description = Some("An API key, or a token of `POST /v1/token`.".to_owned());
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// `POST /v1/register`, `POST /v1/token`, `GET /v1/me`, and the security scheme
/// `bearer` for every other router's documentation.
pub fn router(auth: Auth) -> OpenApiRouter {
    OpenApiRouter::with_openapi(Doc::openapi())
        .routes(routes!(register))
        .routes(routes!(token))
        .routes(routes!(me))
        .layer(DefaultBodyLimit::max(BODY))
        .with_state(auth)
}

/// What it takes to get an account.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RegisterRequest {
    /// 3 to 32 characters out of `a-z`, `0-9`, `.`, `_` and `-`; case does not matter.
    #[schema(example = "ada")]
    username: String,
    /// One account for each address.
    #[schema(example = "ada@example.org")]
    email: String,
    /// 10 to 128 characters; three kinds of them, or 16 and more.
    #[schema(value_type = String, format = Password)]
    password: SecretString,
}

/// An account.
#[derive(Serialize, ToSchema)]
struct Account {
    /// The name, in small letters: also the sender of this user's messages.
    username: String,
    /// The address.
    email: String,
    /// Whose messages this user deals with.
    tenant: String,
    /// What this user may do.
    #[schema(value_type = Vec<String>)]
    scopes: Vec<Scope>,
    /// When the account was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        Self {
            username: user.username,
            email: user.email,
            tenant: user.tenant,
            scopes: user.scopes.into_iter().collect(),
            created_at: user.created_at,
        }
    }
}

/// Make an account
///
/// A bad request lists everything that is wrong under `errors`.
#[utoipa::path(
    post,
    path = "/v1/register",
    tag = "accounts",
    request_body = RegisterRequest,
    responses(
        (status = 201, description = "The account", body = Account),
        (status = 400, description = "What is wrong, all of it", body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "Registration is closed", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Name or e-mail address is taken", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is larger than 16 KiB", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not sent as JSON", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many from this address", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Overloaded", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn register(
    State(auth): State<Auth>,
    ClientAddress(address): ClientAddress,
    body: Result<Json<RegisterRequest>, Problem>,
) -> Result<(StatusCode, axum::Json<Account>), Problem> {
    auth.admit_address(Door::Register, address)?;
    let Json(request) = body?;
    let registration = Registration {
        username: request.username,
        email: request.email,
        password: request.password,
    };
    let user = auth.register(registration).await?;
    Ok((StatusCode::CREATED, axum::Json(user.into())))
}

/// The OAuth2 password form (RFC 6749, 4.3).
#[derive(Deserialize, ToSchema)]
struct TokenForm {
    /// `password`, where it is sent.
    #[schema(example = "password")]
    grant_type: Option<String>,
    /// The user name.
    username: Option<String>,
    /// The password.
    #[schema(value_type = Option<String>, format = Password)]
    password: Option<SecretString>,
}

/// A token (RFC 6749, 5.1).
#[derive(Serialize, ToSchema)]
struct TokenAnswer {
    /// Goes into `Authorization: Bearer …`.
    access_token: String,
    /// Always `bearer`.
    #[schema(example = "bearer")]
    token_type: &'static str,
    /// Seconds that it works.
    #[schema(example = 900)]
    expires_in: u32,
}

/// Get a token
///
/// The OAuth2 password form; errors carry the OAuth2 `error` besides the `code`.
#[utoipa::path(
    post,
    path = "/v1/token",
    tag = "accounts",
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    responses(
        (status = 200, description = "The token", body = TokenAnswer),
        (status = 400, description = "The form lacks something", body = Problem, content_type = "application/problem+json"),
        (status = 401, description = "Name and password do not match", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is larger than 16 KiB", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not sent as a form", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many from this address", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Overloaded", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn token(
    State(auth): State<Auth>,
    ClientAddress(address): ClientAddress,
    form: Result<Form<TokenForm>, axum::extract::rejection::FormRejection>,
) -> Result<Response, Problem> {
    auth.admit_address(Door::Token, address)?;
    let Form(form) = form.map_err(|rejection| Problem::from(rejection).oauth("invalid_request"))?;
    if form.grant_type.is_some_and(|kind| kind != "password") {
        let problem = Problem::new(Code::InvalidField, "the only grant type here is `password`");
        return Err(problem.field("grant_type").oauth("unsupported_grant_type"));
    }
    let missing = |field: &str| {
        Problem::new(
            Code::InvalidField,
            format!("the field `{field}` is missing"),
        )
        .field(field)
        .oauth("invalid_request")
    };
    let username = form.username.ok_or_else(|| missing("username"))?;
    let password = form.password.ok_or_else(|| missing("password"))?;

    let token = auth
        .token(&username, &password)
        .await
        .map_err(|denied| match denied {
            Denied::Invalid | Denied::Missing => {
                Problem::new(Code::Unauthorized, "user name and password do not match")
                    .oauth("invalid_grant")
            }
            other => Problem::from(other).oauth("temporarily_unavailable"),
        })?;
    let answer = TokenAnswer {
        access_token: token.access_token.expose_secret().to_owned(),
        token_type: "bearer",
        expires_in: token.expires_in,
    };
    Ok(([(header::CACHE_CONTROL, "no-store")], axum::Json(answer)).into_response())
}

/// Who the credential belongs to.
#[derive(Serialize, ToSchema)]
struct Me {
    /// `user` or `key`.
    #[schema(example = "user")]
    kind: &'static str,
    /// The user name, or the key's id.
    id: String,
    /// The user name, or the key's label.
    name: String,
    /// Only for a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    /// Only for a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    /// Whose messages the credential deals with.
    tenant: String,
    /// What it may do.
    #[schema(value_type = Vec<String>)]
    scopes: Vec<Scope>,
}

/// Who am I?
#[utoipa::path(
    get,
    path = "/v1/me",
    tag = "accounts",
    security(("bearer" = [])),
    responses(
        (status = 200, description = "The caller", body = Me),
        (status = 401, description = "No credential, or one that does not work", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many requests", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Accounts can't be reached", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn me(
    State(auth): State<Auth>,
    Authenticated(caller): Authenticated,
) -> Result<axum::Json<Me>, Problem> {
    let user = match caller.kind {
        Kind::User => auth.user(&caller.id).await?,
        Kind::Key => None,
    };
    Ok(axum::Json(Me {
        kind: match caller.kind {
            Kind::User => "user",
            Kind::Key => "key",
        },
        id: caller.id.clone(),
        name: caller.name.clone(),
        email: user.as_ref().map(|user| user.email.clone()),
        username: user.map(|user| user.username),
        tenant: caller.tenant.clone(),
        scopes: caller.scopes.iter().copied().collect(),
    }))
}
