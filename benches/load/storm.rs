//! Kills a node whose many clients reconnect at once. Measures how soon all have a connection again, how
//! fast the other nodes get them, and whether clients of the other nodes are cut.
//!
//! In: `--count` WebSockets through `--to`, `--kill PID` of a node. Out: times from the kill, new flows a
//! second of each surviving node, flows on these that ended. A refused client obeys `Retry-After`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::sleep;

use crate::evict::{FOUND, open, upgrade};
use crate::node::UPGRADES;
use crate::{BoxError, Options};

/// Longest wait until all clients have a connection again.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest pause before a cut client reconnects, as push clients do.
const COMES_BACK: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Seen {
    /// Connections that ended.
    lost: Cell<usize>,
    /// Milliseconds from the kill to each client's return.
    home: RefCell<Vec<u64>>,
    /// Number of refusals with 503.
    refused: Cell<usize>,
}

/// Runs the measurement.
pub async fn run(options: &Options) -> Result<Value, BoxError> {
    let pid = options.kill.ok_or("storm needs --kill")?;
    sleep(FOUND).await;
    let streams = open(options, options.count).await?;
    let before = UPGRADES.lock().expect("no panic").clone();
    let own: usize = before.values().map(Vec::len).sum();
    let expected = options.count - own;
    let seen = Rc::new(Seen::default());
    let local = LocalSet::new();
    let start = Instant::now();
    for stream in streams {
        local.spawn_local(live(stream, options.to, start, seen.clone()));
    }
    // SAFETY: kill(2) takes two integers; the process is a node the bench has started.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    let done = async {
        while seen.home.borrow().len() < expected && start.elapsed() < PATIENCE {
            sleep(Duration::from_millis(10)).await;
        }
        // Waits a little longer, to see clients that are cut after all have returned.
        sleep(Duration::from_secs(1)).await;
    };
    local.run_until(done).await;
    let mut home = seen.home.borrow().clone();
    home.sort_unstable();
    let at = |share: f64| {
        home.get(((home.len() as f64 * share) as usize).min(home.len().saturating_sub(1)))
    };
    Ok(json!({
        "clients": options.count, "of_the_dead_node": expected, "lost": seen.lost.get(),
        "home": home.len(), "p50_ms": at(0.5), "p99_ms": at(0.99), "last_ms": at(1.0),
        // Clients that were cut off without being on the dead node, or were cut off twice.
        "refused": seen.refused.get(), "disturbed": seen.lost.get().saturating_sub(expected),
        "most_per_second": most_per_second(&before),
    }))
}

/// Runs one client: when its connection ends, it reconnects until it is accepted.
async fn live(mut stream: TcpStream, to: SocketAddr, start: Instant, seen: Rc<Seen>) {
    loop {
        let mut scrap = [0; 64];
        while stream.read(&mut scrap).await.is_ok_and(|n| n > 0) {}
        seen.lost.set(seen.lost.get() + 1);
        // Its port decides the pause, so that each run has the same spread.
        let port = stream.local_addr().map_or(0, |a| u64::from(a.port()));
        sleep(COMES_BACK * (port * 7919 % 1000) as u32 / 1000).await;
        stream = loop {
            match upgrade(to).await {
                Ok(stream) => break stream,
                Err(refusal) => {
                    seen.refused.set(seen.refused.get() + 1);
                    sleep(retry_after(&refusal.to_string())).await;
                }
            }
        };
        seen.home
            .borrow_mut()
            .push(start.elapsed().as_millis() as u64);
    }
}

/// Returns the `Retry-After` of a refusal; half a second without one.
fn retry_after(head: &str) -> Duration {
    let lines = head.lines().filter_map(|l| l.split_once(':'));
    let told = lines
        .filter(|(name, _)| name.eq_ignore_ascii_case("retry-after"))
        .find_map(|(_, value)| value.trim().parse().ok());
    told.map_or(Duration::from_millis(500), Duration::from_secs)
}

/// Returns the most upgrades of each node within any second since `before`.
fn most_per_second(before: &BTreeMap<SocketAddr, Vec<Instant>>) -> Value {
    let all = UPGRADES.lock().expect("no panic");
    let most = all.iter().map(|(node, times)| {
        let since = before.get(node).map_or(0, Vec::len);
        let times = &times[since..];
        let within = |i: usize| {
            let first = times[i];
            times[i..]
                .iter()
                .take_while(|t| **t - first < Duration::from_secs(1))
                .count()
        };
        (
            node.to_string(),
            (0..times.len()).map(within).max().unwrap_or(0),
        )
    });
    json!(most.collect::<BTreeMap<_, _>>())
}
