//! A drain of a node: its deadline, and an estimate of how long its flows will take to end.
//!
//! In: the ages of the node's flows. Out: estimates. Pure, except for the task that waits for the deadline.
//! Source: Lightstreamer clustering §5; issue 6 ("ETA from the ages of its flows").

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::node::Order;
use super::{Node, State};
use crate::config::OnDown;
use crate::config::units::Rate;

impl Node {
    /// Drains the node: it takes no new flows. Once `after` has passed, its remaining flows are closed at
    /// `rate`, else at its `evict_rate`, and the node is Down by this order.
    pub fn drain(self: &Arc<Self>, after: Option<Duration>, rate: Option<Rate>) {
        let since = Instant::now();
        // A rate without a deadline closes the flows at once.
        let until = after.or(rate.map(|_| Duration::ZERO)).map(|a| since + a);
        self.drain_by(Terms { since, until, rate });
    }

    /// As [`Node::drain`], on the terms of an order that another process may have received.
    pub fn drain_by(self: &Arc<Self>, terms: Terms) {
        let Terms { until, rate, .. } = terms;
        // Held to the end, so that a deadline of zero acts only after the order to drain.
        let mut drain = self.drain.lock();
        let close = until.map(|until| {
            let node = Arc::downgrade(self);
            let close = async move {
                tokio::time::sleep_until(until.into()).await;
                if let Some(node) = node.upgrade() {
                    node.close_drained(tokio::task::id(), rate);
                }
            };
            Ending(tokio::spawn(close))
        });
        *drain = Some(Draining { terms, close });
        self.obey(Order::Drain, None);
    }

    /// Returns the terms of its drain until the deadline has passed; `None` if it does not drain.
    pub fn terms(&self) -> Option<Terms> {
        let drain = self.drain.lock();
        let drain = drain.as_ref().filter(|_| self.ordered() == Order::Drain);
        drain.map(|d| d.terms)
    }

    /// Ends the drain whose deadline `task` waited for.
    fn close_drained(&self, task: tokio::task::Id, rate: Option<Rate>) {
        let drain = self.drain.lock();
        let close = drain.as_ref().and_then(|d| d.close.as_ref());
        // A later order has replaced this drain, too late to stop its task.
        if close.is_none_or(|c| c.0.id() != task) {
            return;
        }
        log::warn!("node {}: drain deadline passed; closing flows", self.name);
        self.obey(Order::Down, rate);
        // `keep` is for nodes that fail; this deadline was ordered.
        if self.on_down == OnDown::Keep {
            self.close_all(rate);
        }
    }

    /// Returns the progress of its drain; `None` without an order.
    pub fn progress(&self, now: Instant) -> Option<Progress> {
        if self.order.load(Ordering::Acquire) == 0 {
            return None;
        }
        let terms = self.drain.lock().as_ref().map(|d| d.terms);
        let (since, until) = (terms.map(|t| t.since), terms.and_then(|t| t.until));
        let flows = self.flows.lock().all();
        let ages = flows.iter().map(|f| f.age(now)).collect();
        let left = until.map(|u| u.saturating_duration_since(now));
        Some(Progress {
            since: since.map(|s| now.saturating_duration_since(s)),
            left,
            eta: eta(ages, left),
        })
    }
}

/// Whether the node stays, apart from orders and checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Membership {
    /// It stays.
    Member = 0,
    /// It leaves: it drains, and clients that are stuck to it still come.
    Leaving = 1,
    /// It is removed: no new decision table contains it, but requests that began with an old one may still
    /// come. No connection to it is kept.
    Gone = 2,
}

impl Node {
    /// Sets whether the node stays.
    pub fn set_membership(&self, membership: Membership) {
        let before = self.membership.swap(membership as u8, Ordering::AcqRel);
        if before == membership as u8 {
            return;
        }
        match membership {
            Membership::Member => self.settle(None, "back in the DNS answer"),
            Membership::Leaving => self.settle(None, "no longer in the DNS answer"),
            Membership::Gone => {
                log::info!("node {} ({}) is removed", self.name, self.address);
                self.close_idle();
            }
        }
    }

    /// Whether the node is leaving.
    pub fn is_leaving(&self) -> bool {
        self.membership.load(Ordering::Acquire) == Membership::Leaving as u8
    }

    /// Whether the node is removed.
    pub fn is_gone(&self) -> bool {
        self.membership.load(Ordering::Acquire) == Membership::Gone as u8
    }

    /// Whether a client may keep a connection to the node for its next request.
    pub fn may_keep(&self) -> bool {
        self.state() != State::Down && !self.is_gone()
    }
}

/// The terms of an order to drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// When the order came.
    pub since: Instant,
    /// When the remaining flows are closed; `None`: never.
    pub until: Option<Instant>,
    /// How fast they are closed; `None`: at the node's `evict_rate`.
    pub rate: Option<Rate>,
}

/// A drain.
pub struct Draining {
    /// The terms of its order.
    pub terms: Terms,
    /// The task that waits for the deadline; aborted when the drain is dropped.
    pub close: Option<Ending>,
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
    /// Time since the order; `None` if the order was `down`, without a drain.
    pub since: Option<Duration>,
    /// Time until the remaining flows are closed.
    pub left: Option<Duration>,
    /// When the flows will have ended.
    pub eta: Eta,
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

/// Estimates from the ages of the live flows. If flows come and go steadily, their remaining life is
/// distributed as their age (renewal theory): no flow needs to have ended yet.
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

    fn node() -> Arc<Node> {
        let conf = serde_yaml::from_str("{ address: 10.0.0.1:80 }").expect("a node");
        Node::new("n", &conf, OnDown::Evict, None)
    }

    /// Aim: the last published state is the node's state, even if two threads publish at once. Fails if a
    /// state is computed before its turn: the next real fall would then be no change and evict no flow.
    #[test]
    fn the_last_state_published_is_true() {
        let node = node();
        let both = std::sync::Barrier::new(2);
        for round in 0..20_000 {
            std::thread::scope(|scope| {
                let judge = scope.spawn(|| {
                    both.wait();
                    node.judged(round % 2 == 0, "test");
                });
                both.wait();
                node.order(if round % 3 == 0 {
                    Order::Up
                } else {
                    Order::Down
                });
                judge.join().expect("no panic");
            });
            assert_eq!(*node.watch().borrow(), node.state(), "round {round}");
        }
    }

    /// Aim: an order ends a drain even if its deadline passes at the same moment, and a deadline of zero
    /// follows its drain. Fails if the deadline overrides the later order, or never acts.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_deadline_does_not_outlive_its_drain() {
        let node = node();
        for round in 0..5_000 {
            node.drain(Some(Duration::ZERO), None);
            if round % 2 == 0 {
                tokio::task::yield_now().await;
            }
            node.order(Order::Up);
            let (ordered, later) = (node.state(), tokio::task::yield_now());
            later.await;
            assert_eq!((ordered, node.state()), (State::Up, State::Up), "{round}");
        }
        for round in 0..500 {
            node.drain(None, Some("5/s".parse().expect("a rate")));
            let mut state = node.watch();
            let down = state.wait_for(|s| *s == State::Down);
            let down = tokio::time::timeout(Duration::from_secs(10), down).await;
            down.expect("the deadline has passed").expect("a node");
            assert_eq!(node.state(), State::Down, "{round}");
            node.order(Order::Up);
        }
    }
}
