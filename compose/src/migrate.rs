//! `weir migrate`: makes what several processes share, or brings it up to date. Repeatable,
//! and safe where two start at once: the database's steps are done under a lock, topics
//! and the administrator are made only where they are missing.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use prometheus::Registry;
use weir_auth::Auth;
use weir_store::{Accounts as _, cql};

use crate::config::{self, Config, Store};
use crate::data::DataDir;
use crate::{backends, client, first_run, logs};

/// How long another `weir migrate` on the same folder is waited for.
const PATIENCE: Duration = Duration::from_secs(180);

/// `weir migrate`
#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// Make a new key to sign tokens with, though there are accounts already: for when the
    /// folder with the old one is lost. Tokens that were given out end; API keys stay
    #[arg(long)]
    new_signing_key: bool,
}

impl Migrate {
    pub(crate) fn run(self, source: &config::Source) -> Result<ExitCode> {
        logs::start(true);
        let config = source.load()?;
        client::block_on(migrate(&config, self.new_signing_key))?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn migrate(config: &Config, new_signing_key: bool) -> Result<()> {
    let mut out = std::io::stdout();
    let (store, bus) = (config.store, &config.bus.brokers);
    if store == Store::Embedded && bus.is_empty() {
        writeln!(
            out,
            "Store and broker are embedded: `weir up` makes them and brings them up to date by itself."
        )?;
        return Ok(());
    }
    if !bus.is_empty() {
        let bus = config.bus(bus.clone(), weir_bus::Security::None);
        backends::make_topics(config, &bus).await?;
        writeln!(
            out,
            "topics     there, {} partitions where they were new",
            config.bus.partitions
        )?;
    }
    if store == Store::Scylla {
        let done = cql::migrate(&config.cql)
            .await
            .context("the CQL database can't be migrated")?;
        let keyspace = &config.cql.keyspace;
        if done.from == done.to {
            writeln!(
                out,
                "database   keyspace {keyspace} is at version {}",
                done.to
            )?;
        } else {
            writeln!(
                out,
                "database   keyspace {keyspace} went from version {} to {}",
                done.from, done.to
            )?;
        }
        let data = DataDir::open(&config.data, PATIENCE)?;
        let store = cql::Store::connect(&config.cql)
            .await
            .context("the CQL database can't be used")?;
        // A second key would have some processes refuse what others sign.
        ensure!(
            new_signing_key
                || weir_auth::has_signing_key(&data.secrets())
                || store.users().await?.is_empty(),
            "there are accounts in {keyspace}, and in {} there is no key that signs their tokens: copy the folder from \
             where `weir migrate` ran first; where it is lost, `weir migrate --new-signing-key` makes another",
            data.secrets().display()
        );
        let auth = Auth::open(
            config.auth.clone(),
            &data.secrets(),
            Arc::clone(&store) as _,
            &Registry::new(),
        )?;
        writeln!(
            out,
            "secrets    {}; every machine with a role needs a copy",
            data.secrets().display()
        )?;
        let base = format!("http://{}", config.listen);
        match first_run::administrator(&auth, &data, &base).await? {
            Some(path) => writeln!(
                out,
                "admin      made; name, password and API key are in {path}"
            )?,
            None => writeln!(out, "admin      there")?,
        }
    }
    Ok(())
}
