//! Sends systemd signs of life, as long as every data thread runs its tasks.
//!
//! In: the data threads. Out: `WATCHDOG=1` twice in each period of `WatchdogSec=`. A thread that hangs ends the
//! signs, and systemd restarts the service. Source: sd_notify(3), sd_watchdog_enabled(3).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;

use crate::observe::systemd;

/// Whether a successor sends the signs.
static RELIEVED: AtomicBool = AtomicBool::new(false);

/// Ends the signs of this process, because a successor sends its own: with both, systemd would not notice that the
/// successor hangs.
pub fn end() {
    RELIEVED.store(true, Ordering::Relaxed);
}

/// Sends signs of life from now on, if systemd wants them.
pub fn start(threads: Vec<Handle>) {
    let Some(period) = period(std::env::var("WATCHDOG_USEC").ok()) else {
        return;
    };
    tokio::spawn(async move {
        while !RELIEVED.load(Ordering::Relaxed) {
            match hung(&threads, period).await {
                None => systemd::alive(),
                Some(n) => log::error!("data thread {n} does not run; no sign of life to systemd"),
            }
            tokio::time::sleep(period).await;
        }
    });
}

/// Returns the pause between two signs. `WATCHDOG_PID` does not count: it names the process that systemd started,
/// and a successor sends the signs for it.
fn period(microseconds: Option<String>) -> Option<Duration> {
    let microseconds: u64 = microseconds?.parse().ok()?;
    (microseconds > 0).then(|| Duration::from_micros(microseconds) / 2)
}

/// Returns the number of a thread that runs no task within `patience`.
async fn hung(threads: &[Handle], patience: Duration) -> Option<usize> {
    let pings: Vec<_> = threads
        .iter()
        .map(|thread| thread.spawn(async {}))
        .collect();
    let until = tokio::time::Instant::now() + patience;
    for (n, ping) in pings.into_iter().enumerate() {
        if tokio::time::timeout_at(until, ping).await.is_err() {
            return Some(n);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_is_half_of_what_systemd_allows() {
        for (given, expected) in [
            (None, None),
            (Some(""), None),
            (Some("0"), None),
            (Some("-1"), None),
            (Some("30000000"), Some(Duration::from_secs(15))),
        ] {
            assert_eq!(period(given.map(str::to_owned)), expected, "{given:?}");
        }
    }

    /// Aim: a thread that does not come round is found. Fails if one good thread speaks for all.
    #[tokio::test]
    async fn a_thread_that_hangs_is_found() {
        let runtime = || {
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .build()
        };
        let (good, bad) = (runtime().expect("a runtime"), runtime().expect("a runtime"));
        let (release, wait) = std::sync::mpsc::sync_channel::<()>(1);
        let threads = [good.handle().clone(), bad.handle().clone()];
        let patience = Duration::from_secs(10);
        assert_eq!(hung(&threads, patience).await, None);
        bad.spawn(async move { wait.recv() });
        assert_eq!(hung(&threads, Duration::from_millis(50)).await, Some(1));
        drop(release);
        assert_eq!(hung(&threads, patience).await, None);
        good.shutdown_background();
        bad.shutdown_background();
    }
}
