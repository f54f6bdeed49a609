//! Which assignments a rebalance forgets.
//!
//! In: a rule. Out: whether it covers an assignment, the same on every edge. Source: Lightstreamer clustering
//! §5.1.

use super::{NodeId, PoolId};

/// Which assignments to forget.
#[derive(Clone, Copy, Debug)]
pub struct Forget {
    /// Of this pool.
    pub pool: PoolId,
    /// Of this node.
    pub node: NodeId,
    /// Those learned before this moment (wall clock, for tokens), in seconds since 1970.
    pub before: u64,
    /// This share of them, 0.0 to 1.0, chosen by hash so that all edges forget the same ones.
    pub share: f64,
    /// Leaves alone what a table remembers of clients with live flows: those are forgotten by
    /// name, when their flows are closed. A token cannot tell.
    pub spares_live: bool,
}

impl Forget {
    /// Whether an assignment of this pool and node is to be forgotten.
    ///
    /// Every edge and every process picks the same share; the moment is hashed too, so that a
    /// second rebalance picks its share afresh among those the first one left.
    pub fn covers(&self, id: u64, learned: u64) -> bool {
        learned < self.before && self.place(id) < self.share
    }

    /// Where the rule meets an assignment as its share grows, 0.0 to below 1.0.
    pub fn place(&self, id: u64) -> f64 {
        use std::hash::Hasher;
        let mut h = siphasher::sip::SipHasher13::new_with_keys(0x666f_7267, self.before);
        h.write_u64(id);
        // 53 bits, all that a double holds exactly: a share of 1.0 covers every one, 0.0 none.
        (h.finish() >> 11) as f64 / STEPS
    }

    /// The smallest share that covers what is at `place`.
    pub fn share_at(place: f64) -> f64 {
        (place * STEPS + 1.0) / STEPS
    }
}

/// Places of a share: 2⁵³.
const STEPS: f64 = (1_u64 << 53) as f64;
