//! Stores the rules by which rebalances forget assignments before their expiry, one rule for each rebalance
//! of a node.
//!
//! In: `Forget`. Out: whether an assignment is still good. The edge needs no list of clients, and every edge
//! with the same rules forgets the same tokens.
//! Source: Lightstreamer clustering §5.1.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use crate::api::{Forget, NodeId, PoolId};
use crate::context::Kept;

/// Most rules kept. Beyond it the oldest rule goes. Its assignments that have not been seen since are good
/// again, until their age ends them.
const MAX_RULES: usize = 256;

struct Rule {
    what: Forget,
    /// When the last assignment it covers has expired, in seconds since 1970; `None`: never.
    until: Option<u64>,
}

/// The rules of this process, shared by all listeners and kept across reloads.
#[derive(Default)]
pub struct ForgetRules {
    rules: RwLock<Vec<Rule>>,
    /// Number of rules. It is usually 0, and then nobody takes the lock.
    held: AtomicUsize,
}

impl ForgetRules {
    /// Returns whether any rule covers the assignment. `live`: the client has live flows.
    pub fn cover(&self, pool: PoolId, node: NodeId, id: u64, learned: u64, live: bool) -> bool {
        if self.held.load(Ordering::Acquire) == 0 {
            return false;
        }
        let rules = self.rules.read();
        rules.iter().map(|r| &r.what).any(|r| {
            let of = r.node.is_none_or(|n| n == node) && r.pool == pool && !(live && r.spares_live);
            of && r.covers(id, learned)
        })
    }

    /// Adds a rule and drops those whose assignments have all expired; `max_age` is their longest life. The
    /// plugin of each listener adds the same rule. It is kept once, for the longest of their `max_age`.
    pub fn add(&self, what: &Forget, max_age: Option<Duration>) {
        let until = max_age.map(|age| what.before.saturating_add(age.as_secs()));
        let mut rules = self.rules.write();
        rules.retain(|r| r.until.is_none_or(|end| end >= what.before));
        let twin = rules.iter_mut().find(|r| {
            let r = &r.what;
            (r.pool, r.node, r.before) == (what.pool, what.node, what.before)
        });
        match twin {
            // The same moment chooses by the same hash, so the larger share holds the smaller.
            Some(r) => {
                r.what.share = r.what.share.max(what.share);
                r.what.spares_live &= what.spares_live;
                r.until = r.until.zip(until).map(|(a, b)| a.max(b));
            }
            None => {
                if rules.len() >= MAX_RULES {
                    rules.remove(0);
                }
                rules.push(Rule { what: *what, until });
            }
        }
        self.held.store(rules.len(), Ordering::Release);
    }
}

impl Kept for ForgetRules {
    fn save(&self) -> Option<Vec<u8>> {
        let rules: Vec<_> = self.rules.read().iter().map(Saved::of).collect();
        rmp_serde::to_vec(&rules).ok()
    }

    fn restore(&mut self, saved: &[u8]) {
        if let Ok(saved) = rmp_serde::from_slice::<Vec<Saved>>(saved) {
            let rules = self.rules.get_mut();
            *rules = saved.into_iter().take(MAX_RULES).map(Saved::rule).collect();
            *self.held.get_mut() = rules.len();
        }
    }
}

/// The serialised form of a rule, for the next process.
#[derive(Deserialize, Serialize)]
struct Saved {
    pool: u64,
    node: Option<u64>,
    before: u64,
    share: f64,
    spares_live: bool,
    until: Option<u64>,
}

impl Saved {
    fn of(rule: &Rule) -> Self {
        let Rule { what, until } = rule;
        Saved {
            pool: what.pool.0,
            node: what.node.map(|node| node.0),
            before: what.before,
            share: what.share,
            spares_live: what.spares_live,
            until: *until,
        }
    }

