//! Whether the store serves, and since when.

use std::time::Instant;

/// What the store does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// There is no connection to it.
    Away,
    /// It answers too late, so that no flow waits for it.
    Slow,
    /// It answers, but takes nothing more.
    Full,
    /// It serves.
    Ok,
}

impl State {
    /// Every state.
    pub const ALL: [State; 4] = [State::Away, State::Slow, State::Full, State::Ok];

    /// Returns the word used in log, metrics and API.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Away => "away",
            State::Slow => "slow",
            State::Full => "full",
            State::Ok => "ok",
        }
    }
}

/// What the store does, since when, and why.
#[derive(Clone, Debug)]
pub struct Status {
    /// What it does.
    pub state: State,
    /// Since when.
    pub since: Instant,
    /// Why, if it does not serve; the server otherwise.
    pub why: String,
}
