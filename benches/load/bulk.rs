//! Bulk and short connections: what a GiB, and a connection, costs the proxy.
//!
//! In: streams (`--count`), window, direction; or connections in all. Out: CPU per GiB, or per connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::client::{self, PATIENCE};
use crate::node::{BULK, SUNK};
use crate::{Failure, Options, per_thousand};

/// Time for windows to open before the measured one.
const WARM_UP: Duration = Duration::from_millis(500);
/// Connections under way at once.
const WORKERS: usize = 16;
/// Length of a short answer's body.
const BODY: usize = 1024;

/// Measures bulk: to the clients, or with `--up` from them.
pub async fn run(options: &Options) -> Result<Value, Failure> {
    let taken = Arc::new(AtomicU64::new(0));
    let mut streams = Vec::new();
    for _ in 0..options.count {
        let (options, taken) = (options.clone(), taken.clone());
        streams.push(tokio::spawn(async move {
            match options.up {
                true => push(&options).await,
                false => pull(&options, &taken).await,
            }
        }));
    }
    let passed = || match options.up {
        true => SUNK.load(Ordering::Relaxed),
        false => taken.load(Ordering::Relaxed),
    };
    sleep(WARM_UP).await;
    let (begun, before, cpu) = (Instant::now(), passed(), options.proxy.map(|p| p.cpu_ns()));
    sleep(options.window).await;
    let cpu = options
        .proxy
        .zip(cpu)
        .map(|(p, before)| p.cpu_ns() - before);
    let (bytes, took) = (passed() - before, begun.elapsed());
    for stream in streams {
        if stream.is_finished() {
            stream.await??;
        }
    }
    let gib = bytes as f64 / f64::from(1 << 30);
    Ok(json!({
        "gib": gib,
        "mib_per_second": gib * 1024.0 / took.as_secs_f64(),
        "cpu_ms_per_gib": cpu.filter(|_| bytes > 0).map(|ns| ns as f64 / 1e6 / gib),
        "proxy_busy": cpu.map(|ns| ns as f64 / took.as_nanos() as f64),
    }))
}

async fn pull(options: &Options, taken: &AtomicU64) -> Result<(), Failure> {
    let mut conn = client::connect(options, None).await?;
    client::ask(&mut conn, "/bulk", false, "").await?;
    client::head(&mut conn, "200").await?;
    let mut piece = vec![0; BULK];
    loop {
        match conn.read(&mut piece).await? {
            0 => return Err("closed".into()),
            n => taken.fetch_add(n as u64, Ordering::Relaxed),
        };
    }
}

async fn push(options: &Options) -> Result<(), Failure> {
    let mut conn = client::connect(options, None).await?;
    client::ask(&mut conn, "/sink", false, "").await?;
    let piece = vec![b'u'; BULK];
    loop {
        conn.write_all(&piece).await?;
    }
}

/// Measures `--count` connections of one request each.
pub async fn connections(options: &Options) -> Result<Value, Failure> {
    let begun = Arc::new(AtomicUsize::new(0));
    let (start, cpu) = (Instant::now(), options.proxy.map(|p| p.cpu_ns()));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (options, begun) = (options.clone(), begun.clone());
            tokio::spawn(async move {
                while begun.fetch_add(1, Ordering::Relaxed) < options.count {
                    timeout(PATIENCE, one(&options)).await??;
                }
                Ok::<_, Failure>(())
            })
        })
        .collect();
    for worker in workers {
        worker.await??;
    }
    let cpu = options
        .proxy
        .zip(cpu)
        .map(|(p, before)| p.cpu_ns() - before);
    Ok(json!({
        "per_second": options.count as f64 / start.elapsed().as_secs_f64(),
        "cpu_us_each": per_thousand(cpu, options.count).map(|c| c / 1000.0),
    }))
}

async fn one(options: &Options) -> Result<(), Failure> {
    let mut conn = client::connect(options, None).await?;
    client::ask(&mut conn, "/kib", false, "").await?;
    let (_, mut body) = client::head(&mut conn, "200").await?;
    while body.len() < BODY {
        if conn.read_buf(&mut body).await? == 0 {
            return Err("closed".into());
        }
    }
    Ok(())
}
