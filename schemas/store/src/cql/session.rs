//! The connection: who is asked, how long we wait, and what is asked twice.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use scylla::client::execution_profile::{
    ExecutionProfile, ExecutionProfileBuilder, ExecutionProfileHandle,
};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::policies::load_balancing::{DefaultPolicy, LoadBalancingPolicy};
use scylla::policies::speculative_execution::SimpleSpeculativeExecutionPolicy;
use secrecy::ExposeSecret as _;

use super::config::{Config, Tls};
use super::failure::not_connected;
use crate::Error;

/// Nodes that a slow read is sent to besides the first.
const SECOND_NODES: usize = 1;

/// Seconds between two signs of life on a connection, and how long one may take.
const KEEPALIVE: u32 = 10;

/// How often the nodes are asked whether they agree on a changed schema.
const AGREEMENT: Duration = Duration::from_millis(50);

/// An open connection and how its reads go; writes are its default.
pub(super) struct Connected {
    pub(super) session: Session,
    pub(super) reads: ExecutionProfileHandle,
}

/// Connects to the nodes, without a keyspace: every statement names it.
pub(super) async fn connect(config: &Config) -> Result<Connected, Error> {
    let session = builder(config)?.build().await.map_err(not_connected)?;
    check_datacenter(&session, config)?;
    Ok(Connected {
        session,
        reads: reads(config).into_handle(),
    })
}

/// Connects to change the schema: with nothing to learn about it after each change.
pub(super) async fn connect_to_change(config: &Config) -> Result<Session, Error> {
    let session = builder(config)?
        .refresh_metadata_on_auto_schema_agreement(false)
        .schema_agreement_interval(AGREEMENT)
        .build()
        .await
        .map_err(not_connected)?;
    check_datacenter(&session, config)?;
    Ok(session)
}

/// Refuses a datacenter that is not there: none of its nodes would ever answer. And to have
/// none named where there are several: the copies that a `local` consistency counts would be
/// those of whichever node is asked.
fn check_datacenter(session: &Session, config: &Config) -> Result<(), Error> {
    let state = session.get_cluster_state();
    let nodes = state.get_nodes_info().iter();
    let there = nodes.filter_map(|node| node.datacenter.as_deref());
    is_one_of(&config.datacenter, &there.collect())
}

fn is_one_of(datacenter: &str, there: &BTreeSet<&str>) -> Result<(), Error> {
    let wrong = match datacenter {
        "" if there.len() > 1 => "it is empty, and there are several",
        "" => return Ok(()),
        name if there.is_empty() || there.contains(name) => return Ok(()),
        _ => "there is none of that name",
    };
    let there: Vec<&str> = there.iter().copied().collect();
    Err(Error::Setting {
        setting: "datacenter",
        reason: format!("{wrong}; the nodes are in `{}`", there.join("`, `")),
    })
}

fn reads(config: &Config) -> ExecutionProfile {
    let mut reads = profile(config)
        .consistency(config.read_consistency.into())
        .request_timeout(Some(seconds(config.read_seconds)));
    if config.speculate_ms > 0 {
        reads =
            reads.speculative_execution_policy(Some(Arc::new(SimpleSpeculativeExecutionPolicy {
                max_retry_count: SECOND_NODES,
                retry_interval: Duration::from_millis(config.speculate_ms.into()),
            })));
    }
    reads.build()
}

fn builder(config: &Config) -> Result<SessionBuilder, Error> {
    config.check()?;
    let tls = tls(&config.tls)?;
    let writes = profile(config)
        .consistency(config.write_consistency.into())
        .request_timeout(Some(seconds(config.write_seconds)))
        .build();
    let mut builder = SessionBuilder::new()
        .known_nodes(config.contact_points())
        .connection_timeout(seconds(config.connect_seconds))
        .default_execution_profile_handle(writes.into_handle())
        // A node that vanished without a word is noticed within twice this.
        .keepalive_interval(seconds(KEEPALIVE))
        .keepalive_timeout(seconds(KEEPALIVE))
        // The columns of our own tables are known here already.
        .keyspaces_to_fetch([config.keyspace.as_str()])
        .fetch_full_schema_metadata(false)
        .driver_config_reporting(false)
        .tls_context(tls);
    if !config.username.is_empty() {
        builder = builder.user(&config.username, config.password.expose_secret());
    }
    Ok(builder)
}

