//! The status of a node for operators, beside its state: since when and why, its last check, how long it is
//! held Down.
//!
//! In: changes of its state, outcomes of its checks. Out: the status, for API and command line.
//! Source: FAULTS D60, D61.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The status of a node.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// When its state last changed.
    pub since: Instant,
    /// Why; `None` if it never changed.
    pub why: Option<String>,
    /// Until when it is Down whatever its checks say.
    pub held_until: Option<Instant>,
    /// Its last check.
    pub check: Option<LastCheck>,
}

/// The result of a check.
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
    /// Returns the word in metrics and API.
    pub fn as_str(self) -> &'static str {
        match self {
            CheckResult::Pass => "pass",
            CheckResult::Fail => "fail",
            CheckResult::Error => "error",
        }
    }

    /// Returns the word of 0.1, which `pushgate_checks_total` and `check.result` of the API keep for one version.
    pub fn old_str(self) -> &'static str {
        match self {
            CheckResult::Pass => "good",
            CheckResult::Fail => "bad",
            CheckResult::Error => "no_verdict",
        }
    }
}

/// The last check of a node.
#[derive(Clone, Debug)]
pub struct LastCheck {
    /// Its result.
    pub result: CheckResult,
    /// The result in words.
    pub said: String,
    /// When it ended.
    pub at: Instant,
    /// How many seconds it took.
    pub took: Duration,
}

impl NodeStatus {
    /// Creates the status of a node that begins `now`.
    pub fn new(now: Instant) -> Self {
        NodeStatus {
            since: now,
            why: None,
            held_until: None,
            check: None,
        }
    }
}

/// The present status of one node.
pub struct StatusRecord(Mutex<NodeStatus>);

impl StatusRecord {
    /// Creates the status of a node that begins `now`.
    pub fn new(now: Instant) -> Self {
        StatusRecord(Mutex::new(NodeStatus::new(now)))
    }

    /// The status of a node.
    pub fn get(&self) -> NodeStatus {
        self.0.lock().clone()
    }

    /// Notes its last check.
    pub fn was_checked(&self, check: LastCheck) {
        self.0.lock().check = Some(check);
    }

    /// Notes until when checks cannot bring the node up.
    pub fn holds(&self, until: Option<Instant>) {
        self.0.lock().held_until = until;
    }

    /// Notes a change of state and its cause.
    pub fn turned(&self, why: &str) {
        let mut status = self.0.lock();
        status.since = Instant::now();
        status.why = Some(why.to_owned());
    }
}
