//! Keys and users, for administrators. What is changed here works here at once, and
//! in other processes as soon as they look again.

use std::collections::BTreeSet;

use jiff::Timestamp;
use secrecy::SecretString;
use weir_store::{CreateError, Key, Scope, UpdateError, User};

use crate::{Auth, Error, keys, policy};

/// The tenant of the first administrator.
const FIRST_TENANT: &str = "default";

impl Auth {
    /// Makes an API key. The secret, `weir_<id>_<secret>`, is shown this once: only its
    /// hash is kept.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an empty tenant, a label longer than 100 characters, no
    /// scopes, or an expiry that has passed.
    pub async fn create_key(
        &self,
        tenant: &str,
        label: &str,
        scopes: BTreeSet<Scope>,
        expires_at: Option<Timestamp>,
    ) -> Result<(Key, SecretString), Error> {
        let (key, secret) = new_key(tenant, label, scopes, expires_at)?;
        self.store_key(&key).await?;
        Ok((key, secret))
    }

    async fn store_key(&self, key: &Key) -> Result<(), Error> {
        self.accounts().put_key(key).await?;
        tracing::info!(key = key.id, tenant = key.tenant, "key created");
        Ok(())
    }

    /// Takes a key back: at once here, within [`Config::recheck_seconds`] elsewhere.
    /// Answers the key; a second call changes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn revoke_key(&self, id: &str) -> Result<Key, Error> {
        let mut key = self
            .accounts()
            .key(id)
            .await?
            .ok_or(Error::NotFound("key"))?;
        if key.revoked_at.is_none() {
            key.revoked_at = Some(Timestamp::now());
            self.accounts().put_key(&key).await?;
            tracing::info!(key = key.id, tenant = key.tenant, "key revoked");
        }
        self.forget(&key.hash);
        Ok(key)
    }

    /// Every key, or those of one tenant.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn keys(&self, tenant: Option<&str>) -> Result<Vec<Key>, Error> {
        Ok(self.accounts().keys(tenant).await?)
    }

    /// The user of that name, whatever its case.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn user(&self, username: &str) -> Result<Option<User>, Error> {
        Ok(self.accounts().user(username).await?)
    }

    /// Every user.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn users(&self) -> Result<Vec<User>, Error> {
        Ok(self.accounts().users().await?)
    }

    /// Disables a user, or lets it in again; tokens follow within
    /// [`Config::recheck_seconds`], here at once.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::LastAdmin`].
    pub async fn set_disabled(&self, username: &str, disabled: bool) -> Result<User, Error> {
        self.change(username, |user| user.disabled = disabled).await
    }

    /// Replaces what a user may do.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::LastAdmin`].
    pub async fn set_scopes(&self, username: &str, scopes: BTreeSet<Scope>) -> Result<User, Error> {
        self.change(username, |user| user.scopes = scopes).await
    }

    /// Changes a user, but refuses to do without the last one who can let others in.
    async fn change(&self, username: &str, change: impl FnOnce(&mut User)) -> Result<User, Error> {
        // One at a time: two administrators could shut each other out.
        let _turn = self.turn().await;
        let mut user = self.user(username).await?.ok_or(Error::NotFound("user"))?;
        let administered = is_administrator(&user);
        change(&mut user);
        if administered && !is_administrator(&user) {
            let users = self.users().await?;
            let another = |other: &User| is_administrator(other) && other.username != user.username;
            if !users.iter().any(another) {
                return Err(Error::LastAdmin);
            }
        }
        self.accounts()
            .update_user(&user)
            .await
            .map_err(|error| match error {
                UpdateError::NotFound => Error::NotFound("user"),
                UpdateError::EmailTaken => Error::Taken("email"),
                UpdateError::Store(error) => Error::Store(error),
            })?;
        self.forget_all();
        tracing::info!(tenant = user.tenant, "user changed");
        Ok(user)
    }

    /// The first administrator: with every scope, in the tenant `default`, with a random
    /// password and an API key of all scopes. Answers `false` if there is one. Where
    /// somebody else has the name, it gets the first of `name-2`, `name-3`… that is free.
    ///
    /// Name, password and key can't be had again: `keep` gets them before anything of
    /// them is stored, so that no end in between leaves an account that nobody can use.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that no user may have, or what `keep` answers: then
    /// nothing was stored. [`Error::Taken`] where somebody else made one at the same moment:
    /// what `keep` got works nowhere.
    pub async fn ensure_admin<E: From<Error>>(
        &self,
        username: &str,
        keep: impl FnOnce(&str, &SecretString, &SecretString) -> Result<(), E>,
    ) -> Result<bool, E> {
        let users = self.users().await?;
        if users.iter().any(is_administrator) {
            return Ok(false);
        }
        let username = free_name(username, &users)?;
        let password = SecretString::from(keys::hex(&keys::random::<16>()?));
        let user = User {
            password_hash: self
                .passwords()
                .hash(&password)
                .await
                .map_err(Error::from)?,
            email: format!("{username}@localhost"),
            tenant: FIRST_TENANT.to_owned(),
            scopes: Scope::ALL.into(),
            created_at: Timestamp::now(),
            disabled: false,
            username: username.clone(),
        };
        let (key, secret) = new_key(FIRST_TENANT, &username, Scope::ALL.into(), None)?;
        keep(&username, &password, &secret)?;
        // The user comes last: without it, the next start begins again.
        self.store_key(&key).await?;
        let made = self.accounts().create_user(&user).await;
        if matches!(made, Err(CreateError::NameTaken | CreateError::EmailTaken)) {
            // Somebody else was first, by a moment: this key is nobody's.
            self.revoke_key(&key.id).await?;
        }
        made.map_err(|error| match error {
            CreateError::NameTaken => Error::Taken("username"),
            CreateError::EmailTaken => Error::Taken("email"),
            CreateError::Store(error) => Error::Store(error),
        })?;
        Ok(true)
    }
}

