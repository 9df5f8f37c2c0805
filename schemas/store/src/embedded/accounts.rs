//! Users and keys in the embedded store.

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::tables::{Tables, failed};
use super::{Store, damaged, keys};
use crate::{Accounts, CreateError, Error, Key, UpdateError, User};

/// Name → user.
const USER: u8 = b'u';
/// E-mail address → name.
const EMAIL: u8 = b'e';
/// Id → key.
const KEY: u8 = b'k';
/// Tenant, id → nothing.
const TENANT_KEY: u8 = b't';

#[async_trait]
impl Accounts for Store {
    async fn create_user(&self, user: &User) -> Result<(), CreateError> {
        let user = user.clone();
        self.blocking(move |store| {
            store.write(
                |tables, _, batch| {
                    let (name, email) = (name_key(&user.username)?, email_key(&user.email)?);
                    if tables.accounts.contains_key(&name).map_err(failed)? {
                        return Err(CreateError::NameTaken);
                    }
                    if tables.accounts.contains_key(&email).map_err(failed)? {
                        return Err(CreateError::EmailTaken);
                    }
                    batch.insert(&tables.accounts, name, encode(&user)?);
                    batch.insert(
                        &tables.accounts,
                        email,
                        user.username.to_lowercase().as_bytes(),
                    );
                    Ok(())
                },
                |()| {},
            )
        })
        .await
    }

    async fn user(&self, username: &str) -> Result<Option<User>, Error> {
        // What could not be stored is not there.
        let Ok(name) = name_key(username) else {
            return Ok(None);
        };
        get(&*self.inner.read()?, &name)
    }

    async fn users(&self) -> Result<Vec<User>, Error> {
        self.blocking(|store| scan(&*store.read()?, USER)).await
    }

    async fn update_user(&self, user: &User) -> Result<(), UpdateError> {
        let user = user.clone();
        self.blocking(move |store| {
            store.write(
                |tables, _, batch| {
                    let name = name_key(&user.username).map_err(|_| UpdateError::NotFound)?;
                    let old: User = get(tables, &name)?.ok_or(UpdateError::NotFound)?;
                    let (was, is) = (email_key(&old.email)?, email_key(&user.email)?);
                    if was != is {
                        if tables.accounts.contains_key(&is).map_err(failed)? {
                            return Err(UpdateError::EmailTaken);
                        }
                        batch.remove(&tables.accounts, was);
                        batch.insert(
                            &tables.accounts,
                            is,
                            user.username.to_lowercase().as_bytes(),
                        );
                    }
                    let user = User {
                        username: old.username,
                        ..user
                    };
                    batch.insert(&tables.accounts, name, encode(&user)?);
                    Ok(())
                },
                |()| {},
            )
        })
        .await
    }

    async fn put_key(&self, key: &Key) -> Result<(), Error> {
        let key = key.clone();
        self.blocking(move |store| {
            store.write(
                |tables, _, batch| {
                    let id = keys::fits(keys::account(KEY, &[&key.id]))?;
                    let old: Option<Key> = get(tables, &id)?;
                    if let Some(old) = old.filter(|old| old.tenant != key.tenant) {
                        batch.remove(
                            &tables.accounts,
                            keys::account(TENANT_KEY, &[&old.tenant, &old.id]),
                        );
                    }
                    let of_tenant = keys::fits(keys::account(TENANT_KEY, &[&key.tenant, &key.id]))?;
                    batch.insert(&tables.accounts, of_tenant, key.id.as_bytes());
                    batch.insert(&tables.accounts, id, encode(&key)?);
                    Ok(())
                },
                |()| {},
            )
        })
        .await
    }

    async fn key(&self, id: &str) -> Result<Option<Key>, Error> {
        let Ok(key) = keys::fits(keys::account(KEY, &[id])) else {
            return Ok(None);
        };
        get(&*self.inner.read()?, &key)
    }

    async fn keys(&self, tenant: Option<&str>) -> Result<Vec<Key>, Error> {
        let tenant = tenant.map(str::to_owned);
        self.blocking(move |store| {
            let tables = store.read()?;
            let Some(tenant) = tenant else {
                return scan(&tables, KEY);
            };
            let mut found = Vec::new();
            let Ok(of_tenant) = keys::fits(keys::account(TENANT_KEY, &[&tenant])) else {
                return Ok(found);
            };
            for entry in tables.accounts.prefix(of_tenant) {
                let id = entry.value().map_err(failed)?;
                let id = std::str::from_utf8(&id).map_err(|_| damaged("a row of `accounts`"))?;
                found.extend(get::<Key>(&tables, &keys::account(KEY, &[id]))?);
            }
            Ok(found)
        })
        .await
    }
}

fn name_key(username: &str) -> Result<Vec<u8>, Error> {
    keys::fits(keys::account(USER, &[&username.to_lowercase()]))
}

fn email_key(email: &str) -> Result<Vec<u8>, Error> {
    keys::fits(keys::account(EMAIL, &[&email.to_lowercase()]))
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|_| Error::Refused("it can't be written as JSON"))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    // The parser's own words may hold parts of the row.
    serde_json::from_slice(bytes).map_err(|_| damaged("a row of `accounts`"))
}

fn get<T: DeserializeOwned>(tables: &Tables, key: &[u8]) -> Result<Option<T>, Error> {
    let bytes = tables.accounts.get(key).map_err(failed)?;
    bytes.map(|bytes| decode(&bytes)).transpose()
}

/// Every row of one kind, by its name: for administration, which lists accounts whole.
fn scan<T: DeserializeOwned>(tables: &Tables, tag: u8) -> Result<Vec<T>, Error> {
    tables
        .accounts
        .prefix([tag])
        .map(|entry| decode(&entry.value().map_err(failed)?))
        .collect()
}
