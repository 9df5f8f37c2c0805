//! Dead letters as people deal with them: listed, looked at, replayed, discarded.
//!
//! `weir.dead` is the one place they are kept. A letter is named by its place there;
//! what was done with it is a note in the same partition, behind it. So every process
//! sees the same, a restart forgets nothing, and the notes last as long as the letters.
//!
//! ```text
//! GET  /v1/admin/dead-letters               list    one pass over the topic
//! GET  /v1/admin/dead-letters/{id}          find    from the letter to the end
//! POST /v1/admin/dead-letters/{id}/replay   find → plan → do → note
//! POST /v1/admin/dead-letters/{id}/discard  find → note
//! ```
//!
//! # Once
//! In one process, letters are settled one at a time, each after a look at what has
//! become of it: of two replays at once, the second finds the note of the first.
//! Between two processes, or after a crash between the effect and its note, the effect
//! may be asked for again, and then the message's id is what keeps it from happening
//! twice. Of two notes the first settles the letter, and only who wrote it counts it and
//! says that it is done. A message that comes again is dropped by the processor and counted as a
//! duplicate, a row that comes again is not written. As long as the history lags, a
//! processor may know of a verdict that a dry run can't see; it then drops or gives up
//! the message in spite of what the dry run said, and counts it.
//!
//! What is erased is not shown and can't be replayed; its letter stays in the topic until
//! the topic's retention.
//!
//! A caller that goes away stops nothing half-way: the work goes on to its end.

mod door;
mod letter;
mod list;
mod replay;

use std::future::Future;
use std::sync::Arc;

use prometheus::Registry;
use tokio::sync::{Mutex, Semaphore};
use weir_bus::{NotDelivered, Outgoing, Producer, Refused};
use weir_records::{Erasures, Settlement, topic};
use weir_store::History;

use self::letter::{Entry, Id, Identity, Inside, Letter, note, read};
use self::list::{Page, Pass, Request};
use self::replay::{Outcome, Plan, STORE_REFUSED, Work};
use crate::judge::{Judge, JudgeError};
use crate::metrics;

pub use self::door::router;

/// Requests that read the topic, or wait to, at the same time.
const AT_ONCE: usize = 8;

/// The stages that metrics tell apart; a record may name any.
const STAGES: [&str; 3] = ["process", "history", "lake"];

/// What settles dead letters. Clones share it.
#[derive(Clone)]
pub struct Letters {
    inner: Arc<Inner>,
}

struct Inner {
    judge: Judge,
    producer: Producer,
    history: Arc<dyn History>,
    bus: weir_bus::Config,
    metrics: metrics::Letters,
    room: Semaphore,
    /// Held while a letter is settled.
    settling: Mutex<()>,
}

