//! What was accepted lately, here or by another process: the ids, so that a producer's retry
//! is not published again and so that a message that is not judged yet can be answered as
//! pending.
//!
//! What it keeps true: of several sends of one id at the same time, one is published and
//! the others share its outcome; an id is `accepted` only after the broker has it. It is a
//! memory, not a guarantee: ids fall out of it by age, and a repeat that gets past it is
//! dropped by the processor, which knows every id that was judged.
//!
//! Nor is it the last word on what was judged. Where the verdict's place is known and the
//! history is past it without a row of the id, the message has run out there, and its id is
//! free: [`Inner::stored`](crate::ingest::Inner::stored) looks, and has it forgotten here.

mod follow;
pub(crate) mod generations;
mod seed;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus::IntGauge;
use tokio::sync::Notify;
use weir_records::{Erasure, Message, Source, Target};

use crate::accept::check::Sender;
use crate::verdicts::Verdicts;

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

/// What is remembered of a message, without its words. Nobody outside can choose the hashes,
/// so 32 bits do: one conflict in four billion is taken for a repeat.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Identity {
    pub(crate) key: Key,
    /// Hash of channel and text: the same id with another is a conflict.
    content: u32,
    /// Hash of tenant and sender: the same, and to know whose it is.
    sender: u32,
}

#[derive(Debug)]
struct Known {
    content: u32,
    sender: u32,
    state: State,
}

/// How far a message has come. Its fields are those of a [`Source`], laid out so that an entry
/// grows no larger for them.
#[derive(Debug)]
enum State {
    InFlight(Arc<Flight>),
    /// The broker has it.
    Accepted,
    /// It has a verdict, and stands there in `weir.messages`.
    Judged {
        partition: i32,
        offset: i64,
    },
}

