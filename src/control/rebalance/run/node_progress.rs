//! Progress of a run at one node, and the flows to close there in the order its rule reaches them.

use std::collections::BTreeSet;

use pushgate_plugins::api::{Forgotten, NodeId};

use crate::upstream::live_flows::MovableFlow;

/// Most assignments of a node that are spared; beyond it the node is left as it is.
const MAX_SPARED: usize = 256;

/// A flow, and where the rule reaches it.
#[derive(Clone, Copy, Debug)]
pub(in crate::control::rebalance) struct Place {
    /// Share at which the rule reaches the flow, from 0.0 to below 1.0.
    pub at: f64,
    /// The flow.
    pub flow: MovableFlow,
}

/// Progress of a run at one node.
#[derive(Clone, Debug, Default)]
pub struct NodeProgress {
    /// Clients moved; without closing, clients forgotten (an estimate).
    pub moved: usize,
    /// Share of its assignments forgotten by the rule.
    pub share: f64,
    /// Flows still to move, by the last look; without closing, by the first.
    pub due: usize,
    /// Its flows at the beginning of the run.
    pub flows: usize,
    /// Marks of assignments below the share whose flows stay, because they are more than are due.
    pub(in crate::control::rebalance) spared: BTreeSet<u64>,
    /// Flows to close; the last one is next.
    pub(super) queue: Vec<Place>,
    /// Whether the last survey found no flow to close.
    pub(super) found_none: bool,
    /// Surveys in a row since a flow was last closed.
    pub(super) fruitless: u32,
}

/// A flow that was ordered to close and may still be live.
pub struct Leaving {
    /// Its node.
    pub node: NodeId,
    /// Its number.
    pub flow: u64,
    /// Whether it was closed. If its answer had not begun, the close is tried again; mostly
    /// the flow ends by itself.
    pub closed: bool,
}

impl NodeProgress {
    /// Restores the predecessor's progress at a node that had `flows` flows at the beginning.
    pub fn carried(moved: usize, share: f64, due: usize, flows: usize) -> Self {
        NodeProgress {
            moved,
            share,
            due,
            flows,
            ..NodeProgress::default()
        }
    }

    /// Drops the next flow and all flows of the same assignment, if they are more than the node must give.
    /// Clients behind one address move together or not at all.
    pub(super) fn skip_large(&mut self) -> bool {
        let Some(next) = self.queue.last().copied() else {
            return false;
        };
        if next.flow.mark.by == Forgotten::Rule {
            return false;
        }
        let same = self.queue.iter().rev().take_while(|p| p.at == next.at);
        let size = same.count();
        let too_large = size > self.due;
        if too_large && self.spared.len() >= MAX_SPARED {
            self.queue.clear();
        } else if too_large {
            self.queue.truncate(self.queue.len() - size);
            self.spared.insert(next.flow.mark.id);
        }
        too_large
    }
}
