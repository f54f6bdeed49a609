//! Events of a simulation. Their time counts in nanoseconds from the start.

use std::time::Duration;

use pushgate_plugins::api::PoolId;

use crate::simulate::script::Action;

pub(super) const SECOND: u64 = 1_000_000_000;

/// An event.
pub(super) enum Event {
    /// A client opens its next flow, unless its epoch has changed.
    Open(usize, u32),
    /// A client leaves for good and another takes its place.
    Replace(usize),
    /// The script does something to a node.
    Action(Action, usize),
    /// Checks find a node dead or alive, unless the script has changed it meanwhile.
    Checked(usize, u32),
    /// Ends the next flow of a Down node at an edge, if it is due.
    Evict(usize, usize),
    /// An edge reads the counts of the others and tells its own.
    Count(usize),
    /// The script orders a rebalance, by its index in the script.
    Rebalance(usize),
    /// The rebalance of a pool, led by an edge, does its next step.
    Tick((usize, PoolId)),
    /// Looks for nodes that have returned.
    Look,
    /// Gives the next client that waits at an edge for a node of the pool its turn, if one has room.
    Turn((usize, PoolId)),
    /// `queue_timeout` of a client ends, if it still waits at this epoch.
    Late(usize, u32),
    /// A second has passed.
    Second,
}

/// A duration in the time of events.
pub(super) fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}
