//! Observes what a hostile client does to others: an ordinary client beside it, the edge's memory, its
//! counters.
//!
//! In: a running edge. Out: the longest time of a request, the most memory, the reasons of ended connections.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::client::h2::H2;
use crate::setup::Setup;

/// Longest allowed time of an ordinary client's request; includes the delay of a loaded two-core machine.
pub const WORST: Duration = Duration::from_secs(2);
/// Most memory that a hostile client may cost.
pub const MEMORY: u64 = 64 << 20;
/// Pause between two requests of the ordinary client.
const PACE: Duration = Duration::from_millis(10);

/// A client that sends one small request each 10 ms on its own connection.
pub struct Witness {
    pid: u32,
    before: u64,
    seen: Arc<Mutex<Seen>>,
    asks: JoinHandle<()>,
}

/// Results of its requests.
struct Seen {
    worst: Duration,
    answered: usize,
    /// When the pending request was sent.
    asked: Option<Instant>,
}

const NOTHING: Seen = Seen {
    worst: Duration::ZERO,
    answered: 0,
    asked: None,
};

impl Witness {
    /// Starts the client.
    pub async fn start(setup: &Setup) -> Witness {
        let mut client = H2::connect(&setup.tls()).await;
        assert_eq!(client.get("/hello", &[]).await.status(), 200);
        let seen = Arc::new(Mutex::new(NOTHING));
        let noted = seen.clone();
        let asks = tokio::spawn(async move {
            loop {
                let at = Instant::now();
                noted.lock().asked = Some(at);
                assert_eq!(client.get("/hello", &[]).await.status(), 200);
                {
                    let mut noted = noted.lock();
                    noted.worst = noted.worst.max(at.elapsed());
                    noted.answered += 1;
                    noted.asked = None;
                }
                tokio::time::sleep(PACE).await;
            }
        });
        let mut witness = Witness {
            pid: setup.edge.pid(),
            before: 0,
            seen,
            asks,
        };
        witness.begin();
        witness
    }

    /// Resets the observations.
    pub fn begin(&mut self) {
        *self.seen.lock() = NOTHING;
        // Writing 5 resets the peak to the resident size: proc(5).
        std::fs::write(format!("/proc/{}/clear_refs", self.pid), "5").expect("clear_refs");
        self.before = peak(self.pid);
    }

    /// Peak memory in bytes since [`Witness::begin`], beyond the memory at that time.
    pub fn grown(&self) -> u64 {
        peak(self.pid).saturating_sub(self.before)
    }

    /// Panics if the ordinary client or the edge's memory suffered.
    pub fn unharmed(&self, name: &str) {
        let grown = self.grown();
        let seen = self.seen.lock();
        let worst = seen
            .asked
            .map_or(seen.worst, |at| seen.worst.max(at.elapsed()));
        let (kib, n) = (grown >> 10, seen.answered);
        eprintln!("{name}: {kib} KiB more, {n} requests, the worst {worst:?}");
        assert!(
            !self.asks.is_finished(),
            "{name}: the ordinary client failed"
        );
        assert!(grown < MEMORY, "{name}: {grown} bytes more");
        assert!(worst < WORST, "{name}: {worst:?}");
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.asks.abort();
    }
}

/// Peak memory of a process, in bytes.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("VmHWM in KiB") * 1024
}

/// Connections that the TLS listener has ended, by reason.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended(BTreeMap<String, u64>);

impl Ended {
    /// Reads the counters.
    pub async fn of(setup: &Setup) -> Ended {
        let metrics = setup.edge.metrics().await;
        let of_tls = |(name, n): (String, f64)| {
            let labels = name.strip_prefix("pushgate_http2_ended_total{")?;
            let (_, reason) = labels.split_once("reason=\"")?;
            Some((reason.trim_end_matches("\"}").to_owned(), n as u64))
        };
        Ended(metrics.into_iter().filter_map(of_tls).collect())
    }

    /// Panics unless exactly one more connection has ended since then, for `reason`.
    pub async fn one_more(mut self, setup: &Setup, reason: &str, name: &str) {
        *self.0.entry(reason.to_owned()).or_default() += 1;
        assert_eq!(Ended::of(setup).await, self, "{name}");
    }
}