/// Why a letter could not be read or settled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no such dead letter")]
    NotFound,
    #[error("too many requests for dead letters at a time")]
    Busy,
    #[error("the dead letters can't be read: {0}")]
    Bus(#[from] weir_bus::Error),
    #[error("the history can't be used: {0}")]
    Store(#[from] weir_store::Error),
    #[error("no verdict: {0}")]
    Model(JudgeError),
    #[error("the record was not written: {0}")]
    NotWritten(&'static str),
    #[error("the work was broken off")]
    BrokenOff,
}

/// A letter, and what a replay came to or would come to.
struct Replayed {
    letter: Letter,
    plan: Plan,
    /// Whether this call settled the letter.
    done: bool,
}

impl Letters {
    /// # Errors
    /// When a metric of this name is registered already.
    pub fn new(
        judge: Judge,
        producer: Producer,
        history: Arc<dyn History>,
        bus: weir_bus::Config,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        Ok(Self {
            inner: Arc::new(Inner {
                judge,
                producer,
                history,
                bus,
                metrics: metrics::Letters::new(registry)?,
                room: Semaphore::new(AT_ONCE),
                settling: Mutex::new(()),
            }),
        })
    }

    async fn list(&self, request: Request) -> Result<Page, Error> {
        let _room = self.inner.room.try_acquire().map_err(|_| Error::Busy)?;
        let bus = &self.inner.bus;
        let mut pass = Pass::new(request, self.erased().await?);
        for (partition, (low, high)) in weir_bus::watermarks(bus, topic::DEAD).await? {
            if low < high {
                let sink = &mut |record| pass.take(&record);
                weir_bus::read_back(bus, topic::DEAD, partition, low, sink).await?;
            }
        }
        Ok(pass.page())
    }

    /// Whose letters are neither shown nor replayed.
    async fn erased(&self) -> Result<Erasures, Error> {
        let (erasures, _) = weir_bus::erasures(&self.inner.bus).await?;
        Ok(erasures.into_iter().collect())
    }

    /// The letter with what has become of it.
    async fn find(&self, id: Id, only: Option<&str>) -> Result<Letter, Error> {
        let _room = self.inner.room.try_acquire().map_err(|_| Error::Busy)?;
        self.look(id, only).await
    }

    async fn look(&self, id: Id, only: Option<&str>) -> Result<Letter, Error> {
        let erased = self.erased().await?;
        let mut found: Option<(Identity, Letter)> = None;
        let mut at_its_place = false;
        let sink = &mut |record| {
            // The first record is the one at that place, if there still is one.
            if !std::mem::replace(&mut at_its_place, true) {
                if Id::of(&record) == id
                    && let Entry::Letter(letter) = read(&record)
                {
                    let identity = Identity::of(&letter);
                    let letter = Letter {
                        id,
                        letter,
                        settled: None,
                        end: id.offset,
                    };
                    found = Some((identity, letter));
                }
            } else if let Some((identity, letter)) = &mut found
                && letter.settled.is_none()
                && let Entry::Note(of, resolution) = read(&record)
                && of == *identity
            {
                letter.settled = Some(resolution);
            }
        };
        let bus = &self.inner.bus;
        let end = match weir_bus::read_back(bus, topic::DEAD, id.partition, id.offset, sink).await {
            Ok(end) => end,
            Err(weir_bus::Error::UnknownTopic(_)) => return Err(Error::NotFound),
            Err(error) => return Err(error.into()),
        };
        found
            .map(|(_, letter)| Letter { end, ..letter })
            .filter(|letter| Inside::of(&letter.letter).is_shown(only, &erased))
            .ok_or(Error::NotFound)
    }

    /// What a replay would come to.
    async fn dry_run(&self, id: Id, only: Option<&str>) -> Result<Replayed, Error> {
        let letter = self.find(id, only).await?;
        let plan = self.plan(&letter).await?;
        Ok(Replayed {
            letter,
            plan,
            done: false,
        })
    }

    /// Replays a letter that is open.
    async fn replay(&self, id: Id, only: Option<String>, by: String) -> Result<Replayed, Error> {
        let letters = self.clone();
        self.in_turn(async move {
            let letter = letters.look(id, only.as_deref()).await?;
            let mut plan = letters.plan(&letter).await?;
            match &plan.work {
                Work::Nothing => {
                    return Ok(Replayed {
                        letter,
                        plan,
                        done: false,
                    });
                }
                Work::Settle => {}
                Work::Publish => letters.publish(&letter).await?,
                Work::Put(row) => match letters.inner.history.put(row).await {
                    // Not written: its id came in between. The letter has served its purpose.
                    Ok(_) => {}
                    Err(weir_store::Error::Refused(_)) => {
                        plan = plan.now_fails(STORE_REFUSED);
                        return Ok(Replayed {
                            letter,
                            plan,
                            done: false,
                        });
                    }
                    Err(error) => return Err(error.into()),
                },
            }
            let (letter, done) = letters.write(letter, Settlement::Replayed, &by).await?;
            if !done {
                plan = Plan::of(Outcome::Settled, Work::Nothing);
            }
            Ok(Replayed { letter, plan, done })
        })
        .await
    }

    /// Discards a letter that is open; answers it, and whether this call did it.
    async fn discard(
        &self,
        id: Id,
        only: Option<String>,
        by: String,
    ) -> Result<(Letter, bool), Error> {
        let letters = self.clone();
        self.in_turn(async move {
            let letter = letters.look(id, only.as_deref()).await?;
            if letter.settled.is_some() {
                return Ok((letter, false));
            }
            letters.write(letter, Settlement::Discarded, &by).await
        })
        .await
    }

    /// Does that while nobody else settles anything, to its end even if the caller goes.
    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = Arc::clone(&self.inner);
        let task = tokio::spawn(async move {
            let _room = inner.room.try_acquire().map_err(|_| Error::Busy)?;
            let _one = inner.settling.lock().await;
            work.await
        });
        task.await.map_err(|_| Error::BrokenOff)?
    }

    /// The letter's record into its topic again.
    async fn publish(&self, letter: &Letter) -> Result<(), Error> {
        self.send(Outgoing {
            topic: topic::MESSAGES,
            partition: None,
            key: letter.letter.key.to_vec(),
            payload: weir_records::published_again(&letter.letter.payload),
        })
        .await
    }

    /// Writes the note that settles the letter. Answers whether it did, and then counts it:
    /// another process may have written one first.
    async fn write(
        &self,
        mut letter: Letter,
        settlement: Settlement,
        by: &str,
    ) -> Result<(Letter, bool), Error> {
        let note = note(&letter, settlement, by);
        let own = note.resolution.clone();
        self.send(Outgoing {
            topic: topic::DEAD,
            // Not by the key: letters without one lie anywhere.
            partition: Some(letter.id.partition),
            key: letter.letter.key.to_vec(),
            payload: note.encode(),
        })
        .await?;
        let (identity, mut first) = (Identity::of(&letter.letter), None);
        let sink = &mut |record| {
            if first.is_none()
                && let Entry::Note(of, resolution) = read(&record)
                && of == identity
            {
                first = Some(resolution);
            }
        };
        let (bus, id) = (&self.inner.bus, letter.id);
        weir_bus::read_back(bus, topic::DEAD, id.partition, letter.end, sink).await?;
        letter.settled = first.or_else(|| own.clone());
        if letter.settled != own {
            return Ok((letter, false));
        }
        let metrics = &self.inner.metrics;
        let counter = match settlement {
            Settlement::Replayed => &metrics.replayed,
            Settlement::Discarded => &metrics.discarded,
        };
        let stage = STAGES
            .into_iter()
            .find(|stage| *stage == letter.letter.stage)
            .unwrap_or("unknown");
        counter.with_label_values(&[stage]).inc();
        tracing::info!(id = %letter.id, stage, ?settlement, by, "a dead letter is settled");
        Ok((letter, true))
    }

    async fn send(&self, record: Outgoing) -> Result<(), Error> {
        let delivery = match self.inner.producer.send(vec![record]) {
            Ok(delivery) => delivery,
            Err(Refused::Full) => return Err(Error::NotWritten("the queue is full")),
            Err(Refused::TooLarge { .. }) => return Err(Error::NotWritten("it is too large")),
        };
        match delivery.await.pop() {
            Some(Ok(_)) => Ok(()),
            Some(Err(NotDelivered { code, .. })) => Err(Error::NotWritten(code)),
            None => Err(Error::BrokenOff),
        }
    }
}
