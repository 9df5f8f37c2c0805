//! `weir migrate`: makes what several processes share, or brings it up to date. Repeatable,
//! and safe where two start at once: the database's steps are done under a lock, topics
//! and the administrator are made only where they are missing.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use prometheus::Registry;
use weir_store::cql;

use crate::config::{self, Config, Store};
use crate::data::DataDir;
use crate::{backends, client, first_run, logs, out};

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
    let mut out = out::stdout();
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
        if config.bus.replication < 3 {
            writeln!(
                out,
                "warning    bus.replication is {}: a broker that fails can take accepted messages along; 3 keeps them",
                config.bus.replication
            )?;
        }
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
        accounts(config, new_signing_key, &mut out).await?;
    }
    Ok(())
}

/// The key that signs tokens, and the first administrator.
async fn accounts(config: &Config, new_signing_key: bool, out: &mut impl Write) -> Result<()> {
    let data = DataDir::open(&config.data, PATIENCE)?;
    let store = cql::Store::connect(&config.cql)
        .await
        .context("the CQL database can't be used")?;
    let base = format!("http://{}", config.listen);
    let registry = Registry::new();
    let (_, made) =
        first_run::accounts(config, &data, store, &registry, &base, new_signing_key).await?;
    writeln!(
        out,
        "secrets    {}; every machine with a role needs a copy",
        data.secrets().display()
    )?;
    match made {
        Some(path) => writeln!(
            out,
            "admin      made; name, password and API key are in {path}"
        )?,
        None => writeln!(out, "admin      there")?,
    }
    Ok(())
}
