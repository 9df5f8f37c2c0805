//! The handle that everything else uses: registers, logs in, authenticates.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use moka::sync::Cache;
use prometheus::Registry;
use secrecy::SecretString;
use subtle::ConstantTimeEq;
use tokio::sync::{Mutex, MutexGuard};
use weir_store::{Accounts, CreateError, Scope, User};

use crate::door::Problem;
use crate::limits::{AddressLimits, CallerLimits, Door};
use crate::metrics::Metrics;
use crate::passwords::{Failure, Passwords};
use crate::tokens::{Tokens, now};
use crate::{Caller, Config, Denied, Error, Kind, OpenError, RegisterError, keys, policy};

/// What a stranger sends to get an account.
#[derive(Debug, Clone)]
pub struct Registration {
    /// 3 to 32 characters out of `a-z`, `0-9`, `.`, `_`, `-`; case does not matter.
    pub username: String,
    /// One account each.
    pub email: String,
    /// See the password policy in the answer to a bad one.
    pub password: SecretString,
}

/// A token, as handed to a user.
#[derive(Debug, Clone)]
pub struct Token {
    /// Goes into `Authorization: Bearer …`.
    pub access_token: SecretString,
    /// Seconds that it works.
    pub expires_in: u32,
}

/// Accounts, tokens, keys and limits. A cheap handle.
#[derive(Clone)]
pub struct Auth(Arc<Inner>);

struct Inner {
    config: Config,
    accounts: Arc<dyn Accounts>,
    passwords: Passwords,
    tokens: Tokens,
    /// By fingerprint. Lives for `recheck_seconds`: whatever changes in the store is seen then.
    known: Cache<[u8; 32], Known>,
    unknown: Cache<[u8; 32], ()>,
    callers: CallerLimits,
    addresses: AddressLimits,
    /// Held while a user is being changed.
    turn: Mutex<()>,
    metrics: Arc<Metrics>,
}

#[derive(Clone)]
struct Known {
    caller: Arc<Caller>,
    /// Seconds since 1970.
    expires: u64,
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth")
            .field("tokens", &self.0.tokens)
            .finish_non_exhaustive()
    }
}

impl Auth {
    /// Opens the keys in the folder `secrets` (made with mode 0700 where it is missing,
    /// with a first token key of mode 0600).
    ///
    /// # Errors
    /// [`OpenError`], such as a key file that others may read.
    pub fn open(
        config: Config,
        secrets: &Path,
        accounts: Arc<dyn Accounts>,
        registry: &Registry,
    ) -> Result<Self, OpenError> {
        if config.token_seconds == 0 {
            return Err(OpenError::Config(
                "token_seconds",
                "a token must work for at least a second",
            ));
        }
        if config.registration_tenant.is_empty() {
            return Err(OpenError::Config(
                "registration_tenant",
                "it must not be empty",
            ));
        }
        // A table that holds nothing would give every request a fresh allowance.
        for (name, entries) in [
            ("cached_credentials", config.cached_credentials),
            ("tracked_addresses", config.tracked_addresses),
        ] {
            if entries == 0 {
                return Err(OpenError::Config(name, "it must be at least 1"));
            }
        }
        let metrics = Arc::new(Metrics::new(registry)?);
        let recheck = Duration::from_secs(u64::from(config.recheck_seconds));
        Ok(Self(Arc::new(Inner {
            passwords: Passwords::new(&config, Arc::clone(&metrics))?,
            tokens: Tokens::open(&config, secrets)?,
            known: remembered(config.cached_credentials, recheck),
            unknown: remembered(config.cached_credentials, recheck),
            callers: CallerLimits::new(&config, &metrics),
            addresses: AddressLimits::new(&config, &metrics),
            turn: Mutex::new(()),
            accounts,
            metrics,
            config,
        })))
    }

