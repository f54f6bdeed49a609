//! Remembers which client is stuck to which node, in a bounded table that evicts idle entries first.
//!
//! In: flows that begin and end. Out: a node and an assignment's age. Each shard has two parts: clients with
//! live flows, which are never evicted, and [`Idle`] clients, of which the source with the most loses its
//! oldest. An eviction is one step whatever the table's size. An entry takes 130 to 200 bytes.
//! Source: FAULTS D46, D47.

mod saved;
mod site;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::change::{Change, Listener};
use super::idle::Idle;
pub use super::key::Key;
use super::source::Source;
use crate::api::{Forget, Forgotten, How, Mark, NodeId};
use crate::forget_rules::ForgetRules;
use crate::lifetime::Lifetime;

/// Number of locks. Two flows meet at a lock with probability 1 in 64; each holds it for some hundred
/// nanoseconds.
const SHARDS: usize = 64;

/// Fewest entries for each shard. A small table has fewer shards: otherwise a lopsided hash would evict
/// entries long before the table is full.
const SHARD_ENTRIES: usize = 1_024;

/// Part of a shard that one source may fill with live entries at the expense of the idle ones of others. Beyond
/// it, in a full table, the source only takes room from itself.
const LIVE_SHARE: usize = 8;

/// Expired idle entries freed for each one learned: more than one, so that the table shrinks.
const SWEEP: usize = 2;

/// A client's assignment as the table recalls it.
pub struct Known {
    /// The client's node.
    pub node: NodeId,
    /// Age of the assignment.
    pub age: Duration,
    id: u64,
    learned: u64,
}

impl Known {
    /// Returns the mark by which a rebalance finds the assignment.
    pub fn mark(&self, limits: &Limits) -> Mark {
        let left = limits
            .lifetime
            .of(self.id)
            .map(|l| l.saturating_sub(self.age));
        Mark {
            id: self.id,
            learned: self.learned,
            by: Forgotten::Name,
            cut_after: left.filter(|_| limits.cut_at_max_age),
        }
    }
}

/// The limits of one plugin on the table; a reload may change them.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Lifetime of an assignment, counted from when it was learned.
    pub lifetime: Lifetime,
    /// Longest time that a client may be away (no live flow).
    pub expiry: Option<Duration>,
    /// Most entries.
    pub capacity: usize,
    /// Whether a flow is cut when its assignment reaches `max_age`.
    pub cut_at_max_age: bool,
}

/// The core's decision for a flow.
pub struct Verdict {
    /// The node.
    pub node: NodeId,
    /// How the node was chosen.
    pub how: How,
    /// Whether it was recalled from this same table.
    pub own: bool,
}

/// One client's assignment.
#[derive(Clone, Copy, Debug)]
struct Entry {
    node: NodeId,
    learned: Instant,
    /// The wall clock's seconds at that moment, which a rebalance compares.
    learned_wall: u64,
    /// When a flow last began or ended.
    touched: Instant,
    /// The source whose share of the table this entry uses.
    source: Source,
    /// Number of live flows.
    live: u32,
    /// Whether a rebalance forgot it while flows were live: then only `live` still matters.
    forgotten: bool,
}

impl Entry {
    fn new(node: NodeId, age: Duration, (now, wall): (Instant, u64)) -> Self {
        Entry {
            source: Source::OWN,
            node,
            // A clock that began after the assignment was made cannot give its age.
            learned: now.checked_sub(age).unwrap_or(now),
            learned_wall: wall.saturating_sub(age.as_secs()),
            touched: now,
            live: 0,
            forgotten: false,
        }
    }

    fn good(&self, key: &Key, limits: &Limits, now: Instant) -> bool {
        let age = now.saturating_duration_since(self.learned);
        let lives = limits.lifetime.of(key.mark()).is_none_or(|life| age < life);
        !self.forgotten && lives && !self.gone(limits, now)
    }

    /// Whether the client has been away for longer than `expiry`.
    fn gone(&self, limits: &Limits, now: Instant) -> bool {
        let idle = now.saturating_duration_since(self.touched);
        self.live == 0 && limits.expiry.is_some_and(|e| idle >= e)
    }
}

#[derive(Default)]
struct Shard {
    live: HashMap<Key, Entry>,
    idle: Idle<Key, Entry>,
    /// Number of entries in `live` by source, but for those that are their own source.
    live_of: HashMap<Source, u32>,
    /// Live flows of clients for which the table had no room, so that their ends do not count for filed
    /// flows. Bounded by the number of flows; no client is here and in `live`.
    unfiled: HashMap<Key, u32>,
}

