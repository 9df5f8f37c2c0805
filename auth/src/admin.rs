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
        self.accounts().put_key(&key).await?;
        tracing::info!(key = key.id, tenant, "key created");
        Ok((key, secret))
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
        if disabled {
            self.spare(username).await?;
        }
        self.change(username, |user| user.disabled = disabled).await
    }

    /// Replaces what a user may do.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::LastAdmin`].
    pub async fn set_scopes(&self, username: &str, scopes: BTreeSet<Scope>) -> Result<User, Error> {
        if !scopes.contains(&Scope::Admin) {
            self.spare(username).await?;
        }
        self.change(username, |user| user.scopes = scopes).await
    }

    /// Gives a user a new password.
    ///
    /// # Errors
    /// [`Error::Invalid`] says everything that the password lacks.
    pub async fn set_password(
        &self,
        username: &str,
        password: &SecretString,
    ) -> Result<User, Error> {
        let user = self.user(username).await?.ok_or(Error::NotFound("user"))?;
        let faults = policy::password(password, &user.username, &user.email);
        if !faults.is_empty() {
            let list: Vec<String> = faults.into_iter().map(|fault| fault.detail).collect();
            return Err(Error::Invalid(list.join("; ")));
        }
        let hash = self.passwords().hash(password).await?;
        self.change(username, |user| user.password_hash = hash)
            .await
    }

    /// Refuses to do without the last user who can let others in.
    async fn spare(&self, username: &str) -> Result<(), Error> {
        let users = self.users().await?;
        let (this, others): (Vec<&User>, Vec<&User>) = users
            .iter()
            .filter(|user| is_administrator(user))
            .partition(|user| user.username.eq_ignore_ascii_case(username));
        if others.is_empty() && !this.is_empty() {
            return Err(Error::LastAdmin);
        }
        Ok(())
    }

    async fn change(&self, username: &str, change: impl FnOnce(&mut User)) -> Result<User, Error> {
        let mut user = self.user(username).await?.ok_or(Error::NotFound("user"))?;
        change(&mut user);
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
    /// password and an API key of all scopes. Answers `false` if there is one.
    ///
    /// Name, password and key can't be had again: `keep` gets them before the account is
    /// there, so that no end in between leaves an account that nobody can use.
    ///
    /// # Errors
    /// [`Error::Taken`] if the name belongs to somebody else, or what `keep` answers.
    pub async fn ensure_admin<E: From<Error>>(
        &self,
        username: &str,
        keep: impl FnOnce(&str, &SecretString, &SecretString) -> Result<(), E>,
    ) -> Result<bool, E> {
        if self.users().await?.iter().any(is_administrator) {
            return Ok(false);
        }
        let username = policy::username(username).map_err(|fault| Error::Invalid(fault.detail))?;
        if self.user(&username).await?.is_some() {
            return Err(Error::Taken("username").into());
        }
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
        // The user comes last: without it, the next start begins again.
        let (_, key) = self
            .create_key(FIRST_TENANT, &username, Scope::ALL.into(), None)
            .await?;
        keep(&username, &password, &key)?;
        self.accounts()
            .create_user(&user)
            .await
            .map_err(|error| match error {
                CreateError::NameTaken => Error::Taken("username"),
                CreateError::EmailTaken => Error::Taken("email"),
                CreateError::Store(error) => Error::Store(error),
            })?;
        Ok(true)
    }
}

fn is_administrator(user: &User) -> bool {
    user.tenant == FIRST_TENANT && user.scopes.contains(&Scope::Admin) && !user.disabled
}
