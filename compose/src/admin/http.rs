//! `/v1/admin/…`: users and keys, for callers with the scope `admin`.
//!
//! The administrators of the tenant `default` run the installation and may manage
//! every tenant; those of another tenant stay in it.

use std::collections::BTreeSet;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use weir_auth::door::{Authenticated, Code, Json, Problem};
use weir_auth::{Auth, Caller, Registration, Scope};

/// Its administrators manage every tenant.
pub(super) const OPERATORS: &str = "default";
const LONGEST_TENANT: usize = 63;

pub(crate) fn router(auth: Auth) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(create_key, list_keys))
        .routes(routes!(revoke_key))
        .routes(routes!(create_user, list_users))
        .routes(routes!(change_user))
        .with_state(auth)
}

/// A key to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewKey {
    /// Whose messages it deals with; the caller's own unless given.
    tenant: Option<String>,
    /// What people call it.
    #[schema(example = "chat backend")]
    label: String,
    /// `ingest`, `read`, `sql`, `admin`.
    #[schema(value_type = Vec<String>, example = json!(["ingest"]))]
    scopes: BTreeSet<Scope>,
    /// From when on it no longer works.
    #[schema(value_type = Option<String>)]
    expires_at: Option<Timestamp>,
}

/// A key, without its secret.
#[derive(Serialize, ToSchema)]
struct KeyInfo {
    id: String,
    tenant: String,
    label: String,
    #[schema(value_type = Vec<String>)]
    scopes: BTreeSet<Scope>,
    #[schema(value_type = String)]
    created_at: Timestamp,
    #[schema(value_type = Option<String>)]
    expires_at: Option<Timestamp>,
    #[schema(value_type = Option<String>)]
    revoked_at: Option<Timestamp>,
}

/// A new key; `key` is shown this once.
#[derive(Serialize, ToSchema)]
struct MadeKey {
    key: String,
    #[serde(flatten)]
    info: KeyInfo,
}

#[derive(Serialize, ToSchema)]
struct Keys {
    keys: Vec<KeyInfo>,
}

/// A user to make.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewUser {
    username: String,
    email: String,
    #[schema(value_type = String, format = Password)]
    password: SecretString,
    /// The caller's own unless given.
    tenant: Option<String>,
    #[schema(value_type = Vec<String>, example = json!(["ingest", "read", "sql"]))]
    scopes: BTreeSet<Scope>,
}

/// What to change of a user.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct UserChange {
    #[schema(value_type = Option<Vec<String>>)]
    scopes: Option<BTreeSet<Scope>>,
    disabled: Option<bool>,
}

/// A user, without the password's hash.
#[derive(Serialize, ToSchema)]
struct UserInfo {
    username: String,
    email: String,
    tenant: String,
    #[schema(value_type = Vec<String>)]
    scopes: BTreeSet<Scope>,
    #[schema(value_type = String)]
    created_at: Timestamp,
    disabled: bool,
}

#[derive(Serialize, ToSchema)]
struct Users {
    users: Vec<UserInfo>,
}

impl From<weir_auth::Key> for KeyInfo {
    fn from(key: weir_auth::Key) -> Self {
        Self {
            id: key.id,
            tenant: key.tenant,
            label: key.label,
            scopes: key.scopes,
            created_at: key.created_at,
            expires_at: key.expires_at,
            revoked_at: key.revoked_at,
        }
    }
}

impl From<weir_auth::User> for UserInfo {
    fn from(user: weir_auth::User) -> Self {
        Self {
            username: user.username,
            email: user.email,
            tenant: user.tenant,
            scopes: user.scopes,
            created_at: user.created_at,
            disabled: user.disabled,
        }
    }
}

/// Makes an API key
#[utoipa::path(post, path = "/v1/admin/keys", tag = "administration", security(("bearer" = [])), request_body = NewKey,
    responses((status = 201, body = MadeKey), (status = "4XX", body = Problem)))]
async fn create_key(
    State(auth): State<Auth>,
    Authenticated(caller): Authenticated,
    Json(wanted): Json<NewKey>,
) -> Result<(StatusCode, axum::Json<MadeKey>), Problem> {
    let tenant = managed_tenant(&caller, wanted.tenant)?;
    let (key, secret) = auth
        .create_key(&tenant, &wanted.label, wanted.scopes, wanted.expires_at)
        .await?;
    let made = MadeKey {
        key: secret.expose_secret().to_owned(),
        info: key.into(),
    };
    Ok((StatusCode::CREATED, axum::Json(made)))
}

/// Lists API keys
#[utoipa::path(get, path = "/v1/admin/keys", tag = "administration", security(("bearer" = [])),
    responses((status = 200, body = Keys), (status = "4XX", body = Problem)))]
