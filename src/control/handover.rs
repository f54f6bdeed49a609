//! What a process passes on to its successor: listening sockets, what plugins remember of clients, the keys
//! of session tickets, the operator's orders with the terms of drains, and rebalances.
//!
//! Source: FAULTS D69; Lightstreamer clustering §4 (an assignment outlives more than a session).

use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::rebalance::Saved;
use super::site::order_book::SavedOrder;
use crate::upstream::Order;
use crate::upstream::discover::{Answer, Source};
use crate::upstream::drain::Terms;

/// What a process remembers, in a form that can be sent to another process.
#[derive(Default, Deserialize, Serialize)]
pub struct HandoverState {
    /// What plugins remember, by key.
    pub kept: Vec<(String, Vec<u8>)>,
    /// The operator's orders, by the node's name; nodes that follow their checks are not listed.
    pub orders: Vec<(String, Order)>,
    /// The keys of session tickets ([`Ring::export`](crate::tls::tickets::Ring::export)).
    pub tickets: Option<Vec<u8>>,
    /// The last good answers of DNS, which may be the only ones while DNS fails.
    #[serde(default)]
    pub answers: Vec<(Source, Answer)>,
    /// The rebalances that are running.
    #[serde(default)]
    pub rebalances: Vec<Saved>,
    /// The date ([`clock::date`](crate::clock::date)): nothing that was remembered may be of the future.
    #[serde(default)]
    pub date: Option<SystemTime>,
    /// The terms of the drains among the orders.
    #[serde(default)]
    pub drains: Vec<SavedDrain>,
    /// The orders with their dates, as the edges of a site compare them.
    #[serde(default)]
    pub book: Vec<SavedOrder>,
}

/// A running drain, in a form that can be sent to another process.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct SavedDrain {
    /// The node's name.
    pub node: String,
    since: Duration,
    left: Option<Duration>,
    rate: Option<String>,
}

impl SavedDrain {
    /// Saves the drain of the node called `node`.
    pub fn new(node: &str, terms: &Terms, now: Instant) -> Self {
        SavedDrain {
            node: node.to_owned(),
            since: now.saturating_duration_since(terms.since),
            left: terms.until.map(|u| u.saturating_duration_since(now)),
            rate: terms.rate.map(|r| r.to_string()),
        }
    }

    /// Returns the terms on the clock of the process that received them.
    pub fn terms(&self, now: Instant) -> Terms {
        Terms {
            since: now.checked_sub(self.since).unwrap_or(now),
            until: self.left.and_then(|left| now.checked_add(left)),
            // If another version writes a rate this one cannot read, the drain has none.
            rate: self.rate.as_ref().and_then(|rate| rate.parse().ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::Rate;

    /// The time left is what counts, because the clocks of the processes differ.
    #[test]
    fn a_drain_goes_on_by_its_terms() {
        let (here, there) = (Instant::now(), Instant::now() + Duration::from_secs(1000));
        let s = Duration::from_secs;
        for (until, rate) in [
            (Some(s(600)), Some(Rate::a_second(50))),
            (Some(Duration::ZERO), None),
            (None, None),
        ] {
            let at = |now: Instant| Terms {
                since: now,
                until: until.map(|u| now + u),
                rate,
            };
            let saved = SavedDrain::new("n", &at(here), here + s(0));
            let bytes = rmp_serde::to_vec(&saved).expect("bytes");
            let read: SavedDrain = rmp_serde::from_slice(&bytes).expect("a drain");
            assert_eq!(read.terms(there), at(there));
        }
    }
}
