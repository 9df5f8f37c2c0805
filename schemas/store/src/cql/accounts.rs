//! Users and keys over CQL.
//!
//! A user has two names that must stay unique, and decisions over CQL reach as far as
//! one partition: so users and e-mail addresses share one, and a user is made, or moves
//! to another address, by a single batch with conditions on both. Some 400 bytes a user
//! make 100 MB of 250,000 users; they are people who sign in, not everybody who writes.
//!
//! Keys are found by id in sixteen partitions. The list of a tenant's keys only points
//! at them and is filtered by what they say, so it may hold too much, never too little;
//! it is written first.

use async_trait::async_trait;
use futures::TryStreamExt as _;
use scylla::errors::ExecutionError;
use scylla::response::query_result::QueryResult;
use scylla::serialize::batch::BatchValues;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::Store;
use super::failure::{contended, damaged, failed};
use super::statements::applied;
use super::write::pause;
use crate::{Accounts, CreateError, Error, Key, UpdateError, User};

/// The rows of users, by name in lower case.
const NAME: &str = "name";
/// The rows of e-mail addresses, in lower case, that hold the user's name.
const EMAIL: &str = "email";
/// Partitions of the keys.
const SHELVES: u8 = 16;
/// The longest name, address, id or tenant, in bytes.
const LONGEST: usize = 60_000;

/// What a change of the users came to.
enum Change {
    Done,
    /// A condition did not hold. Where others decided at the same time, an earlier try
    /// of the same change may have been done.
    Refused {
        unsure: bool,
    },
}

#[async_trait]
impl Accounts for Store {
    async fn create_user(&self, user: &User) -> Result<(), CreateError> {
        let (name, email) = (lower(&user.username)?, lower(&user.email)?);
        let value = encode(user)?;
        let create = &self.statements.people.create;
        let batch = one_decision(vec![create.clone(), create.clone()]);
        // Contending with ourselves would only cost retries.
        let _turn = self.accounts.lock().await;
        loop {
            let values = ((NAME, &name, &value), (EMAIL, &email, &name));
            let Change::Refused { unsure } = self.change(&batch, values).await? else {
                return Ok(());
            };
            if let Some(found) = self.person(NAME, &name, true).await? {
                return if unsure && found == value {
                    Ok(())
                } else {
                    Err(CreateError::NameTaken)
                };
            }
            if self.person(EMAIL, &email, true).await?.is_some() {
                return Err(CreateError::EmailTaken);
            }
            // Whoever had it has let go of it since.
        }
    }

    async fn user(&self, username: &str) -> Result<Option<User>, Error> {
        let Ok(name) = lower(username) else {
            return Ok(None);
        };
        let value = self.person(NAME, &name, false).await?;
        value.map(|value| decode(&value)).transpose()
    }

    async fn users(&self) -> Result<Vec<User>, Error> {
        let all = self.statements.people.all.clone();
        self.values(all, (NAME,)).await
    }

    async fn update_user(&self, user: &User) -> Result<(), UpdateError> {
        // What could not be stored is not there.
        let name = lower(&user.username).map_err(|_| UpdateError::NotFound)?;
        let email = lower(&user.email)?;
        let people = &self.statements.people;
        let _turn = self.accounts.lock().await;
        let mut tried = None;
        loop {
            let was = self.person(NAME, &name, true).await?;
            let was = was.ok_or(UpdateError::NotFound)?;
            if tried.as_ref() == Some(&was) {
                return Ok(());
            }
            let old: User = decode(&was)?;
            let value = encode(&User {
                username: old.username,
                ..user.clone()
            })?;
            let old_email = lower(&old.email)?;
            let changed = if old_email == email {
                let batch = one_decision(vec![people.change.clone()]);
                self.change(&batch, ((&value, NAME, &name, &was),)).await?
            } else {
                let batch = one_decision(vec![
                    people.change.clone(),
                    people.create.clone(),
                    people.free.clone(),
                ]);
                let values = (
                    (&value, NAME, &name, &was),
                    (EMAIL, &email, &name),
                    (EMAIL, &old_email),
                );
                self.change(&batch, values).await?
            };
            let Change::Refused { unsure } = changed else {
                return Ok(());
            };
            tried = unsure.then_some(value);
            let holder = self.person(EMAIL, &email, true).await?;
            if holder.is_some_and(|holder| holder != name) {
                return Err(UpdateError::EmailTaken);
            }
            // The user was changed meanwhile: what is asked for goes on top of that.
        }
    }

