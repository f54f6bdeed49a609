//! A token bucket without a clock of its own.

use std::time::{Duration, Instant};

use crate::config::units::Rate;

/// A token bucket: at most `rate` tokens within any one second.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    per_second: f64,
    burst: f64,
    level: f64,
    at: Instant,
}

impl TokenBucket {
    /// Creates a full bucket. It holds enough that a caller who takes a token every `late`, or more often,
    /// loses no token. The stored tokens come on top of those of a second, so the fill rate is lower by as
    /// many.
    pub fn new(rate: Rate, late: Duration, now: Instant) -> Self {
        Self::part(rate, 1, late, now)
    }

    /// Creates a bucket as [`TokenBucket::new`] does, for one of `edges` edges that share the rate.
    pub fn part(rate: Rate, edges: usize, late: Duration, now: Instant) -> Self {
        let per_second = rate.per_second() / edges.max(1) as f64;
        let burst = (per_second * late.as_secs_f64()).max(1.0);
        let mut bucket = Self::with_burst(rate, burst, now);
        bucket.per_second = per_second - (burst - 1.0);
        bucket
    }

    /// Changes to the rate of `other`, and keeps the tokens.
    pub fn change(&mut self, other: TokenBucket, now: Instant) {
        self.wait(now);
        *self = TokenBucket {
            level: self.level.min(other.burst),
            ..other
        };
    }

    /// Creates a full bucket of `burst` tokens, at least one: `rate` in the long run, above it once.
    pub fn with_burst(rate: Rate, burst: f64, now: Instant) -> Self {
        TokenBucket {
            per_second: rate.per_second(),
            burst,
            level: burst,
            at: now,
        }
    }

    /// Lowers the fill rate, so that flows stay under the rate where they arrive, each up to `late` after its
    /// token was taken. A storm is then admitted at 96 to 98 % of its rate.
    pub fn arriving(mut self, late: Duration) -> Self {
        self.per_second /= 1.0 + late.as_secs_f64();
        self
    }

    /// Lowers the level to one token.
    pub fn begun(mut self) -> Self {
        self.level = 1.0;
        self
    }

    /// Returns how long until the next token; zero if the bucket has one.
    pub fn wait(&mut self, now: Instant) -> Duration {
        // Time that runs backwards (another flow read the clock earlier) changes nothing.
        let passed = now.saturating_duration_since(self.at);
        self.at = self.at.max(now);
        self.level = (self.level + passed.as_secs_f64() * self.per_second).min(self.burst);
        // Rounding loses a nanosecond: without the tolerance the last wait would repeat.
        let missing = (1.0 - 1e-6 - self.level).max(0.0);
        Duration::from_secs_f64(missing / self.per_second)
    }

    /// Takes a token if the bucket has one; returns whether it did.
    pub fn take(&mut self, now: Instant) -> bool {
        let there = self.wait(now).is_zero();
        if there {
            self.level -= 1.0;
        }
        there
    }
}
