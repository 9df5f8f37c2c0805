//! A page of the dead letters, newest first, in one pass over `weir.dead` and in
//! memory that does not grow with it.
//!
//! What became of a letter stands behind it, so a pass goes to the end before it
//! answers. Meanwhile it holds the newest [`WINDOW`] letters that the page may be made
//! of, without their payloads. Where all of them turn out to be settled otherwise than
//! was asked for, the page is empty and still says where the next one starts.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use weir_bus::Record;
use weir_records::{DeadLetter, Erasures, Resolution};

use super::letter::{Entry, Id, Identity, Inside, State, read};

/// Letters that are held during a pass, some hundred bytes each.
pub(super) const WINDOW: usize = 10_000;
/// Letters of a page at most.
pub(super) const MAX_PAGE: usize = 1_000;
/// Letters back to which a second writing of a letter is recognised.
const REMEMBERED: usize = 20_000;
/// Characters shown of a name; whoever wrote the record may have chosen any.
const SHOWN: usize = 200;

/// Which letters are asked for.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    pub(super) stage: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) channel: Option<String>,
    pub(super) since: Option<Timestamp>,
    /// `None`: whatever has become of them.
    pub(super) state: Option<State>,
    /// The tenant that the caller is confined to.
    pub(super) only: Option<String>,
}

/// Which part of the list.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) filter: Filter,
    /// 1 to [`MAX_PAGE`].
    pub(super) limit: usize,
    pub(super) cursor: Option<Cursor>,
}

/// A letter's place in the list: by the time of its failure, then by its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cursor {
    microseconds: i64,
    id: Id,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.microseconds, self.id)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (microseconds, id) = text.split_once('.').ok_or(())?;
        Ok(Self {
            microseconds: microseconds.parse().map_err(|_| ())?,
            id: id.parse()?,
        })
    }
}

/// A letter of a page: all but its payload.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) id: Id,
    pub(super) stage: String,
    pub(super) reason: String,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) failed_at: Timestamp,
    pub(super) bytes: usize,
    pub(super) tenant: Option<String>,
    pub(super) channel: Option<String>,
    pub(super) sender: Option<String>,
    pub(super) message_id: Option<String>,
    pub(super) settled: Option<Resolution>,
}

impl Row {
    pub(super) fn new(id: Id, letter: &DeadLetter, inside: &Inside) -> Self {
        let message = inside.message();
        let name = |name: fn(&weir_records::Message) -> &str| message.map(|m| short(name(m)));
        Self {
            id,
            stage: short(&letter.stage),
            reason: short(&letter.reason),
            topic: short(&letter.topic),
            partition: letter.source.partition,
            offset: letter.source.offset,
            failed_at: letter.failed_at,
            bytes: letter.payload.len(),
            tenant: name(|m| &m.tenant),
            channel: name(|m| &m.channel),
            sender: message.and_then(|m| m.sender.as_deref()).map(short),
            message_id: name(|m| &m.id),
            settled: None,
        }
    }
}

fn short(name: &str) -> String {
    name.chars().take(SHOWN).collect()
}

/// A page: rows, and where the next one starts.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) rows: Vec<Row>,
    pub(super) next: Option<Cursor>,
}

/// A pass; takes the records of each partition in their order.
pub(super) struct Pass {
    request: Request,
    /// Whose letters are not shown.
    erased: Erasures,
    window: usize,
    held: BTreeMap<Cursor, Row>,
    places: HashMap<Identity, Cursor>,
    /// Letters older than those held match as well.
    more: bool,
    seen: HashSet<Identity>,
    order: VecDeque<Identity>,
}

impl Pass {
    pub(super) fn new(request: Request, erased: Erasures) -> Self {
        Self {
            erased,
            ..Self::with_window(request, WINDOW)
        }
    }

    fn with_window(request: Request, window: usize) -> Self {
        Self {
            request,
            erased: Erasures::default(),
            window,
            held: BTreeMap::new(),
            places: HashMap::new(),
            more: false,
            seen: HashSet::new(),
            order: VecDeque::new(),
        }
    }

