//! The failures in a row of a certificate's orders. They are kept in the state folder: an authority counts those of all
//! edges together, and those from before a restart.
//!
//! In: the last failure. Out: how long no edge orders.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::due::SUSTAINED;

/// Orders that failed since the last success.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Series {
    /// Their number.
    pub failures: u32,
    /// Pause after the last one, in seconds.
    pub pause_s: u64,
    /// Whether a reload has cut a pause of this series.
    pub hurried: bool,
    /// Why the last one failed.
    pub why: String,
}

impl Series {
    /// Returns how long the pause still lasts, `age` after the last failure. A reload (`hurry`) ends the first pause
    /// that it meets, because the operator may have mended the cause. The next ones it cuts to what an authority bears
    /// for ever: a tool may reload every minute.
    pub fn rest(&self, age: Duration, hurry: bool) -> Duration {
        let pause = Duration::from_secs(self.pause_s);
        let pause = match hurry {
            true if !self.hurried => Duration::ZERO,
            true => pause.min(SUSTAINED),
            false => pause,
        };
        pause.saturating_sub(age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: a reload cuts the pause, but not again and again. Fails if a tool that reloads each minute uses up the
    /// authority's limits.
    #[test]
    fn a_reload_cuts_one_pause() {
        let rest = |hurried, age, hurry| {
            let series = Series {
                failures: 5,
                pause_s: 5000,
                hurried,
                why: "planned by a test".into(),
            };
            series.rest(Duration::from_secs(age), hurry).as_secs()
        };
        assert_eq!(rest(false, 0, false), 5000);
        assert_eq!(rest(false, 4999, false), 1);
        assert_eq!(rest(false, 6000, false), 0);
        assert_eq!(rest(false, 0, true), 0, "the first reload");
        assert_eq!(rest(true, 0, true), 800, "the next ones");
        assert_eq!(rest(true, 800, true), 0);
    }
}
