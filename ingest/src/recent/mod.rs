//! What was accepted lately, here or by another process: the ids, so that a producer's retry
//! is not published again and so that a message that is not judged yet can be answered as
//! pending.
//!
//! What it keeps true: of several sends of one id at the same time, one is published and
//! the others share its outcome; an id is `accepted` only after the broker has it. It is a
//! memory, not a guarantee: ids fall out of it by age, and a repeat that gets past it is
//! dropped by the processor, which knows every id that was judged.

mod follow;
pub(crate) mod generations;
mod seed;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus::IntGauge;
use tokio::sync::Notify;
use weir_records::{Erasure, Message, Target};

use crate::accept::check::Sender;

pub(crate) use self::follow::follow;
use self::generations::{Generations, Hashes, Key, Weigh};
pub(crate) use self::seed::seed;

/// A request whose messages are on their way to the broker.
#[derive(Debug, Default)]
pub(crate) struct Flight {
    landed: AtomicBool,
    notify: Notify,
}

impl Flight {
    /// Waits until the request's messages are acknowledged or given up.
    pub(crate) async fn wait(&self) {
        let mut notified = std::pin::pin!(self.notify.notified());
        notified.as_mut().enable();
        if !self.landed.load(Ordering::Acquire) {
            notified.await;
        }
    }

    fn land(&self) {
        self.landed.store(true, Ordering::Release);
        self.notify.notify_waiters();
    }
}

/// What is remembered of a message, without its words.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) key: Key,
    /// Hash of channel and text: the same id with another is a conflict.
    content: u64,
    /// Hash of tenant and sender: the same, and to know whose it is.
    sender: u64,
}

#[derive(Debug)]
struct Known {
    content: u64,
    sender: u64,
    /// `None`: the broker has it.
    flight: Option<Arc<Flight>>,
}

/// The bound is a number of ids.
impl Weigh for Known {
    fn weight(&self) -> usize {
        1
    }
}

/// What a claim of an id has found.
#[derive(Debug)]
pub(crate) enum Claim {
    /// Nothing: the caller is to publish the message.
    Ours,
    /// The broker has it.
    Accepted,
    /// It is on its way, perhaps in this very request.
    InFlight(Arc<Flight>),
    /// The id stands for another text, channel or sender.
    Conflict,
}

/// The ids accepted lately.
pub(crate) struct Recent {
    known: Generations<Known>,
    hashes: Hashes,
}

impl Recent {
    pub(crate) fn new(ids: usize, gauge: IntGauge) -> Self {
        Self {
            known: Generations::new(ids, gauge),
            hashes: Hashes::default(),
        }
    }

    pub(crate) fn hashes(&self) -> &Hashes {
        &self.hashes
    }

    pub(crate) fn identify(
        &self,
        tenant: &str,
        id: &str,
        (channel, text): (&str, &str),
        sender: Sender<'_>,
    ) -> Identity {
        Identity {
            key: self.hashes.key(tenant, id),
            content: self.hashes.of((channel, text)),
            sender: self.hashes.of((tenant, sender)),
        }
    }

    /// That of a message in the log.
    fn identity_of(&self, message: &Message) -> Identity {
        self.identify(
            &message.tenant,
            &message.id,
            (&message.channel, &message.text),
            Sender::of(message),
        )
    }

    /// Takes the id for this flight, unless it is known.
    pub(crate) fn claim(&self, identity: &Identity, flight: &Arc<Flight>) -> Claim {
        let mut place = self.known.lock(identity.key);
        match place.get() {
            Some(known) if !identity.is(known) => Claim::Conflict,
            Some(Known {
                flight: Some(flight),
                ..
            }) => Claim::InFlight(Arc::clone(flight)),
            Some(_) => Claim::Accepted,
            None => {
                place.put(identity.known(Some(Arc::clone(flight))));
                Claim::Ours
            }
        }
    }

    /// The broker has the message.
    pub(crate) fn accept(&self, identity: &Identity) {
        self.known.lock(identity.key).put(identity.known(None));
    }

