//! The queue of flows that wait for a node of a pool.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::queue::FairQueue;
use crate::config;

/// The waiting flows of a pool.
pub struct Waiting {
    pub(super) state: Mutex<State>,
    pub(super) len: AtomicUsize,
    pub(super) patience: Duration,
}

/// The flows that wait.
pub(super) struct State {
    pub(super) queue: FairQueue<oneshot::Sender<Turn>>,
    /// Whether a task is calling flows up.
    pub(super) calling: bool,
    /// Whether flows are turned away, because the pool has a successor.
    pub(super) dissolved: bool,
}

impl Waiting {
    /// Makes an empty queue.
    pub(super) fn new(conf: &config::Pool) -> Self {
        Waiting {
            state: Mutex::new(State {
                queue: FairQueue::new(conf.queue as usize),
                calling: false,
                dissolved: false,
            }),
            len: AtomicUsize::new(0),
            patience: conf.queue_timeout.0,
        }
    }

    /// Number of waiting flows.
    pub fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Sets the number of waiting flows, for a simulation: it has its own queue, and new
    /// flows must join behind it.
    pub fn set_len(&self, len: usize) {
        self.len.store(len, Ordering::Release);
    }

    /// Sends away all waiting flows, in turn, and all that still come: they queue at the pool's successor.
    pub(super) fn dissolve(&self) {
        let mut state = self.state.lock();
        state.dissolved = true;
        while let Some(waits) = state.queue.pop() {
            drop(waits);
        }
        self.len.store(0, Ordering::Release);
    }

    /// Whether no flow waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A flow's turn. Dropping it calls the next flow.
pub(super) struct Turn {
    pub(super) used: bool,
    pub(super) over: Option<oneshot::Sender<bool>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(over) = self.over.take() {
            // The calling task is gone only if its runtime is.
            let _ = over.send(self.used);
        }
    }
}
