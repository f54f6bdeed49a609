//! When connections end, as the kernel tells it: an epoll of a thread that does nothing else.
//!
//! It looks twice a millisecond and sleeps in between: were it woken by each end, as clients on this very
//! machine are, who ends them would pay for that, a quarter of its time.
//! In: open sockets. Out: the time of each one's end, and the percentiles of all.

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// From one look to the next.
const BETWEEN: Duration = Duration::from_micros(500);
/// Looks no longer than that.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sockets whose ends are waited for.
pub struct Ends {
    epoll: RawFd,
    count: usize,
}

impl Ends {
    /// Of `descriptors`, registered before anything ends: that takes a microsecond each.
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

    /// Nanoseconds from `start` to each end, the first ones first.
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

/// The figures of `ends`, sorted, of `flows`, and of the CPU nanoseconds it took until the last.
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
