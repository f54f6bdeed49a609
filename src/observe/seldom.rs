//! Lets a log line through once in ten seconds: a shortage comes with a storm of errors that all say the same.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Shortest time between two lines.
const EVERY: Duration = Duration::from_secs(10);

/// When a line was let through last, in milliseconds from 1; 0: never.
pub struct Seldom(AtomicU64);

impl Seldom {
    /// Makes one that has let no line through.
    pub const fn new() -> Self {
        Seldom(AtomicU64::new(0))
    }

    /// Whether none was let through in the last 10 s; true counts as one.
    pub fn is_due(&self) -> bool {
        static BEGIN: OnceLock<Instant> = OnceLock::new();
        let now = BEGIN.get_or_init(Instant::now).elapsed().as_millis() as u64 + 1;
        let last = self.0.load(Ordering::Relaxed);
        let due = last == 0 || now - last.min(now) >= EVERY.as_millis() as u64;
        let order = Ordering::Relaxed;
        due && self.0.compare_exchange(last, now, order, order).is_ok()
    }
}

impl Default for Seldom {
    fn default() -> Self {
        Seldom::new()
    }
}
