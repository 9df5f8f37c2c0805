//! A bounded map that forgets the oldest: each shard fills a young generation, and when
//! that holds half of the shard's bound, it becomes the old one and the old one goes.
//!
//! What it keeps true: the bound is never passed, the newest half is always there, and
//! no operation costs more than a hash lookup or two under a short lock. A general cache
//! would remember which entries are used; here age is what matters, and it is cheaper.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, Hash, Hasher, RandomState};

use parking_lot::{Mutex, MutexGuard};
use prometheus::IntGauge;

const SHARDS: usize = 16;

/// What an entry costs, in the unit of the map's bound.
pub(crate) trait Weigh {
    fn weight(&self) -> usize;
}

/// Stands for a tenant and an id: 128 bits of keyed hashes, so that nobody outside can
/// make two ids meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key(u64, u64);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0);
    }
}

/// Makes keys and other hashes, with secrets of this process.
#[derive(Debug, Default)]
pub(crate) struct Hashes(RandomState, RandomState);

impl Hashes {
    pub(crate) fn key(&self, tenant: &str, id: &str) -> Key {
        Key(self.0.hash_one((tenant, id)), self.1.hash_one((tenant, id)))
    }

    pub(crate) fn of<T: Hash>(&self, value: T) -> u64 {
        self.0.hash_one(value)
    }
}

/// A [`Key`] is a hash already.
#[derive(Default)]
pub(crate) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Only for other keys than `Key`, of which there are none.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

type Map<V> = HashMap<Key, V, BuildHasherDefault<Identity>>;

/// The map. Its gauge shows how many entries it holds.
pub(crate) struct Generations<V> {
    shards: [Mutex<Shard<V>>; SHARDS],
    /// Weight of one generation of one shard at most.
    bound: usize,
    gauge: IntGauge,
}

struct Shard<V> {
    young: Map<V>,
    old: Map<V>,
    /// Of the young generation.
    weight: usize,
}

impl<V: Weigh> Generations<V> {
    /// Holds entries of that weight together, at most.
    pub(crate) fn new(capacity: usize, gauge: IntGauge) -> Self {
        let shard = || {
            Mutex::new(Shard {
                young: Map::default(),
                old: Map::default(),
                weight: 0,
            })
        };
        Self {
            shards: std::array::from_fn(|_| shard()),
            bound: capacity.div_ceil(SHARDS * 2),
            gauge,
        }
    }

    /// Keeps only the values that `keep` says yes to. Looks at every one of them.
    pub(crate) fn retain(&self, mut keep: impl FnMut(&V) -> bool) {
        for shard in &self.shards {
            let shard = &mut *shard.lock();
            let before = shard.young.len() + shard.old.len();
            shard.young.retain(|_, value| keep(value));
            shard.old.retain(|_, value| keep(value));
            shard.weight = shard.young.values().map(Weigh::weight).sum();
            let after = shard.young.len() + shard.old.len();
            self.gauge.sub((before - after) as i64);
        }
    }

    /// The place of that key, for looking and changing at once.
    pub(crate) fn lock(&self, key: Key) -> Place<'_, V> {
        Place {
            shard: self.shards[key.1 as usize % SHARDS].lock(),
            key,
            bound: self.bound,
            gauge: &self.gauge,
        }
    }
}

/// The place of one key; its shard is locked.
pub(crate) struct Place<'a, V> {
    shard: MutexGuard<'a, Shard<V>>,
    key: Key,
    bound: usize,
    gauge: &'a IntGauge,
}

impl<V: Weigh> Place<'_, V> {
    pub(crate) fn get(&self) -> Option<&V> {
        self.shard
            .young
            .get(&self.key)
            .or_else(|| self.shard.old.get(&self.key))
    }

    /// The value, to be changed where it is: it grows no younger, and must weigh the same.
    pub(crate) fn get_mut(&mut self) -> Option<&mut V> {
        let shard = &mut *self.shard;
        match shard.young.get_mut(&self.key) {
            None => shard.old.get_mut(&self.key),
            young => young,
        }
    }

    /// Puts the value there, as the youngest, in place of what was there. One that is
    /// heavier than a generation is not kept.
    pub(crate) fn put(&mut self, value: V) {
        self.remove();
        let weight = value.weight();
        if weight > self.bound {
            return;
        }
        let shard = &mut *self.shard;
        if shard.weight + weight > self.bound {
            std::mem::swap(&mut shard.young, &mut shard.old);
            self.gauge.sub(shard.young.len() as i64);
            shard.young.clear();
            shard.weight = 0;
        }
        shard.weight += weight;
        shard.young.insert(self.key, value);
        self.gauge.inc();
    }

    pub(crate) fn remove(&mut self) {
        let shard = &mut *self.shard;
        if let Some(value) = shard.young.remove(&self.key) {
            shard.weight -= value.weight();
            self.gauge.dec();
        } else if shard.old.remove(&self.key).is_some() {
            self.gauge.dec();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Grams(usize);

    impl Weigh for Grams {
        fn weight(&self) -> usize {
            self.0
        }
    }

    fn map(capacity: usize) -> (Generations<Grams>, IntGauge) {
        let gauge = IntGauge::new("entries", "entries").unwrap();
        (Generations::new(capacity, gauge.clone()), gauge)
    }

    #[test]
    fn it_holds_the_newest_and_never_more_than_its_bound() {
        let (map, gauge) = map(3_200);
        let hashes = Hashes::default();
        for n in 0..100_000 {
            let key = hashes.key("tenant", &n.to_string());
            map.lock(key).put(Grams(2));
            assert!(map.lock(key).get().is_some());
            if n % 499 != 0 {
                continue;
            }
            let total: usize = map
                .shards
                .iter()
                .map(|shard| shard.lock())
                .map(|shard| {
                    shard
                        .young
                        .values()
                        .chain(shard.old.values())
                        .map(|v| v.0)
                        .sum::<usize>()
                })
                .sum();
            assert!(total <= 3_200);
            assert_eq!(total as i64, gauge.get() * 2);
        }
        assert!(gauge.get() >= 1_600 / 2);
        assert!(map.lock(hashes.key("tenant", "0")).get().is_none());
    }

    #[test]
    fn replaced_and_removed_entries_give_their_weight_back() {
        let (map, gauge) = map(64 * SHARDS);
        let key = Hashes::default().key("tenant", "id");
        for _ in 0..1_000 {
            map.lock(key).put(Grams(20));
        }
        assert_eq!((map.lock(key).shard.weight, gauge.get()), (20, 1));
        map.lock(key).remove();
        map.lock(key).remove();
        assert_eq!((map.lock(key).shard.weight, gauge.get()), (0, 0));
        map.lock(key).put(Grams(33));
        assert!(map.lock(key).get().is_none(), "heavier than a generation");
        map.lock(key).put(Grams(20));
        map.retain(|grams| grams.0 > 20);
        assert_eq!((map.lock(key).shard.weight, gauge.get()), (0, 0));
    }
}
