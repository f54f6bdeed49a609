//! The queues of simulated flows that wait while every node of their pool is at its limit.

use std::sync::Arc;
use std::time::Duration;

use crate::balance::Pool;
use crate::balance::queue::FairQueue;

/// The queue of one pool.
pub(super) struct Waiting {
    pub pool: Arc<Pool>,
    pub queue: FairQueue<usize>,
    pub patience: Duration,
    pub calling: bool,
}

impl Waiting {
    /// Returns the number of waiting flows.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Reports the queue's length to the pool.
    pub fn tell(&self) {
        self.pool.waiting.set_len(self.queue.len());
    }
}
