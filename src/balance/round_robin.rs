//! Each node in turn, by weight, interleaved: 2:1 gives A B A, not A A B.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use parking_lot::Mutex;
use pushgate_plugins::api::NodeId;

use super::{Candidate, Method, Seed};

/// `round_robin`: every turn each candidate earns its weight, the richest is chosen and pays the sum.
#[derive(Default)]
pub struct RoundRobin {
    credit: Mutex<HashMap<NodeId, i64, BuildHasherDefault<Hashed>>>,
}

/// A node's id is a hash already: hashing it once more was most of a pick among 1,000 nodes.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Method for RoundRobin {
    fn pick(&self, candidates: &[Candidate], _: Seed) -> usize {
        let mut credit = self.credit.lock();
        let sum: i64 = candidates.iter().map(|c| i64::from(c.weight)).sum();
        let mut best = (0, i64::MIN);
        for (i, c) in candidates.iter().enumerate() {
            let own = credit.entry(c.id).or_insert(0);
            *own += i64::from(c.weight);
            if *own > best.1 {
                best = (i, *own);
            }
        }
        if let Some(own) = credit.get_mut(&candidates[best.0].id) {
            *own -= sum;
        }
        best.0
    }
}