/// A key and its secret, both not stored yet.
fn new_key(
    tenant: &str,
    label: &str,
    scopes: BTreeSet<Scope>,
    expires_at: Option<Timestamp>,
) -> Result<(Key, SecretString), Error> {
    let created_at = Timestamp::now();
    if tenant.is_empty() {
        return Err(Error::Invalid("the tenant must not be empty".to_owned()));
    }
    if label.is_empty() || label.chars().count() > 100 || label.chars().any(char::is_control) {
        return Err(Error::Invalid(
            "the label must be 1 to 100 printable characters".to_owned(),
        ));
    }
    if scopes.is_empty() {
        return Err(Error::Invalid("a key needs at least one scope".to_owned()));
    }
    if expires_at.is_some_and(|at| at <= created_at) {
        return Err(Error::Invalid(
            "the expiry must lie in the future".to_owned(),
        ));
    }
    let (id, secret, hash) = keys::generate()?;
    let key = Key {
        id,
        hash,
        tenant: tenant.to_owned(),
        label: label.to_owned(),
        scopes,
        created_at,
        expires_at,
        revoked_at: None,
    };
    Ok((key, secret))
}

/// The name, or the first of `name-2`, `name-3`… that none of the users has.
fn free_name(name: &str, users: &[User]) -> Result<String, Error> {
    let taken = |name: &str| {
        users
            .iter()
            .any(|user| user.username.eq_ignore_ascii_case(name))
    };
    // One candidate more than there are users: one of them is free.
    let numbered = (2..=users.len() + 1).map(|n| format!("{name}-{n}"));
    let free = std::iter::once(name.to_owned())
        .chain(numbered)
        .find(|candidate| !taken(candidate))
        .ok_or(Error::Taken("username"))?;
    policy::username(&free).map_err(|fault| Error::Invalid(fault.detail))
}

fn is_administrator(user: &User) -> bool {
    user.tenant == FIRST_TENANT && user.scopes.contains(&Scope::Admin) && !user.disabled
}