    /// Makes an account in the registration tenant that may send messages.
    ///
    /// # Errors
    /// [`RegisterError`]; it lists everything that is wrong.
    pub async fn register(&self, registration: Registration) -> Result<User, RegisterError> {
        let answer = if self.0.config.registration {
            let tenant = self.0.config.registration_tenant.clone();
            self.create(registration, tenant, BTreeSet::from([Scope::Ingest]))
                .await
        } else {
            Err(RegisterError::Closed)
        };
        let result = match &answer {
            Ok(_) => "created",
            Err(RegisterError::Closed) => "closed",
            Err(RegisterError::Invalid(_)) => "invalid",
            Err(RegisterError::Taken(_)) => "taken",
            Err(RegisterError::Overloaded { .. }) => "overloaded",
            Err(RegisterError::Crypto | RegisterError::Store(_)) => "failed",
        };
        self.0
            .metrics
            .registrations
            .with_label_values(&[result])
            .inc();
        answer
    }

    /// Makes an account with that tenant and those scopes: for administrators.
    ///
    /// # Errors
    /// [`RegisterError`]; it lists everything that is wrong.
    pub async fn create_user(
        &self,
        registration: Registration,
        tenant: &str,
        scopes: BTreeSet<Scope>,
    ) -> Result<User, RegisterError> {
        self.create(registration, tenant.to_owned(), scopes).await
    }

    async fn create(
        &self,
        registration: Registration,
        tenant: String,
        scopes: BTreeSet<Scope>,
    ) -> Result<User, RegisterError> {
        let Registration {
            username,
            email,
            password,
        } = registration;
        let mut faults = policy::password(&password, &username, &email);
        let username = policy::username(&username);
        let email = policy::email(&email);
        let (Ok(username), Ok(email), []) = (&username, &email, faults.as_slice()) else {
            let named = [username.err(), email.err()].into_iter().flatten();
            faults.splice(0..0, named);
            return Err(RegisterError::Invalid(faults));
        };
        // Looked up before the hash is paid for; the store checks again, atomically.
        if self.0.accounts.user(username).await?.is_some() {
            return Err(RegisterError::Taken("username"));
        }
        let user = User {
            username: username.clone(),
            email: email.clone(),
            password_hash: self.0.passwords.hash(&password).await?,
            tenant,
            scopes,
            created_at: Timestamp::now(),
            disabled: false,
        };
        self.0
            .accounts
            .create_user(&user)
            .await
            .map_err(|error| match error {
                CreateError::NameTaken => RegisterError::Taken("username"),
                CreateError::EmailTaken => RegisterError::Taken("email"),
                CreateError::Store(error) => RegisterError::Store(error),
            })?;
        tracing::info!(tenant = user.tenant, "user created");
        Ok(user)
    }

