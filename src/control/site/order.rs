//! An order as the edges of a site pass it on: what it is about, what it says, when and where it was given.
//!
//! In: an operator's order, or a field of the store's hash of orders with its value. Out: the other one of the two.
//! A later order replaces an earlier one about the same subject. Source: issue 16 §3.

use std::fmt;
use std::time::{Duration, Instant};

use pushgate_plugins::api::{Forget, NodeId, PoolId};
use serde::{Deserialize, Serialize};

use crate::config::units::Rate;
use crate::upstream::drain::Terms;

/// What an order is about; one field of the hash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Whether the node of this name takes flows.
    State(String),
    /// The weight of the node of this name.
    Weight(String),
    /// The assignments of a pool, of one of its nodes or of all, that were made before a second since 1970.
    Assignments {
        /// Name of the pool.
        pool: String,
        /// Name of the node; `None`: all nodes of the pool.
        node: Option<String>,
        /// The second since 1970.
        before: u64,
    },
}

/// What an order says.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The node follows its checks.
    Up,
    /// The node takes flows only of clients that are stuck to it.
    Drain {
        /// When its remaining flows are closed, in milliseconds since 1970; `None`: never.
        until: Option<u64>,
        /// How fast they are closed; `None`: at the node's `evict_rate`.
        rate: Option<String>,
    },
    /// The node is Down.
    Down,
    /// The node has another weight.
    Weight {
        /// The weight, or a percentage of the file's.
        to: String,
        /// The file's weight when the order was given. The order does not hold where the file says otherwise.
        of: u32,
    },
    /// A share of the assignments is forgotten.
    Forget {
        /// From 0.0 to 1.0.
        share: f64,
        /// Whether clients with live flows are spared.
        spares_live: bool,
    },
}

/// An order.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Order {
    /// When it was given, in milliseconds since 1970. An order that was given in the knowledge of another is later than
    /// that, even if clocks differ.
    pub at: u64,
    /// Name of the edge at which it was given.
    pub by: String,
    /// What it says.
    pub what: What,
}

impl Subject {
    /// Returns the subject of a field; `None`: another version wrote it, or an operator.
    pub fn of(field: &str) -> Option<Subject> {
        let (kind, rest) = field.split_once(':')?;
        match kind {
            "state" => Some(Subject::State(rest.to_owned())),
            "weight" => Some(Subject::Weight(rest.to_owned())),
            "forget" => {
                // The name of a node that DNS found has its address.
                let (pool, rest) = rest.split_once(':')?;
                let (node, before) = rest.rsplit_once(':')?;
                Some(Subject::Assignments {
                    pool: pool.to_owned(),
                    node: (node != ALL).then(|| node.to_owned()),
                    before: before.parse().ok()?,
                })
            }
            _ => None,
        }
    }

    /// Whether it names assignments.
    pub fn is_rule(&self) -> bool {
        matches!(self, Subject::Assignments { .. })
    }
}

/// Stands for all nodes of a pool; no node can be called so.
const ALL: &str = "*";

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::State(node) => write!(f, "state:{node}"),
            Subject::Weight(node) => write!(f, "weight:{node}"),
            Subject::Assignments { pool, node, before } => {
                let node = node.as_deref().unwrap_or(ALL);
                write!(f, "forget:{pool}:{node}:{before}")
            }
        }
    }
}

impl Order {
    /// Whether it replaces `other`, an order about the same subject. Of two that were given at the same moment, all
    /// edges choose the same one.
    pub fn replaces(&self, other: &Order) -> bool {
        (self.at, &self.by) > (other.at, &other.by)
    }

