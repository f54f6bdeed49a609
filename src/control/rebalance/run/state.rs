//! States of a run, with their words in log and API.

/// State of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// Clients are being moved.
    Running,
    /// The last clients are on their way back.
    Settling,
    /// The goal is reached.
    Done,
    /// The pool is still uneven, but no flow is left that may be moved.
    Exhausted,
    /// An operator stopped it, the pool was removed, or a successor continues it.
    Cancelled,
}

impl RunState {
    /// Returns the word used in log and API.
    pub fn as_str(self) -> &'static str {
        match self {
            RunState::Running => "running",
            RunState::Settling => "settling",
            RunState::Done => "done",
            RunState::Exhausted => "exhausted",
            RunState::Cancelled => "cancelled",
        }
    }

    /// Whether the run has ended.
    pub fn is_over(self) -> bool {
        !matches!(self, RunState::Running | RunState::Settling)
    }
}
