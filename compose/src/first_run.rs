//! The administrator that an installation begins with.

use anyhow::Result;
use secrecy::ExposeSecret as _;
use weir_auth::Auth;

use crate::data::{Admin, DataDir};

const NAME: &str = "admin";

/// Makes the administrator where there is none and writes the credentials to
/// `DATA/admin.json`; answers where they are if they are new. Where there is one, only
/// brings the address in that file up to date.
pub(crate) async fn administrator(
    auth: &Auth,
    data: &DataDir,
    base: &str,
) -> Result<Option<String>> {
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
        .await?;
    if !made {
        data.refresh_admin(base)?;
    }
    Ok(kept)
}
