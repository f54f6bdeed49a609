//! Decides which assignments a rebalance forgets.
//!
//! In: a rule. Out: whether it covers an assignment, with the same result on every edge.
//! Source: Lightstreamer clustering §5.1.

use super::{NodeId, PoolId};

/// A rule that covers assignments to forget.
#[derive(Clone, Copy, Debug)]
pub struct Forget {
    /// Pool of the assignments.
    pub pool: PoolId,
    /// Node of the assignments; `None`: every node of the pool.
    pub node: Option<NodeId>,
    /// Covers assignments learned before this moment (wall clock, for tokens), in seconds since 1970.
    pub before: u64,
    /// Share of them to forget, 0.0 to 1.0. A hash chooses, so that all edges forget the same ones.
    pub share: f64,
    /// Spares table entries of clients with live flows: those are forgotten by name, when their flows are
    /// closed. A token does not show whether its client has live flows.
    pub spares_live: bool,
}

impl Forget {
    /// Returns whether an assignment of this pool and node is to be forgotten.
    ///
    /// Every edge and every process picks the same share. The hash includes `before`, so that a second
    /// rebalance picks its share afresh among the assignments that the first one left.
    pub fn covers(&self, id: u64, learned: u64) -> bool {
        learned < self.before && self.place(id) < self.share
    }

    /// Returns the share above which the rule covers the assignment, 0.0 to below 1.0.
    pub fn place(&self, id: u64) -> f64 {
        use std::hash::Hasher;
        let mut h = siphasher::sip::SipHasher13::new_with_keys(0x666f_7267, self.before);
        h.write_u64(id);
        // 53 bits, as many as a double holds exactly: a share of 1.0 covers every assignment, 0.0 covers
        // none.
        (h.finish() >> 11) as f64 / STEPS
    }

    /// Returns the smallest share that covers an assignment at `place`.
    pub fn share_at(place: f64) -> f64 {
        (place * STEPS + 1.0) / STEPS
    }
}

/// Number of distinct places: 2⁵³.
const STEPS: f64 = (1_u64 << 53) as f64;
