//! Remembers how the orders of one certificate went, and tells it: once for each reason.
//!
//! In: results. Out: when the next order may begin, log lines, metrics.

use parking_lot::Mutex;

use crate::acme::pause;
use crate::credentials::{Issued, unix_now};
use crate::observe::metrics;

/// Pause until the next look while another edge orders, in seconds.
const BUSY: i64 = 5;
/// Part of the time left of a new certificate in which it is not ordered again, whatever the folder has: edges that
/// share a folder and differ in their names would order in turn.
const REST: i64 = 3;

/// The state of one certificate's orders. Times are seconds since 1970.
pub struct Progress {
    name: String,
    state: Mutex<State>,
}

/// The orders of a certificate as the admin endpoint shows them.
#[derive(Clone, Debug, serde::Serialize)]
pub struct OrderState {
    /// URL of the authority's directory.
    pub authority: String,
    /// Time of the next order, in seconds since 1970; now, if it is due.
    pub next_order: i64,
    /// Failures since the last success.
    pub failures: u32,
    /// Why the last order failed.
    pub failure: Option<String>,
}

#[derive(Default)]
struct State {
    runs: bool,
    failures: u32,
    /// No order before, after a failure.
    retry: i64,
    /// No order before, after a success.
    rest: i64,
    /// The reason that the log has.
    told: Option<String>,
}

impl Progress {
    /// Begins with no order, for the certificate `name`.
    pub fn new(name: &str) -> Self {
        Progress {
            name: name.to_owned(),
            state: Mutex::default(),
        }
    }

    /// Returns when an order is due that is wanted at `wanted`. `lost`: the file of the last one is gone.
    pub fn due(&self, wanted: i64, lost: bool) -> i64 {
        let state = self.state.lock();
        let rest = if lost { 0 } else { state.rest };
        wanted.max(state.retry).max(rest)
    }

    /// Returns the failures since the last success.
    pub fn failures(&self) -> u32 {
        self.state.lock().failures
    }

    /// Returns the state to show; the next order is due at `next_order`.
    pub fn shown(&self, authority: &str, next_order: i64) -> OrderState {
        let state = self.state.lock();
        OrderState {
            authority: authority.to_owned(),
            next_order,
            failures: state.failures,
            failure: state.told.clone(),
        }
    }

    /// Allows the next try at once.
    pub fn retry_now(&self) {
        self.state.lock().retry = 0;
    }

    /// Notes that an order begins. False: one runs already.
    pub fn begin(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().runs, true)
    }

    /// Notes that another process orders.
    pub fn busy(&self) {
        let mut state = self.state.lock();
        state.runs = false;
        state.retry = unix_now() + BUSY;
    }

    /// Notes a success. `by_another`: another edge of the folder had it.
    pub fn got(&self, authority: &str, issued: &Issued, by_another: bool) {
        let (now, name) = (unix_now(), &self.name);
        let mut state = State::default();
        match by_another {
            // Until the next look has seen the file.
            true => state.retry = now + BUSY,
            false => state.rest = now + issued.until.saturating_sub(now) / REST,
        }
        *self.state.lock() = state;
        if by_another {
            log::info!("certificate {name}: another edge got it from {authority}");
            return;
        }
        self.count("ok");
        let days = issued.until.saturating_sub(now) / 86_400;
        log::info!("certificate {name}: issued by {authority} for {days} days");
    }

    /// Notes a failure. `old`: the end of the certificate that serves on.
    pub fn failed(&self, authority: &str, why: String, old: Option<i64>) {
        self.count("failed");
        let (now, name) = (unix_now(), &self.name);
        let mut state = self.state.lock();
        state.runs = false;
        state.failures = state.failures.saturating_add(1);
        let pause = pause(state.failures, fastrand::f64()).as_secs();
        state.retry = now.saturating_add_unsigned(pause);
        let serves = match old {
            Some(until) if until > now => {
                format!(
                    "the old one serves on, for {} more hours",
                    (until - now) / 3600
                )
            }
            Some(_) => "the old one has ended, and clients refuse it".to_owned(),
            None => "a placeholder that clients refuse stands in".to_owned(),
        };
        let line = format!(
            "certificate {name}: {authority} issues none: {why}; {serves}; trying again in {pause} s"
        );
        if state.told.as_ref() == Some(&why) {
            log::debug!("{line}");
        } else {
            log::error!("{line}");
            state.told = Some(why);
        }
    }

    fn count(&self, result: &str) {
        let orders = &metrics::get().acme_orders;
        orders.with_label_values(&[&self.name, result]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: after a failure the next try waits, and a reload or a success ends the wait. After a success a
    /// certificate that other edges overwrite is not ordered again at once. Fails if two edges with different names
    /// order in turn.
    #[test]
    fn tries_and_rests() {
        let progress = Progress::new("push");
        let now = unix_now();
        assert!(progress.begin());
        assert!(!progress.begin(), "one at a time");
        progress.failed("https://ca/dir", "planned by a test".into(), None);
        assert_eq!(progress.failures(), 1);
        assert!(progress.due(0, true) >= now + 54);
        assert!(progress.begin());
        progress.failed(
            "https://ca/dir",
            "planned by a test".into(),
            Some(now + 90_000),
        );
        assert!(progress.due(0, false) >= now + 162);
        progress.retry_now();
        assert_eq!(progress.due(5, false), 5);
        let issued = Issued {
            from: now,
            until: now + 9000,
            names: Vec::new(),
            authority: String::new(),
        };
        progress.got("https://ca/dir", &issued, false);
        assert_eq!(progress.failures(), 0);
        assert!(progress.due(0, false) >= now + 2999);
        assert_eq!(progress.due(0, true), 0, "its file is gone");
        progress.got("https://ca/dir", &issued, true);
        assert!(progress.due(0, false) <= now + BUSY + 1);
        progress.busy();
        assert!(progress.due(0, true) >= now + BUSY);
    }
}
