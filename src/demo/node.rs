//! The state of a demo node, and the content of its messages. The two nodes share their switches, so that either
//! can start the other again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

/// Names of the two nodes. Lists of their addresses have the same order.
pub const NAMES: [&str; 2] = ["north", "south"];
/// The edge's sticky cookie in the demo.
pub const COOKIE: &str = "PUSHGATE";

/// The state that the two nodes share.
pub(super) struct Both {
    pub(super) up: [AtomicBool; 2],
    /// Held during a switch, because two switches at once could stop both nodes.
    pub(super) switching: Mutex<()>,
    pub(super) metrics: String,
}

/// The state of one node.
pub(super) struct Node {
    pub(super) name: &'static str,
    /// The node's own port, which bypasses the edge.
    pub(super) port: u16,
    /// Number of short answers so far, including polls. Streams count their own messages.
    pub(super) answers: AtomicU64,
    pub(super) both: Arc<Both>,
}

impl Node {
    /// Returns the number of the next short answer; the first is 1.
    pub(super) fn next_answer(&self) -> u64 {
        self.answers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether the node called `name` is up.
    pub(super) fn is_up(&self, name: &str) -> bool {
        let of = NAMES.iter().zip(&self.both.up).find(|(n, _)| **n == name);
        of.is_some_and(|(_, up)| up.load(Ordering::Relaxed))
    }
}

/// The content of every message.
#[derive(Serialize)]
pub(super) struct Message {
    pub(super) node: &'static str,
    pub(super) count: u64,
    pub(super) over: &'static str,
}
