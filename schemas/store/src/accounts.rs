//! Who may use Weir: people with passwords, programs with keys.

use std::collections::BTreeSet;
use std::fmt;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Error;

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Send messages.
    Ingest,
    /// Read every message of the tenant.
    Read,
    /// Query the tenant's messages in SQL.
    Sql,
    /// Administer: users, keys, dead letters, erasure.
    Admin,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 4] = [Self::Ingest, Self::Read, Self::Sql, Self::Admin];

    /// The name users type.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::Sql => "sql",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A person with a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Unique in the whole installation, whatever its case.
    pub username: String,
    /// Unique in the whole installation, whatever its case.
    pub email: String,
    /// A PHC string, such as `$argon2id$v=19$m=…`.
    pub password_hash: String,
    /// Whose messages this user deals with.
    pub tenant: String,
    /// What this user may do.
    pub scopes: BTreeSet<Scope>,
    /// When the account was made.
    pub created_at: Timestamp,
    /// A disabled user can't log in, and existing tokens stop working.
    pub disabled: bool,
}

/// Without the password hash and the e-mail address.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("username", &self.username)
            .field("tenant", &self.tenant)
            .field("scopes", &self.scopes)
            .field("created_at", &self.created_at)
            .field("disabled", &self.disabled)
            .finish_non_exhaustive()
    }
}

/// A program's API key, of which only the hash is kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Unique; part of the key itself, no secret.
    pub id: String,
    /// SHA-256 of the whole key as the program sends it.
    pub hash: [u8; 32],
    /// Whose messages this key deals with.
    pub tenant: String,
    /// What people call it.
    pub label: String,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it no longer works.
    pub expires_at: Option<Timestamp>,
    /// When it was taken back.
    pub revoked_at: Option<Timestamp>,
}

/// Without the hash.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("tenant", &self.tenant)
            .field("label", &self.label)
            .field("scopes", &self.scopes)
            .field("created_at", &self.created_at)
            .field("expires_at", &self.expires_at)
            .field("revoked_at", &self.revoked_at)
            .finish_non_exhaustive()
    }
}

/// Why a user was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The name belongs to somebody.
    #[error("the user name is taken")]
    NameTaken,
    /// The e-mail address belongs to somebody.
    #[error("the e-mail address is taken")]
    EmailTaken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// Why a user was not changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// There is no user of that name.
    #[error("there is no such user")]
    NotFound,
    /// The new e-mail address belongs to somebody else.
    #[error("the e-mail address is taken")]
    EmailTaken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// Accounts and keys. Everything acknowledged survives a crash.
#[async_trait]
pub trait Accounts: Send + Sync + 'static {
    /// Makes a user. Name and e-mail address stay unique, whatever their case and
    /// however many calls run at once.
    ///
    /// # Errors
    /// [`CreateError`]; then nothing was written.
    async fn create_user(&self, user: &User) -> Result<(), CreateError>;

    /// The user of that name, whatever its case.
    ///
    /// # Errors
    /// When the store fails.
    async fn user(&self, username: &str) -> Result<Option<User>, Error>;

    /// Every user, by name.
    ///
    /// # Errors
    /// When the store fails.
    async fn users(&self) -> Result<Vec<User>, Error>;

    /// Replaces everything but the name.
    ///
    /// # Errors
    /// [`UpdateError`]; then nothing was written.
    async fn update_user(&self, user: &User) -> Result<(), UpdateError>;

    /// Writes a key, new or changed.
    ///
    /// # Errors
    /// When the store fails.
    async fn put_key(&self, key: &Key) -> Result<(), Error>;

    /// The key with that id.
    ///
    /// # Errors
    /// When the store fails.
    async fn key(&self, id: &str) -> Result<Option<Key>, Error>;

    /// Every key, or every key of one tenant, by id.
    ///
    /// # Errors
    /// When the store fails.
    async fn keys(&self, tenant: Option<&str>) -> Result<Vec<Key>, Error>;
}
