//! Fresh verdicts: what `weir.verdicts` says, before the history answers it.
//!
//! What it keeps true: memory is bounded by bytes, a message that was given two verdicts
//! shows the first, as the history does, also when the second comes long after it, and one
//! that was erased shows none. Nor does one that is no longer fresh: the history knows what
//! of it may still be shown.

mod fences;
mod follow;
mod wait;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use parking_lot::RwLock;
use prometheus::IntGauge;
use weir_records::{Erasure, Erasures, Judged, Message};

pub(crate) use self::follow::{Origin, follow};
pub(crate) use self::wait::Waiters;
use crate::recent::generations::{Generations, Key, Weigh};

/// How long a verdict is fresh. Where little comes nothing is pushed out, and a text is kept
/// for a day at least by every retention.
const FRESH: SignedDuration = SignedDuration::from_hours(24);

/// The record as it came: a tenth of what it takes once it is read.
#[derive(Clone)]
struct Fresh(Bytes);

impl Fresh {
    /// What it says, while it is fresh.
    fn read(&self) -> Option<Judged> {
        let judged = weir_records::judged(&self.0).ok()?;
        let age = Timestamp::now().duration_since(judged.message.received_at);
        (age < FRESH).then_some(judged)
    }
}

impl Weigh for Fresh {
    fn weight(&self) -> usize {
        // The entry, its share of empty ones, and the allocation's own bytes.
        const OVERHEAD: usize = 112;
        self.0.len() + OVERHEAD
    }
}

/// The verdicts that came last.
pub(crate) struct Verdicts {
    fresh: Generations<Fresh>,
    erased: RwLock<Erasures>,
}

impl Verdicts {
    pub(crate) fn new(bytes: usize, gauge: IntGauge) -> Self {
        Self {
            fresh: Generations::new(bytes, gauge),
            erased: RwLock::default(),
        }
    }

    /// Keeps a record of `weir.verdicts`, unless there is one of that message or it is
    /// erased. One that is not fresh any more gives way: its id may be another message's now.
    pub(crate) fn keep(&self, key: Key, record: &Bytes, judged: &Judged) {
        self.unless_erased(&judged.message, || {
            let mut place = self.fresh.lock(key);
            if place.get().and_then(Fresh::read).is_none() {
                place.put(Fresh(record.clone()));
            }
        });
    }

    /// Keeps something of a message, unless it is erased.
    pub(crate) fn unless_erased(&self, message: &Message, keep: impl FnOnce()) {
        // Held until it is kept: an erasure that comes meanwhile sweeps it out.
        let erased = self.erased.read();
        if !erased.cover(message) {
            keep();
        }
    }

    /// Drops what these cover, and keeps none of it again.
    pub(crate) fn erase(&self, erasures: &[Erasure]) {
        if erasures.is_empty() {
            return;
        }
        let mut erased = self.erased.write();
        for erasure in erasures {
            erased.insert(erasure);
        }
        self.fresh.retain(|fresh| {
            weir_records::judged(&fresh.0).is_ok_and(|judged| !erased.cover(&judged.message))
        });
    }

    /// The judged message under that key, if it was received in the last day.
    pub(crate) fn fresh(&self, key: Key) -> Option<Judged> {
        let fresh = self.fresh.lock(key).get()?.clone();
        fresh.read()
    }

    /// The same, of that tenant and id.
    pub(crate) fn get(&self, key: Key, tenant: &str, id: &str) -> Option<Judged> {
        let judged = self.fresh(key)?;
        let message = &judged.message;
        (message.tenant == tenant && message.id == id).then_some(judged)
    }
}
