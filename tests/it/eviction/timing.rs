//! The time between the first and the last end of an eviction, and how much of it a loaded machine added.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::setup::Setup;

/// Waits for the access line of each of `flows` and prints the time between the first and the last.
pub async fn print_spread(setup: &Setup, flows: usize) {
    let evicted = |l: &&serde_json::Value| l["reason"] == "evicted";
    let told = |lines: &[serde_json::Value]| lines.iter().filter(evicted).count() == flows;
    let lines = setup.edge.wait_access("a line for each", told).await;
    let times = lines
        .iter()
        .filter(evicted)
        .filter_map(|l| l["time"].as_f64());
    let (first, last) = times.fold((f64::MAX, 0.0), |(a, b), t| (t.min(a), t.max(b)));
    println!(
        "from the first to the last close at the edge: {:.0} ms",
        (last - first) * 1e3
    );
}

/// How long each thread of the edge and of this process has waited for a core: nanoseconds, by path.
pub struct Starved([HashMap<PathBuf, u64>; 2], String);

impl Starved {
    pub fn begin(setup: &Setup) -> Starved {
        let pid = setup.edge.pid().to_string();
        Starved([waited(&pid), waited("self")], pid)
    }

    /// The longest wait of one thread of each process since then: what kernel scheduling adds to an end.
    pub fn until_now(&self) -> Duration {
        let now = [waited(&self.1), waited("self")];
        let since = self.0.iter().zip(&now).map(|(before, now)| {
            let grown = now
                .iter()
                .map(|(path, n)| n - before.get(path).unwrap_or(n));
            grown.max().unwrap_or_default()
        });
        Duration::from_nanos(since.sum())
    }
}

fn waited(pid: &str) -> HashMap<PathBuf, u64> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).expect("a process");
    let waited = |path: PathBuf| {
        // Fields: time on a core, time waiting for one, turns. The thread may just have ended.
        let stat = std::fs::read_to_string(path.join("schedstat")).ok()?;
        let waited = stat.split(' ').nth(1)?.parse().ok()?;
        Some((path, waited))
    };
    threads.filter_map(|t| waited(t.ok()?.path())).collect()
}
