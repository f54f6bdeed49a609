//! Bounds of a table of assignments, as a plugin's block gives them: how long, and how many.
//!
//! In: the keys `max_age`, `expiry`, `capacity`. Out: `Limits`, or what is wrong with them.

use std::time::Duration;

use crate::context::Fault;
use crate::sticky_ip::table::Limits;
use crate::units::MaybeSpan;

/// A phone that slept for less finds its session's node again; no server keeps a session of a
/// client that has been away for longer.
const EXPIRY: MaybeSpan = MaybeSpan(Some(Duration::from_secs(3_600)));

/// 130 MB when full: more clients than one edge serves at once by an order of magnitude.
const CAPACITY: usize = 1_000_000;

/// Most entries that may be asked for: 13 GB.
const MAX_CAPACITY: usize = 100_000_000;

/// The three keys, where they are given.
pub struct Bounds {
    /// Longest life of an assignment from when it was learned.
    pub max_age: Option<MaybeSpan>,
    /// Longest time without a live flow.
    pub expiry: Option<MaybeSpan>,
    /// Most entries.
    pub capacity: Option<usize>,
}

impl Bounds {
    /// What is wrong with them.
    pub fn faults(&self) -> Vec<Fault> {
        let long = |s: Option<MaybeSpan>| {
            let span = s.and_then(|s| s.0);
            span.is_none_or(|d| d >= Duration::from_secs(1))
        };
        let capacity = self
            .capacity
            .is_none_or(|c| (1..=MAX_CAPACITY).contains(&c));
        let keys = [
            (
                long(self.max_age),
                "max_age",
                "expected at least 1s, or `none`",
            ),
            (
                long(self.expiry),
                "expiry",
                "expected at least 1s, or `none`",
            ),
            (capacity, "capacity", "expected 1 to 100000000 entries"),
        ];
        let wrong = keys.into_iter().filter(|(right, ..)| !right);
        wrong.map(|(_, key, why)| Fault::new([key], why)).collect()
    }

    /// The limits, with `max_age` where the block gives none.
    pub fn limits(&self, max_age: MaybeSpan) -> Limits {
        Limits {
            max_age: self.max_age.unwrap_or(max_age).0,
            expiry: self.expiry.unwrap_or(EXPIRY).0,
            capacity: self.capacity.unwrap_or(CAPACITY),
            cut_at_max_age: false,
        }
    }
}