    fn rule(self) -> Rule {
        let what = Forget {
            pool: PoolId(self.pool),
            node: self.node.map(NodeId),
            before: self.before,
            share: self.share,
            spares_live: self.spares_live,
        };
        let until = self.until;
        Rule { what, until }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    fn rule(before: u64, share: f64) -> Forget {
        Forget {
            pool: PoolId::of("push"),
            node: Some(NodeId::of("ls1")),
            before,
            share,
            spares_live: false,
        }
    }

    fn share_of(e: &ForgetRules, pool: &str, node: &str, learned: u64) -> f64 {
        let mut rng = Rng(1);
        let (pool, node) = (PoolId::of(pool), NodeId::of(node));
        let covered = (0..10_000).filter(|_| e.cover(pool, node, rng.next(), learned, false));
        covered.count() as f64 / 10_000.0
    }

    #[test]
    fn a_rule_takes_its_share_of_older_assignments_of_its_node() {
        let e = ForgetRules::default();
        let share = |learned| share_of(&e, "push", "ls1", learned);
        assert_eq!(share(99), 0.0);
        e.add(&rule(100, 0.3), None);
        e.add(&rule(100, 0.3), None);
        assert!((share(99) - 0.3).abs() < 0.02, "a third of the older");
        assert_eq!(share(100), 0.0, "none of the newer");
        assert_eq!(share_of(&e, "push", "ls2", 99), 0.0, "of another node");
        assert_eq!(share_of(&e, "other", "ls1", 99), 0.0, "of another pool");
        // A second rebalance chooses afresh: 0.3 of all, so 1 - 0.7² in sum.
        e.add(&rule(101, 0.3), None);
        assert!((share(99) - 0.51).abs() < 0.02);
        e.add(&rule(102, 1.0), None);
        assert_eq!(share(99), 1.0, "all");
        e.add(&rule(103, 0.0), None);
        assert_eq!(share(102), 0.0, "none");
        let pool = Forget {
            node: None,
            ..rule(200, 1.0)
        };
        e.add(&pool, None);
        let of = |pool, node| share_of(&e, pool, node, 199);
        assert_eq!(
            (of("push", "ls1"), of("push", "ls9"), of("other", "ls1")),
            (1.0, 1.0, 0.0)
        );
    }

    /// A rebalance grows the share of its rule one assignment at a time. The rule must cover those whose
    /// flows it closed, and no others.
    #[test]
    fn a_growing_share_covers_assignments_one_by_one() {
        let mut rng = Rng(2);
        let mut ids: Vec<u64> = (0..1_000).map(|_| rng.next()).collect();
        let first = rule(100, 0.0);
        ids.sort_by(|a, b| first.place(*a).total_cmp(&first.place(*b)));
        for (n, id) in ids.iter().enumerate() {
            let grown = rule(100, Forget::share_at(first.place(*id)));
            let covered = ids.iter().filter(|id| grown.covers(**id, 99));
            assert_eq!(covered.count(), n + 1);
        }
    }

    /// Aim: the process that takes over forgets the same tokens. Fails if a binary upgrade undoes a
    /// rebalance.
    #[test]
    fn rules_pass_to_the_next_process() {
        let old = ForgetRules::default();
        old.add(&rule(100, 0.3), None);
        old.add(&rule(200, 0.1), None);
        let mut new = ForgetRules::default();
        new.restore(b"\xff\xff");
        assert_eq!(share_of(&new, "push", "ls1", 99), 0.0);
        new.restore(&old.save().expect("rules can be saved"));
        assert_eq!(
            share_of(&new, "push", "ls1", 99),
            share_of(&old, "push", "ls1", 99)
        );
        assert!(share_of(&new, "push", "ls1", 150) > 0.05);
    }

    #[test]
    fn live_clients_are_spared_where_the_rule_says_so() {
        let e = ForgetRules::default();
        let (pool, node) = (PoolId::of("push"), NodeId::of("ls1"));
        let sparing = Forget {
            spares_live: true,
            ..rule(100, 1.0)
        };
        e.add(&sparing, None);
        assert!(!e.cover(pool, node, 1, 99, true) && e.cover(pool, node, 1, 99, false));
        e.add(&rule(100, 0.0), None);
        assert!(e.cover(pool, node, 1, 99, true), "the stricter order holds");
    }

    #[test]
    fn rules_are_bounded_and_die_with_the_oldest_assignments() {
        let e = ForgetRules::default();
        for i in 0..1_000 {
            e.add(&rule(i, 0.5), None);
        }
        assert_eq!(e.rules.read().len(), MAX_RULES);
        let e = ForgetRules::default();
        let (short, long) = (Some(Duration::from_secs(10)), Some(Duration::from_secs(90)));
        e.add(&rule(1_000, 0.5), short);
        e.add(&rule(1_001, 0.5), long);
        e.add(&rule(1_001, 0.5), short);
        e.add(&rule(1_050, 0.5), short);
        let kept: Vec<_> = e.rules.read().iter().map(|r| r.what.before).collect();
        assert_eq!(
            kept,
            [1_001, 1_050],
            "a listener's shorter max_age ends no rule of another"
        );
    }
}
