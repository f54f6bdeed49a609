//! A node marked Down: when each of its clients sees its end, and what the clients of another node feel.
//!
//! In: `--count` silent WebSockets at `--to`, streams at `--others`, the order that marks the node Down,
//! `--kill PID` of the node, which is stopped before.
//! Out: times from the order to each end, ages of the others' messages before and meanwhile.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::client;
use crate::wire::{Reader, Wire, now_ns};
use crate::{Failure, Options, percentiles};

/// Streams of the other node.
const OTHERS: usize = 50;
/// Time for the proxy's checks to find this process's nodes.
pub const FOUND: Duration = Duration::from_secs(4);
/// How long the others are listened to before the order, and at most after it.
const BEFORE: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(20);
/// Messages of all streams in that time, 200 a second each.
const MOST_HEARD: usize = 250_000;

/// Runs it.
pub async fn run(options: &Options) -> Result<Value, Failure> {
    let others = options.others.ok_or("evict needs --others")?;
    let (to, text) = options.order.clone().ok_or("evict needs --order")?;
    sleep(FOUND).await;
    let dying = open(options, options.count).await?;
    let (heard, hearing) = mpsc::sync_channel(MOST_HEARD);
    for _ in 0..OTHERS {
        let stream = listen(options, others).await?;
        tokio::spawn(follow(stream, heard.clone()));
    }
    sleep(BEFORE).await;
    let descriptors: Vec<RawFd> = dying.iter().map(AsRawFd::as_raw_fd).collect();
    if let Some(pid) = options.kill {
        // SAFETY: kill(2) takes two integers; the process is a node the bench has started.
        unsafe { libc::kill(pid, libc::SIGSTOP) };
    }
    let mut order = TcpStream::connect(to).await?;
    let start = Instant::now();
    let start_ns = now_ns();
    // A thread of its own: it notes ends, and does nothing else, whatever the streams cost.
    let watching = std::thread::spawn(move || watch(&descriptors, start));
    order.write_all(text.as_bytes()).await?;
    while !watching.is_finished() {
        sleep(Duration::from_millis(5)).await;
    }
    let ends = watching
        .join()
        .map_err(|_| "the watching thread panicked")?;
    let last_ns = start_ns + ends.iter().max().copied().unwrap_or(0);
    sleep(Duration::from_millis(100)).await;
    let heard: Vec<(u64, u64)> = hearing.try_iter().collect();
    let ages = |from: u64, to: u64| -> Vec<u64> {
        let within = heard.iter().filter(|(at, _)| (from..to).contains(at));
        within.map(|(_, age)| *age).collect()
    };
    let quiet = ages(start_ns - BEFORE.as_nanos() as u64 / 2, start_ns);
    let meanwhile = ages(start_ns, last_ns.max(start_ns + 20_000_000));
    let worst = |ages: &[u64]| ages.iter().max().map(|n| *n as f64 / 1000.0);
    let mut sorted = ends.clone();
    sorted.sort_unstable();
    let ms = |share: f64| {
        let at = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
        sorted.get(at).map(|ns| *ns as f64 / 1e6)
    };
    Ok(json!({
        "flows": options.count, "ended": ends.len(),
        "first_ms": ms(0.0), "p50_ms": ms(0.5), "p99_ms": ms(0.99), "last_ms": ms(1.0),
        "others_before": percentiles(quiet.clone()), "others_before_max_us": worst(&quiet),
        "others_meanwhile": percentiles(meanwhile.clone()), "others_meanwhile_max_us": worst(&meanwhile),
        "others_messages": meanwhile.len(),
    }))
}

/// Opens silent WebSockets, 64 at a time.
pub async fn open(options: &Options, count: usize) -> Result<Vec<TcpStream>, Failure> {
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

/// One silent WebSocket. Errors: it was refused; the words begin with the status.
pub async fn upgrade(to: SocketAddr) -> Result<TcpStream, Failure> {
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

/// One stream of messages, each 10 ms.
async fn listen(options: &Options, to: SocketAddr) -> Result<client::Conn, Failure> {
    let to = Options {
        to,
        ..options.clone()
    };
    let mut conn = client::connect(&to, None).await?;
    client::ask(&mut conn, "/ws/10", true, "").await?;
    client::head(&mut conn, "101").await?;
    Ok(conn)
}

/// Tells when each message came and how old it was.
async fn follow(mut conn: client::Conn, heard: mpsc::SyncSender<(u64, u64)>) {
    let (mut reader, mut got) = (Reader::new(Wire::WebSocket), Vec::with_capacity(4096));
    while conn.read_buf(&mut got).await.is_ok_and(|n| n > 0) {
        let now = now_ns();
        reader.feed(&got, |m| {
            // Who listened is gone, the run is over; or has heard enough.
            let _ = heard.try_send((now, m.age_ns));
        });
        got.clear();
    }
}

/// Nanoseconds from `start` to the end of each of `descriptors`, as the kernel tells it.
fn watch(descriptors: &[RawFd], start: Instant) -> Vec<u64> {
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
    let mut ends = std::collections::HashMap::with_capacity(descriptors.len());
    let mut events = vec![libc::epoll_event { events: 0, u64: 0 }; 1024];
    while ends.len() < descriptors.len() && start.elapsed() < AFTER {
        // SAFETY: `events` has room for as many as are asked for.
        let n = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), events.len() as i32, 100) };
        let now = start.elapsed().as_nanos() as u64;
        for event in &events[..n.max(0) as usize] {
            let fd = event.u64;
            ends.entry(fd).or_insert(now);
        }
    }
    ends.into_values().collect()
}
