//! What a run knows of one node: the flows it is to close there, in the order its rule meets them.

use pushgate_plugins::api::{Forgotten, NodeId};

use crate::upstream::live_flows::MovableFlow;

/// A flow with the place at which the rule meets it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// 0.0 to below 1.0.
    pub at: f64,
    /// The flow.
    pub flow: MovableFlow,
}

/// What is done to one node.
#[derive(Clone, Debug, Default)]
pub struct NodeProgress {
    /// Clients moved or, where nothing is closed, forgotten (an estimate).
    pub moved: usize,
    /// Share of its assignments forgotten by rule.
    pub share: f64,
    /// Flows it must give, by the last look; where nothing is closed, in all.
    pub due: usize,
    /// Its flows at the beginning.
    pub flows: usize,
    /// Those to be closed, the next one at the end.
    pub(super) queue: Vec<Place>,
    /// Whether the last look found none.
    pub(super) found_none: bool,
    /// Looks in a row after which nothing could be closed.
    pub(super) fruitless: u32,
}

/// A flow that was told to go and is live still.
pub(super) struct Leaving {
    /// Its node.
    pub node: NodeId,
    /// Its number.
    pub flow: u64,
    /// Closed. One whose answer had not begun is tried again; mostly it ends by itself.
    pub closed: bool,
}

impl NodeProgress {
    /// What another process has done to the node, of `flows` at its beginning.
    pub fn carried(moved: usize, share: f64, due: usize, flows: usize) -> Self {
        NodeProgress {
            moved,
            share,
            due,
            flows,
            ..NodeProgress::default()
        }
    }

    /// Drops the next flow with all of its assignment, if those are more than the node must give:
    /// clients behind one address move together, or not at all.
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
        if too_large {
            self.queue.truncate(self.queue.len() - size);
        }
        too_large
    }
}
