//! Which tokens are forgotten before their time: one rule for each rebalance of a node.
//!
//! In: `Forget`. Out: whether a token is still good. No list of clients is needed, and every
//! edge that gets the same rules forgets the same tokens. Source: Lightstreamer clustering §5.1.

use std::time::{Duration, SystemTime};

use parking_lot::RwLock;
use serde::{Deserialize, Serialize};

use super::token::Token;
use crate::api::{Forget, NodeId, unix_seconds};
use crate::context::Kept;

/// Most rules kept. When it is reached the oldest goes, and the tokens it covered that have not
/// been seen since are good again, until their age ends them.
const MAX_RULES: usize = 256;

/// The rules of this process, shared by all listeners and kept across reloads.
#[derive(Default)]
pub struct Epochs(RwLock<Vec<Forget>>);

impl Epochs {
    /// Whether some rule covers `token`.
    pub fn covers(&self, token: &Token) -> bool {
        self.0
            .read()
            .iter()
            .any(|r| r.node == token.node && r.covers(&token.salt, token.issued))
    }

    /// Adds a rule and drops those whose tokens have all died of age; `max_age` is the longest
    /// life of a token. Each listener's plugin hears the same rule; it is kept once.
    pub fn add(&self, rule: &Forget, max_age: Option<Duration>) {
        let mut rules = self.0.write();
        let at = unix_seconds(rule.before);
        if let Some(age) = max_age {
            rules.retain(|r| unix_seconds(r.before).saturating_add(age.as_secs()) >= at);
        }
        let twin = rules
            .iter_mut()
            .find(|r| r.node == rule.node && unix_seconds(r.before) == at);
        match twin {
            // The same moment chooses by the same hash, so the larger share holds the smaller.
            Some(r) => r.share = r.share.max(rule.share),
            None => {
                if rules.len() >= MAX_RULES {
                    rules.remove(0);
                }
                rules.push(*rule);
            }
        }
    }
}

impl Kept for Epochs {
    fn save(&self) -> Option<Vec<u8>> {
        let rules: Vec<_> = self.0.read().iter().map(Saved::of).collect();
        rmp_serde::to_vec(&rules).ok()
    }

    fn restore(&mut self, saved: &[u8]) {
        if let Ok(rules) = rmp_serde::from_slice::<Vec<Saved>>(saved) {
            *self.0.get_mut() = rules.into_iter().take(MAX_RULES).map(Saved::rule).collect();
        }
    }
}

/// A rule as it travels to another process.
#[derive(Deserialize, Serialize)]
struct Saved {
    node: u64,
    before: u64,
    share: f64,
}

impl Saved {
    fn of(rule: &Forget) -> Self {
        Saved {
            node: rule.node.0,
            before: unix_seconds(rule.before),
            share: rule.share,
        }
    }

    fn rule(self) -> Forget {
        Forget {
            node: NodeId(self.node),
            before: SystemTime::UNIX_EPOCH + Duration::from_secs(self.before),
            share: self.share,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PoolId;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn rule(before: u64, share: f64) -> Forget {
        Forget {
            node: NodeId::of("ls1"),
            before: at(before),
            share,
        }
    }

    fn share_of(e: &Epochs, node: &str, issued: u64) -> f64 {
        let covered = (0..10_000_u64).filter(|i| {
            let mut salt = [0; 7];
            salt.copy_from_slice(&i.to_be_bytes()[1..]);
            let (pool, node) = (PoolId::of("push"), NodeId::of(node));
            e.covers(&Token {
                pool,
                node,
                issued,
                salt,
            })
        });
        covered.count() as f64 / 10_000.0
    }

    #[test]
    fn a_rule_takes_its_share_of_older_tokens_of_its_node() {
        let e = Epochs::default();
        assert_eq!(share_of(&e, "ls1", 99), 0.0);
        e.add(&rule(100, 0.3), None);
        e.add(&rule(100, 0.3), None);
        assert!(
            (share_of(&e, "ls1", 99) - 0.3).abs() < 0.02,
            "a third of the older"
        );
        assert_eq!(share_of(&e, "ls1", 100), 0.0, "none of the newer");
        assert_eq!(share_of(&e, "ls2", 99), 0.0, "none of another node");
        // A second round chooses afresh: 0.3 of all, so 1 - 0.7² in sum.
        e.add(&rule(101, 0.3), None);
        assert!((share_of(&e, "ls1", 99) - 0.51).abs() < 0.02);
        e.add(&rule(102, 1.0), None);
        assert_eq!(share_of(&e, "ls1", 99), 1.0, "all");
        e.add(&rule(103, 0.0), None);
        assert_eq!(share_of(&e, "ls1", 102), 0.0, "none");
    }

    /// Aim: the process that takes over forgets the same tokens. Fails if a binary upgrade undoes a
    /// rebalance.
    #[test]
    fn rules_move_house() {
        let old = Epochs::default();
        old.add(&rule(100, 0.3), None);
        old.add(&rule(200, 0.1), None);
        let mut new = Epochs::default();
        new.restore(b"\xff\xff");
        assert_eq!(share_of(&new, "ls1", 99), 0.0);
        new.restore(&old.save().expect("rules can be saved"));
        assert_eq!(share_of(&new, "ls1", 99), share_of(&old, "ls1", 99));
        assert!(share_of(&new, "ls1", 150) > 0.05);
    }

    #[test]
    fn rules_are_bounded_and_die_with_their_tokens() {
        let e = Epochs::default();
        for i in 0..1_000 {
            e.add(&rule(i, 0.5), None);
        }
        assert_eq!(e.0.read().len(), MAX_RULES);
        e.add(&rule(1_000, 0.5), Some(Duration::from_secs(10)));
        assert_eq!(e.0.read().len(), 11);
    }
}