/// The assignments of clients. Listeners that use the same name share it; reloads keep it.
pub struct Table {
    shards: Box<[Mutex<Shard>]>,
    /// Most entries of a shard that a table takes over from another process.
    most_restored: usize,
    /// Shares that were rebalanced. They are applied when a client comes, so that no rebalance walks a
    /// million entries.
    forget_rules: ForgetRules,
    /// Keyed at random, so that no attacker can aim addresses at one shard.
    hasher: RandomState,
    /// Hears of changes that the other edges of the site do not know; `None`: this edge is alone.
    listener: RwLock<Option<Listener>>,
}

impl Table {
    /// Makes an empty table for `capacity` entries; each entry allocates its memory when it comes.
    pub fn new(capacity: usize) -> Self {
        let shards = (capacity / SHARD_ENTRIES).clamp(1, SHARDS);
        Table {
            most_restored: (capacity / shards).max(1),
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            forget_rules: ForgetRules::default(),
            hasher: RandomState::new(),
            listener: RwLock::default(),
        }
    }

    /// Returns the node to which `key` is stuck, and the age of the assignment.
    pub fn recall(&self, key: &Key, limits: &Limits, now: Instant) -> Option<Known> {
        let shard = self.shard(key).lock();
        let entry = shard.live.get(key).or_else(|| shard.idle.get(key))?;
        let good = entry.good(key, limits, now) && !self.is_rebalanced(key, entry);
        good.then(|| Known {
            node: entry.node,
            age: now.saturating_duration_since(entry.learned),
            id: key.mark(),
            learned: entry.learned_wall,
        })
    }

    fn is_rebalanced(&self, key: &Key, e: &Entry) -> bool {
        let live = e.live > 0;
        self.forget_rules
            .cover(key.pool, e.node, key.mark(), e.learned_wall, live)
    }

    /// Counts a flow of `key` as live. Remembers its node unless a good assignment is already remembered.
    /// Returns another node if a flow that began meanwhile got one that is `usable`. The entry takes its room
    /// from `source` when it is idle.
    pub fn learn(
        &self,
        (key, source): (Key, Source),
        verdict: &Verdict,
        limits: &Limits,
        at: (Instant, u64),
        usable: &dyn Fn(NodeId) -> bool,
    ) -> Option<NodeId> {
        let mut shard = self.shard(&key).lock();
        let mut known = shard.live.remove(&key).or_else(|| shard.idle.remove(&key));
        if let Some(entry) = &mut known {
            entry.forgotten |= self.is_rebalanced(&key, entry);
        }
        let counted = known.filter(|e| e.live > 0).map(|e| e.source);
        let before = known.map(|e| (e.node, e.learned));
        let (mut entry, answer) = decide((&key, known), verdict, limits, at, usable);
        let flows = entry.live.saturating_add(1);
        shard.sweep(limits, at.0);
        let most = (limits.capacity / self.shards.len()).max(1);
        // A client with live flows keeps its place, even if the table was made smaller since.
        if entry.live > 0 || shard.make_room(most, source) {
            // A new assignment of a client with live flows takes the room of the old one.
            entry.source = counted.unwrap_or_else(|| shard.count_live(source));
            let unfiled = shard.unfiled.remove(&key).unwrap_or_default();
            entry.live = flows.saturating_add(unfiled);
            entry.touched = at.0;
            shard.live.insert(key, entry);
            drop(shard);
            if before != Some((entry.node, entry.learned)) {
                self.changed(Change {
                    key,
                    source,
                    node: entry.node,
                    age: at.0.saturating_duration_since(entry.learned),
                    certain: matches!(verdict.how, How::Rebalanced | How::Pinned),
                    forgotten: false,
                });
            }
        } else {
            let unfiled = shard.unfiled.entry(key).or_default();
            *unfiled = unfiled.saturating_add(1);
        }
        answer
    }

    /// Notes the end of a flow of `key`. After the last one the client is idle.
    pub fn ended(&self, key: &Key, limits: &Limits, now: Instant) {
        let mut shard = self.shard(key).lock();
        let Some(entry) = shard.live.get_mut(key) else {
            return shard.unfiled_ended(key);
        };
        entry.live -= 1;
        entry.touched = now;
        if entry.live == 0
            && let Some(entry) = shard.live.remove(key)
        {
            shard.uncount_live(entry.source);
            if entry.good(key, limits, now) {
                shard.idle.insert(*key, entry.source, entry);
            }
        }
    }

