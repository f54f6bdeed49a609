//! Measures streams with periodic messages: what a message costs the proxy, and its latency.
//!
//! In: framing, connections, interval, window. Out: CPU per 1,000 messages, and the time from the
//! node's write to the client's read.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::time::sleep;

use crate::client::{self, Conn};
use crate::wire::{Reader, Wire};
use crate::{BoxError, Options, h2, handshakes, per_thousand, percentiles};

/// Time before the window in which all streams begin to flow.
const WARM_UP: Duration = Duration::from_millis(500);

/// The messages that arrived in the window.
#[derive(Default)]
struct Arrived {
    ages_ns: Vec<u64>,
    out_of_order: usize,
}

/// Runs the measurement.
pub async fn run(options: &Options) -> Result<Value, BoxError> {
    let arrived = Arc::new(Mutex::new(Arrived::default()));
    let mut streams = Vec::new();
    for _ in 0..options.count {
        let (conn, rest) = open(options).await?;
        streams.push(tokio::spawn(follow(
            conn,
            rest,
            // Over HTTP/2 the messages arrive without HTTP/1 framing.
            if options.h2 && options.wire != Wire::WebSocket {
                Wire::Length
            } else {
                options.wire
            },
            arrived.clone(),
        )));
    }
    let storm = (options.storm > 0).then(|| handshakes::storm(options, options.storm));
    let shaken = || storm.as_ref().map(|done| done.good());
    sleep(WARM_UP).await;
    let before = shaken();
    *lock(&arrived) = Arrived::default();
    let cpu = options.proxy.map(|p| p.cpu_ns());
    sleep(options.window).await;
    let cpu = options
        .proxy
        .zip(cpu)
        .map(|(p, before)| p.cpu_ns() - before);
    let arrived = std::mem::take(&mut *lock(&arrived));
    let count = arrived.ages_ns.len();
    let mut figures = percentiles(arrived.ages_ns);
    figures["messages"] = json!(count);
    let shaken = shaken().zip(before).map(|(now, before)| now - before);
    let per_second = shaken.map(|n| n as f64 / options.window.as_secs_f64());
    figures["handshakes_per_second"] = json!(per_second);
    figures["wanted"] = json!(
        (options.count as f64 * options.window.as_secs_f64() / options.every.as_secs_f64()) as u64
    );
    figures["reordered"] = json!(arrived.out_of_order);
    figures["ended"] = json!(streams.iter().filter(|s| s.is_finished()).count());
    figures["cpu_us_per_1000"] = json!(per_thousand(cpu, count));
    Ok(figures)
}

async fn open(options: &Options) -> Result<(Conn, Vec<u8>), BoxError> {
    let path = format!("/{}/{}", options.wire.as_str(), options.every.as_millis());
    if options.h2 {
        return Ok((h2::ask(options, &path).await?, Vec::with_capacity(1024)));
    }
    let mut conn = client::connect(options, None).await?;
    let upgrade = options.wire == Wire::WebSocket;
    client::ask(&mut conn, &path, upgrade, "").await?;
    let status = if upgrade { "101" } else { "200" };
    let (_, rest) = client::head(&mut conn, status).await?;
    Ok((conn, rest))
}

async fn follow(mut conn: Conn, mut got: Vec<u8>, wire: Wire, arrived: Arc<Mutex<Arrived>>) {
    let mut reader = Reader::new(wire);
    let mut expected = 0;
    loop {
        reader.feed(&got, |m| {
            let mut arrived = lock(&arrived);
            arrived.ages_ns.push(m.age_ns);
            arrived.out_of_order += usize::from(m.seq != expected);
            expected = m.seq + 1;
        });
        got.clear();
        match conn.read_buf(&mut got).await {
            Ok(n) if n > 0 => {}
            _ => return,
        }
    }
}

fn lock(arrived: &Mutex<Arrived>) -> std::sync::MutexGuard<'_, Arrived> {
    arrived.lock().expect("no holder panics")
}
