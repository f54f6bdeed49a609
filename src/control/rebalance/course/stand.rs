//! Where a course stands, by the words of log and API.

/// Where a course stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
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

impl Stand {
    /// The word in log and API.
    pub fn word(self) -> &'static str {
        match self {
            Stand::Running => "running",
            Stand::Settling => "settling",
            Stand::Done => "done",
            Stand::Exhausted => "exhausted",
            Stand::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_over(self) -> bool {
        !matches!(self, Stand::Running | Stand::Settling)
    }
}
