//! Rebalance of a whole site: one edge leads, all close their part, the pace is the site's.
//!
//! The leader plans with the flows of all edges, and publishes for each node the share of its assignments that is
//! forgotten, with the assignments that are spared. Every edge, the leader too, forgets that share and closes its flows
//! of it, so a client is forgotten at all edges whichever closed its flow. Each edge tells the leader which of its flows
//! the rule reaches next; so the leader closes one client at a time, and no more than are due. If the leader dies,
//! another edge continues from what was published. Source: issue 16 §5; Lightstreamer clustering §5.

mod follower;
mod lead;
mod leader;
mod part;
mod planner;
mod site_run;
mod site_runs;
#[cfg(test)]
mod tests;

pub use lead::watch;
pub use part::Part;
pub use site_run::SiteRun;
pub use site_runs::SiteRuns;