    /// A token for a user who knows the password. An unknown name, a wrong password and
    /// a disabled user cost the same and get the same answer.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn token(&self, username: &str, password: &SecretString) -> Result<Token, Denied> {
        let answer = self.login(username, password).await;
        let result = match &answer {
            Ok(_) => "ok",
            Err(Denied::Invalid | Denied::Missing) => "refused",
            Err(Denied::Overloaded { .. }) => "overloaded",
            Err(Denied::Unavailable) => "failed",
        };
        self.0.metrics.logins.with_label_values(&[result]).inc();
        answer
    }

    async fn login(&self, username: &str, password: &SecretString) -> Result<Token, Denied> {
        let user = match policy::username(username) {
            Ok(name) => self
                .0
                .accounts
                .user(&name)
                .await
                .map_err(|error| unreachable_store(&error))?,
            Err(_) => None,
        };
        let hash = user.as_ref().map(|user| user.password_hash.as_str());
        let right = self.0.passwords.verify(password, hash).await?;
        let Some(user) = user.filter(|user| right && !user.disabled) else {
            return Err(Denied::Invalid);
        };
        let (access_token, expires_in) = self.0.tokens.sign(&user.username).map_err(|error| {
            tracing::error!(%error, "a token could not be signed");
            Denied::Unavailable
        })?;
        Ok(Token {
            access_token,
            expires_in,
        })
    }

    /// Who holds this API key or token. What was checked within the last
    /// [`Config::recheck_seconds`] costs one hash and one look into memory.
    ///
    /// # Errors
    /// [`Denied`].
    pub async fn authenticate(&self, bearer: &str) -> Result<Arc<Caller>, Denied> {
        let inner = &*self.0;
        if bearer.len() > keys::LONGEST {
            inner.metrics.refused.inc();
            return Err(Denied::Invalid);
        }
        let print = keys::fingerprint(bearer);
        if let Some(known) = inner.known.get(&print) {
            if now() < known.expires {
                inner.metrics.cache_hits.inc();
                return Ok(known.caller);
            }
            inner.known.invalidate(&print);
        }
        if inner.unknown.contains_key(&print) {
            inner.metrics.refused.inc();
            return Err(Denied::Invalid);
        }
        let found = match keys::id(bearer) {
            Some(id) => self.check_key(id, &print).await?,
            None => self.check_token(bearer).await?,
        };
        let Some(known) = found.filter(|known| now() < known.expires) else {
            inner.unknown.insert(print, ());
            inner.metrics.refused.inc();
            return Err(Denied::Invalid);
        };
        inner.metrics.cache_misses.inc();
        let caller = Arc::clone(&known.caller);
        inner.known.insert(print, known);
        Ok(caller)
    }

    async fn check_key(&self, id: &str, print: &[u8; 32]) -> Result<Option<Known>, Denied> {
        let Some(key) = self
            .0
            .accounts
            .key(id)
            .await
            .map_err(|error| unreachable_store(&error))?
        else {
            return Ok(None);
        };
        if !bool::from(key.hash.ct_eq(print)) || key.revoked_at.is_some() {
            return Ok(None);
        }
        let expires = key
            .expires_at
            .map_or(u64::MAX, |at| u64::try_from(at.as_second()).unwrap_or(0));
        Ok(Some(Known {
            caller: Arc::new(Caller {
                limit: self.0.callers.of(&format!("key/{}", key.id)),
                tenant: key.tenant,
                scopes: key.scopes,
                name: key.label,
                id: key.id,
                kind: Kind::Key,
            }),
            expires,
        }))
    }

    async fn check_token(&self, token: &str) -> Result<Option<Known>, Denied> {
        let Some(claims) = self.0.tokens.verify(token) else {
            return Ok(None);
        };
        let user = self
            .0
            .accounts
            .user(&claims.sub)
            .await
            .map_err(|error| unreachable_store(&error))?;
        let Some(user) = user.filter(|user| !user.disabled) else {
            return Ok(None);
        };
        Ok(Some(Known {
            caller: Arc::new(Caller {
                limit: self.0.callers.of(&format!("user/{}", user.username)),
                tenant: user.tenant,
                scopes: user.scopes,
                name: user.username.clone(),
                id: user.username,
                kind: Kind::User,
            }),
            expires: claims.exp,
        }))
    }

    pub(crate) fn accounts(&self) -> &dyn Accounts {
        &*self.0.accounts
    }

    pub(crate) fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    /// Waits until no other call changes a user here.
    pub(crate) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.0.turn.lock().await
    }

    /// Looks at that credential again when it comes next.
    pub(crate) fn forget(&self, fingerprint: &[u8; 32]) {
        self.0.known.invalidate(fingerprint);
    }

    /// Looks at every credential again, also at those that did not work.
    pub(crate) fn forget_all(&self) {
        self.0.known.invalidate_all();
        self.0.unknown.invalidate_all();
    }

    pub(crate) fn trusted_proxies(&self) -> &[IpAddr] {
        &self.0.config.trusted_proxies
    }

    /// Counts a credential that did not work.
    pub(crate) fn count_failure(&self, address: IpAddr) -> Result<(), Problem> {
        self.admit_address(Door::Failed, address)
    }

    pub(crate) fn admit_address(&self, door: Door, address: IpAddr) -> Result<(), Problem> {
        self.0
            .addresses
            .take(door, address)
            .map_err(Problem::rate_limited)
    }
}

fn remembered<T: Clone + Send + Sync + 'static>(
    most: u64,
    recheck: Duration,
) -> Cache<[u8; 32], T> {
    Cache::builder()
        .max_capacity(most)
        .time_to_live(recheck)
        .build()
}

fn unreachable_store(error: &weir_store::Error) -> Denied {
    tracing::error!(%error, "accounts could not be read");
    Denied::Unavailable
}

impl From<Failure> for Denied {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Overloaded(retry_after) => Self::Overloaded { retry_after },
            Failure::Broken => Self::Unavailable,
        }
    }
}

impl From<Failure> for RegisterError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Overloaded(retry_after) => Self::Overloaded { retry_after },
            Failure::Broken => Self::Crypto,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Overloaded(retry_after) => Self::Overloaded { retry_after },
            Failure::Broken => Self::Crypto,
        }
    }
}
