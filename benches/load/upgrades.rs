//! Measures WebSocket upgrades on 64 workers: whether messages are lost, and what an upgrade costs.
//!
//! In: number of upgrades, and which side sends first. Out: lost, reordered, CPU per upgrade.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::client::{self, PATIENCE};
use crate::node::MESSAGES;
use crate::wire::{Reader, Wire, masked};
use crate::{BoxError, Options, per_thousand};

/// Upgrades at once.
const WORKERS: usize = 64;

#[derive(Default)]
struct Tally {
    begun: AtomicUsize,
    good: AtomicUsize,
    reordered: AtomicUsize,
    errors: std::sync::Mutex<Vec<String>>,
}

/// Runs the measurement.
pub async fn run(options: &Options) -> Result<Value, BoxError> {
    let tally = Arc::new(Tally::default());
    let (begun, cpu) = (Instant::now(), options.proxy.map(|p| p.cpu_ns()));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| tokio::spawn(work(options.clone(), tally.clone())))
        .collect();
    for worker in workers {
        worker.await?;
    }
    let cpu = options
        .proxy
        .zip(cpu)
        .map(|(p, before)| p.cpu_ns() - before);
    let good = tally.good.load(Ordering::Relaxed);
    let mut errors = std::mem::take(&mut *tally.errors.lock().expect("no holder panics"));
    errors.truncate(3);
    Ok(json!({
        "upgrades": options.count,
        "lost": options.count - good,
        "reordered": tally.reordered.load(Ordering::Relaxed),
        "cpu_us_each": per_thousand(cpu, options.count).map(|c| c / 1000.0),
        "per_second": options.count as f64 / begun.elapsed().as_secs_f64(),
        "errors": errors,
    }))
}

async fn work(options: Options, tally: Arc<Tally>) {
    while tally.begun.fetch_add(1, Ordering::Relaxed) < options.count {
        match one(&options).await {
            Ok(true) => _ = tally.good.fetch_add(1, Ordering::Relaxed),
            Ok(false) => {
                tally.good.fetch_add(1, Ordering::Relaxed);
                tally.reordered.fetch_add(1, Ordering::Relaxed);
            }
            Err(e) => tally
                .errors
                .lock()
                .expect("no holder panics")
                .push(e.to_string()),
        }
    }
}

/// Does one upgrade; returns whether its messages came in order. Errors: a message did not come.
async fn one(options: &Options) -> Result<bool, BoxError> {
    let mut conn = client::connect(options, None).await?;
    let path = if options.client_first {
        "/ws/client"
    } else {
        "/ws/server"
    };
    client::ask(&mut conn, path, true, "").await?;
    let (_, mut got) = client::head(&mut conn, "101").await?;
    if options.client_first {
        for seq in 0..MESSAGES {
            conn.write_all(&masked(seq)).await?;
            conn.flush().await?;
        }
    }
    let mut reader = Reader::new(Wire::WebSocket);
    let mut numbers = Vec::new();
    loop {
        reader.feed(&got, |m| numbers.push(m.seq));
        if numbers.len() >= MESSAGES as usize {
            break;
        }
        got.clear();
        if timeout(PATIENCE, conn.read_buf(&mut got)).await?? == 0 {
            return Err(format!("closed after {} messages", numbers.len()).into());
        }
    }
    conn.shutdown().await?;
    Ok(numbers.into_iter().eq(0..MESSAGES))
}
