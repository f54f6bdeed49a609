//! How long an assignment lives: `max_age` less its own part of the jitter.
//!
//! In: a number that is the assignment's own and the same on every edge. Out: its life, so that clients that
//! came together after a storm do not lose their nodes together. Source: Lightstreamer clustering §4; FAULTS
//! D65.

use std::time::Duration;

use crate::units::Share;

/// 48 minutes of 8 hours: a reconnect storm's clients expire over that span.
pub const JITTER: Share = Share(0.1);

/// The lives of one plugin's assignments.
#[derive(Clone, Copy, Debug)]
pub struct Lifetime {
    /// The longest; `None`: without end.
    pub max_age: Option<Duration>,
    /// Largest part of `max_age` by which a life may fall short of it.
    pub jitter: Share,
}

impl Lifetime {
    /// The life of the assignment with this number, which counts by its highest 24 bits: they spread 8 h over
    /// less than 2 ms a step.
    pub fn of(&self, number: u64) -> Option<Duration> {
        let part = (number >> 40) as f64 / f64::from(1 << 24);
        self.max_age.map(|m| m.mul_f64(1.0 - self.jitter.0 * part))
    }
}
