//! Watches with an epoll when connections end, on a thread that does nothing else.
//!
//! The thread looks twice a millisecond and sleeps in between. If each end woke it, on this very machine,
//! the process that ends the connections would pay for that with a quarter of its time.
//! In: open sockets. Out: the time of each one's end, and the percentiles of all.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Pause between two looks.
const BETWEEN: Duration = Duration::from_micros(500);
/// Longest time to watch.
const PATIENCE: Duration = Duration::from_secs(20);

/// The sockets whose ends are watched.
pub struct Ends {
    epoll: RawFd,
    count: usize,
}

impl Ends {
    /// Registers `descriptors`, at a microsecond each; call it before any of them ends.
    pub fn of(descriptors: &[RawFd]) -> Self {
        // SAFETY: epoll_create1 takes a flag and returns a descriptor, which lives as long as the process.
        let epoll = unsafe { libc::epoll_create1(0) };
        for fd in descriptors {
            let mut event = libc::epoll_event {
                events: (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR | libc::EPOLLET) as u32,
                u64: *fd as u64,
            };
            // SAFETY: both descriptors are open and `event` is one epoll_event.
            unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, *fd, &mut event) };
        }
        let count = descriptors.len();
        Ends { epoll, count }
    }

    /// Waits until all have ended, 20 s at most. Returns the nanoseconds from `start` to each end, sorted.
    pub fn watch(self, start: Instant) -> Vec<u64> {
        let mut ends = HashMap::with_capacity(self.count);
        let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 1024];
        while ends.len() < self.count && start.elapsed() < PATIENCE {
            // SAFETY: `events` has room for as many as are asked for.
            let n = unsafe {
                libc::epoll_wait(self.epoll, events.as_mut_ptr(), events.len() as i32, 0)
            };
            if n <= 0 {
                std::thread::sleep(BETWEEN);
            }
            let now = start.elapsed().as_nanos() as u64;
            for event in &events[..n.max(0) as usize] {
                let fd = event.u64;
                ends.entry(fd).or_insert(now);
            }
        }
        let mut sorted: Vec<u64> = ends.into_values().collect();
        sorted.sort_unstable();
        sorted
    }
}

/// Returns the figures: number of `flows`, percentiles of `ends` (sorted), and CPU until the last end.
pub fn figures(flows: usize, ends: &[u64], cpu_ns: u64) -> Value {
    let ms = |share: f64| {
        let at = ((ends.len() as f64 * share) as usize).min(ends.len().saturating_sub(1));
        ends.get(at).map(|ns| *ns as f64 / 1e6)
    };
    json!({
        "flows": flows, "ended": ends.len(),
        "first_ms": ms(0.0), "p50_ms": ms(0.5), "p99_ms": ms(0.99), "last_ms": ms(1.0),
        "cpu_ms": cpu_ns as f64 / 1e6,
    })
}
