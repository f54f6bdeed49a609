//! Remembers in one word whether a flow's answer has begun and whether its node was evicted.
//!
//! In: the two events, from two threads. Out: for each event, whether the other came first. In one word the later
//! event always sees the earlier one. Two flags would need sequential consistency for that, which loom does not
//! model. tests/loom checks every order.

use super::sync::{AtomicU8, Ordering};

const BEGUN: u8 = 1;
const EVICTED: u8 = 2;

/// The events of a flow so far.
#[derive(Default)]
pub struct Stage(AtomicU8);

impl Stage {
    /// Notes that the answer has begun. Returns whether the node was evicted before.
    pub fn begin(&self) -> bool {
        self.0.fetch_or(BEGUN, Ordering::AcqRel) & EVICTED != 0
    }

    /// Notes that the node was evicted. Returns whether the answer had begun before.
    pub fn evict(&self) -> bool {
        self.0.fetch_or(EVICTED, Ordering::AcqRel) & BEGUN != 0
    }

    /// Whether the answer has begun.
    pub fn has_begun(&self) -> bool {
        self.0.load(Ordering::Acquire) & BEGUN != 0
    }

    /// Whether the node was evicted.
    pub fn is_evicted(&self) -> bool {
        self.0.load(Ordering::Acquire) & EVICTED != 0
    }

    /// Forgets both events, for another try.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Release);
    }
}
