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
    /// Ends the next flow of a Down node, if it is due.
    Evict(usize),
    /// The script orders a rebalance, by its index in the script.
    Rebalance(usize),
    /// The rebalance of a pool does its next step.
    Tick(PoolId),
    /// Looks for nodes that have returned.
    Look,
    /// Gives the next client that waits for a node of the pool its turn, if one has room.
    Turn(PoolId),
    /// `queue_timeout` of a client ends, if it still waits at this epoch.
    Late(usize, u32),
    /// A second has passed.
    Second,
}

/// A duration in the time of events.
pub(super) fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}
