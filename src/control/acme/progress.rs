//! Remembers how the orders of one certificate went, and tells it: once for each reason.
//!
//! In: results. Out: when the next order may begin, log lines, metrics.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::acme::Series;
use crate::credentials::{Issued, unix_now};
use crate::observe::metrics;

/// Pause until the next look while another edge orders.
const BUSY: Duration = Duration::from_secs(5);
/// Part of the time left of a new certificate in which it is not ordered again, whatever the folder has: edges that
/// share a folder and differ in their names would order in turn.
const REST: u32 = 3;

/// The state of one certificate's orders.
pub struct Progress {
    name: String,
    /// The configuration has it no more, and an order still runs.
    is_removed: AtomicBool,
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
    /// A reload asks for the next order.
    hurry: bool,
    /// No order before, after a failure. The wall clock may jump.
    retry: Option<Instant>,
    /// No order before, after a success.
    rest: Option<Instant>,
    /// The reason that the log has.
    told: Option<String>,
}

impl Progress {
    /// Begins with no order, for the certificate `name`.
    pub fn new(name: &str) -> Self {
        Progress {
            name: name.to_owned(),
            is_removed: AtomicBool::default(),
            state: Mutex::default(),
        }
    }

    /// Returns when an order is due that is wanted at `wanted`, in seconds since 1970. `lost`: the file of the last one
    /// is gone.
    pub fn due(&self, wanted: i64, lost: bool) -> i64 {
        let state = self.state.lock();
        let then = state.retry.max(state.rest.filter(|_| !lost));
        let left = then.map_or(Duration::ZERO, |then| {
            then.saturating_duration_since(Instant::now())
        });
        match left.is_zero() {
            true => wanted,
            // Rounded up.
            false => wanted.max(unix_now().saturating_add_unsigned(left.as_secs() + 1)),
        }
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

    /// Notes that the configuration has the certificate no more.
    pub fn remove(&self) {
        self.is_removed.store(true, Ordering::Relaxed);
        metrics::get().forget_acme(&self.name);
    }

    /// Asks for the next try at once, as far as [`Series::rest`] allows it.
    pub fn hurry(&self) {
        let mut state = self.state.lock();
        state.retry = None;
        state.hurry = true;
    }

    /// Whether a reload asks for the next order.
    pub fn is_hurried(&self) -> bool {
        self.state.lock().hurry
    }

    /// Notes that the file has a good certificate, whoever got it.
    pub fn settled(&self, authority: &str) {
        let mut state = self.state.lock();
        if state.runs || state.failures == 0 {
            return;
        }
        (state.failures, state.told, state.retry) = (0, None, None);
        let name = &self.name;
        log::info!("certificate {name}: another edge got it from {authority}");
    }

    /// Notes that an order begins. False: one runs already.
    pub fn begin(&self) -> bool {
        !std::mem::replace(&mut self.state.lock().runs, true)
    }

    /// Notes that another process orders.
    pub fn busy(&self) {
        let mut state = self.state.lock();
        state.runs = false;
        state.retry = after(BUSY);
    }

    /// Notes a success. `by_another`: another edge of the folder had it.
    pub fn got(&self, authority: &str, issued: &Issued, by_another: bool) {
        let (now, name) = (unix_now(), &self.name);
        let mut state = State::default();
        match by_another {
            // Until the next look has seen the file.
            true => state.retry = after(BUSY),
            false => {
                let left = u64::try_from(issued.until.saturating_sub(now)).unwrap_or_default();
                state.rest = after(Duration::from_secs(left) / REST);
            }
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

    /// Notes a failure, the last of `series`. `old`: the end of the certificate that serves on.
    pub fn failed(&self, authority: &str, series: Series, old: Option<i64>) {
        self.count("failed");
        self.state.lock().hurry = false;
        let pause = Duration::from_secs(series.pause_s);
        self.rests(authority, series, pause, old);
    }

    /// Notes that an order has failed, at this edge or at another one, and that the pause lasts for `rest` from now.
    pub fn rests(&self, authority: &str, series: Series, rest: Duration, old: Option<i64>) {
        let (now, name) = (unix_now(), &self.name);
        let mut state = self.state.lock();
        state.runs = false;
        state.failures = series.failures;
        state.retry = after(rest);
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
        let (why, pause) = (series.why, rest.as_secs());
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
        if self.is_removed.load(Ordering::Relaxed) {
            return;
        }
        let orders = &metrics::get().acme_orders;
        orders.with_label_values(&[&self.name, result]).inc();
    }
}

/// Returns the instant after `pause`; `None` is beyond what the clock counts.
fn after(pause: Duration) -> Option<Instant> {
    Instant::now().checked_add(pause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(failures: u32, pause_s: u64) -> Series {
        Series {
            failures,
            pause_s,
            hurried: false,
            why: "planned by a test".into(),
        }
    }

    /// Aim: after a failure the next try waits, and a reload or a success ends the wait. After a success a
    /// certificate that other edges overwrite is not ordered again at once. Fails if two edges with different names
    /// order in turn.
    #[test]
    fn tries_and_rests() {
        let progress = Progress::new("push");
        let (now, url) = (unix_now(), "https://ca/dir");
        assert!(progress.begin());
        assert!(!progress.begin(), "one at a time");
        progress.failed(url, series(1, 60), None);
        assert_eq!(progress.failures(), 1);
        assert!(progress.due(0, true) >= now + 60);
        assert!(progress.begin());
        progress.failed(url, series(2, 180), Some(now + 90_000));
        assert!(progress.due(0, false) >= now + 180);
        progress.hurry();
        assert_eq!(progress.due(5, false), 5);
        assert!(progress.is_hurried());
        let rest = Duration::from_secs(100);
        progress.rests(url, series(2, 180), rest, None);
        assert!(progress.is_hurried(), "until it has been tried");
        assert!((now + 100..now + 180).contains(&progress.due(0, true)));
        let issued = Issued {
            from: now,
            until: now + 9000,
            names: Vec::new(),
            authority: String::new(),
        };
        progress.got(url, &issued, false);
        assert_eq!(progress.failures(), 0);
        assert!(progress.due(0, false) >= now + 2999);
        assert_eq!(progress.due(0, true), 0, "its file is gone");
        progress.got(url, &issued, true);
        assert!(progress.due(0, false) <= unix_now() + 6);
        progress.busy();
        assert!(progress.due(0, true) >= now + 5);
    }

    /// Aim: a success of another edge ends the failures of this one. Fails if the alert of failures fires on for the
    /// months until this edge orders again.
    #[test]
    fn a_success_elsewhere_counts() {
        let progress = Progress::new("push");
        let url = "https://ca/dir";
        assert!(progress.begin());
        progress.failed(url, series(5, 5000), None);
        assert!(progress.begin());
        progress.settled(url);
        assert_eq!(progress.failures(), 5, "an order runs");
        progress.rests(url, series(5, 5000), BUSY, None);
        progress.settled(url);
        assert_eq!(progress.failures(), 0);
        assert_eq!(progress.shown(url, 0).failure, None);
        assert_eq!(progress.due(7, false), 7);
    }
}
