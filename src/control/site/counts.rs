//! The flows of a site: what the other edges have at each node, and what this edge may have.
//!
//! In: the reports of the other live edges. Out: counts and shares for the nodes. Pure, but for the nodes.
//! Source: issue 16 §4.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use super::edge_report::{AtNode, AtNodes, EdgeReport};
use crate::upstream::Node;
use crate::upstream::site_share::{SiteShare, ceiling};

/// What the other edges have at one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// Their live flows.
    pub flows: usize,
    /// Flows that they have or may have by `max_flows`.
    pub promised: usize,
    /// Flows that they have or may have by `max_flows_hard`.
    pub promised_hard: usize,
}

/// Adds up what the other edges say, by the name of the node.
pub fn elsewhere<'a>(others: impl Iterator<Item = &'a EdgeReport>) -> HashMap<&'a str, Elsewhere> {
    let mut all: HashMap<&str, Elsewhere> = HashMap::new();
    for report in others {
        for (name, at) in &report.nodes.0 {
            let of = all.entry(name).or_default();
            of.flows += at.flows;
            // An edge that drains uses no room that it does not use yet.
            let may = |most: usize| if report.draining { 0 } else { most };
            of.promised += at.flows.max(may(at.most));
            of.promised_hard += at.flows.max(may(at.most_hard));
        }
    }
    all
}

/// Gives the nodes what the other edges have, and this edge's share of their limits. `edges` counts the edges that take
/// clients, this one included.
pub fn apply(nodes: &[Arc<Node>], others: &HashMap<&str, Elsewhere>, edges: usize, now: Instant) {
    for node in nodes {
        let of = others.get(node.name.as_str()).copied().unwrap_or_default();
        node.load.set_elsewhere(of.flows, edges.saturating_sub(1));
        let (limits, here) = (node.limits.limits(), node.live());
        let share = |limit: Option<usize>, promised| {
            limit.map(|limit| ceiling(limit, here, promised, edges))
        };
        let share = SiteShare {
            edges,
            most: share(limits.max_flows, of.promised),
            most_hard: share(limits.max_flows_hard, of.promised_hard),
        };
        node.limits.share(share, now);
    }
}

/// Counts this edge alone at the nodes, because nobody is heard. It keeps an even part of their limits: the other edges
/// may live, and serve.
pub fn alone(nodes: &[Arc<Node>], edges: usize, now: Instant) {
    for node in nodes {
        node.load.set_elsewhere(0, 0);
        node.limits.share_evenly(edges, now);
    }
}

/// Returns what this edge says of its nodes.
pub fn here(nodes: &[Arc<Node>]) -> AtNodes {
    let mut all = AtNodes::default();
    for node in nodes {
        let (most, most_hard) = node.limits.ceilings();
        let at = AtNode {
            flows: node.live(),
            most: most.unwrap_or(0),
            most_hard: most_hard.unwrap_or(0),
        };
        all.0.insert(node.name.clone(), at);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::OnDown;
    use crate::upstream::LiveFlow;
    use crate::upstream::flow_limiter::{Limits, Room};

    /// Aim: issue 16 §4. Two edges and a node with `max_flows: 10`: the second edge takes what the first one leaves. Fails
    /// if the others' flows or promises do not count, or if a draining edge keeps room.
    #[test]
    fn an_edge_takes_what_the_others_leave() {
        let conf = serde_yaml::from_str("{ address: 10.0.0.1:80 }").expect("a node");
        let node = Node::new("ls1", &conf, OnDown::Evict, None);
        let now = Instant::now();
        let limits = Limits {
            max_flows: Some(10),
            ..Limits::default()
        };
        node.set_limits(limits, now);
        let nodes = [node.clone()];
        let other = |flows, most, draining| EdgeReport {
            draining,
            nodes: AtNodes(
                [(
                    "ls1".to_owned(),
                    AtNode {
                        flows,
                        most,
                        most_hard: 0,
                    },
                )]
                .into(),
            ),
            ..EdgeReport::default()
        };
        for (reports, edges, most, elsewhere_, name) in [
            (vec![other(2, 4, false)], 2, 3, 2, "half of 10 - 4"),
            (vec![other(2, 9, true)], 1, 8, 2, "a draining edge has 2"),
            (vec![other(6, 5, false)], 2, 2, 6, "half of 10 - 6"),
            (vec![other(10, 10, false)], 2, 0, 10, "full"),
            (Vec::new(), 1, 10, 0, "alone"),
        ] {
            let others = elsewhere(reports.iter());
            apply(&nodes, &others, edges, now);
            assert_eq!(node.limits.ceilings().0, Some(most), "{name}");
            assert_eq!(node.load.of_site(), elsewhere_, "{name}");
        }
        alone(&nodes, 2, now);
        assert_eq!(here(&nodes).0["ls1"].most, 5);
        let flows: Vec<_> = (0..5).map(|_| LiveFlow::new()).collect();
        let entered: Vec<_> = flows.iter().map(|f| node.enter(f, None)).collect();
        assert_eq!(node.room(now), Room::Full);
        drop(entered);
    }
}
