//! What one edge tells the others at once, on the channel of orders.
//!
//! In: an order, or flows to close. Out: JSON, and back. News may be lost: what must hold is also in the store.
//! Source: issue 16 §3.

use serde::{Deserialize, Serialize};

use super::order::Order;
use crate::control::rebalance::site::SiteRun;

/// One message.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// An order, by the field of its subject.
    Order(String, Order),
    /// The live flows of a node are closed, once. Not kept: an edge that does not hear it closes none.
    Evict {
        /// Name of the node.
        node: String,
        /// Name of the edge at which it was ordered.
        by: String,
    },
    /// The state of a rebalance has changed.
    Rebalance(Box<SiteRun>),
    /// The rebalance of the pool of this name is to stop where it is.
    CancelRebalance(String),
}

/// A message with its sender, who hears it too.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Message {
    /// Tells processes apart.
    pub from: String,
    /// What it says.
    pub news: News,
}
