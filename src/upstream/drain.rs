//! A drain of a node: its deadline, and an estimate of how long its flows will take to end.
//!
//! In: the ages of the node's flows. Out: estimates. Pure: `Node` gives the order and waits for the deadline.
//! Source: Lightstreamer clustering §5; issue 6 ("ETA from the ages of its flows").

use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::config::units::Rate;

/// The terms of an order to drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// When the order came.
    pub since: Instant,
    /// When the remaining flows are closed; `None`: never.
    pub until: Option<Instant>,
    /// How fast they are closed; `None`: at the node's `evict_rate`, or all at once without one.
    pub rate: Option<Rate>,
}

/// A drain.
pub struct Draining {
    /// The terms of its order.
    pub terms: Terms,
    /// The task that waits for the deadline; aborted when the drain is dropped.
    pub close: Option<Ending>,
}

impl Terms {
    /// The terms of a drain that began at `since` and closes its flows at `rate` once `after` has passed. A rate
    /// without `after` means a deadline of zero: the node is Down at once, and its flows are closed at that rate.
    pub fn new(since: Instant, after: Option<Duration>, rate: Option<Rate>) -> Self {
        let after = after.or(rate.map(|_| Duration::ZERO));
        let until = after.map(|a| since + a);
        Terms { since, until, rate }
    }
}

impl Draining {
    /// Whether `task` waits for its deadline.
    pub fn is_closed_by(&self, task: tokio::task::Id) -> bool {
        self.close.as_ref().is_some_and(|c| c.0.id() == task)
    }
}

/// A task that ends with its owner.
pub struct Ending(pub JoinHandle<()>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The progress of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Time since the order to drain; `None` if the order was `down`.
    pub since: Option<Duration>,
    /// Time until the remaining flows are closed; `None` without a deadline.
    pub left: Option<Duration>,
    /// An estimate of when the flows will have ended.
    pub eta: Eta,
}

impl Progress {
    /// Returns the progress of a drain on `terms` from the ages of its flows. `terms` is `None` after an order
    /// `down`.
    pub fn new(terms: Option<Terms>, ages: Vec<Duration>, now: Instant) -> Self {
        let left = terms.and_then(|t| t.until);
        let left = left.map(|u| u.saturating_duration_since(now));
        Progress {
            since: terms.map(|t| now.saturating_duration_since(t.since)),
            left,
            eta: eta(ages, left),
        }
    }
}

/// Estimated time until flows have ended by themselves, at most the time until they are closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Eta {
    /// Half of them.
    pub half: Duration,
    /// 95 % of them.
    pub most: Duration,
    /// The last.
    pub last: Duration,
}

/// Estimates from the ages of the live flows: if flows come and go steadily, their remaining life is spread like
/// their present age (renewal theory). No flow needs to have ended yet.
pub fn eta(mut ages: Vec<Duration>, left: Option<Duration>) -> Eta {
    ages.sort_unstable();
    let at = |share: f64| {
        let place = (share * ages.len() as f64).ceil() as usize;
        let age = ages.get(place.saturating_sub(1)).copied();
        let age = age.unwrap_or_default();
        left.map_or(age, |left| left.min(age))
    };
    Eta {
        half: at(0.5),
        most: at(0.95),
        last: at(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_estimates_bounded_by_the_deadline() {
        let s = Duration::from_secs;
        assert_eq!(eta(Vec::new(), None), Eta::default());
        let ages = || (1..=100).rev().map(s).collect();
        let free = eta(ages(), None);
        assert_eq!((free.half, free.most, free.last), (s(50), s(95), s(100)));
        let bounded = eta(ages(), Some(s(60)));
        assert_eq!((bounded.half, bounded.last), (s(50), s(60)));
        assert_eq!(eta(vec![s(7)], None).half, s(7));
    }
}