fn profile(config: &Config) -> ExecutionProfileBuilder {
    ExecutionProfile::builder()
        .serial_consistency(Some(config.serial_consistency.into()))
        .load_balancing_policy(policy(config))
}

/// A row's own nodes first, and none of another datacenter.
fn policy(config: &Config) -> Arc<dyn LoadBalancingPolicy> {
    let policy = DefaultPolicy::builder().token_aware(true);
    if config.datacenter.is_empty() {
        policy.build()
    } else {
        policy
            .prefer_datacenter(config.datacenter.clone())
            .permit_dc_failover(false)
            .build()
    }
}

fn tls(config: &Tls) -> Result<Option<Arc<rustls::ClientConfig>>, Error> {
    if config.ca.as_os_str().is_empty() {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    for authority in certificates(&config.ca)? {
        roots.add(authority).map_err(wrong)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(wrong)?
        .with_root_certificates(roots);
    let client = if config.key.as_os_str().is_empty() {
        client.with_no_client_auth()
    } else {
        let key = PrivateKeyDer::from_pem_file(&config.key)
            .map_err(|error| unreadable(&config.key, &error))?;
        client
            .with_client_auth_cert(certificates(&config.certificate)?, key)
            .map_err(wrong)?
    };
    Ok(Some(Arc::new(client)))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = || CertificateDer::pem_file_iter(file)?.collect::<Result<Vec<_>, _>>();
    let found = read().map_err(|error| unreadable(file, &error))?;
    if found.is_empty() {
        return Err(wrong(format_args!(
            "{} holds no certificate",
            file.display()
        )));
    }
    Ok(found)
}

/// Without the parser's own words, which may hold a line of a key.
fn unreadable(file: &Path, error: &pem::Error) -> Error {
    match error {
        pem::Error::Io(error) => wrong(format_args!("{}: {error}", file.display())),
        _ => wrong(format_args!("{} is not PEM", file.display())),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it goes into `map_err`")]
fn wrong(reason: impl ToString) -> Error {
    Error::Setting {
        setting: "tls",
        reason: reason.to_string(),
    }
}

fn seconds(number: u32) -> Duration {
    Duration::from_secs(number.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datacenter_that_is_not_there_or_not_chosen_is_refused_with_those_there_are() {
        let (one, two) = (["eu"].into(), ["eu", "us"].into());
        for (name, there) in [("", &one), ("eu", &one), ("us", &two), ("", &[].into())] {
            is_one_of(name, there).unwrap();
        }
        for (name, there) in [("us", &one), ("EU", &two), ("", &two)] {
            let error = is_one_of(name, there).unwrap_err();
            assert!(!error.retriable());
            let words = error.to_string();
            assert!(
                words.contains("`datacenter`") && words.contains("`eu`"),
                "{words}"
            );
        }
    }

    #[test]
    fn a_missing_certificate_is_named() {
        let tls = |ca: &Path| {
            tls(&Tls {
                ca: ca.to_owned(),
                ..Tls::default()
            })
        };
        assert!(tls(Path::new("")).unwrap().is_none());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let missing = tls(&file).unwrap_err().to_string();
        assert!(
            missing.contains("tls") && missing.contains("ca.pem"),
            "{missing}"
        );
        std::fs::write(&file, "nothing").unwrap();
        let empty = tls(&file).unwrap_err().to_string();
        assert!(empty.contains("no certificate"), "{empty}");
    }
}
