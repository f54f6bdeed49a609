//! Keeps the idle entries of a table in the order in which they became idle, over all of them and by source.
//!
//! In: entries that become idle, are used again, or must make room. Out: the entry to evict: the oldest one of
//! the source that has the most. So a source that fills a table only loses its own entries, and all others stay.
//! Each step is O(1). An entry takes 112 bytes and its place in the index; a source takes 32 and its own.
//! Source: FAULTS D46.

mod sources;

use std::hash::{BuildHasher, Hash, RandomState};

use hashbrown::HashTable;

use super::source::Source;
use sources::{ALONE, EMPTY, Ends, Links, NONE, Sources};

/// Idle entries of type `E` by key.
pub(super) struct Idle<K, E> {
    /// Places in `slots`, by the hash of their key.
    index: HashTable<u32>,
    slots: Vec<Slot<K, E>>,
    free: u32,
    /// All entries, the oldest first.
    all: Ends,
    sources: Sources,
    hasher: RandomState,
}

/// One entry, and its neighbours in both orders.
struct Slot<K, E> {
    key: K,
    entry: E,
    all: Links,
    of_source: Links,
    /// Place of its source; [`NONE`]: its own.
    source: u32,
}

impl<K, E> Default for Idle<K, E> {
    fn default() -> Self {
        Idle {
            index: HashTable::new(),
            slots: Vec::new(),
            free: NONE,
            all: EMPTY,
            sources: Sources::default(),
            hasher: RandomState::new(),
        }
    }
}

impl<K: Copy + Eq + Hash, E: Copy> Idle<K, E> {
    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Returns the entry of `key`.
    pub fn get(&self, key: &K) -> Option<&E> {
        let at = self.place(key)?;
        Some(&self.slots[at as usize].entry)
    }

    /// Adds the newest entry, in place of an older one of the same key.
    pub fn insert(&mut self, key: K, source: Source, entry: E) {
        self.remove(&key);
        let slot = Slot {
            key,
            entry,
            all: ALONE,
            of_source: ALONE,
            source: match source {
                Source::OWN => NONE,
                source => self.sources.place_or_new(source),
            },
        };
        let from = slot.source;
        let at = self.store(slot);
        self.link(at, Order::All);
        if from != NONE {
            self.link(at, Order::Source);
            self.sources.grow(from);
        }
        let (slots, hasher) = (&self.slots, &self.hasher);
        let hash = |at: &u32| hasher.hash_one(slots[*at as usize].key);
        self.index.insert_unique(hasher.hash_one(key), at, hash);
    }

    /// Removes and returns the entry of `key`.
    pub fn remove(&mut self, key: &K) -> Option<E> {
        let at = self.place(key)?;
        Some(self.take(at).1)
    }

    /// Returns the entry that has been idle for longest.
    pub fn oldest(&self) -> Option<&E> {
        self.slots.get(self.all.first as usize).map(|s| &s.entry)
    }

    /// Removes the entry that has been idle for longest.
    pub fn pop_oldest(&mut self) -> Option<(K, E)> {
        let first = self.all.first;
        (first != NONE).then(|| self.take(first))
    }

    /// Removes an entry to make room: the oldest one of the source with the most entries, or the oldest of all
    /// if no source has two.
    pub fn evict(&mut self) -> Option<(K, E)> {
        match self.sources.greediest() {
            Some(first) => Some(self.take(first)),
            None => self.pop_oldest(),
        }
    }

    /// Removes the oldest entry of `source`.
    pub fn evict_of(&mut self, source: Source) -> Option<(K, E)> {
        let first = self.sources.first_of(source)?;
        Some(self.take(first))
    }

    /// Returns all entries, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &E)> {
        let first = self.slots.get(self.all.first as usize);
        let next = |s: &&Slot<K, E>| self.slots.get(s.all.after as usize);
        std::iter::successors(first, next).map(|s| (&s.key, &s.entry))
    }

    fn place(&self, key: &K) -> Option<u32> {
        let is_it = |at: &u32| self.slots[*at as usize].key == *key;
        self.index.find(self.hasher.hash_one(key), is_it).copied()
    }

    /// Stores the slot in a free place.
    fn store(&mut self, slot: Slot<K, E>) -> u32 {
        match self.slots.get(self.free as usize) {
            Some(free) => {
                let at = std::mem::replace(&mut self.free, free.all.after);
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        }
    }

    /// Removes the entry at this place, which is in use.
    fn take(&mut self, at: u32) -> (K, E) {
        self.unlink(at, Order::All);
        let Slot {
            key, entry, source, ..
        } = self.slots[at as usize];
        if source != NONE {
            self.unlink(at, Order::Source);
            self.sources.shrink(source);
        }
        let hash = self.hasher.hash_one(key);
        if let Ok(found) = self.index.find_entry(hash, |other| *other == at) {
            found.remove();
        }
        self.slots[at as usize].all.after = self.free;
        self.free = at;
        (key, entry)
    }

    /// Adds the slot at the end of a list.
    fn link(&mut self, at: u32, order: Order) {
        let last = self.ends(at, order).last;
        let links = Links {
            before: last,
            after: NONE,
        };
        *self.links(at, order) = links;
        match last {
            NONE => self.ends(at, order).first = at,
            last => self.links(last, order).after = at,
        }
        self.ends(at, order).last = at;
    }

    fn unlink(&mut self, at: u32, order: Order) {
        let Links { before, after } = *self.links(at, order);
        match before {
            NONE => self.ends(at, order).first = after,
            before => self.links(before, order).after = after,
        }
        match after {
            NONE => self.ends(at, order).last = before,
            after => self.links(after, order).before = before,
        }
    }

    fn links(&mut self, at: u32, order: Order) -> &mut Links {
        let slot = &mut self.slots[at as usize];
        match order {
            Order::All => &mut slot.all,
            Order::Source => &mut slot.of_source,
        }
    }

    /// Returns the ends of the list in which the slot is.
    fn ends(&mut self, at: u32, order: Order) -> &mut Ends {
        match order {
            Order::All => &mut self.all,
            Order::Source => {
                let source = self.slots[at as usize].source;
                self.sources.entries(source)
            }
        }
    }
}

/// One of the two lists that an entry is in.
#[derive(Clone, Copy)]
enum Order {
    /// That of all entries.
    All,
    /// That of the entries of one source.
    Source,
}

#[cfg(test)]
mod tests;
