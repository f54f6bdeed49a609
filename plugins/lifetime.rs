//! Computes how long an assignment lives: `max_age` minus a jitter that depends on the assignment.
//!
//! In: a number that belongs to the assignment and is the same on every edge. Out: its lifetime. Clients that
//! came together after a storm then do not lose their nodes together.
//! Source: Lightstreamer clustering §4; FAULTS D65.

use std::time::Duration;

use crate::units::Share;

/// Default jitter. It is 48 minutes of 8 hours: the clients of a reconnect storm expire over that span.
pub const JITTER: Share = Share(0.1);

/// The lifetimes of one plugin's assignments.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime {
    /// Longest lifetime; `None`: unlimited.
    pub max_age: Option<Duration>,
    /// Largest part of `max_age` by which a lifetime may be shorter.
    pub jitter: Share,
}

impl Lifetime {
    /// Returns the lifetime of the assignment with this number. Only its highest 24 bits count: they divide
    /// the jitter of 8 h into steps below 2 ms.
    pub fn of(&self, number: u64) -> Option<Duration> {
        let part = (number >> 40) as f64 / f64::from(1 << 24);
        self.max_age.map(|m| m.mul_f64(1.0 - self.jitter.0 * part))
    }
}
