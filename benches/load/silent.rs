//! Measures what the proxy holds: memory of silent connections, and bytes for a client that does not read.
//!
//! In: connections, or a framing. Out: PSS per connection, or the bytes that the node could write, or the
//! time until it can write again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{self, Conn, PATIENCE};
use crate::node::{BULK, FLOODED, HELD, KIB, RESUMED, WENT_ON};
use crate::wire::{self, Wire};
use crate::{BoxError, Options, h2};

/// Connections opened first, so that memory needed once is not charged to the measured ones.
const WARM: usize = 16;
/// Time for the proxy to free what a handshake needed.
const SETTLE: Duration = Duration::from_secs(1);
/// A flood has stalled if it wrote nothing for this time.
const STALLED: Duration = Duration::from_secs(1);
/// A flood that has not stalled after this time has no limit.
const FLOOD_DEADLINE: Duration = Duration::from_secs(20);
/// Receive buffer of the client that does not read.
const RECEIVE_BUFFER: usize = 64 * 1024;

/// Measures the memory of `--count` silent connections: WebSockets, streams after their first message, polls
/// without an answer, or kept connections between requests. Errors: one was closed meanwhile.
pub async fn run(options: &Options) -> Result<Value, BoxError> {
    let proxy = options.proxy.ok_or("silent needs --pid")?;
    let _warm = open(options, WARM).await?;
    sleep(SETTLE).await;
    let before = proxy.pss_bytes();
    let all = open(options, options.count).await?;
    sleep(SETTLE).await;
    let after = proxy.pss_bytes();
    let closed = closed(all).await;
    if closed > 0 {
        return Err(format!("{closed} connections were closed").into());
    }
    Ok(json!({
        "connections": options.count,
        "before_bytes": before,
        "after_bytes": after,
        "bytes_each": after.saturating_sub(before) as f64 / options.count as f64,
    }))
}

/// Counts the connections in `all` that have ended.
async fn closed(all: Vec<Conn>) -> usize {
    let mut closed = 0;
    for mut conn in all {
        let mut next = [0; 1];
        // Unconstrained: with its task budget used up, every further connection would look open.
        let read = unconstrained(timeout(Duration::ZERO, conn.read(&mut next))).await;
        closed += usize::from(!matches!(read, Err(_) | Ok(Ok(1))));
    }
    closed
}

async fn open(options: &Options, count: usize) -> Result<Vec<Conn>, BoxError> {
    let mut all = Vec::with_capacity(count);
    let mut shared = None;
    for n in 0..count {
        if options.h2 {
            let path = format!("/silent/{}", options.wire.as_str());
            if n % options.streams == 0 {
                shared = Some(h2::connect(options).await?);
            }
            let requests = shared.as_ref().ok_or("no connection")?;
            let mut conn = h2::stream(requests, &path, false).await?;
            timeout(PATIENCE, conn.read_buf(&mut Vec::with_capacity(1024))).await??;
            all.push(conn);
            continue;
        }
        let mut conn = client::connect(options, None).await?;
        if options.held {
            let before = HELD.load(Ordering::Relaxed);
            client::ask(&mut conn, "/held", false, "").await?;
            let held = async {
                while HELD.load(Ordering::Relaxed) == before {
                    sleep(Duration::from_micros(200)).await;
                }
            };
            timeout(PATIENCE, held).await?;
            all.push(conn);
            continue;
        }
        if options.kept {
            client::ask(&mut conn, "/kib", false, "").await?;
            let (_, mut body) = client::head(&mut conn, "200").await?;
            while body.len() < KIB {
                if timeout(PATIENCE, conn.read_buf(&mut body)).await?? == 0 {
                    return Err("closed".into());
                }
            }
            all.push(conn);
            continue;
        }
        let upgrade = options.wire == Wire::WebSocket;
        let path = format!("/silent/{}", options.wire.as_str());
        client::ask(&mut conn, &path, upgrade, "").await?;
        let (_, rest) = client::head(&mut conn, if upgrade { "101" } else { "200" }).await?;
        if !upgrade && rest.is_empty() {
            timeout(PATIENCE, conn.read_buf(&mut Vec::with_capacity(256))).await??;
        }
        all.push(conn);
    }
    Ok(all)
}

/// Measures how many bytes a node can write to a client that stops reading after the head.
pub async fn hidden(options: &Options) -> Result<Value, BoxError> {
    let _conn = flood(options).await?;
    let (written, stalled) = stall().await;
    Ok(json!({ "written_bytes": written, "stalled": stalled }))
}

/// Measures how soon a stalled node can write again after its client reads on.
pub async fn resume(options: &Options) -> Result<Value, BoxError> {
    let mut conn = flood(options).await?;
    let mut piece = vec![0; BULK];
    let mut took = Vec::new();
    for _ in 0..options.count {
        if !stall().await.1 {
            return Err("never stalled".into());
        }
        WENT_ON.store(0, Ordering::Relaxed);
        RESUMED.store(wire::now_ns(), Ordering::Relaxed);
        while WENT_ON.load(Ordering::Relaxed) == 0 {
            timeout(PATIENCE, conn.read(&mut piece)).await??;
        }
        took.push(WENT_ON.load(Ordering::Relaxed));
        // Reads a different amount each time, so that each resume starts elsewhere in the stream.
        for _ in 0..took.len() {
            timeout(PATIENCE, conn.read(&mut piece)).await??;
        }
    }
    took.sort_unstable();
    let ms = |i: usize| took.get(i).map(|ns| *ns as f64 / 1e6);
    Ok(json!({ "resume_ms": ms(took.len() / 2), "resume_max_ms": ms(took.len() - 1) }))
}

/// Starts a flood to a client that reads the head only.
async fn flood(options: &Options) -> Result<Conn, BoxError> {
    let mut conn = client::connect(options, Some(RECEIVE_BUFFER)).await?;
    let upgrade = options.wire == Wire::WebSocket;
    let path = format!("/flood/{}", options.wire.as_str());
    client::ask(&mut conn, &path, upgrade, "").await?;
    client::head(&mut conn, if upgrade { "101" } else { "200" }).await?;
    Ok(conn)
}

/// Waits until the flood stalls. Returns the bytes it wrote, and whether it stalled in time.
async fn stall() -> (u64, bool) {
    let deadline = Instant::now() + FLOOD_DEADLINE;
    let mut written = (FLOODED.load(Ordering::Relaxed), Instant::now());
    while written.1.elapsed() < STALLED && Instant::now() < deadline {
        sleep(Duration::from_millis(50)).await;
        let now = FLOODED.load(Ordering::Relaxed);
        if now != written.0 {
            written = (now, Instant::now());
        }
    }
    (written.0, Instant::now() < deadline)
}
