//! Serialises the table for the process that takes over: addresses, nodes, ages.
//!
//! It saves ages, not moments, because a monotonic clock's moments mean nothing in another process. Live
//! clients arrive as idle ones, because their flows stay in the old process.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Entry, Key, Source, Table};
use crate::api::{NodeId, PoolId};
use crate::context::Kept;

/// One client's assignment.
#[derive(Deserialize, Serialize)]
struct Saved {
    address: [u8; 16],
    pool: u64,
    node: u64,
    /// Time since the assignment was learned.
    age: Duration,
    learned_wall: u64,
    /// Time since a flow last began or ended; zero with live flows.
    idle: Duration,
    /// Earlier releases save none: each entry is its own source then.
    #[serde(default)]
    source: u64,
}

impl Saved {
    fn of(key: &Key, entry: &Entry, now: Instant) -> Self {
        Saved {
            address: key.address,
            pool: key.pool.0,
            node: entry.node.0,
            age: now.saturating_duration_since(entry.learned),
            learned_wall: entry.learned_wall,
            idle: match entry.live {
                0 => now.saturating_duration_since(entry.touched),
                _ => Duration::ZERO,
            },
            source: entry.source.0,
        }
    }

    fn entry(self, now: Instant) -> (Key, Entry) {
        let key = Key {
            address: self.address,
            pool: PoolId(self.pool),
        };
        let before = |age| now.checked_sub(age).unwrap_or(now);
        let entry = Entry {
            node: NodeId(self.node),
            learned: before(self.age),
            learned_wall: self.learned_wall,
            touched: before(self.idle),
            source: Source(self.source),
            live: 0,
            forgotten: false,
        };
        (key, entry)
    }
}

impl Kept for Table {
    fn save(&self) -> Option<Vec<u8>> {
        let now = Instant::now();
        let mut all = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let entries = shard.idle.iter().chain(&shard.live);
            let good = entries.filter(|(k, e)| !e.forgotten && !self.is_rebalanced(k, e));
            all.extend(good.map(|(k, e)| Saved::of(k, e, now)));
        }
        // The next process also evicts the client that has been idle longest first.
        all.sort_by_key(|s| std::cmp::Reverse(s.idle));
        rmp_serde::to_vec(&all).ok()
    }

    /// Entries beyond the table's capacity make room as in a running table.
    fn restore(&mut self, saved: &[u8]) {
        let now = Instant::now();
        let all = rmp_serde::from_slice::<Vec<Saved>>(saved).unwrap_or_default();
        for one in all {
            let (key, entry) = one.entry(now);
            let mut shard = self.shard(&key).lock();
            shard.make_room(self.most_restored, Source::OWN);
            shard.idle.insert(key, entry.source, entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::super::{Limits, Verdict};
    use super::*;
    use crate::api::How;
    use crate::lifetime::{JITTER, Lifetime};

    const LIMITS: Limits = Limits {
        lifetime: Lifetime {
            max_age: Some(Duration::from_secs(600)),
            jitter: JITTER,
        },
        expiry: Some(Duration::from_secs(60)),
        capacity: 100,
        cut_at_max_age: false,
    };

    fn key(n: u8) -> Key {
        Key::new(IpAddr::from([10, 0, 0, n]), PoolId::of("push"))
    }

    /// Aim: another process recalls the same clients with the same ages, live ones too. Forgotten ones stay
    /// forgotten, and foreign bytes change nothing. Fails if ages begin anew.
    #[test]
    fn a_table_passes_to_the_next_process() {
        let old = Table::new(100);
        let now = Instant::now();
        let learn = |n, age| {
            let verdict = Verdict {
                node: NodeId(u64::from(n)),
                how: How::Recalled {
                    by: "another",
                    age: Duration::from_secs(age),
                },
                own: false,
            };
            old.learn(
                (key(n), Source::OWN),
                &verdict,
                &LIMITS,
                (now, 1_000),
                &|_| true,
            );
        };
        learn(1, 500);
        learn(2, 100);
        old.ended(&key(2), &LIMITS, now);
        let mut new = Table::new(10_000);
        new.restore(b"garbage");
        assert_eq!(new.len(), 0);
        new.restore(&old.save().expect("a table can be saved"));
        let soon = Instant::now();
        for (n, age) in [(1, 500), (2, 100)] {
            let known = new.recall(&key(n), &LIMITS, soon).expect("known");
            assert_eq!(
                (known.node, known.age.as_secs()),
                (NodeId(u64::from(n)), age)
            );
        }
        assert!(
            new.recall(&key(1), &LIMITS, soon + Duration::from_secs(61))
                .is_none()
        );
        assert_eq!(new.len(), 2);
    }

    /// Aim: a process with a smaller `capacity` keeps the clients that were idle for the shortest time, and
    /// takes room from the source that fills the table. Fails if a restored table is larger than configured.
    #[test]
    fn a_restored_table_obeys_its_capacity() {
        let old = Table::new(200);
        let limits = Limits {
            capacity: 200,
            ..LIMITS
        };
        let verdict = Verdict {
            node: NodeId(1),
            how: How::Balanced,
            own: false,
        };
        let start = Instant::now();
        for n in 0..200 {
            // The first ten belong to as many clients, the others to one.
            let client = IpAddr::from([192, 0, 2, n.min(10)]);
            let at = start + Duration::from_millis(n.into());
            let source = Source::of(client);
            old.learn((key(n), source), &verdict, &limits, (at, 1_000), &|_| true);
            old.ended(&key(n), &limits, at);
        }
        let mut new = Table::new(50);
        new.restore(&old.save().expect("a table can be saved"));
        assert_eq!(new.len(), 50);
        let known = |n| new.recall(&key(n), &limits, Instant::now()).is_some();
        assert!((0..10).chain(160..200).all(known));
    }
}
