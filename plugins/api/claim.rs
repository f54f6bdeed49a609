//! What the edges of a site must agree on: which node a client is stuck to, where tables remember it.
//!
//! In: assignments of this edge, and what the site's store knows. Out: entries of tables that agree. The core
//! implements [`Peers`] with a store; plugins with tables implement the rest. Source: docs/scale.md, "A store for the
//! site".

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{NodeId, PoolId};

/// The assignment of one client in one pool.
pub trait Claim: Send + Sync {
    /// Returns the pool.
    fn pool(&self) -> PoolId;

    /// Returns bytes that name the client on every edge. They may hold its address in clear.
    fn name(&self) -> Vec<u8>;

    /// Returns how long the assignment lives while no edge uses it; `None`: for ever.
    fn expiry(&self) -> Option<Duration>;

    /// Returns how long the assignment may still live when it has this age; `None`: for ever.
    fn left(&self, age: Duration) -> Option<Duration>;

    /// Whether only the answer of a node can make it: an id that the node has chosen.
    fn is_proved(&self) -> bool;

    /// Remembers what the site has agreed on. `second`: when it was assigned, since 1970; rules that forget go by it.
    fn adopt(&self, node: NodeId, age: Duration, second: u64) -> Adopted;

    /// Remembers the choice of this edge alone, unless the table has an assignment: then that holds for all flows of
    /// the client, also for those that were late. `second`: now, since 1970.
    fn presume(&self, node: NodeId, second: u64);

    /// Whether the table still has the client at `node`.
    fn holds(&self, node: NodeId) -> bool;

    /// Forgets that the client is stuck to `node`, because another edge has forgotten it.
    fn forget(&self, node: NodeId);
}

/// What became of an assignment on which the site has agreed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// The table has it now, or had it.
    Taken,
    /// The client has live flows at another node; its next flow asks again.
    Contradicted,
    /// A rule has forgotten it, or it is too old.
    Over,
}

/// An assignment in use: the claim, its node, its age.
pub type Used = (Arc<dyn Claim>, NodeId, Duration);

/// A table whose assignments a site shares.
pub trait SharedTable: Send + Sync {
    /// Returns the assignments that were used since `since`, or have live flows.
    fn used(&self, since: Instant) -> Vec<Used>;

    /// Returns the assignment of this [name](Claim::name); `None`: it is of another table.
    fn named(&self, name: &[u8]) -> Option<Arc<dyn Claim>>;

    /// Returns how often the assignments in use must be told again; `None`: never.
    fn renewal(&self) -> Option<Duration>;
}

/// The other edges.
pub trait Peers: Send + Sync {
    /// Called for each table when the configuration that has it comes into force. `place` names the table.
    fn join(&self, place: &str, table: Arc<dyn SharedTable>);

    /// Tells that this edge has assigned a client without asking. `certain`: whatever the site remembers.
    fn assigned(&self, claim: Arc<dyn Claim>, node: NodeId, age: Duration, certain: bool);

    /// Tells that this edge has forgotten that the client is stuck to `node`.
    fn forgot(&self, claim: Arc<dyn Claim>, node: NodeId);
}