    pub(super) fn take(&mut self, record: &Record) {
        match read(record) {
            Entry::Note(letter, resolution) => {
                let place = self.places.get(&letter);
                if let Some(row) = place.and_then(|place| self.held.get_mut(place)) {
                    // The first note counts, as it did for whoever asked then.
                    row.settled.get_or_insert(resolution);
                }
            }
            Entry::Letter(letter) => self.letter(Id::of(record), &letter),
        }
    }

    fn letter(&mut self, id: Id, letter: &DeadLetter) {
        let identity = Identity::of(letter);
        if !self.seen.insert(identity) {
            return;
        }
        self.order.push_back(identity);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        let place = Cursor {
            microseconds: letter.failed_at.as_microsecond(),
            id,
        };
        if self.request.cursor.is_some_and(|cursor| place >= cursor) {
            return;
        }
        let filter = &self.request.filter;
        let differs = |wanted: &Option<String>, found: &str| {
            wanted.as_ref().is_some_and(|wanted| wanted != found)
        };
        if differs(&filter.stage, &letter.stage)
            || differs(&filter.reason, &letter.reason)
            || filter.since.is_some_and(|since| letter.failed_at < since)
        {
            return;
        }
        let inside = Inside::of(letter);
        let named = |wanted: &Option<String>, name: fn(&weir_records::Message) -> &str| {
            wanted.is_none() || inside.message().map(name) == wanted.as_deref()
        };
        if !inside.is_shown(filter.only.as_deref(), &self.erased)
            || !named(&filter.tenant, |m| &m.tenant)
            || !named(&filter.channel, |m| &m.channel)
        {
            return;
        }
        self.held.insert(place, Row::new(id, letter, &inside));
        self.places.insert(identity, place);
        if self.held.len() > self.window {
            self.held.pop_first();
            self.more = true;
        }
        // Those of letters that went would otherwise pile up.
        if self.places.len() > 2 * self.window {
            let held = &self.held;
            self.places.retain(|_, place| held.contains_key(place));
        }
    }