    /// Returns the terms of a drain on the clock of this process; `None`: it is no drain. `date` is now, in
    /// milliseconds since 1970.
    pub fn terms(&self, date: u64, now: Instant) -> Option<Terms> {
        let What::Drain { until, rate } = &self.what else {
            return None;
        };
        let ago = Duration::from_millis(date.saturating_sub(self.at));
        let left = until.map(|until| Duration::from_millis(until.saturating_sub(date)));
        Some(Terms {
            since: now.checked_sub(ago).unwrap_or(now),
            until: left.and_then(|left| now.checked_add(left)),
            // A rate that another version wrote and this one cannot read: the node's own holds.
            rate: rate.as_ref().and_then(|rate| rate.parse::<Rate>().ok()),
        })
    }

    /// Returns the rule by which assignments are forgotten; `None`: it is no such order.
    pub fn rule(&self, subject: &Subject) -> Option<Forget> {
        let (Subject::Assignments { pool, node, before }, What::Forget { share, spares_live }) =
            (subject, &self.what)
        else {
            return None;
        };
        Some(Forget {
            pool: PoolId::of(pool),
            node: node.as_deref().map(NodeId::of),
            before: *before,
            share: share.clamp(0.0, 1.0),
            spares_live: *spares_live,
        })
    }

    /// Whether it takes earlier orders back and asks for nothing else, so that an edge that starts need not obey it.
    pub fn clears(&self) -> bool {
        match &self.what {
            What::Up => true,
            What::Weight { to, .. } => to == "100%",
            _ => false,
        }
    }
}

impl What {
    /// Makes an order of it that is given here and passed to nobody.
    pub fn here(self) -> Order {
        Order {
            at: 0,
            by: String::new(),
            what: self,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Up => f.write_str("up"),
            What::Drain { .. } => f.write_str("drain"),
            What::Down => f.write_str("down"),
            What::Weight { to, .. } => write!(f, "weight {to}"),
            What::Forget { share, .. } => write!(f, "forget {:.0} %", share * 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_fields() {
        let rule = |node: Option<&str>| Subject::Assignments {
            pool: "push".into(),
            node: node.map(str::to_owned),
            before: 99,
        };
        for (field, subject) in [
            ("state:ls1", Some(Subject::State("ls1".into()))),
            ("weight:ls.1", Some(Subject::Weight("ls.1".into()))),
            ("forget:push:ls1:99", Some(rule(Some("ls1")))),
            ("forget:push:*:99", Some(rule(None))),
            ("forget:push:*:x", None),
            ("forget:push", None),
            ("forget:push:[::1]:80:99", Some(rule(Some("[::1]:80")))),
            ("mood:ls1", None),
            ("", None),
        ] {
            assert_eq!(Subject::of(field), subject, "{field}");
            if let Some(subject) = subject {
                assert_eq!(subject.to_string(), field);
            }
        }
    }

    /// Aim: what an edge writes, another reads, and the terms of a drain hold on the other's clock. Fails if a deadline
    /// is counted from the moment when the order is read.
    #[test]
    fn orders_are_values() {
        let order = Order {
            at: 1_000,
            by: "a".into(),
            what: What::Drain {
                until: Some(61_000),
                rate: Some("50/s".into()),
            },
        };
        let text = serde_json::to_string(&order).expect("JSON");
        assert_eq!(
            text,
            r#"{"at":1000,"by":"a","what":{"drain":{"until":61000,"rate":"50/s"}}}"#
        );
        let read: Order = serde_json::from_str(&text).expect("an order");
        assert_eq!(read, order);
        let now = Instant::now() + Duration::from_secs(1_000);
        let terms = read.terms(21_000, now).expect("a drain");
        assert_eq!(now - terms.since, Duration::from_secs(20));
        assert_eq!(terms.until, Some(now + Duration::from_secs(40)));
        let late = read.terms(99_000, now).expect("a drain");
        assert_eq!(late.until, Some(now), "the deadline has passed");
        let up = Order {
            what: What::Up,
            ..order
        };
        assert_eq!(serde_json::to_string(&up.what).expect("JSON"), r#""up""#);
        assert!(up.clears() && up.terms(0, now).is_none());
    }
}