    async fn put_key(&self, key: &Key) -> Result<(), Error> {
        if key.tenant.is_empty() || key.tenant.len() > LONGEST || key.id.len() > LONGEST {
            return Err(Error::Refused(
                "its tenant is empty, or it or its id too long",
            ));
        }
        let (shelf, value) = (shelf(&key.id), encode(key)?);
        let keys = &self.statements.keys;
        let _turn = self.accounts.lock().await;
        self.session
            .execute_unpaged(&keys.put_of_tenant, (&key.tenant, &key.id))
            .await
            .map_err(failed)?;
        // By decision, though nothing is unique here: so that of two changes the later
        // one stays, also where the nodes' clocks differ. A revoked key stays revoked.
        loop {
            let created = (shelf, &key.id, &value);
            if self.decide(&keys.create, created).await? {
                return Ok(());
            }
            let changed = (&value, shelf, &key.id);
            if self.decide(&keys.change, changed).await? {
                return Ok(());
            }
        }
    }

    async fn key(&self, id: &str) -> Result<Option<Key>, Error> {
        if id.len() > LONGEST {
            return Ok(None);
        }
        let answer = self
            .query(&self.statements.keys.one, (shelf(id), id))
            .await?;
        let value: Option<(String,)> = answer
            .maybe_first_row()
            .map_err(|_| damaged("a row of `keys`"))?;
        value.map(|(value,)| decode(&value)).transpose()
    }

    async fn keys(&self, tenant: Option<&str>) -> Result<Vec<Key>, Error> {
        let keys = &self.statements.keys;
        let mut found = match tenant {
            None => {
                let shelves = (0..SHELVES.cast_signed())
                    .map(|shelf| self.values(keys.shelf.clone(), (shelf,)))
                    .collect();
                self.each::<Vec<Key>, _>(shelves).await?.concat()
            }
            Some(tenant) if tenant.is_empty() || tenant.len() > LONGEST => Vec::new(),
            Some(tenant) => {
                let ids = self.texts(keys.of_tenant.clone(), (tenant,)).await?;
                let reads = ids.iter().map(|id| self.key(id)).collect();
                let found = self.each(reads).await?.into_iter().flatten();
                found.filter(|key| key.tenant == tenant).collect()
            }
        };
        found.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }
}

impl Store {
    /// Does all of it or nothing.
    async fn change(&self, batch: &Batch, values: impl BatchValues) -> Result<Change, Error> {
        let give_up = Instant::now() + self.patience;
        let mut unsure = false;
        loop {
            let answer: Result<QueryResult, ExecutionError> =
                self.session.batch(batch, &values).await;
            match answer {
                Ok(answer) => {
                    return Ok(if applied(answer)? {
                        Change::Done
                    } else {
                        Change::Refused { unsure }
                    });
                }
                Err(error) if contended(&error) && Instant::now() < give_up => {
                    unsure = true;
                    pause().await;
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// One row of the users' partition; `decided`: after what is being decided has been.
    async fn person(&self, item: &str, name: &str, decided: bool) -> Result<Option<String>, Error> {
        let people = &self.statements.people;
        let statement = if decided {
            &people.one_decided
        } else {
            &people.one
        };
        let give_up = Instant::now() + self.patience;
        let answer = loop {
            match self.session.execute_unpaged(statement, (item, name)).await {
                Ok(answer) => break answer.into_rows_result().map_err(failed)?,
                Err(error) if contended(&error) && Instant::now() < give_up => pause().await,
                Err(error) => return Err(failed(error)),
            }
        };
        let value: Option<(String,)> = answer
            .maybe_first_row()
            .map_err(|_| damaged("a row of `users`"))?;
        Ok(value.map(|(value,)| value))
    }

    /// Everything of one partition.
    async fn values<T: DeserializeOwned>(
        &self,
        statement: PreparedStatement,
        values: impl scylla::serialize::row::SerializeRow,
    ) -> Result<Vec<T>, Error> {
        let values = self.texts(statement, values).await?;
        values.iter().map(|value| decode(value)).collect()
    }

    async fn texts(
        &self,
        statement: PreparedStatement,
        values: impl scylla::serialize::row::SerializeRow,
    ) -> Result<Vec<String>, Error> {
        self.session
            .execute_iter(statement, values)
            .await
            .map_err(failed)?
            .rows_stream::<(String,)>()
            .map_err(failed)?
            .map_ok(|(text,)| text)
            .try_collect()
            .await
            .map_err(failed)
    }
}

/// Statements of one partition that are done together, and only if every condition holds.
fn one_decision(statements: Vec<PreparedStatement>) -> Batch {
    let statements = statements.into_iter().map(BatchStatement::from).collect();
    Batch::new_with_statements(BatchType::Unlogged, statements)
}

fn lower(name: &str) -> Result<String, Error> {
    let name = name.to_lowercase();
    if name.len() > LONGEST {
        return Err(Error::Refused("its name or e-mail address is too long"));
    }
    Ok(name)
}

fn shelf(id: &str) -> i8 {
    (Sha256::digest(id)[0] % SHELVES).cast_signed()
}

fn encode(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|_| Error::Refused("it can't be written as JSON"))
}

fn decode<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    // The parser's own words may hold parts of the row.
    serde_json::from_str(text).map_err(|_| damaged("a row of `users` or `keys`"))
}
