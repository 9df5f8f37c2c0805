//! Writing partitions that the same nodes have in one request.
//!
//! A node spends more on a request than on the row in it: on waking a thread for it, and on
//! waiting with it for the log. So rows whose copies are on the same nodes travel together,
//! as an unlogged batch. The driver sends it to one of them, which then has all of it, as it
//! would have each row; every partition is still written by itself, whole or not at all. Of a
//! request that failed nobody knows which were: all of it is sent again, and is the same.

use std::collections::BTreeMap;

use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchStatement, BatchType};
use scylla::statement::prepared::PreparedStatement;

use super::Store;
use super::failure::row_failed;
use crate::Error;

/// Partitions in one request: of more than this a server warns
/// (`unlogged_batch_across_partitions_warn_threshold`).
const PARTITIONS: usize = 10;
/// Bytes in one request of several partitions: a server warns of more than 5 KiB
/// (`batch_size_warn_threshold`), in which it counts more than the values.
const BYTES: usize = 4 << 10;

type Values<'a> = Box<dyn SerializeRow + Send + Sync + 'a>;

/// Cells of one partition: they are written together or not at all.
pub(super) struct Cells<'a> {
    statements: Vec<&'a PreparedStatement>,
    values: Vec<Values<'a>>,
    bytes: usize,
}

impl<'a> Cells<'a> {
    /// None yet, of which `bytes` will be sent.
    pub(super) const fn new(bytes: usize) -> Self {
        Self {
            statements: Vec::new(),
            values: Vec::new(),
            bytes,
        }
    }

    /// And what that statement writes, all of the same partition.
    pub(super) fn and(
        mut self,
        statement: &'a PreparedStatement,
        values: impl SerializeRow + Send + Sync + 'a,
    ) -> Self {
        self.statements.push(statement);
        self.values.push(Box::new(values));
        self
    }

    fn append(&mut self, mut other: Self) {
        self.statements.append(&mut other.statements);
        self.values.append(&mut other.values);
        self.bytes += other.bytes;
    }
}

impl Store {
    /// Writes cells of many partitions, in no order.
    pub(super) async fn put_cells(&self, cells: Vec<Cells<'_>>) -> Result<(), Error> {
        let mut sent = Vec::new();
        for request in requests(cells, |cells| self.nodes(cells)) {
            sent.push(self.put_together(request));
        }
        self.each(sent).await?;
        Ok(())
    }

    /// The nodes that have that partition, of the datacenter whose answer counts.
    fn nodes(&self, cells: &Cells<'_>) -> Vec<u128> {
        let (Some(statement), Some(values)) = (cells.statements.first(), cells.values.first())
        else {
            return Vec::new();
        };
        let (Ok(Some(token)), Some(table)) = (
            statement.calculate_token(values),
            statement.get_table_spec(),
        ) else {
            return Vec::new();
        };
        let ours = &self.config.datacenter;
        let copies = self.session.get_cluster_state().get_token_endpoints(
            table.ks_name(),
            table.table_name(),
            token,
        );
        let mut nodes: Vec<u128> = copies
            .iter()
            .filter(|(node, _)| ours.is_empty() || node.datacenter.as_ref() == Some(ours))
            .map(|(node, _)| node.host_id.as_u128())
            .collect();
        nodes.sort_unstable();
        nodes
    }

    async fn put_together(&self, cells: Cells<'_>) -> Result<(), Error> {
        if let ([statement], [values]) = (cells.statements.as_slice(), cells.values.as_slice()) {
            return self.put(statement, values).await;
        }
        let statements = cells
            .statements
            .iter()
            .map(|statement| BatchStatement::from((*statement).clone()));
        let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements.collect());
        batch.set_is_idempotent(true);
        self.session
            .batch(&batch, cells.values)
            .await
            .map_err(row_failed)?;
        Ok(())
    }
}

/// Requests of which each has partitions of the same nodes.
fn requests<'a>(cells: Vec<Cells<'a>>, nodes: impl Fn(&Cells<'a>) -> Vec<u128>) -> Vec<Cells<'a>> {
    let mut by_nodes: BTreeMap<Vec<u128>, Vec<Cells<'a>>> = BTreeMap::new();
    for cells in cells {
        by_nodes.entry(nodes(&cells)).or_default().push(cells);
    }
    by_nodes.into_values().flat_map(pack).collect()
}

/// As few requests as the bounds allow; what is beyond them goes alone.
fn pack(cells: Vec<Cells<'_>>) -> Vec<Cells<'_>> {
    let mut requests: Vec<Cells<'_>> = Vec::new();
    let mut room = 0;
    for cells in cells {
        match requests.last_mut() {
            Some(last) if room > 0 && last.bytes + cells.bytes <= BYTES => {
                last.append(cells);
                room -= 1;
            }
            _ => {
                requests.push(cells);
                room = PARTITIONS - 1;
            }
        }
    }
    requests
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(bytes: &[usize]) -> Vec<usize> {
        let cells = bytes.iter().map(|bytes| Cells::new(*bytes)).collect();
        pack(cells).iter().map(|request| request.bytes).collect()
    }

    #[test]
    fn what_is_on_other_nodes_goes_in_other_requests() {
        let cells = (1..=40).map(Cells::new).collect();
        // Three nodes, of which two have each; told from another by its number of bytes here.
        let nodes = |cells: &Cells<'_>| vec![cells.bytes as u128 % 3, 3];
        let sent: Vec<usize> = requests(cells, nodes)
            .iter()
            .map(|request| request.bytes)
            .collect();
        // 13 of one, 14 of another and 13 of the third, ten at most in each request.
        let of = |rest: usize, places: std::ops::Range<usize>| -> usize {
            let all = (1..=40).filter(|bytes| bytes % 3 == rest);
            all.skip(places.start).take(places.len()).sum()
        };
        let expected = [0, 1, 2].map(|rest| [of(rest, 0..10), of(rest, 10..20)]);
        assert_eq!(sent, expected.concat());
    }

    #[test]
    fn a_request_has_as_many_partitions_as_a_server_takes_without_a_warning() {
        assert_eq!(packed(&[1; 25]), [10, 10, 5]);
        assert!(packed(&[]).is_empty());
    }

    #[test]
    fn a_request_has_as_many_bytes_and_what_has_more_goes_alone() {
        assert_eq!(packed(&[2_048, 2_048, 2_048, 1_000]), [4_096, 3_048]);
        assert_eq!(packed(&[100, 9_000, 100, 100]), [100, 9_000, 200]);
    }
}
