//! Whether what the database acknowledges outlives the node that did so.
//!
//! Apache Cassandra as it comes writes its log to the disk some time after the answer: a
//! node that is killed loses its last tenth of a second, one without power its last ten
//! seconds. Other copies have it; where there are none, it is gone.

use scylla::client::session::Session;
use scylla::cluster::metadata::Strategy;

use super::config::Config;

/// What Apache Cassandra and `ScyllaDB` say of their own settings; neither has the other's table.
const SETTINGS: [&str; 2] = [
    "SELECT value FROM system_views.settings WHERE name = 'commitlog_sync'",
    "SELECT value FROM system.config WHERE name = 'commitlog_sync'",
];

/// Says so where a killed node takes acknowledged rows along.
pub(super) async fn warn_of_loss(session: &Session, config: &Config) {
    let state = session.get_cluster_state();
    let alone = state
        .get_keyspace(&config.keyspace)
        .is_some_and(|keyspace| copies(&keyspace.strategy, &config.datacenter) == Some(1));
    // Who may not read it, or does not have it, is not told.
    if alone && commitlog_sync(session).await.as_deref() == Some("periodic") {
        tracing::warn!(
            keyspace = config.keyspace,
            "the database keeps one copy of each row and acknowledges it before it is on the \
             disk: a node that is killed loses rows. Set `commitlog_sync: batch` in \
             cassandra.yaml, or keep three copies"
        );
    }
}

async fn commitlog_sync(session: &Session) -> Option<String> {
    for question in SETTINGS {
        let Ok(answer) = session.query_unpaged(question, ()).await else {
            continue;
        };
        let row: (String,) = answer.into_rows_result().ok()?.single_row().ok()?;
        // ScyllaDB's are JSON.
        return Some(row.0.trim_matches('"').to_owned());
    }
    None
}

/// Copies in that datacenter, or in the one that has the fewest.
fn copies(strategy: &Strategy, datacenter: &str) -> Option<usize> {
    match strategy {
        Strategy::SimpleStrategy { replication_factor } => Some(*replication_factor),
        Strategy::NetworkTopologyStrategy {
            datacenter_repfactors,
        } => datacenter_repfactors
            .get(datacenter)
            .or_else(|| datacenter_repfactors.values().min())
            .copied(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copies_of_our_datacenter_count_or_the_fewest() {
        let strategy = Strategy::NetworkTopologyStrategy {
            datacenter_repfactors: [("eu".to_owned(), 3), ("analytics".to_owned(), 1)].into(),
        };
        assert_eq!(copies(&strategy, "eu"), Some(3));
        assert_eq!(copies(&strategy, ""), Some(1));
        let strategy = Strategy::SimpleStrategy {
            replication_factor: 2,
        };
        assert_eq!(copies(&strategy, "eu"), Some(2));
    }
}
