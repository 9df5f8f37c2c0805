//! Erasing rows: the rows of the lists, the record, and whose the id is.
//!
//! Every removal bears the moment at which the message was received, as its cells do
//! ([`super::life`]): it takes away what was ever written of this row, or is written of it
//! by somebody who comes late, and nothing of a message with the same id that is received
//! after it.
//!
//! Whose the id is, is not removed but *marked* as an erased message's, for as long as the
//! removals are kept (`gc_grace_seconds`). A writer that was stopped with the row in its
//! hands finds the mark, and if it had looked before, or does not look because Weir made the
//! id, writes an older cell than the mark's: else the record would stay away, but the id
//! would be taken for good by a message that nobody can see. The writer of another message
//! takes a marked id.
//!
//! A sender's row goes last. What a call that failed has left is found by the next one.
//! Its rows go one by one, though a range would be a single removal for a whole bucket: it
//! would also take the row that a writer adds at that moment, and with it the only way to
//! a record that nobody has erased.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio::sync::Mutex;
use weir_records::{Judged, Source};

use super::Store;
use super::buckets::{self, Kind, WHOLE_DAY};
use super::read::{Pointer, Walk};
use super::statements::List as Table;
use super::write::{self, Claimed, fits};
use crate::cursor::{List, Position};
use crate::{Erase, Erased, Error};

/// Rows of one step.
const STEP: usize = 500;

/// Which days of channels are split, as far as it was looked up.
type Splits = Mutex<HashMap<(String, i32), bool>>;

impl Store {
    pub(super) async fn erase_rows(&self, tenant: &str, what: &Erase) -> Result<Erased, Error> {
        let messages = match what {
            Erase::Message { id, up_to } => self.erase_message(tenant, id, *up_to).await?,
            Erase::Sender { name, up_to } => self.erase_sender(tenant, name, *up_to).await?,
        };
        Ok(Erased { messages })
    }

    async fn erase_message(&self, tenant: &str, id: &str, up_to: Timestamp) -> Result<u64, Error> {
        let Some(row) = self.judged(tenant, id).await? else {
            return Ok(0);
        };
        if row.message.received_at > up_to {
            return Ok(0);
        }
        let position = position(&row);
        let splits = Splits::default();
        let channel = (Kind::Channel, row.message.channel.as_str());
        let sender = row
            .message
            .sender
            .as_deref()
            .map(|name| (Kind::Sender, name));
        for (kind, name) in [channel].into_iter().chain(sender) {
            self.erase_pointer(kind, tenant, name, position, &splits)
                .await?;
        }
        // The record last: without it, nothing tells where the rest is.
        self.mark(tenant, id, position).await?;
        self.erase_record(tenant, id, position.received_at).await?;
        Ok(1)
    }

    async fn erase_sender(&self, tenant: &str, name: &str, up_to: Timestamp) -> Result<u64, Error> {
        if !fits(tenant, name) {
            return Ok(0);
        }
        let list = List {
            kind: Kind::Sender.name(),
            tenant,
            name,
        };
        let walk = Walk {
            store: self,
            kind: Kind::Sender,
            list,
        };
        let splits = Splits::default();
        let mut before = Position {
            received_at: up_to.as_microsecond(),
            offset: i64::MAX,
            partition: i32::MAX,
        };
        let mut erased = 0;
        loop {
            let pointers = walk.next(&mut before, STEP).await?;
            if pointers.is_empty() {
                return Ok(erased);
            }
            let steps = pointers
                .iter()
                .map(|pointer| self.erase_of_sender(tenant, name, pointer, &splits));
            let gone = self.each(steps.collect()).await?;
            erased += gone.into_iter().filter(|gone| *gone).count() as u64;
        }
    }

    /// Erases one message of a sender's list; answers whether its record was there.
    async fn erase_of_sender(
        &self,
        tenant: &str,
        sender: &str,
        pointer: &Pointer,
        splits: &Splits,
    ) -> Result<bool, Error> {
        let (position, id) = (pointer.position, &pointer.id);
        let source = Source {
            partition: position.partition,
            offset: position.offset,
        };
        let row = self.judged(tenant, id).await?;
        // With another source it is another message of that id.
        let own = row.as_ref().filter(|row| row.source == source);
        if let Some(row) = own {
            let channel = &row.message.channel;
            self.erase_pointer(Kind::Channel, tenant, channel, position, splits)
                .await?;
        }
        // Where there is none it may be on its way: it loses against this.
        if row.is_none() || own.is_some() {
            self.erase_record(tenant, id, position.received_at).await?;
        }
        self.mark(tenant, id, position).await?;
        self.erase_pointer(Kind::Sender, tenant, sender, position, splits)
            .await?;
        Ok(own.is_some())
    }

    async fn erase_record(&self, tenant: &str, id: &str, received_at: i64) -> Result<(), Error> {
        let values = (received_at.max(1), tenant, id);
        self.put(&self.statements.erase_message, values).await
    }

    /// Erases a row of a list, from both kinds of bucket where it may be in either.
    async fn erase_pointer(
        &self,
        kind: Kind,
        tenant: &str,
        name: &str,
        position: Position,
        splits: &Splits,
    ) -> Result<(), Error> {
        let day = buckets::day(position.received_at);
        let split = self.split(kind, tenant, name, day, splits).await?;
        let minute = split.then(|| buckets::minute(position.received_at));
        let Table { erase, .. } = self.statements.list(kind);
        let Position {
            received_at,
            offset,
            partition,
        } = position;
        for minute in [WHOLE_DAY].into_iter().chain(minute) {
            let time = received_at.max(1);
            let values = (
                time,
                tenant,
                name,
                day,
                minute,
                received_at,
                offset,
                partition,
            );
            self.put(erase, values).await?;
        }
        Ok(())
    }

    async fn split(
        &self,
        kind: Kind,
        tenant: &str,
        name: &str,
        day: i32,
        splits: &Splits,
    ) -> Result<bool, Error> {
        let key = (format!("{}{name}", kind.name()), day);
        if let Some(split) = splits.lock().await.get(&key) {
            return Ok(*split);
        }
        let split = self.read_day(kind, tenant, name, day).await? == Some(true);
        splits.lock().await.insert(key, split);
        Ok(split)
    }

    /// Marks the id as that of an erased message, if it is that row's. A moment later than
    /// anything of the row, so that nobody who comes late with it takes the mark away.
    async fn mark(&self, tenant: &str, id: &str, position: Position) -> Result<(), Error> {
        let source = Source {
            partition: position.partition,
            offset: position.offset,
        };
        if self.read_source(tenant, id).await? != Some(source) {
            return Ok(());
        }
        let (mark, at) = (Claimed::Erased(source).cell(), position.received_at);
        let values = (
            tenant,
            id,
            mark,
            write::MARK_SECONDS,
            at.max(1).saturating_add(1),
        );
        self.put(&self.statements.put_source, values).await
    }
}

fn position(row: &Judged) -> Position {
    Position {
        received_at: row.message.received_at.as_microsecond(),
        offset: row.source.offset,
        partition: row.source.partition,
    }
}
