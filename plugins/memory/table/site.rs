//! What a table tells the other edges of a site, and takes over from them.

use std::time::{Duration, Instant};

use super::{Change, Entry, Key, Limits, Listener, Shard, Source, Table};
use crate::api::{Adopted, NodeId};

impl Shard {
    /// Puts an idle entry in the place of what is idle, if there is room.
    fn file(&mut self, key: Key, entry: Entry, limits: &Limits, (shards, now): (usize, Instant)) {
        let known = self.idle.remove(&key);
        self.sweep(limits, now);
        let most = (limits.capacity / shards).max(1);
        if known.is_some() || self.make_room(most, entry.source) {
            self.idle.insert(key, entry.source, entry);
        }
    }
}

impl Table {
    /// Tells `listener` of each later change that did not come from another edge.
    pub fn tell(&self, listener: Listener) {
        *self.listener.write() = Some(listener);
    }

    pub(super) fn changed(&self, change: Change) {
        if let Some(listener) = &*self.listener.read() {
            listener(change);
        }
    }

    /// Remembers what the site has agreed on for `key`. `second`: when it was assigned, since 1970.
    pub fn adopt(
        &self,
        (key, source): (Key, Source),
        (node, age, second): (NodeId, Duration, u64),
        limits: &Limits,
    ) -> Adopted {
        let now = Instant::now();
        let agreed = Entry {
            source,
            // Not reckoned from the age: a second too late, and a rule would not cover it.
            learned_wall: second,
            ..Entry::new(node, age, (now, second))
        };
        let lives = limits.lifetime.of(key.mark()).is_none_or(|life| age < life);
        // Another edge may have live flows of the client; a rule that spares those does not hold here.
        let (mark, since) = (key.mark(), agreed.learned_wall);
        if !lives || self.forget_rules.cover(key.pool, node, mark, since, true) {
            return Adopted::Over;
        }
        let mut shard = self.shard(&key).lock();
        if let Some(entry) = shard.live.get_mut(&key) {
            if entry.node != node && entry.good(&key, limits, now) {
                // Its flows stay; the next one finds nothing here, and asks.
                entry.forgotten = true;
                return Adopted::Contradicted;
            }
            *entry = Entry {
                live: entry.live,
                source: entry.source,
                ..agreed
            };
            return Adopted::Taken;
        }
        shard.file(key, agreed, limits, (self.shards.len(), now));
        Adopted::Taken
    }

    /// Remembers the choice of this edge alone for `key`, unless a good assignment is remembered.
    pub fn presume(
        &self,
        (key, source): (Key, Source),
        (node, second): (NodeId, u64),
        limits: &Limits,
    ) {
        let now = Instant::now();
        let presumed = Entry {
            source,
            ..Entry::new(node, Duration::ZERO, (now, second))
        };
        let mut shard = self.shard(&key).lock();
        let known = shard.live.get(&key).or_else(|| shard.idle.get(&key));
        let holds =
            known.is_some_and(|e| e.good(&key, limits, now) && !self.is_rebalanced(&key, e));
        // A client with live flows at a node that no longer counts is balanced anew, as without a store.
        if !holds && !shard.live.contains_key(&key) {
            shard.file(key, presumed, limits, (self.shards.len(), now));
        }
    }

    /// As [`Table::forget_client`], but nobody is told.
    pub fn forget_named(&self, key: &Key, node: NodeId) {
        self.drop_from(key, node);
    }

    /// Returns the good entries that were used since `since`, or have live flows: key, source, node, age.
    pub fn used(&self, since: Instant, limits: &Limits) -> Vec<(Key, Source, NodeId, Duration)> {
        let now = Instant::now();
        let mut used = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let all = shard.live.iter().chain(shard.idle.iter());
            let of = all
                .filter(|(key, e)| (e.live > 0 || e.touched >= since) && e.good(key, limits, now));
            used.extend(of.map(|(key, e)| {
                let age = now.saturating_duration_since(e.learned);
                (*key, e.source, e.node, age)
            }));
        }
        used
    }
}
