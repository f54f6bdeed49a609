//! The facts by which a balancing method chooses a node.

use pushgate_plugins::api::NodeId;

/// Facts of one node that can take the flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Identity, made of the name.
    pub id: NodeId,
    /// Weight, above 0.
    pub weight: u32,
    /// Number of live flows of its server.
    pub live: usize,
}

/// Facts of the flow.
#[derive(Clone, Copy, Debug)]
pub struct Seed {
    /// Hash of the client's address.
    pub client: u64,
    /// A random number.
    pub random: u64,
}

/// A method that compares the facts of nodes, so a small random sample of a large pool serves as well.
pub trait Method: Send + Sync {
    /// Returns the index of the chosen candidate; `candidates` is never empty.
    fn pick(&self, candidates: &[Candidate], seed: Seed) -> usize;
}
