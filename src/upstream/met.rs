//! What flows meet at a node, counted by whoever serves them, read by its check loop.
//!
//! In: failed and answered flows. Out: [`Traffic`]. Source: FAULTS D61 (fails only real traffic).

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::health::judge::Traffic;

/// Counters of one node.
#[derive(Default)]
pub struct Met {
    failed_in_row: AtomicU32,
    counts: AtomicBool,
    answers: AtomicU64,
    errors: AtomicU64,
    pardoned: AtomicBool,
}

impl Met {
    /// A flow failed: no connection, or none that answered.
    pub fn failed(&self) {
        // Wraps after four billion in a row, long after any limit.
        self.failed_in_row.fetch_add(1, Ordering::Relaxed);
    }

    /// A flow was answered with `status`; 0: one without.
    pub fn answered(&self, status: u16) {
        // Read first: threads that only read share the line.
        if self.failed_in_row.load(Ordering::Relaxed) != 0 {
            self.forget_failures();
        }
        if self.counts.load(Ordering::Relaxed) {
            self.answers.fetch_add(1, Ordering::Relaxed);
            self.errors
                .fetch_add((status >= 500).into(), Ordering::Relaxed);
        }
    }

    /// Begins a new row of failures.
    pub fn forget_failures(&self) {
        self.failed_in_row.store(0, Ordering::Relaxed);
    }

    /// Whether answers are counted; nobody looks at them otherwise.
    pub fn set_counts(&self, counts: bool) {
        self.counts.store(counts, Ordering::Relaxed);
    }

    /// All of it.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            failed_in_row: self.failed_in_row.load(Ordering::Relaxed),
            answers: self.answers.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
        }
    }

    /// An operator says that the node is well.
    pub fn pardon(&self) {
        self.pardoned.store(true, Ordering::Release);
    }

    /// Whether one said so since the last look.
    pub fn take_pardon(&self) -> bool {
        self.pardoned.swap(false, Ordering::AcqRel)
    }
}
