//! Measures how late a thread is: the time for which its flows wait although their bytes could be moved.
//!
//! In: a clock. Out: waits for the edge, in the metric of waits. A timer that comes late shows it: what delays the
//! timer delays every flow of the thread. Ten looks a second cost a thread 0.01 % of its time.

use std::time::{Duration, Instant};

use super::meter;
use super::stall::Who;

/// Time between two looks. A thread that is busy for longer than that and [`meter::SHORTEST`] is noticed.
const PERIOD: Duration = Duration::from_millis(100);

/// Watches this thread, for as long as it lives.
pub async fn watch() {
    loop {
        let due = Instant::now() + PERIOD;
        tokio::time::sleep_until(due.into()).await;
        meter::count(Who::Edge.as_str(), due.elapsed());
    }
}