async fn list_keys(
    State(auth): State<Auth>,
    Authenticated(caller): Authenticated,
) -> Result<axum::Json<Keys>, Problem> {
    caller.require(Scope::Admin)?;
    let keys = auth.keys(only(&caller)).await?;
    Ok(axum::Json(Keys {
        keys: keys.into_iter().map(KeyInfo::from).collect(),
    }))
}

/// Takes an API key back
#[utoipa::path(delete, path = "/v1/admin/keys/{id}", tag = "administration", security(("bearer" = [])),
    params(("id" = String, Path, description = "The key's id, the part between the underscores")),
    responses((status = 200, body = KeyInfo), (status = "4XX", body = Problem)))]
async fn revoke_key(
    State(auth): State<Auth>,
    Authenticated(caller): Authenticated,
    id: Result<Path<String>, PathRejection>,
) -> Result<axum::Json<KeyInfo>, Problem> {
    caller.require(Scope::Admin)?;
    let Path(id) = id?;
    let known = auth
        .keys(only(&caller))
        .await?
        .into_iter()
        .any(|key| key.id == id);
    if !known {
        return Err(Problem::new(Code::NotFound, "there is no such key"));
    }
    Ok(axum::Json(auth.revoke_key(&id).await?.into()))
}

/// Makes an account
#[utoipa::path(post, path = "/v1/admin/users", tag = "administration", security(("bearer" = [])), request_body = NewUser,
    responses((status = 201, body = UserInfo), (status = "4XX", body = Problem)))]
async fn create_user(
    State(auth): State<Auth>,
    Authenticated(caller): Authenticated,
    Json(wanted): Json<NewUser>,
) -> Result<(StatusCode, axum::Json<UserInfo>), Problem> {
    let tenant = managed_tenant(&caller, wanted.tenant)?;
    let registration = Registration {
        username: wanted.username,
        email: wanted.email,
        password: wanted.password,
    };
    let user = auth
        .create_user(registration, &tenant, wanted.scopes)
        .await?;
    Ok((StatusCode::CREATED, axum::Json(user.into())))
}

/// Lists accounts
#[utoipa::path(get, path = "/v1/admin/users", tag = "administration", security(("bearer" = [])),
    responses((status = 200, body = Users), (status = "4XX", body = Problem)))]
async fn list_users(
    State(auth): State<Auth>,
    Authenticated(caller): Authenticated,
) -> Result<axum::Json<Users>, Problem> {
    caller.require(Scope::Admin)?;
    let tenant = only(&caller);
    let users = auth
        .users()
        .await?
        .into_iter()
        .filter(|user| tenant.is_none_or(|tenant| user.tenant == tenant));
    Ok(axum::Json(Users {
        users: users.map(UserInfo::from).collect(),
    }))
}

/// Changes what an account may do, or shuts it out
#[utoipa::path(patch, path = "/v1/admin/users/{username}", tag = "administration", security(("bearer" = [])),
    params(("username" = String, Path)), request_body = UserChange,
    responses((status = 200, body = UserInfo), (status = "4XX", body = Problem)))]
async fn change_user(
    State(auth): State<Auth>,
    Authenticated(caller): Authenticated,
    username: Result<Path<String>, PathRejection>,
    Json(change): Json<UserChange>,
) -> Result<axum::Json<UserInfo>, Problem> {
    caller.require(Scope::Admin)?;
    let Path(username) = username?;
    let missing = || Problem::new(Code::NotFound, "there is no such user");
    let tenant = only(&caller);
    let known = auth
        .user(&username)
        .await?
        .filter(|user| tenant.is_none_or(|tenant| user.tenant == tenant));
    let mut user = known.ok_or_else(missing)?;
    if let Some(scopes) = change.scopes {
        user = auth.set_scopes(&username, scopes).await?;
    }
    if let Some(disabled) = change.disabled {
        user = auth.set_disabled(&username, disabled).await?;
    }
    Ok(axum::Json(user.into()))
}

/// The tenant that an administrator is confined to; `None`: all of them.
fn only(caller: &Caller) -> Option<&str> {
    (caller.tenant != OPERATORS).then_some(caller.tenant.as_str())
}

pub(super) fn managed_tenant(caller: &Caller, wanted: Option<String>) -> Result<String, Problem> {
    caller.require(Scope::Admin)?;
    let tenant = wanted.unwrap_or_else(|| caller.tenant.clone());
    if only(caller).is_some_and(|own| own != tenant) {
        return Err(Problem::new(
            Code::Forbidden,
            "this administrator manages only its own tenant",
        )
        .field("tenant"));
    }
    let fits = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
    };
    if tenant.is_empty() || tenant.len() > LONGEST_TENANT || !tenant.bytes().all(fits) {
        let rule = "a tenant is named by 1 to 63 characters out of a-z, 0-9, `-` and `_`";
        return Err(Problem::new(Code::InvalidField, rule).field("tenant"));
    }
    Ok(tenant)
}
