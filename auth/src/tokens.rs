//! Tokens: JWTs signed with Ed25519 by a key that is made on the first run.
//!
//! A token says only who it is for; what that user may do is read from the store
//! when the token is checked. The key files are `jwt-<kid>.pem`, where the key id is
//! the start of the SHA-256 of the public key; the newest signs, all of them verify,
//! and a file put there later is found when its key id is first met.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use parking_lot::{Mutex, RwLock};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::secrets::{self, at};
use crate::{Config, OpenError};

const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const END: &str = "-----END PRIVATE KEY-----";
/// How often an unknown key id may make us look for new files.
const RESCAN: Duration = Duration::from_secs(5);

/// What a token says.
#[derive(Serialize, Deserialize)]
pub(crate) struct Claims {
    iss: String,
    aud: String,
    /// The user name.
    pub(crate) sub: String,
    iat: u64,
    /// Seconds since 1970.
    pub(crate) exp: u64,
}

/// Whether the folder holds a key to sign tokens with. One who opens it makes the first;
/// where several processes sign, they need the same.
#[must_use]
pub fn has_signing_key(folder: &Path) -> bool {
    // What can't be read is for the one who opens it to say.
    folder.exists() && scan(folder).map_or(true, |files| !files.is_empty())
}

/// Takes back the keys that were made in this folder, where it turns out that others sign
/// with another.
///
/// # Errors
/// A file can't be removed.
pub fn forget_signing_keys(folder: &Path) -> Result<(), OpenError> {
    for file in scan(folder)? {
        let path = key_path(folder, &file.kid);
        fs::remove_file(&path).map_err(at(&path))?;
    }
    Ok(())
}

/// Signs and verifies.
pub(crate) struct Tokens {
    folder: PathBuf,
    issuer: String,
    audience: String,
    lifetime: u32,
    validation: Validation,
    signer: (String, EncodingKey),
    verifiers: RwLock<HashMap<String, DecodingKey>>,
    scanned: Mutex<Option<Instant>>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("kid", &self.signer.0)
            .finish_non_exhaustive()
    }
}

impl Tokens {
    /// Reads the keys in `folder`, and makes the first if there is none.
    pub(crate) fn open(config: &Config, folder: &Path) -> Result<Self, OpenError> {
        secrets::folder(folder)?;
        let mut files = scan(folder)?;
        if files.is_empty() {
            files.push(generate(folder)?);
        }
        files.sort_by(|a, b| (a.made, &a.kid).cmp(&(b.made, &b.kid)));
        let verifiers = files
            .iter()
            .map(|file| (file.kid.clone(), file.verifier.clone()))
            .collect();
        let Some(newest) = files.pop() else {
            return Err(OpenError::Generate);
        };

        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.leeway = 0;
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&[&config.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Ok(Self {
            folder: folder.to_owned(),
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            lifetime: config.token_seconds,
            validation,
            signer: (newest.kid, newest.signer),
            verifiers: RwLock::new(verifiers),
            scanned: Mutex::default(),
        })
    }

    /// A token for that user, and the seconds that it works.
    pub(crate) fn sign(
        &self,
        username: &str,
    ) -> Result<(SecretString, u32), jsonwebtoken::errors::Error> {
        let now = now();
        let claims = Claims {
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            sub: username.to_owned(),
            iat: now,
            exp: now + u64::from(self.lifetime),
        };
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(self.signer.0.clone());
        let token = jsonwebtoken::encode(&header, &claims, &self.signer.1)?;
        Ok((token.into(), self.lifetime))
    }

    /// What a valid token says; `None` for any other text.
    pub(crate) fn verify(&self, token: &str) -> Option<Claims> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        if header.alg != Algorithm::EdDSA {
            return None;
        }
        let key = self.verifier(&header.kid?)?;
        let data = jsonwebtoken::decode::<Claims>(token, &key, &self.validation).ok()?;
        Some(data.claims)
    }

    fn verifier(&self, kid: &str) -> Option<DecodingKey> {
        if let Some(key) = self.verifiers.read().get(kid) {
            return Some(key.clone());
        }
        {
            let mut scanned = self.scanned.lock();
            if scanned.is_some_and(|at| at.elapsed() < RESCAN) {
                return None;
            }
            *scanned = Some(Instant::now());
        }
        match scan(&self.folder) {
            Ok(files) => {
                *self.verifiers.write() = files.into_iter().map(|f| (f.kid, f.verifier)).collect()
            }
            Err(error) => tracing::warn!(%error, "token keys could not be read again"),
        }
        self.verifiers.read().get(kid).cloned()
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

struct KeyFile {
    kid: String,
    made: SystemTime,
    signer: EncodingKey,
    verifier: DecodingKey,
}

impl KeyFile {
    fn new(der: &[u8], made: SystemTime) -> Option<Self> {
        let pair = Ed25519KeyPair::from_pkcs8(der).ok()?;
        let public = pair.public_key().as_ref();
        let kid = Sha256::digest(public)[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Some(Self {
            kid,
            made,
            signer: EncodingKey::from_ed_der(der),
            verifier: DecodingKey::from_ed_der(public),
        })
    }
}

fn scan(folder: &Path) -> Result<Vec<KeyFile>, OpenError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        if !name.starts_with("jwt-") || !name.ends_with(".pem") {
            continue;
        }
        let text = secrets::read(&path)?;
        let made = fs::metadata(&path)
            .and_then(|m| m.modified())
            .map_err(at(&path))?;
        let key = decode(&text).and_then(|der| KeyFile::new(&der, made));
        files.push(key.ok_or(OpenError::NotAKey { path })?);
    }
    Ok(files)
}

fn key_path(folder: &Path, kid: &str) -> PathBuf {
    folder.join(format!("jwt-{kid}.pem"))
}

fn generate(folder: &Path) -> Result<KeyFile, OpenError> {
    let der =
        Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).map_err(|_| OpenError::Generate)?;
    let key = KeyFile::new(der.as_ref(), SystemTime::now()).ok_or(OpenError::Generate)?;
    let path = key_path(folder, &key.kid);
    secrets::write(
        &path,
        &format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(der.as_ref())),
    )?;
    tracing::info!(kid = key.kid, "token key made");
    Ok(key)
}

/// The bytes of a PEM file with one private key. 48 bytes take one line of base64.
fn decode(pem: &str) -> Option<Vec<u8>> {
    let body: String = pem
        .split_once(BEGIN)?
        .1
        .split_once(END)?
        .0
        .split_whitespace()
        .collect();
    STANDARD.decode(body).ok()
}
