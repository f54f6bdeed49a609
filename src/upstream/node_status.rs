//! What an operator is told of a node beside its state: since when it is so and what for, how its last check
//! went, how long it is held Down.
//!
//! In: changes of its state, outcomes of its checks. Out: its status, for API and command line.
//! Source: FAULTS D60, D61.

use std::time::{Duration, Instant};

use super::Node;

/// All that is told.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// When it came to its state.
    pub since: Instant,
    /// What for; `None`: it has had no other.
    pub why: Option<String>,
    /// Until when it is Down whatever its checks say.
    pub held_until: Option<Instant>,
    /// Its last check.
    pub check: Option<LastCheck>,
}

/// What a check says of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckResult {
    /// The node is healthy.
    Pass,
    /// The node is unhealthy.
    Fail,
    /// This machine could not make the check.
    Error,
}

impl CheckResult {
    /// The word in metrics and API.
    pub fn as_str(self) -> &'static str {
        match self {
            CheckResult::Pass => "good",
            CheckResult::Fail => "bad",
            CheckResult::Error => "no_verdict",
        }
    }
}

/// How a check went.
#[derive(Clone, Debug)]
pub struct LastCheck {
    /// What it says of the node.
    pub result: CheckResult,
    /// In words.
    pub said: String,
    /// When it ended.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
}

impl NodeStatus {
    /// Of a node that begins `now`.
    pub fn new(now: Instant) -> Self {
        NodeStatus {
            since: now,
            why: None,
            held_until: None,
            check: None,
        }
    }
}

impl Node {
    /// What is told of it.
    pub fn status(&self) -> NodeStatus {
        self.status.lock().clone()
    }

    /// Notes how a check went.
    pub fn was_checked(&self, check: LastCheck) {
        self.status.lock().check = Some(check);
    }

    /// Notes until when its checks cannot raise it.
    pub fn holds(&self, until: Option<Instant>) {
        self.status.lock().held_until = until;
    }

    /// Notes that its state is another, and what for.
    pub(super) fn turned(&self, why: &str) {
        let mut status = self.status.lock();
        status.since = Instant::now();
        status.why = Some(why.to_owned());
    }
}
