//! A node is killed under many clients that come back at once: how soon all are at home again, how fast
//! the other nodes were given them, and whether anybody at home was disturbed.
//!
//! In: `--count` WebSockets through `--to`, `--kill PID` of a node. Out: times from the kill, flows a second
//! each surviving node was given, flows of theirs that ended. A refused client comes back as it is told.

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

/// Longest wait for all to be at home.
const PATIENCE: Duration = Duration::from_secs(60);
/// A client that was cut off comes back within so long, as push clients do.
const COMES_BACK: Duration = Duration::from_millis(500);

#[derive(Default)]
struct Seen {
    /// Connections that ended.
    lost: Cell<usize>,
    /// Milliseconds from the kill to each one's return.
    home: RefCell<Vec<u64>>,
    /// Refusals with 503.
    refused: Cell<usize>,
}

/// Runs it.
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
        // Who is disturbed later than that would be missed.
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
        // Who was cut off and was not on the dead node, or was cut off again.
        "refused": seen.refused.get(), "disturbed": seen.lost.get().saturating_sub(expected),
        "most_per_second": most_per_second(&before),
    }))
}

/// One client's life: cut off, it comes back until it is let in.
async fn live(mut stream: TcpStream, to: SocketAddr, start: Instant, seen: Rc<Seen>) {
    loop {
        let mut scrap = [0; 64];
        while stream.read(&mut scrap).await.is_ok_and(|n| n > 0) {}
        seen.lost.set(seen.lost.get() + 1);
        // By its port: the same spread in each run.
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

/// What a refusal says, half a second where it says nothing.
fn retry_after(head: &str) -> Duration {
    let lines = head.lines().filter_map(|l| l.split_once(':'));
    let told = lines
        .filter(|(name, _)| name.eq_ignore_ascii_case("retry-after"))
        .find_map(|(_, value)| value.trim().parse().ok());
    told.map_or(Duration::from_millis(500), Duration::from_secs)
}

/// Most upgrades of each node within any second since `before`.
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
