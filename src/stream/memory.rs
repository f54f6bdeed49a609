//! Says whether this process uses more memory than it may, so that it takes no new clients.
//!
//! In: the verdict of the thread that measures. Out: the same for the threads that accept.

use std::sync::atomic::{AtomicBool, Ordering};

static SHORT: AtomicBool = AtomicBool::new(false);

/// Whether new clients must be refused.
pub fn is_short() -> bool {
    SHORT.load(Ordering::Relaxed)
}

/// Notes whether memory is short. Returns whether that is a change.
pub fn set_short(short: bool) -> bool {
    SHORT.swap(short, Ordering::Relaxed) != short
}
