//! What the driver's errors mean to us. Their texts name nodes, statements and causes,
//! never a value that was bound to a statement.

use scylla::errors::{DbError, ExecutionError, RequestAttemptError, WriteType};

use crate::Error;

/// Why a row is refused that passed our own checks.
pub(super) const BY_DATABASE: &str = "the database takes no such row";

/// The code of a decision whose outcome the server does not know.
const CAS_WRITE_UNKNOWN: i32 = 0x1700;

/// A request that failed.
pub(super) fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Unavailable(Box::new(error))
}

/// A write of one row that failed: the server may find fault with the row itself.
pub(super) fn row_failed(error: ExecutionError) -> Error {
    match &error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Invalid, _)) => {
            Error::Refused(BY_DATABASE)
        }
        _ => failed(error),
    }
}

/// Whether the request lost against others that decide about the same thing at the same
/// time. It may have been done all the same.
pub(super) fn contended(error: &ExecutionError) -> bool {
    let ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, _)) = error else {
        return false;
    };
    match error {
        DbError::WriteTimeout { write_type, .. } => *write_type == WriteType::Cas,
        DbError::ReadTimeout { consistency, .. } => consistency.is_serial(),
        DbError::Other(code) => *code == CAS_WRITE_UNKNOWN,
        _ => false,
    }
}

/// A row in the database that is not as we write them.
pub(super) fn damaged(place: &str) -> Error {
    Error::Damaged(place.to_owned())
}
