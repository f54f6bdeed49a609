//! Orders the sources of idle entries by how many entries each has, so that the one with the most is at hand.
//!
//! In: sources that gain and lose an entry. Out: the ends of a source's list, and the oldest entry of the source
//! with the most. Each step is O(1).

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use crate::memory::source::Source;

/// The sources of the entries, by their number of entries.
pub struct Sources {
    /// Places in `slots`, by the hash of their source.
    index: HashTable<u32>,
    slots: Vec<SourceSlot>,
    free: u32,
    /// The first source that has as many entries as the index says.
    by_count: Vec<u32>,
    /// The largest number of entries of a source.
    most: usize,
    hasher: RandomState,
}

impl Default for Sources {
    fn default() -> Self {
        Sources {
            index: HashTable::new(),
            slots: Vec::new(),
            free: NONE,
            by_count: vec![NONE],
            most: 0,
            hasher: RandomState::new(),
        }
    }
}

/// One source, and its neighbours among those with as many entries.
struct SourceSlot {
    source: Source,
    count: u32,
    entries: Ends,
    equals: Links,
}

impl Sources {
    /// Returns the oldest entry of the source with the most; `None`: no source has two.
    pub fn greediest(&self) -> Option<u32> {
        let at = self.by_count[self.most];
        (self.most > 1).then(|| self.slots[at as usize].entries.first)
    }

    /// Returns the oldest entry of `source`.
    pub fn first_of(&self, source: Source) -> Option<u32> {
        let is_it = |at: &u32| self.slots[*at as usize].source == source;
        let at = *self.index.find(self.hasher.hash_one(source), is_it)?;
        Some(self.slots[at as usize].entries.first)
    }

    /// Returns both ends of the entries of the source at this place.
    pub fn entries(&mut self, at: u32) -> &mut Ends {
        &mut self.slots[at as usize].entries
    }

    /// Returns the place of `source`.
    pub fn place_or_new(&mut self, source: Source) -> u32 {
        let hash = self.hasher.hash_one(source);
        let is_it = |at: &u32| self.slots[*at as usize].source == source;
        if let Some(at) = self.index.find(hash, is_it) {
            return *at;
        }
        let slot = SourceSlot {
            source,
            count: 0,
            entries: EMPTY,
            equals: ALONE,
        };
        let at = match self.slots.get(self.free as usize) {
            Some(free) => {
                let at = std::mem::replace(&mut self.free, free.equals.after);
                self.slots[at as usize] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.join(at);
        let (slots, hasher) = (&self.slots, &self.hasher);
        let rehash = |at: &u32| hasher.hash_one(slots[*at as usize].source);
        self.index.insert_unique(hash, at, rehash);
        at
    }

    /// Returns the number of places, used or not.
    #[cfg(test)]
    pub fn size(&self) -> usize {
        self.slots.len() + self.by_count.len()
    }

    /// Counts one more entry of the source at this place.
    pub fn grow(&mut self, at: u32) {
        self.leave(at);
        self.slots[at as usize].count += 1;
        self.join(at);
    }

    /// Counts one entry less. A source without entries goes.
    pub fn shrink(&mut self, at: u32) {
        self.leave(at);
        let slot = &mut self.slots[at as usize];
        slot.count -= 1;
        let (count, source) = (slot.count, slot.source);
        if count > 0 {
            self.join(at);
        } else {
            let hash = self.hasher.hash_one(source);
            if let Ok(found) = self.index.find_entry(hash, |other| *other == at) {
                found.remove();
            }
            self.slots[at as usize].equals.after = self.free;
            self.free = at;
        }
        // The source that left was the last of the largest: it is now one below, or gone.
        while self.most > 0 && self.by_count[self.most] == NONE {
            self.most -= 1;
        }
    }

    /// Adds the source to those with as many entries.
    fn join(&mut self, at: u32) {
        let count = self.slots[at as usize].count as usize;
        if count == self.by_count.len() {
            self.by_count.push(NONE);
        }
        let after = std::mem::replace(&mut self.by_count[count], at);
        let before = NONE;
        self.slots[at as usize].equals = Links { before, after };
        if let Some(next) = self.slots.get_mut(after as usize) {
            next.equals.before = at;
        }
        self.most = self.most.max(count);
    }

    fn leave(&mut self, at: u32) {
        let SourceSlot { count, equals, .. } = self.slots[at as usize];
        match self.slots.get_mut(equals.before as usize) {
            Some(before) => before.equals.after = equals.after,
            None => self.by_count[count as usize] = equals.after,
        }
        if let Some(after) = self.slots.get_mut(equals.after as usize) {
            after.equals.before = equals.before;
        }
    }
}

/// The neighbours of an element of a list.
#[derive(Clone, Copy)]
pub struct Links {
    pub before: u32,
    pub after: u32,
}

/// Both ends of a list.
#[derive(Clone, Copy)]
pub struct Ends {
    pub first: u32,
    pub last: u32,
}

/// No place. A shard has at most 1.6 million entries, by the largest capacity.
pub const NONE: u32 = u32::MAX;

pub const ALONE: Links = Links {
    before: NONE,
    after: NONE,
};

pub const EMPTY: Ends = Ends {
    first: NONE,
    last: NONE,
};
