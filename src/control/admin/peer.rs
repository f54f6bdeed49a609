//! The other side of an operator's connection: who it is, whether it may, and whether it makes progress.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The other side of a connection.
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    is_trusted: AtomicBool,
    since: Instant,
    /// Milliseconds from `since` to the last byte read or written.
    progress: AtomicU64,
}

impl Peer {
    /// A peer that has shown no token yet.
    pub fn new(address: SocketAddr) -> Arc<Self> {
        Arc::new(Peer {
            address,
            is_trusted: AtomicBool::new(false),
            since: Instant::now(),
            progress: AtomicU64::new(0),
        })
    }

    /// Notes that a request of this connection passed the guard.
    pub fn trust(&self) {
        self.is_trusted.store(true, Ordering::Relaxed);
    }

    /// Whether a request of this connection passed the guard.
    pub fn is_trusted(&self) -> bool {
        self.is_trusted.load(Ordering::Relaxed)
    }

    /// Notes that a byte was read or written.
    pub fn progresses(&self) {
        let passed = self.since.elapsed().as_millis() as u64;
        self.progress.store(passed, Ordering::Relaxed);
    }

    /// Returns the time since the last byte.
    pub fn stalled(&self) -> Duration {
        let last = Duration::from_millis(self.progress.load(Ordering::Relaxed));
        self.since.elapsed().saturating_sub(last)
    }
}
