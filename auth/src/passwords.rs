//! Password hashes: argon2id with the parameters that OWASP recommends (19 MiB, two
//! passes, one lane), on blocking threads, a bounded number at once and waiting.

use std::sync::Arc;
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization;

use crate::metrics::Metrics;
use crate::{Config, OpenError};

const MEMORY_KIB: u32 = 19 * 1_024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Why no hash was computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The queue is full.
    Overloaded(Duration),
    /// The library, or the thread, failed.
    Broken,
}

/// Computes hashes, and keeps the load within bounds.
pub(crate) struct Passwords {
    argon2: Argon2<'static>,
    running: Arc<Semaphore>,
    /// Running and waiting together.
    admitted: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    /// Compared against when there is no such user, so that both cases do the same work.
    nobody: String,
    retry_after: Duration,
}

impl Passwords {
    pub(crate) fn new(config: &Config, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        let params =
            Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|_| OpenError::Generate)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let secret = crate::keys::random::<32>().map_err(|_| OpenError::Generate)?;
        let nobody: PasswordHash = argon2
            .hash_password(&secret)
            .map_err(|_| OpenError::Generate)?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = if config.hashing_threads == 0 {
            cores
        } else {
            config.hashing_threads
        };
        // A hash takes some 20 to 50 ms; a full queue is worked off after about this time.
        let wait = Duration::from_millis(50)
            * u32::try_from(config.hashing_queue / threads).unwrap_or(u32::MAX);
        Ok(Self {
            argon2,
            running: Arc::new(Semaphore::new(threads)),
            admitted: Arc::new(Semaphore::new(threads + config.hashing_queue)),
            metrics,
            nobody: nobody.to_string(),
            retry_after: wait.max(Duration::from_secs(1)),
        })
    }

    /// The PHC string of a password.
    pub(crate) async fn hash(&self, password: &SecretString) -> Result<String, Failure> {
        let argon2 = self.argon2.clone();
        let password = canonical(password);
        self.run("create", move || {
            let hash: PasswordHash = argon2
                .hash_password(password.expose_secret().as_bytes())
                .map_err(|_| Failure::Broken)?;
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether the password is the one hashed. Without a hash the same work is done
    /// and the answer is no.
    pub(crate) async fn verify(
        &self,
        password: &SecretString,
        hash: Option<&str>,
    ) -> Result<bool, Failure> {
        let argon2 = self.argon2.clone();
        let password = canonical(password);
        let known = hash.is_some();
        let hash = hash.unwrap_or(&self.nobody).to_owned();
        self.run("verify", move || {
            let hash = PasswordHash::new(&hash).map_err(|_| Failure::Broken)?;
            let same = argon2
                .verify_password(password.expose_secret().as_bytes(), &hash)
                .is_ok();
            Ok(same && known)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let admitted = Arc::clone(&self.admitted)
            .try_acquire_owned()
            .map_err(|_| Failure::Overloaded(self.retry_after))?;
        let queued = Queued::new(&self.metrics);
        let running = Arc::clone(&self.running)
            .acquire_owned()
            .await
            .map_err(|_| Failure::Broken)?;
        self.metrics.hashes.with_label_values(&[operation]).inc();
        // A caller that goes away does not stop the hash: the permits go with the work.
        let work = move || {
            let _permits = (admitted, running);
            let _timer = queued.0.hash_seconds.start_timer();
            work()
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|_| Failure::Broken)?
    }
}

/// Counts itself in the gauge as long as it lives.
struct Queued(Arc<Metrics>);

impl Queued {
    fn new(metrics: &Arc<Metrics>) -> Self {
        metrics.hash_queue.inc();
        Self(Arc::clone(metrics))
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.hash_queue.dec();
    }
}

/// The same password typed on another system may come as other code points: NFKC
/// makes them equal (NIST SP 800-63B, 5.1.1.2).
fn canonical(password: &SecretString) -> SecretString {
    password.expose_secret().nfkc().collect::<String>().into()
}
