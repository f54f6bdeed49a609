//! A place at a node for a flow that is about to come.

use std::sync::Arc;

use super::Node;

/// Counts as a live flow of its node until it drops.
pub struct Reserved {
    /// The node.
    pub node: Arc<Node>,
}

impl Reserved {
    /// Takes a place at `node`.
    pub fn at(node: Arc<Node>) -> Reserved {
        node.load.enter();
        Reserved { node }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.node.load.leave();
    }
}
