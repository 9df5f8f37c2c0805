//! What an installation begins with: the key that signs tokens, and an administrator.

use std::sync::Arc;

use anyhow::{Result, ensure};
use prometheus::Registry;
use secrecy::ExposeSecret as _;
use weir_auth::Auth;
use weir_store::Accounts;

use crate::config::{Config, Store};
use crate::data::{Admin, DataDir};

const NAME: &str = "admin";

/// Opens the accounts, and makes the key that signs tokens and the first administrator
/// where there are none. Answers where the new administrator's credentials are.
///
/// Processes that share a database must sign with one key. So one is made only where there
/// are no accounts yet, or with `new_key`: for when the old one is lost.
pub(crate) async fn accounts(
    config: &Config,
    data: &DataDir,
    store: Arc<dyn Accounts>,
    registry: &Registry,
    base: &str,
    new_key: bool,
) -> Result<(Auth, Option<String>)> {
    let secrets = data.secrets();
    let makes_key = !weir_auth::has_signing_key(&secrets);
    ensure!(
        makes_key || !new_key,
        "there is a signing key in {} already; to replace it, move its jwt-*.pem away on every machine first",
        secrets.display()
    );
    let must_be_first = makes_key && !new_key && config.store == Store::Scylla;
    let elsewhere = || {
        format!(
            "there are accounts in keyspace {}, and in {} there is no key that signs their tokens: copy the folder \
             from where Weir ran first; where it is lost, `weir migrate --new-signing-key` makes another",
            config.cql.keyspace,
            secrets.display()
        )
    };
    ensure!(
        !must_be_first || store.users().await?.is_empty(),
        elsewhere()
    );
    let auth = Auth::open(config.auth.clone(), &secrets, store, registry)?;
    let made = administrator(&auth, data, base).await;
    if must_be_first && !matches!(made, Ok(Some(_))) {
        // Another machine was first, by a moment; or nobody can say.
        weir_auth::forget_signing_keys(&secrets)?;
        ensure!(
            made.as_ref().is_err_and(|error| !is_taken(error)),
            elsewhere()
        );
    }
    Ok((auth, made?))
}

fn is_taken(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(weir_auth::Error::Taken(_)))
}

/// Makes the administrator where there is none and writes the credentials to
/// `DATA/admin.json`; answers where they are if they are new. Where there is one, only
/// brings the address in that file up to date; where another was made meanwhile, the file
/// goes again, since nothing in it works.
async fn administrator(auth: &Auth, data: &DataDir, base: &str) -> Result<Option<String>> {
    let mut kept = None;
    let made = auth
        .ensure_admin(NAME, |username, password, api_key| {
            let path = data.write_admin(&Admin {
                url: base.to_owned(),
                username: username.to_owned(),
                password: password.expose_secret().to_owned(),
                api_key: api_key.expose_secret().to_owned(),
            })?;
            kept = Some(path.display().to_string());
            anyhow::Ok(())
        })
        .await;
    if kept.is_some() && made.as_ref().is_err_and(is_taken) {
        data.remove_admin()?;
    }
    if !made? {
        data.refresh_admin(base)?;
    }
    Ok(kept)
}
