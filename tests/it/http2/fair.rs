//! The streams of one connection take turns: a bulk stream delays a sibling's message by at most one write.
//!
//! In: clients that read slowly, with windows that never limit. Out: the order of their frames, and the delay
//! of messages. Source: RFC 9113 §5.2; Lightstreamer clustering §1 (data packets forwarded immediately).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::rig::{HOST, Rig};
use crate::client::raw_h2::{RawH2, head};

/// The largest possible windows: only the reader's pace limits the edge.
const WIDE: u32 = i32::MAX as u32;
/// Time for each 16 KiB that a client reads: 4 MiB a second.
const PACE: Duration = Duration::from_millis(4);

/// A client that reads slowly.
async fn slow(rig: &Rig) -> RawH2 {
    let mut dial = rig.tls();
    dial.rcvbuf = Some(16 * 1024);
    let mut client = RawH2::with(&dial, &[(4, WIDE)]).await;
    client.update(0, WIDE - 65_535).await;
    client.gives_back = false;
    client
}

/// Starts a stream whose node writes without end.
async fn bulk(rig: &Rig, client: &mut RawH2) -> tokio::task::JoinHandle<()> {
    client.open(&head("GET", HOST, "/bulk", &[]), true).await;
    let (mut node, _) = rig.asked().await;
    tokio::spawn(async move {
        node.say("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            .await;
        let block = vec![b'b'; 16 * 1024];
        while tokio::io::AsyncWriteExt::write_all(&mut node.io, &block)
            .await
            .is_ok()
        {}
    })
}

/// Aim: three bulk streams share a slow connection frame by frame. Fails if one of them writes several frames
/// while others wait.
#[tokio::test(flavor = "multi_thread")]
async fn bulk_streams_take_turns() {
    let rig = Rig::start().await;
    let mut client = slow(&rig).await;
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(bulk(&rig, &mut client).await);
    }
    while client.order.len() < 350 {
        assert!(client.pump().await, "the connection ended");
        tokio::time::sleep(PACE / 2).await;
    }
    // The first stream is alone until the others begin.
    let order: Vec<u32> = client.order[50..].iter().map(|(id, _)| *id).collect();
    let mut run = (0, 0);
    let mut longest = 0;
    for id in &order {
        run = if run.0 == *id {
            (*id, run.1 + 1)
        } else {
            (*id, 1)
        };
        longest = longest.max(run.1);
    }
    let share = |id: u32| order.iter().filter(|o| **o == id).count();
    println!(
        "frames {:?} of 300, longest run {longest}",
        [1, 3, 5].map(share)
    );
    assert!(longest <= 4, "one stream wrote {longest} frames in a row");
    for id in [1, 3, 5] {
        assert!((80..=120).contains(&share(id)), "{id}: {}", share(id));
    }
    nodes.iter().for_each(|node| node.abort());
}

/// Aim: on a connection with a bulk stream whose client reads 4 MiB a second, a sibling gets a message of 100
/// bytes each 10 ms. Each message waits only behind the bytes in both kernels and at most one write of the
/// bulk. Seen: 7 ms and 24 KiB at the median, 16 ms and 56 KiB at p99. Fails if messages queue behind the
/// bulk in the edge.
#[tokio::test(flavor = "multi_thread")]
async fn a_bulk_stream_does_not_delay_a_message() {
    const MESSAGES: usize = 200;
    let rig = Rig::start().await;
    let mut client = slow(&rig).await;
    let bulky = bulk(&rig, &mut client).await;
    let id = client
        .open(&head("GET", HOST, "/messages", &[]), true)
        .await;
    let (mut node, _) = rig.asked().await;
    let read = Arc::new(AtomicU64::new(0));
    let sent = Arc::new(Mutex::new(Vec::new()));
    let (counter, times) = (read.clone(), sent.clone());
    let messages = tokio::spawn(async move {
        node.say(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
            MESSAGES * 100
        ))
        .await;
        // Let the bulk fill both kernels.
        tokio::time::sleep(Duration::from_millis(300)).await;
        for n in 0..MESSAGES {
            times
                .lock()
                .push((Instant::now(), counter.load(Ordering::Relaxed)));
            node.say(format!("{n:.<100}")).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        node
    });
    let (mut late, mut behind) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    while late.len() < MESSAGES {
        assert!(client.pump().await, "the connection ended");
        let total: usize = client
            .order
            .iter()
            .map(|(stream, n)| if *stream == id { 0 } else { *n })
            .sum();
        read.store(total as u64, Ordering::Relaxed);
        let here = client.so_far_len(id) / 100;
        let known = sent.lock().clone();
        while late.len() < here {
            let (at, bytes) = known[late.len()];
            late.push(at.elapsed());
            behind.push(total as u64 - bytes);
        }
        let due = PACE * (total / (16 * 1024)) as u32;
        tokio::time::sleep(due.saturating_sub(begun.elapsed())).await;
    }
    late.sort();
    behind.sort();
    let at = |share: usize| (MESSAGES - 1) * share / 100;
    println!(
        "messages beside bulk: late p50 {:?} p99 {:?} max {:?}; behind p50 {} p99 {} max {} bytes",
        late[at(50)],
        late[at(99)],
        late[at(100)],
        behind[at(50)],
        behind[at(99)],
        behind[at(100)]
    );
    assert!(behind[at(99)] <= MOST, "{} bytes", behind[at(99)]);
    bulky.abort();
    messages.abort();
}

/// Most bytes of the bulk ahead of a message: both kernels' buffers, and one write of each stream.
const MOST: u64 = 96 * 1024;
