//! Measures bulk and short connections: what a GiB, a stream of bulk, and a connection cost the proxy.
//!
//! In: streams (`--count`), window, direction; or number of connections. Out: CPU per GiB, memory per
//! stream, or CPU per connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::client::{self, Conn, PATIENCE};
use crate::node::{BULK, KIB, SUNK};
use crate::{BoxError, Options, per_thousand};

/// Time before the measured window in which TCP windows open.
const WARM_UP: Duration = Duration::from_millis(500);
/// Short connections at once.
const WORKERS: usize = 16;
/// Bulk streams opened first, so that memory needed once is not charged to the measured ones.
const WARM: usize = 16;
/// Size of a read of one client among thousands, in bytes.
const SMALL: usize = 16 * 1024;
/// Interval between two samples of the proxy's memory.
const SAMPLE: Duration = Duration::from_millis(250);
/// Most streams that open at once. With all 5,000 at once a client of Pushgate waited more than 10 s.
const OPENING: usize = 250;
/// Longest wait until all streams flow.
const FLOW: Duration = Duration::from_secs(100);

/// Measures bulk to the clients, or with `--up` from them.
pub async fn run(options: &Options) -> Result<Value, BoxError> {
    let taken = Arc::new(AtomicU64::new(0));
    let mut streams = Vec::new();
    for _ in 0..options.count {
        let (options, taken) = (options.clone(), taken.clone());
        streams.push(tokio::spawn(async move {
            match options.up {
                true => push(&options).await,
                false => pull(open(&options).await?, &taken, BULK).await,
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

async fn open(options: &Options) -> Result<Conn, BoxError> {
    let mut conn = client::connect(options, None).await?;
    client::ask(&mut conn, "/bulk", false, "").await?;
    client::head(&mut conn, "200").await?;
    Ok(conn)
}

async fn pull(mut conn: Conn, taken: &AtomicU64, by: usize) -> Result<(), BoxError> {
    let mut piece = vec![0; by];
    loop {
        match conn.read(&mut piece).await? {
            0 => return Err("closed".into()),
            n => taken.fetch_add(n as u64, Ordering::Relaxed),
        };
    }
}

/// Measures the proxy's memory while `--count` streams of bulk flow to clients that read continuously.
pub async fn memory(options: &Options) -> Result<Value, BoxError> {
    let proxy = options.proxy.ok_or("bulk_memory needs --pid")?;
    let taken = Arc::new(AtomicU64::new(0));
    let mut streams = flows(options, WARM, &taken).await?;
    sleep(WARM_UP).await;
    let before = proxy.pss_bytes();
    let asked = Instant::now();
    streams.extend(flows(options, options.count, &taken).await?);
    let flowing = asked.elapsed();
    sleep(WARM_UP).await;
    let (begun, passed, cpu) = (
        Instant::now(),
        taken.load(Ordering::Relaxed),
        proxy.cpu_ns(),
    );
    let mut samples = Vec::new();
    while begun.elapsed() < options.window {
        sleep(SAMPLE).await;
        samples.push(proxy.pss_bytes());
    }
    let (took, cpu) = (begun.elapsed(), proxy.cpu_ns() - cpu);
    let bytes = taken.load(Ordering::Relaxed) - passed;
    for stream in streams {
        if stream.is_finished() {
            stream.await??;
        }
    }
    samples.sort_unstable();
    let each = |bytes: u64| bytes.saturating_sub(before) as f64 / options.count as f64;
    let at = |i: usize| samples.get(i).map(|bytes| each(*bytes));
    Ok(json!({
        "streams": options.count,
        "all_flow_after_s": flowing.as_secs_f64(),
        "before_bytes": before,
        "bytes_each": at(samples.len() / 2),
        "bytes_each_most": at(samples.len() - 1),
        "mib_per_second": bytes as f64 / f64::from(1 << 20) / took.as_secs_f64(),
        "proxy_busy": cpu as f64 / took.as_nanos() as f64,
    }))
}

/// Starts `count` streams; returns when all of them flow.
async fn flows(
    options: &Options,
    count: usize,
    taken: &Arc<AtomicU64>,
) -> Result<Vec<JoinHandle<Result<(), BoxError>>>, BoxError> {
    let opened = Arc::new(AtomicUsize::new(0));
    let turn = Arc::new(Semaphore::new(OPENING));
    let one = |_| {
        let (options, taken) = (options.clone(), taken.clone());
        let (opened, turn) = (opened.clone(), turn.clone());
        tokio::spawn(async move {
            let turn = turn.acquire_owned().await?;
            let conn = open(&options).await?;
            drop(turn);
            opened.fetch_add(1, Ordering::Relaxed);
            pull(conn, &taken, SMALL).await
        })
    };
    let mut streams: Vec<_> = (0..count).map(one).collect();
    let begun = Instant::now();
    while opened.load(Ordering::Relaxed) < count {
        if let Some(i) = streams.iter().position(|s| s.is_finished()) {
            streams.swap_remove(i).await??;
        }
        if begun.elapsed() > FLOW {
            return Err(format!("only {} streams flow", opened.load(Ordering::Relaxed)).into());
        }
        sleep(WARM_UP).await;
    }
    Ok(streams)
}

async fn push(options: &Options) -> Result<(), BoxError> {
    let mut conn = client::connect(options, None).await?;
    client::ask(&mut conn, "/sink", false, "").await?;
    let piece = vec![b'u'; BULK];
    loop {
        conn.write_all(&piece).await?;
    }
}

/// Measures `--count` connections with one request each.
pub async fn connections(options: &Options) -> Result<Value, BoxError> {
    let begun = Arc::new(AtomicUsize::new(0));
    let (start, cpu) = (Instant::now(), options.proxy.map(|p| p.cpu_ns()));
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let (options, begun) = (options.clone(), begun.clone());
            tokio::spawn(async move {
                while begun.fetch_add(1, Ordering::Relaxed) < options.count {
                    timeout(PATIENCE, one(&options)).await??;
                }
                Ok::<_, BoxError>(())
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

async fn one(options: &Options) -> Result<(), BoxError> {
    let mut conn = client::connect(options, None).await?;
    client::ask(&mut conn, "/kib", false, "").await?;
    let (_, mut body) = client::head(&mut conn, "200").await?;
    while body.len() < KIB {
        if conn.read_buf(&mut body).await? == 0 {
            return Err("closed".into());
        }
    }
    Ok(())
}