    /// Forgets a share of a node's assignments; entries with live flows keep their count.
    pub fn forget(&self, what: &Forget, limits: &Limits) {
        self.forget_rules.add(what, limits.lifetime.max_age);
    }

    /// Forgets that `key` is stuck to `node`; the entry keeps its count of live flows.
    pub fn forget_client(&self, key: &Key, node: NodeId) {
        if let Some(source) = self.drop_from(key, node) {
            self.changed(Change {
                key: *key,
                source,
                node,
                age: Duration::ZERO,
                certain: true,
                forgotten: true,
            });
        }
    }

    /// Forgets `key` if it is stuck to `node`. Returns who had its room.
    fn drop_from(&self, key: &Key, node: NodeId) -> Option<Source> {
        let mut shard = self.shard(key).lock();
        match shard.live.get_mut(key) {
            Some(entry) if entry.node == node => {
                entry.forgotten = true;
                Some(entry.source)
            }
            Some(_) => None,
            None => {
                shard.idle.get(key).filter(|e| e.node == node)?;
                shard.idle.remove(key).map(|e| e.source)
            }
        }
    }

    /// Returns the number of entries.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        let len = |s: &Mutex<Shard>| {
            let s = s.lock();
            s.live.len() + s.idle.len()
        };
        self.shards.iter().map(len).sum()
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        // Uses the high bits, because the maps within use the low ones.
        let hash = self.hasher.hash_one(key) >> 32;
        &self.shards[hash as usize % self.shards.len()]
    }
}

impl Shard {
    fn sweep(&mut self, limits: &Limits, now: Instant) {
        for _ in 0..SWEEP {
            match self.idle.oldest() {
                Some(e) if e.gone(limits, now) => self.idle.pop_oldest(),
                _ => return,
            };
        }
    }

    /// Notes the end of a flow that was not filed, because live clients filled the table.
    fn unfiled_ended(&mut self, key: &Key) {
        if let Some(flows) = self.unfiled.get_mut(key) {
            *flows -= 1;
            if *flows == 0 {
                self.unfiled.remove(key);
            }
        }
    }

    fn count_live(&mut self, source: Source) -> Source {
        if source != Source::OWN {
            *self.live_of.entry(source).or_default() += 1;
        }
        source
    }

    fn uncount_live(&mut self, source: Source) {
        if let Some(count) = self.live_of.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.live_of.remove(&source);
            }
        }
    }

    /// Makes room for one more entry of `source`. Returns `false` if live clients fill the shard, or if the
    /// source has its share of it and nothing idle.
    fn make_room(&mut self, most: usize, source: Source) -> bool {
        let live = self.live_of.get(&source).copied().unwrap_or_default();
        let is_greedy = live as usize * LIVE_SHARE > most;
        while self.live.len() + self.idle.len() >= most {
            let evicted = match is_greedy {
                true => self.idle.evict_of(source),
                false => self.idle.evict(),
            };
            if evicted.is_none() {
                return false;
            }
        }
        true
    }
}

/// Returns the entry to remember after a flow got a node, and the node it should have got instead.
fn decide(
    (key, known): (&Key, Option<Entry>),
    verdict: &Verdict,
    limits: &Limits,
    at: (Instant, u64),
    usable: &dyn Fn(NodeId) -> bool,
) -> (Entry, Option<NodeId>) {
    let live = known.map_or(0, |e| e.live);
    let fresh = |age| Entry {
        live,
        ..Entry::new(verdict.node, age, at)
    };
    match (verdict.how, known) {
        // Two first flows of a client began at once: the one filed first decides for both.
        (How::Balanced, Some(e)) if e.good(key, limits, at.0) && e.node == verdict.node => {
            (e, None)
        }
        (How::Balanced, Some(e)) if e.good(key, limits, at.0) && usable(e.node) => {
            (e, Some(e.node))
        }
        (How::Balanced | How::Rebalanced | How::Pinned, _) => (fresh(Duration::ZERO), None),
        // A rebalance came between recall and learn: this flow goes on, and the next is balanced.
        (How::Recalled { .. }, Some(e)) if verdict.own => (e, None),
        // A cookie behind a shared address speaks for one client, the table for all of them.
        (How::Recalled { .. }, Some(e)) if e.good(key, limits, at.0) => (e, None),
        (How::Recalled { age, .. }, _) => (fresh(age), None),
    }
}
