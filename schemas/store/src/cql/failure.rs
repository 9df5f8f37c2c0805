//! What the driver's errors mean to us. Their texts name nodes, statements and causes,
//! never a value that was bound to a statement.

use std::io;

use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind as Setup, DbError,
    ExecutionError, MetadataError, NewSessionError, RequestAttemptError, WriteType,
};

use crate::Error;

/// Why a row is refused that passed our own checks.
pub(super) const BY_DATABASE: &str = "the database takes no such row";

/// The code of a decision whose outcome the server does not know.
const CAS_WRITE_UNKNOWN: i32 = 0x1700;

/// A request that failed.
pub(super) fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Unavailable(Box::new(error))
}

/// No connection. Most of what is wrong may pass; that we are not let in, or don't trust
/// whoever answers, does not.
pub(super) fn not_connected(error: NewSessionError) -> Error {
    let refused = match &error {
        NewSessionError::MetadataError(MetadataError::ConnectionPoolError(
            ConnectionPoolError::Broken {
                last_connection_error,
            },
        )) => match last_connection_error {
            ConnectionError::ConnectionSetupRequestError(refused) => {
                not_let_in(refused.get_error())
            }
            ConnectionError::IoError(error) => not_trusted(error),
            _ => None,
        },
        _ => None,
    };
    refused.unwrap_or_else(|| failed(error))
}

fn not_let_in(error: &Setup) -> Option<Error> {
    let (setting, reason) = match error {
        Setup::MissingAuthentication => (
            "username",
            "it is empty, and the database wants a user name and a password",
        ),
        // The same code as of a node that can't look the password up now.
        Setup::DbError(DbError::AuthenticationError, words) if words.contains("incorrect") => (
            "password",
            "the database does not take it with this user name",
        ),
        _ => return None,
    };
    Some(Error::Setting {
        setting,
        reason: reason.to_owned(),
    })
}

/// The certificate of the server is of somebody whom `ca` does not name, or of another host.
fn not_trusted(error: &io::Error) -> Option<Error> {
    match error.get_ref()?.downcast_ref()? {
        rustls::Error::InvalidCertificate(wrong) => Some(Error::Setting {
            setting: "tls",
            reason: format!("with `ca`, the database's certificate can't be verified: {wrong}"),
        }),
        _ => None,
    }
}

/// A write of one row that failed: the server may find fault with the row itself.
pub(super) fn row_failed(error: ExecutionError) -> Error {
    if is_invalid(&error) {
        Error::Refused(BY_DATABASE)
    } else {
        failed(error)
    }
}

/// Whether the server finds fault with the request itself.
pub(super) const fn is_invalid(error: &ExecutionError) -> bool {
    matches!(
        error,
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(DbError::Invalid, _))
    )
}

/// Whether nodes that are there could not do a read, or not in time: as over what has too many
/// removals.
pub(super) const fn given_up(error: &ExecutionError) -> bool {
    matches!(
        error,
        ExecutionError::RequestTimeout(_)
            | ExecutionError::LastAttemptError(RequestAttemptError::DbError(
                DbError::ReadFailure { .. } | DbError::ReadTimeout { .. },
                _
            ))
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_password_is_a_wrong_setting_and_one_that_cannot_be_looked_up_is_not() {
        let said = |words: &str| {
            let error = Setup::DbError(DbError::AuthenticationError, words.to_owned());
            not_let_in(&error).map(|error| error.to_string())
        };
        let words = "Provided username weir and/or password are incorrect";
        let wrong = said(words).unwrap();
        assert!(wrong.contains("the setting `password`"), "{wrong}");
        assert!(said("Unable to perform authentication: no quorum").is_none());
        let none = not_let_in(&Setup::MissingAuthentication).unwrap();
        assert!(!none.retriable());
    }

    #[test]
    fn a_certificate_that_is_not_trusted_is_a_wrong_setting_and_a_broken_connection_is_not() {
        let said = |error| not_trusted(&io::Error::new(io::ErrorKind::InvalidData, error));
        let unknown = rustls::CertificateError::UnknownIssuer;
        let wrong = said(rustls::Error::InvalidCertificate(unknown)).unwrap();
        assert!(!wrong.retriable());
        let words = wrong.to_string();
        assert!(
            words.contains("`tls`") && words.contains("UnknownIssuer"),
            "{words}"
        );
        assert!(said(rustls::Error::HandshakeNotComplete).is_none());
        assert!(not_trusted(&io::ErrorKind::ConnectionReset.into()).is_none());
    }
}
