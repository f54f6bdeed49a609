//! Where a run stands, by the words of log and API.

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Moves clients.
    Running,
    /// Waits for the last clients to come back.
    Settling,
    /// What was asked for is reached.
    Done,
    /// The pool is uneven still, but no flow is left that may be moved.
    Exhausted,
    /// An operator ended it.
    Cancelled,
}

impl RunState {
    /// The word in log and API.
    pub fn as_str(self) -> &'static str {
        match self {
            RunState::Running => "running",
            RunState::Settling => "settling",
            RunState::Done => "done",
            RunState::Exhausted => "exhausted",
            RunState::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_over(self) -> bool {
        !matches!(self, RunState::Running | RunState::Settling)
    }
}
