//! Why somebody was not let in, and why accounts could not be changed. The texts
//! never hold a password, a key or a token.

use std::path::PathBuf;
use std::time::Duration;

use crate::door::{Code, Fault, Problem};
use crate::limits::Limited;

/// Why [`Auth::open`](crate::Auth::open) failed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Others than the owner may use the file or folder.
    #[error("{} is open to other users (mode {mode:o}): run `chmod {} {}`", path.display(), wanted, path.display())]
    Permissions {
        /// The file or folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode it should have.
        wanted: &'static str,
    },
    /// A file or folder can't be made or read.
    #[error("{} cannot be used", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A key file does not hold a key.
    #[error("{} does not hold an Ed25519 private key in PKCS#8 PEM", path.display())]
    NotAKey {
        /// The file.
        path: PathBuf,
    },
    /// The cryptographic library failed.
    #[error("no key could be generated")]
    Generate,
    /// A metric is registered twice.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// A setting that can't work.
    #[error("the setting `{0}` is not valid: {1}")]
    Config(&'static str, &'static str),
}

/// Why an administrative change failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// What was asked breaks a rule.
    #[error("{0}")]
    Invalid(String),
    /// It is taken.
    #[error("the {0} is taken")]
    Taken(&'static str),
    /// It would leave nobody who can let others in.
    #[error("this is the last administrator; make another one first")]
    LastAdmin,
    /// Too many password hashes wait.
    #[error("too many password hashes are waiting")]
    Overloaded {
        /// When to come back.
        retry_after: Duration,
    },
    /// The cryptographic library failed.
    #[error("the cryptographic library failed")]
    Crypto,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] weir_store::Error),
}

/// Why an account was not made.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Registration is switched off.
    #[error("registration is closed")]
    Closed,
    /// Everything that is wrong with what was sent.
    #[error("the registration is not valid")]
    Invalid(Vec<Fault>),
    /// The field whose value belongs to somebody.
    #[error("the {0} is taken")]
    Taken(&'static str),
    /// Too many password hashes wait.
    #[error("too many password hashes are waiting")]
    Overloaded {
        /// When to come back.
        retry_after: Duration,
    },
    /// The cryptographic library failed.
    #[error("the cryptographic library failed")]
    Crypto,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] weir_store::Error),
}

/// Why a credential was not accepted. Which part of it was wrong is not said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is none.
    #[error("no credential was sent")]
    Missing,
    /// It does not work: unknown, wrong, expired, revoked or disabled.
    #[error("the credential does not work")]
    Invalid,
    /// Too many password hashes wait.
    #[error("too many password hashes are waiting")]
    Overloaded {
        /// When to come back.
        retry_after: Duration,
    },
    /// The store or the cryptographic library failed.
    #[error("credentials can't be checked now")]
    Unavailable,
}

const RETRY_STORE: Duration = Duration::from_secs(1);

fn overloaded(retry_after: Duration) -> Problem {
    Problem::new(Code::Overloaded, "too many logins at once").retry_after(retry_after)
}

fn unavailable() -> Problem {
    Problem::new(Code::Unavailable, "accounts can't be reached now").retry_after(RETRY_STORE)
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Missing => Self::new(
                Code::Unauthorized,
                "send an API key or a token as `Authorization: Bearer …`",
            ),
            Denied::Invalid => Self::bad_credential("the API key or token does not work"),
            Denied::Overloaded { retry_after } => overloaded(retry_after),
            Denied::Unavailable => unavailable(),
        }
    }
}

impl From<RegisterError> for Problem {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::Closed => Self::new(Code::Forbidden, "registration is closed here"),
            RegisterError::Invalid(faults) => {
                let list: Vec<&str> = faults.iter().map(|fault| fault.detail.as_str()).collect();
                Self::new(Code::InvalidField, list.join("; ")).errors(faults)
            }
            RegisterError::Taken(field) => Self::new(
                Code::Conflict,
                format!("this {field} belongs to an account already"),
            )
            .field(field),
            RegisterError::Overloaded { retry_after } => overloaded(retry_after),
            RegisterError::Crypto => Self::new(Code::Internal, "the account could not be made"),
            RegisterError::Store(_) => unavailable(),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match error {
            Error::NotFound(what) => Self::new(Code::NotFound, format!("there is no such {what}")),
            Error::Invalid(detail) => Self::new(Code::InvalidField, detail),
            Error::Taken(what) => {
                Self::new(Code::Conflict, format!("this {what} is taken")).field(what)
            }
            Error::LastAdmin => Self::new(Code::Conflict, error.to_string()),
            Error::Overloaded { retry_after } => overloaded(retry_after),
            Error::Crypto => Self::new(Code::Internal, "the cryptographic library failed"),
            Error::Store(_) => unavailable(),
        }
    }
}

impl From<Limited> for Problem {
    fn from(limited: Limited) -> Self {
        match limited {
            Limited::For(after) => Self::rate_limited(after),
            Limited::Never(burst) => Self::new(
                Code::TooLarge,
                format!(
                    "this credential's rate limit lets at most {burst} messages through at once"
                ),
            ),
        }
    }
}
