//! SASL/PLAIN: who is who before anything else is answered.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;
use secrecy::ExposeSecret as _;
use subtle::ConstantTimeEq as _;

use crate::config::Auth;

const MECHANISM: &str = "PLAIN";

/// Answers a handshake; true when the mechanism is spoken.
pub(crate) fn handshake(
    auth: &Auth,
    request: &SaslHandshakeRequest,
) -> (SaslHandshakeResponse, bool) {
    let offered = match auth {
        Auth::None => Vec::new(),
        Auth::Plain { .. } => vec![StrBytes::from_static_str(MECHANISM)],
    };
    let known = offered.iter().any(|one| **one == *request.mechanism);
    let error = if known {
        0
    } else {
        ResponseError::UnsupportedSaslMechanism.code()
    };
    (
        SaslHandshakeResponse::default()
            .with_error_code(error)
            .with_mechanisms(offered),
        known,
    )
}

/// Answers a token; true when it is right. `shaken` says that a handshake came before.
pub(crate) fn authenticate(
    auth: &Auth,
    request: &SaslAuthenticateRequest,
    shaken: bool,
) -> (SaslAuthenticateResponse, bool) {
    let refuse = |error: ResponseError, words: &'static str| {
        SaslAuthenticateResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_static_str(words)))
    };
    if !shaken {
        return (
            refuse(
                ResponseError::IllegalSaslState,
                "a handshake must come first",
            ),
            false,
        );
    }
    if right(auth, &request.auth_bytes) {
        (SaslAuthenticateResponse::default(), true)
    } else {
        let words = "Authentication failed: Invalid username or password";
        (
            refuse(ResponseError::SaslAuthenticationFailed, words),
            false,
        )
    }
}

/// RFC 4616: authorization identity, NUL, name, NUL, password.
fn right(auth: &Auth, token: &[u8]) -> bool {
    let Auth::Plain { username, password } = auth else {
        return false;
    };
    let mut fields = token.splitn(3, |byte| *byte == 0);
    let (Some(acting_for), Some(name), Some(secret)) =
        (fields.next(), fields.next(), fields.next())
    else {
        return false;
    };
    let same_name = name.ct_eq(username.as_bytes());
    let same_secret = secret.ct_eq(password.expose_secret().as_bytes());
    let itself = acting_for.is_empty() || acting_for == name;
    bool::from(same_name & same_secret) && itself
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_name_and_password_pass() {
        let auth = Auth::Plain {
            username: "weir".to_owned(),
            password: "secret".to_owned().into(),
        };
        assert!(right(&auth, b"\0weir\0secret"));
        assert!(right(&auth, b"weir\0weir\0secret"));
        let wrong: &[&[u8]] = &[
            b"",
            b"\0\0",
            b"\0weir\0",
            b"\0weir\0secret2",
            b"\0root\0secret",
            b"root\0weir\0secret",
            b"weir\0secret",
        ];
        for token in wrong {
            assert!(!right(&auth, token));
        }
        assert!(!right(&Auth::None, b"\0\0"));
    }
}