    /// The log has the message, whoever accepted it. The first under its id stays: it is the
    /// one that is judged.
    pub(crate) fn hear(&self, identity: &Identity) {
        let mut place = self.known.lock(identity.key);
        let new = match place.get() {
            None => true,
            // Ours, and its acknowledgement is late or lost.
            Some(known) => known.flight.is_some() && identity.is(known),
        };
        if new {
            place.put(identity.known(None));
        }
    }

    /// The message was not acknowledged: whoever sends it next publishes it.
    fn release(&self, identity: &Identity, flight: &Arc<Flight>) {
        let mut place = self.known.lock(identity.key);
        let ours = |known: &Known| {
            known
                .flight
                .as_ref()
                .is_some_and(|its| Arc::ptr_eq(its, flight))
        };
        if place.get().is_some_and(ours) {
            place.remove();
        }
    }

    /// Forgets the ids of what is erased, so that it is not answered as pending. Of a
    /// sender, ids of later messages go too: the times are not remembered, and a repeat
    /// that is not known here is dropped by the processor.
    pub(crate) fn erase(&self, erasure: &Erasure) {
        match &erasure.target {
            Target::Message(id) => {
                let mut place = self.known.lock(self.hashes.key(&erasure.tenant, id));
                if place.get().is_some_and(|known| known.flight.is_none()) {
                    place.remove();
                }
            }
            Target::Sender(sender) => {
                let hashes = [false, true].map(|by_user| {
                    let sender = Sender {
                        name: Some(sender),
                        by_user,
                    };
                    self.hashes.of((erasure.tenant.as_str(), sender))
                });
                self.known
                    .retain(|known| known.flight.is_some() || !hashes.contains(&known.sender));
            }
        }
    }

    /// Whether the id is remembered, accepted or on its way.
    pub(crate) fn is_known(&self, key: Key) -> bool {
        self.known.lock(key).get().is_some()
    }

    /// Whether the broker has the message.
    pub(crate) fn is_accepted(&self, key: Key) -> bool {
        self.known
            .lock(key)
            .get()
            .is_some_and(|known| known.flight.is_none())
    }

    /// Whether the broker has the message and that is its sender.
    pub(crate) fn is_accepted_from(&self, key: Key, tenant: &str, sender: Sender<'_>) -> bool {
        let sender = self.hashes.of((tenant, sender));
        let place = self.known.lock(key);
        place
            .get()
            .is_some_and(|known| known.flight.is_none() && known.sender == sender)
    }
}

impl Identity {
    /// Whether it is that message.
    const fn is(&self, known: &Known) -> bool {
        known.content == self.content && known.sender == self.sender
    }

    fn known(&self, flight: Option<Arc<Flight>>) -> Known {
        Known {
            content: self.content,
            sender: self.sender,
            flight,
        }
    }
}

/// The ids of one request that are on their way. However the request ends, they are
/// settled, and whoever waits for them goes on.
pub(crate) struct Claims {
    recent: Arc<Recent>,
    flight: Arc<Flight>,
    identities: Vec<Identity>,
    settled: bool,
}

impl Claims {
    pub(crate) fn new(recent: Arc<Recent>, capacity: usize) -> Self {
        Self {
            recent,
            flight: Arc::default(),
            identities: Vec::with_capacity(capacity),
            settled: false,
        }
    }

    /// Claims an id that the producer chose.
    pub(crate) fn claim(&mut self, identity: Identity) -> Claim {
        let claim = self.recent.claim(&identity, &self.flight);
        if matches!(claim, Claim::Ours) {
            self.identities.push(identity);
        }
        claim
    }

    /// Takes an id that was made for this request, and that nobody else can know.
    pub(crate) fn take(&mut self, identity: Identity) {
        self.identities.push(identity);
    }

    /// Remembers which were acknowledged; the answers are in the order of the claims.
    pub(crate) fn settle(mut self, acknowledged: impl Iterator<Item = bool>) {
        for (identity, acknowledged) in self.identities.iter().zip(acknowledged) {
            if acknowledged {
                self.recent.accept(identity);
            } else {
                self.recent.release(identity, &self.flight);
            }
        }
        self.settled = true;
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        if !self.settled {
            for identity in &self.identities {
                self.recent.release(identity, &self.flight);
            }
        }
        self.flight.land();
    }
}
