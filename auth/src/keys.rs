//! API keys: `weir_<id>_<secret>`, 64 bits of name and 256 bits of secret, both in
//! hexadecimal. Only the SHA-256 of the whole is kept: the secret has too many bits
//! to be guessed, so a slow hash would protect nothing.

use std::fmt::Write as _;

use secrecy::SecretString;
use sha2::{Digest, Sha256};

use crate::Error;

const PREFIX: &str = "weir_";
const ID_BYTES: usize = 8;
const SECRET_BYTES: usize = 32;
/// No credential is longer: a token of Weir takes some 300 bytes.
pub(crate) const LONGEST: usize = 2_048;

/// A new key, its id, and the hash to keep.
pub(crate) fn generate() -> Result<(String, SecretString, [u8; 32]), Error> {
    let id = hex(&random::<ID_BYTES>()?);
    let key = format!("{PREFIX}{id}_{}", hex(&random::<SECRET_BYTES>()?));
    let hash = fingerprint(&key);
    Ok((id, key.into(), hash))
}

/// The id inside a key; `None` for a text that is no key.
pub(crate) fn id(credential: &str) -> Option<&str> {
    let (id, secret) = credential.strip_prefix(PREFIX)?.split_once('_')?;
    let fits = |text: &str, bytes: usize| {
        text.len() == bytes * 2 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    (fits(id, ID_BYTES) && fits(secret, SECRET_BYTES)).then_some(id)
}

/// What a credential is known by inside: it can't be turned back.
pub(crate) fn fingerprint(credential: &str) -> [u8; 32] {
    Sha256::digest(credential).into()
}

/// Random bytes from the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Crypto)?;
    Ok(bytes)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing into a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    #[test]
    fn a_key_holds_its_id_and_hashes_to_what_is_kept() {
        let (made, key, hash) = generate().unwrap();
        assert_eq!(id(key.expose_secret()), Some(made.as_str()));
        assert_eq!(fingerprint(key.expose_secret()), hash);
        let (other, ..) = generate().unwrap();
        assert_ne!(made, other);
    }

    #[test]
    fn other_texts_are_no_keys() {
        let (_, key, _) = generate().unwrap();
        let key = key.expose_secret();
        for text in [
            "",
            "weir_",
            "weir__",
            &key[1..],
            &key[..key.len() - 1],
            &key.to_uppercase(),
            &format!("{key}0"),
        ] {
            assert_eq!(id(text), None);
        }
    }
}