    pub(super) fn page(self) -> Page {
        let limit = self.request.limit.clamp(1, MAX_PAGE);
        let wanted = self.request.filter.state;
        let oldest = self.held.first_key_value().map(|(place, _)| *place);
        let mut rows = Vec::new();
        let mut last = None;
        for (place, row) in self.held.into_iter().rev() {
            if wanted.is_some_and(|wanted| State::of(row.settled.as_ref()) != wanted) {
                continue;
            }
            if rows.len() == limit {
                return Page { rows, next: last };
            }
            rows.push(row);
            last = Some(place);
        }
        Page {
            rows,
            next: oldest.filter(|_| self.more),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use weir_records::{Settlement, Source, topic};

    use super::super::letter::{Letter, note};
    use super::*;

    fn letter(offset: i64, reason: &str) -> DeadLetter {
        DeadLetter {
            stage: "process".to_owned(),
            reason: reason.to_owned(),
            topic: topic::MESSAGES.to_owned(),
            source: Source {
                partition: 0,
                offset,
            },
            key: Bytes::new(),
            payload: Bytes::from_static(b"\xff"),
            failed_at: Timestamp::from_microsecond(1_000 + offset).unwrap(),
            resolution: None,
        }
    }

    /// The topic's one partition: letters and notes by turns of the test.
    #[derive(Default)]
    struct Log(Vec<Record>);

    impl Log {
        fn push(&mut self, payload: Vec<u8>) -> Id {
            let offset = i64::try_from(self.0.len()).unwrap();
            self.0.push(Record {
                partition: 0,
                offset,
                key: Bytes::new(),
                payload: Bytes::from(payload),
                timestamp: Timestamp::from_millisecond(5_000).unwrap(),
            });
            Id {
                partition: 0,
                offset,
            }
        }

        fn settle(&mut self, id: Id, letter: DeadLetter, settlement: Settlement) {
            let of = Letter {
                id,
                letter,
                settled: None,
                end: id.offset,
            };
            self.push(note(&of, settlement, "ann").encode());
        }

        fn page(&self, window: usize, request: &Request) -> (Vec<i64>, Option<Cursor>) {
            let mut pass = Pass::with_window(request.clone(), window);
            self.0.iter().for_each(|record| pass.take(record));
            assert!(pass.held.len() <= window && pass.places.len() <= 2 * window);
            let page = pass.page();
            (
                page.rows.iter().map(|row| row.id.offset).collect(),
                page.next,
            )
        }

        fn pages(&self, window: usize, mut request: Request) -> Vec<i64> {
            let mut all = Vec::new();
            for _ in 0..100 {
                let (rows, next) = self.page(window, &request);
                all.extend(rows);
                let Some(next) = next else {
                    return all;
                };
                request.cursor = Some(next.to_string().parse().unwrap());
            }
            panic!("the list has no end");
        }
    }

    fn request(limit: usize, state: Option<State>) -> Request {
        Request {
            filter: Filter {
                state,
                ..Filter::default()
            },
            limit,
            cursor: None,
        }
    }

    #[test]
    fn pages_of_any_size_and_window_are_the_same_list_newest_first() {
        let mut log = Log::default();
        for offset in 0..20 {
            log.push(letter(offset, "model_refused").encode());
        }
        let expected: Vec<i64> = (0..20).rev().collect();
        for (window, limit) in [(10_000, 100), (10_000, 3), (4, 3), (4, 100), (1, 1)] {
            assert_eq!(log.pages(window, request(limit, None)), expected);
        }
    }

    #[test]
    fn settled_letters_are_told_apart_although_a_whole_window_is_settled() {
        let mut log = Log::default();
        let ids: Vec<(Id, DeadLetter)> = (0..20)
            .map(|offset| {
                let letter = letter(offset, "model_refused");
                (log.push(letter.clone().encode()), letter)
            })
            .collect();
        for (id, letter) in ids.into_iter().skip(5) {
            let how = if id.offset == 19 {
                Settlement::Discarded
            } else {
                Settlement::Replayed
            };
            log.settle(id, letter, how);
        }
        let open = request(2, Some(State::Open));
        let (first, next) = log.page(4, &open);
        assert!(first.is_empty() && next.is_some());
        assert_eq!(log.pages(4, open), [4, 3, 2, 1, 0]);
        assert_eq!(
            log.pages(10_000, request(100, Some(State::Discarded))),
            [19]
        );
        assert_eq!(
            log.pages(4, request(3, Some(State::Replayed))),
            (5..19).rev().collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_letter_written_twice_is_one_and_settled_as_one() {
        let mut log = Log::default();
        let twice = letter(7, "model_refused");
        let id = log.push(twice.clone().encode());
        log.push(letter(8, "model_refused").encode());
        let later = DeadLetter {
            failed_at: Timestamp::from_microsecond(9_000).unwrap(),
            ..twice.clone()
        };
        log.push(later.encode());
        assert_eq!(log.pages(10, request(10, None)), [1, 0]);
        log.settle(id, twice, Settlement::Discarded);
        assert_eq!(log.pages(10, request(10, Some(State::Open))), [1]);
    }

    #[test]
    fn what_is_no_letter_is_listed_by_its_own_place_and_can_be_settled() {
        let mut log = Log::default();
        log.push(letter(1, "model_refused").encode());
        let id = log.push(vec![0xff; 9]);
        assert_eq!(log.pages(10, request(10, None)), [1, 0]);
        let mut unreadable = request(10, Some(State::Open));
        unreadable.filter.reason = Some("unreadable_letter".to_owned());
        assert_eq!(log.pages(10, unreadable.clone()), [1]);
        let Entry::Letter(letter) = read(&log.0[1]) else {
            panic!("it is a note");
        };
        log.settle(id, letter, Settlement::Discarded);
        assert!(log.pages(10, unreadable).is_empty());
    }
}
