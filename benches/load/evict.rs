//! Marks a node Down, and measures when each of its clients sees the end of its connection and how late the
//! messages of another node's clients are meanwhile.
//!
//! In: `--count` silent WebSockets at `--to`, streams at `--others`, the order that marks the node Down,
//! and `--kill PID` of the node, which is stopped before the order.
//! Out: times from the order to each end, CPU of the proxy (`--pid`) until the last end, ages of the others'
//! messages before the order and until the last end.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::client;
use crate::ends::{Ends, figures};
use crate::wire::{Reader, Wire, now_ns};
use crate::{BoxError, Options, percentiles};

/// Streams of the other node.
const OTHERS: usize = 50;
/// Most messages kept: those of a minute, at 100 a second for each stream.
const HEARD: usize = OTHERS * 100 * 60;
/// Time for the proxy's checks to find this process's nodes.
pub const FOUND: Duration = Duration::from_secs(4);
/// Time before the order in which the others' messages are measured.
const BEFORE: Duration = Duration::from_secs(2);

/// Runs the measurement.
pub async fn run(options: &Options) -> Result<Value, BoxError> {
    let others = options.others.ok_or("evict needs --others")?;
    let (to, text) = options.order.clone().ok_or("evict needs --order")?;
    sleep(FOUND).await;
    let dying = open(options, options.count).await?;
    let (heard, hearing) = mpsc::sync_channel(HEARD);
    for _ in 0..OTHERS {
        let stream = listen(options, others).await?;
        tokio::spawn(follow(stream, heard.clone()));
    }
    // Taken from the runtime, which each end would wake. Done long before the order, because it takes tens
    // of milliseconds, in which no message is read.
    let dying = dying.into_iter().map(TcpStream::into_std);
    let dying = dying.collect::<Result<Vec<_>, _>>()?;
    let descriptors: Vec<RawFd> = dying.iter().map(AsRawFd::as_raw_fd).collect();
    let ends = Ends::of(&descriptors);
    sleep(BEFORE).await;
    if let Some(pid) = options.kill {
        // SAFETY: kill(2) takes two integers; the process is a node the bench has started.
        unsafe { libc::kill(pid, libc::SIGSTOP) };
    }
    let mut order = TcpStream::connect(to).await?;
    let start = Instant::now();
    let start_ns = now_ns();
    // A thread of its own watches the ends, so that the streams do not delay it.
    let proxy = options.proxy.ok_or("evict needs --pid")?;
    let before = proxy.cpu_ns();
    let watching = std::thread::spawn(move || (ends.watch(start), proxy.cpu_ns()));
    order.write_all(text.as_bytes()).await?;
    while !watching.is_finished() {
        sleep(Duration::from_millis(5)).await;
    }
    let (ends, after) = watching
        .join()
        .map_err(|_| "the watching thread panicked")?;
    let last_ns = start_ns + ends.last().copied().unwrap_or(0);
    sleep(Duration::from_millis(100)).await;
    let heard: Vec<(u64, u64)> = hearing.try_iter().collect();
    let ages = |from: u64, to: u64| -> Vec<u64> {
        let within = heard.iter().filter(|(at, _)| (from..to).contains(at));
        within.map(|(_, age)| *age).collect()
    };
    let quiet = ages(start_ns - BEFORE.as_nanos() as u64 / 2, start_ns);
    let meanwhile = ages(start_ns, last_ns.max(start_ns + 20_000_000));
    let worst = |ages: &[u64]| ages.iter().max().map(|n| *n as f64 / 1000.0);
    let mut figures = figures(options.count, &ends, after.saturating_sub(before));
    figures["others_before"] = percentiles(quiet.clone());
    figures["others_before_max_us"] = json!(worst(&quiet));
    figures["others_meanwhile"] = percentiles(meanwhile.clone());
    figures["others_meanwhile_max_us"] = json!(worst(&meanwhile));
    figures["others_messages"] = json!(meanwhile.len());
    Ok(figures)
}

/// Opens silent WebSockets, 64 at a time.
pub async fn open(options: &Options, count: usize) -> Result<Vec<TcpStream>, BoxError> {
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let batch = (count - all.len()).min(64);
        let mut opening = tokio::task::JoinSet::new();
        for _ in 0..batch {
            opening.spawn(upgrade(options.to));
        }
        while let Some(one) = opening.join_next().await {
            all.push(one??);
        }
    }
    Ok(all)
}

/// Opens a silent WebSocket. Errors: closed; or refused, with the head of the answer as text.
pub async fn upgrade(to: SocketAddr) -> Result<TcpStream, BoxError> {
    let mut stream = TcpStream::connect(to).await?;
    stream
        .write_all(client::request("/silent/ws", true, "").as_bytes())
        .await?;
    let mut got = Vec::with_capacity(512);
    while client::head_end(&got).is_none() {
        if stream.read_buf(&mut got).await? == 0 {
            return Err("closed".into());
        }
    }
    let head = String::from_utf8_lossy(&got);
    match head.split(' ').nth(1) {
        Some("101") => Ok(stream),
        _ => Err(head.into_owned().into()),
    }
}

/// Opens a stream with a message each 10 ms.
async fn listen(options: &Options, to: SocketAddr) -> Result<client::Conn, BoxError> {
    let to = Options {
        to,
        ..options.clone()
    };
    let mut conn = client::connect(&to, None).await?;
    client::ask(&mut conn, "/ws/10", true, "").await?;
    client::head(&mut conn, "101").await?;
    Ok(conn)
}

/// Sends the arrival time and age of each message to `heard`.
async fn follow(mut conn: client::Conn, heard: mpsc::SyncSender<(u64, u64)>) {
    let (mut reader, mut got) = (Reader::new(Wire::WebSocket), Vec::with_capacity(4096));
    while conn.read_buf(&mut got).await.is_ok_and(|n| n > 0) {
        let now = now_ns();
        reader.feed(&got, |m| {
            // Fails if the receiver is gone because the run is over, or if it is full.
            let _ = heard.try_send((now, m.age_ns));
        });
        got.clear();
    }
}