impl State {
    const fn judged(source: Source) -> Self {
        let Source { partition, offset } = source;
        Self::Judged { partition, offset }
    }
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
            content: self.hashes.of((channel, text)) as u32,
            sender: self.sender(tenant, sender),
        }
    }

    fn sender(&self, tenant: &str, sender: Sender<'_>) -> u32 {
        self.hashes.of((tenant, sender)) as u32
    }

    /// That of a message in the log.
    pub(crate) fn identity_of(&self, message: &Message) -> Identity {
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
                state: State::InFlight(flight),
                ..
            }) => Claim::InFlight(Arc::clone(flight)),
            Some(_) => Claim::Accepted,
            None => {
                place.put(identity.known(State::InFlight(Arc::clone(flight))));
                Claim::Ours
            }
        }
    }

    /// The broker has the message. `verdicts`: it may have one by now.
    fn accept(&self, identity: &Identity, verdicts: &Verdicts) {
        let mut place = self.known.lock(identity.key);
        let known = place.get();
        // Its verdict was faster than its acknowledgement.
        if known.is_some_and(|known| identity.is(known) && known.is_judged()) {
            return;
        }
        let new = known.is_none();
        place.put(identity.known(State::Accepted));
        drop(place);
        if new {
            self.look_for_verdict(identity.key, verdicts);
        }
    }

    /// The log has the message there, whoever accepted it. The first under its id stays: it is
    /// the one that is judged. `verdicts` as for [`accept`](Self::accept). Answers whether it
    /// is news.
    fn hear(&self, identity: &Identity, at: Source, verdicts: &Verdicts) -> bool {
        let mut place = self.known.lock(identity.key);
        let new = match place.get() {
            None => true,
            Some(known) => match known.state {
                // Ours, and its acknowledgement is late or lost.
                State::InFlight(_) => identity.is(known),
                State::Accepted => false,
                // Not that one, whose time may be over: else its verdict is found below.
                State::Judged { partition, offset } => {
                    at.partition != partition || at.offset > offset
                }
            },
        };
        if new {
            place.put(identity.known(State::Accepted));
            drop(place);
            self.look_for_verdict(identity.key, verdicts);
        }
        new
    }

    /// A verdict that comes before its id is known changes nothing here, so it is looked for
    /// once the id is: it was kept before that, or finds the id. It says what it is of, which
    /// another process may have accepted at the same moment.
    fn look_for_verdict(&self, key: Key, verdicts: &Verdicts) {
        if let Some(judged) = verdicts.fresh(key) {
            self.judged(&self.identity_of(&judged.message), judged.source);
        }
    }

    /// The message there has a verdict. Changes what is known of its id; one that has fallen
    /// out by now does not come back in place of one that still waits.
    pub(crate) fn judged(&self, identity: &Identity, source: Source) {
        let mut place = self.known.lock(identity.key);
        let Some(known) = place.get_mut() else {
            return;
        };
        // Of two messages in different partitions the first stays, as among the verdicts.
        let second = match known.state {
            State::InFlight(_) => true,
            State::Accepted => false,
            State::Judged { partition, .. } => partition != source.partition,
        };
        if identity.is(known) || !second {
            *known = identity.known(State::judged(source));
        }
    }

    /// The message there had a verdict before this process started, and the history may not
    /// have it yet.
    pub(crate) fn was_judged(&self, identity: &Identity, source: Source) {
        let known = identity.known(State::judged(source));
        self.known.lock(identity.key).put(known);
    }

    /// Where the message stands in the log, if it has a verdict.
    pub(crate) fn source(&self, key: Key) -> Option<Source> {
        match self.known.lock(key).get()?.state {
            State::Judged { partition, offset } => Some(Source { partition, offset }),
            State::InFlight(_) | State::Accepted => None,
        }
    }

    /// Forgets the id, unless it stands for another message than the judged one there.
    pub(crate) fn forget(&self, key: Key, judged: Source) {
        let mut place = self.known.lock(key);
        let that = |known: &Known| match known.state {
            State::Judged { partition, offset } => judged == Source { partition, offset },
            _ => false,
        };
        if place.get().is_some_and(that) {
            place.remove();
        }
    }

    /// The message was not acknowledged: whoever sends it next publishes it.
    fn release(&self, identity: &Identity, flight: &Arc<Flight>) {
        let mut place = self.known.lock(identity.key);
        let ours = |known: &Known| match &known.state {
            State::InFlight(its) => Arc::ptr_eq(its, flight),
            _ => false,
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
                if place.get().is_some_and(|known| !known.is_in_flight()) {
                    place.remove();
                }
            }
            Target::Sender(sender) => {
                let hashes = [false, true].map(|by_user| {
                    let sender = Sender {
                        name: Some(sender),
                        by_user,
                    };
                    self.sender(&erasure.tenant, sender)
                });
                self.known
                    .retain(|known| known.is_in_flight() || !hashes.contains(&known.sender));
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
            .is_some_and(|known| !known.is_in_flight())
    }

    /// Whether the id is remembered, and for another message.
    pub(crate) fn differs(&self, identity: &Identity) -> bool {
        self.known
            .lock(identity.key)
            .get()
            .is_some_and(|known| !identity.is(known))
    }

    /// Whether the broker has the message and that is its sender.
    pub(crate) fn is_accepted_from(&self, key: Key, tenant: &str, sender: Sender<'_>) -> bool {
        let sender = self.sender(tenant, sender);
        let place = self.known.lock(key);
        place
            .get()
            .is_some_and(|known| !known.is_in_flight() && known.sender == sender)
    }
}

impl Known {
    const fn is_in_flight(&self) -> bool {
        matches!(self.state, State::InFlight(_))
    }

    const fn is_judged(&self) -> bool {
        matches!(self.state, State::Judged { .. })
    }
}

impl Identity {
    /// Whether it is that message.
    const fn is(&self, known: &Known) -> bool {
        known.content == self.content && known.sender == self.sender
    }

    const fn known(&self, state: State) -> Known {
        Known {
            content: self.content,
            sender: self.sender,
            state,
        }
    }
}

/// The ids of one request that are on their way. However the request ends, they are
/// settled, and whoever waits for them goes on.
pub(crate) struct Claims {
    recent: Arc<Recent>,
    verdicts: Arc<Verdicts>,
    flight: Arc<Flight>,
    identities: Vec<Identity>,
    settled: bool,
}

impl Claims {
    pub(crate) fn new(recent: Arc<Recent>, verdicts: Arc<Verdicts>, capacity: usize) -> Self {
        Self {
            recent,
            verdicts,
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
                self.recent.accept(identity, &self.verdicts);
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
