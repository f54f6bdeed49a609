//! Many messages over many streams at once: the edge loses and reorders none.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;

use super::*;
use crate::client::ws::Ws;

/// Connections, streams on each, messages on each stream, and how many of them may be unanswered at a time.
const CONNECTIONS: usize = 5;
const STREAMS: usize = 10;
const MESSAGES: usize = 2000;
const AHEAD: usize = 50;
/// Limit for the whole run; seen: 14 s, with nothing else on two cores.
const MOST: Duration = Duration::from_secs(120);

/// The `n`th message of a stream: its numbers, then padding to a length of its own. Some take several DATA
/// frames: those of ten streams exceed their client's window for the connection.
fn message(stream: usize, n: usize) -> String {
    let length = match n % 100 {
        0 => 40_000,
        m => m * 7,
    };
    format!("{stream} {n} {}", "x".repeat(length))
}

/// Sends all messages of a stream, and checks that each comes back in order. Returns the longest wait for
/// one.
async fn carry(socket: Ws, stream: usize) -> Duration {
    let (mut to, mut from) = socket.socket.split();
    let ahead = Arc::new(Semaphore::new(AHEAD));
    let room = ahead.clone();
    let sends = tokio::spawn(async move {
        for n in 0..MESSAGES {
            room.acquire().await.expect("never closed").forget();
            let sent = to.send(Message::text(message(stream, n))).await;
            sent.expect("send");
        }
        to
    });
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    for n in 0..MESSAGES {
        let got = deadline("a message", from.next()).await;
        let got = got.expect("one more").expect("a message");
        let got = got.into_text().expect("text");
        let is_next = got == message(stream, n);
        assert!(is_next, "stream {stream}, message {n}: {got:.30}");
        longest = longest.max(last.elapsed());
        last = Instant::now();
        ahead.add_permits(1);
    }
    let _open = sends.await.expect("all sent");
    longest
}

/// Aim: 100,000 messages over 50 streams of 5 connections, to the node and back: 0 lost, 0 reordered. Fails
/// if a frame is dropped because a window or the socket is full, or if a waiting stream is not woken.
#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_messages_come_in_order() {
    let setup = start(2, "", "    balance: round_robin\n").await;
    let begun = Instant::now();
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut client = H2::connect(&setup.tls()).await;
        for _ in 0..STREAMS {
            let socket = h2_ws::connect(&mut client, "/ws/echo", &[]).await;
            streams.spawn(carry(socket, streams.len()));
        }
    }
    let all = tokio::time::timeout(MOST, streams.join_all()).await;
    let longest = all
        .expect("all messages in time")
        .into_iter()
        .max()
        .expect("streams");
    let (count, took) = (CONNECTIONS * STREAMS * MESSAGES, begun.elapsed());
    println!("{count} messages, 0 lost, 0 reordered, {took:.1?}, longest wait {longest:.1?}");
}
