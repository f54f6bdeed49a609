//! Passive health counters of a node: written by flows, read by its check loop.
//!
//! In: failed and answered flows. Out: [`Traffic`]. Source: FAULTS D61 (fails only real traffic).

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::health::tracker::Traffic;

/// Counters of one node.
#[derive(Default)]
pub struct PassiveHealth {
    failed_in_row: AtomicU32,
    /// Clients whose flows broke in this row. Locked while the row changes.
    broken: Mutex<HashSet<IpAddr>>,
    counts: AtomicBool,
    answers: AtomicU64,
    errors: AtomicU64,
    pardoned: AtomicBool,
    /// Wakes the check loop.
    suspect: Notify,
}

/// Most clients counted in one row: the highest limit that can be configured.
const MOST_CLIENTS: usize = 10_000;

impl PassiveHealth {
    /// Counts a flow whose connect to the node failed.
    pub fn failed(&self) {
        {
            let _row = self.broken.lock();
            // Wraps after four billion in a row, long after any limit.
            self.failed_in_row.fetch_add(1, Ordering::Relaxed);
        }
        self.suspect.notify_one();
    }

    /// Counts a flow of `client` that reached the node and broke before an answer, perhaps because of its request.
    ///
    /// Counts each client once in a row. Otherwise a client that sends what makes a node reset could take the
    /// node Down for everyone.
    pub fn broke(&self, client: IpAddr) {
        {
            let mut row = self.broken.lock();
            if row.len() < MOST_CLIENTS && row.insert(client) {
                self.failed_in_row.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.suspect.notify_one();
    }

    /// Waits until a flow failed or an operator pardoned the node.
    pub async fn suspected(&self) {
        self.suspect.notified().await;
    }

    /// Counts a flow that was answered with `status`; 0: an answer without a status.
    pub fn answered(&self, status: u16) {
        // Read before it is written: threads that only read share the cache line.
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
        let mut row = self.broken.lock();
        *row = HashSet::new();
        self.failed_in_row.store(0, Ordering::Relaxed);
    }

    /// Sets whether answers are counted; only a limit on errors needs it.
    pub fn set_counts(&self, counts: bool) {
        self.counts.store(counts, Ordering::Relaxed);
    }

    /// Returns all counters.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            failed_in_row: self.failed_in_row.load(Ordering::Relaxed),
            answers: self.answers.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
        }
    }

    /// Notes that an operator pardoned the node.
    pub fn pardon(&self) {
        self.pardoned.store(true, Ordering::Release);
        self.suspect.notify_one();
    }

    /// Whether an operator pardoned the node since the last call.
    pub fn take_pardon(&self) -> bool {
        self.pardoned.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One client cannot fill a row, however often its flows break; failed connects count for every client.
    /// Fails if a hostile client can take a node Down, or if failures before an answer still count.
    #[test]
    fn one_client_counts_once_in_a_row() {
        let health = PassiveHealth::default();
        let row = || health.traffic().failed_in_row;
        let client = |n: u8| IpAddr::from([192, 0, 2, n]);
        (0..100).for_each(|_| health.broke(client(1)));
        assert_eq!(row(), 1);
        (2..5).for_each(|n| health.broke(client(n)));
        assert_eq!(row(), 4);
        health.failed();
        health.failed();
        assert_eq!(row(), 6);
        health.answered(0);
        assert_eq!(row(), 0);
        health.broke(client(1));
        assert_eq!(row(), 1, "a new row");
    }
}
