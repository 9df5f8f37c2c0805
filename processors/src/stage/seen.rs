//! What a partition has judged lately: enough to tell a message that comes twice
//! from one that is read twice.

use std::collections::{HashMap, VecDeque};

use sha2::{Digest, Sha256};
use weir_records::{Judged, Message};

/// 128 bits that stand for a message's tenant and id. Producers choose ids, so the
/// hash is one in which nobody finds two alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Fingerprint([u8; 16]);

impl Fingerprint {
    pub(super) fn of(tenant: &str, id: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update((tenant.len() as u64).to_le_bytes());
        hash.update(tenant);
        hash.update(id);
        let mut short = [0; 16];
        short.copy_from_slice(&hash.finalize()[..16]);
        Self(short)
    }
}

/// Stands for what an id was used for: channel, text and sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Content(u64);

impl Content {
    pub(crate) fn of(message: &Message) -> Self {
        Self::with(message, &message.text)
    }

    /// Of what the history holds, to be compared with a message. A text that has run out
    /// ([`History`](weir_store::History)) can't be told from that message's.
    pub(crate) fn of_stored(stored: &Message, other: &Message) -> Self {
        let message = if stored.text.is_empty() {
            other
        } else {
            stored
        };
        Self::with(stored, &message.text)
    }

    fn with(message: &Message, text: &str) -> Self {
        let sender = message.sender.as_deref().unwrap_or_default();
        let mut hash = Sha256::new();
        for part in [&message.channel, text, sender] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        hash.update([u8::from(message.by_user)]);
        let mut short = [0; 8];
        short.copy_from_slice(&hash.finalize()[..8]);
        Self(u64::from_le_bytes(short))
    }
}

/// What is remembered of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Judgement {
    /// The offset that it was judged at.
    pub(super) offset: i64,
    /// What it said.
    pub(super) content: Content,
    /// When it was received, in microseconds.
    pub(super) received_at: i64,
}

/// The memory of one partition.
#[derive(Debug)]
pub(super) struct Seen {
    /// The last source offset that has a verdict; readers drop what is not above it.
    last: Option<i64>,
    messages: HashMap<Fingerprint, Judgement>,
    order: VecDeque<Fingerprint>,
    room: usize,
}

impl Seen {
    /// Remembers so many messages; the oldest go first.
    pub(super) fn new(room: usize) -> Self {
        Self {
            last: None,
            messages: HashMap::new(),
            order: VecDeque::new(),
            room,
        }
    }

    /// A verdict is out. An earlier offset of the same message stays: that is the one
    /// that counts.
    pub(super) fn add(&mut self, message: Fingerprint, judgement: Judgement) {
        self.reach(judgement.offset);
        if self.messages.contains_key(&message) {
            return;
        }
        if self.order.len() >= self.room
            && let Some(oldest) = self.order.pop_front()
        {
            self.messages.remove(&oldest);
        }
        self.messages.insert(message, judgement);
        self.order.push_back(message);
    }

    /// The same, from a record of `weir.verdicts`.
    pub(super) fn add_judged(&mut self, judged: &Judged) {
        let message = &judged.message;
        self.add(
            Fingerprint::of(&message.tenant, &message.id),
            Judgement {
                offset: judged.source.offset,
                content: Content::of(message),
                received_at: message.received_at.as_microsecond(),
            },
        );
    }

    /// The message was erased, and its id is free.
    pub(super) fn forget(&mut self, message: Fingerprint) {
        if self.messages.remove(&message).is_some() {
            self.order.retain(|known| *known != message);
        }
    }

    /// Verdicts up to this offset are out, whosever they are.
    pub(super) fn reach(&mut self, offset: i64) {
        self.last = self.last.max(Some(offset));
    }

    /// The last offset that has a verdict.
    pub(super) const fn last(&self) -> Option<i64> {
        self.last
    }

    /// How the message was judged, if that is remembered.
    pub(super) fn judged(&self, message: Fingerprint) -> Option<Judgement> {
        self.messages.get(&message).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64, content: u64) -> Judgement {
        Judgement {
            offset,
            content: Content(content),
            received_at: offset,
        }
    }

    #[test]
    fn the_first_offset_of_a_message_is_the_one_remembered() {
        let mut seen = Seen::new(10);
        let message = Fingerprint::of("t", "1");
        seen.add(message, at(5, 1));
        seen.add(message, at(9, 2));
        assert_eq!(seen.judged(message), Some(at(5, 1)));
        assert_eq!(seen.last(), Some(9));
        seen.reach(3);
        assert_eq!(seen.last(), Some(9));
    }

    #[test]
    fn a_text_that_has_run_out_is_taken_for_the_one_that_comes_again() {
        let now = jiff::Timestamp::now();
        let message = |channel: &str, text: &str| Message {
            tenant: "acme".into(),
            channel: channel.into(),
            sender: Some("ada".into()),
            by_user: false,
            id_made: false,
            id: "m".into(),
            text: text.into(),
            sent_at: now,
            received_at: now,
            metadata: None,
        };
        let again = message("lobby", "hello");
        let same = |stored| Content::of_stored(&stored, &again) == Content::of(&again);
        assert!(same(message("lobby", "hello")));
        assert!(same(message("lobby", "")));
        assert!(!same(message("lobby", "good bye")));
        assert!(!same(message("attic", "")));
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes() {
        let mut seen = Seen::new(3);
        for offset in 0..5 {
            seen.add(Fingerprint::of("t", &offset.to_string()), at(offset, 7));
        }
        assert_eq!(seen.judged(Fingerprint::of("t", "1")), None);
        assert_eq!(seen.judged(Fingerprint::of("t", "2")), Some(at(2, 7)));
        assert_eq!((seen.messages.len(), seen.order.len()), (3, 3));
        seen.forget(Fingerprint::of("t", "3"));
        seen.forget(Fingerprint::of("t", "3"));
        assert_eq!((seen.messages.len(), seen.order.len()), (2, 2));
    }

    #[test]
    fn tenants_and_ids_do_not_run_into_each_other() {
        assert_ne!(Fingerprint::of("ab", "c"), Fingerprint::of("a", "bc"));
        assert_ne!(Fingerprint::of("a", "1"), Fingerprint::of("b", "1"));
        assert_eq!(Fingerprint::of("a", "1"), Fingerprint::of("a", "1"));
    }
}
