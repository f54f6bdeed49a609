//! Streams pass piece by piece the moment the node writes them, and silence ends nothing.
//!
//! In: streams whose node writes a piece only when the test allows it. Out: each piece reaches the client
//! before the next one exists; no timing is involved. Source: Lightstreamer clustering §1; Diffusion load
//! balancers, "Load balancer closing silent connections".

use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::client::h1::H1;
use crate::client::h2::{H2, piece};
use crate::client::ws;
use crate::setup::{HOST, Setup};

/// Streams of 100-byte pieces, by framing.
const STREAMS: [&str; 4] = [
    "/stream/length?n=20&size=100&every=0&step=1",
    "/stream/chunked?n=20&size=100&every=0&step=1",
    "/stream/close?n=20&size=100&every=0&step=1",
    "/sse?n=20&every=0&step=1",
];

/// Aim: over HTTP/1, each piece reaches the client before the node may write the next, in every framing.
/// Fails with a write buffer towards the client (W2), or if the edge waits for more bytes.
#[tokio::test(flavor = "multi_thread")]
async fn each_piece_passes_before_the_next() {
    let setup = Setup::start(1).await;
    let node = &setup.nodes[0];
    for (name, dial) in setup.both() {
        for path in STREAMS {
            node.allow(0);
            let mut client = H1::connect(&dial).await;
            client.send("GET", path, &[], b"").await.expect("send");
            let head = client.head().await.expect("the head before any piece");
            assert_eq!(head.status, 200);
            let mut got = Vec::new();
            for n in 1..=20 {
                node.allow(n);
                while !is_whole(&got, n, path) {
                    let piece = client.piece().await.expect("bytes");
                    got.extend(piece.unwrap_or_else(|| panic!("{name} {path}: ended at {n}")));
                }
            }
            let rest = client.rest().await.expect("an orderly end");
            assert!(rest.is_empty(), "{name} {path}: {rest:?}");
        }
    }
}

/// Aim: the same over HTTP/2. Fails if DATA waits for more bytes.
#[tokio::test(flavor = "multi_thread")]
async fn each_piece_passes_before_the_next_over_http2() {
    let setup = Setup::start(1).await;
    let node = &setup.nodes[0];
    let mut client = H2::connect(&setup.tls()).await;
    for path in STREAMS {
        node.allow(0);
        let answer = client.open(path, &[]).await.expect("the head");
        let mut body = answer.into_body();
        let mut got = Vec::new();
        for n in 1..=20 {
            node.allow(n);
            while !is_whole(&got, n, path) {
                let data = piece(&mut body).await.expect("not the end");
                got.extend_from_slice(&data.expect("DATA"));
            }
        }
        // The stream may end by an empty DATA frame.
        while let Some(data) = piece(&mut body).await {
            assert!(data.expect("an orderly end").is_empty(), "{path}");
        }
    }
}

/// Whether `got` is `n` whole pieces. It cannot be more: the node must not have written it.
fn is_whole(got: &[u8], n: u64, path: &str) -> bool {
    let pieces = match path.starts_with("/sse") {
        true => memchr::memmem::find_iter(got, b"\n\n").count(),
        false => got.iter().filter(|b| **b == b'\n').count(),
    };
    assert!(pieces as u64 <= n, "{path}: {pieces} pieces of {n}");
    pieces as u64 == n
}

/// Aim: a WebSocket, an event stream, a pending poll, an upload that pauses, and an idle persistent
/// connection all survive silence, plain and TLS. Silence lasts 3 s, or `PUSHGATE_TEST_SILENCE` seconds (130
/// for the full proof). Fails with any read or idle timer (W3).
#[tokio::test(flavor = "multi_thread")]
async fn silence_ends_nothing() {
    let setup = Setup::start(1).await;
    let node = &setup.nodes[0];
    let asked = std::env::var("PUSHGATE_TEST_SILENCE").ok();
    let hold = Duration::from_secs(asked.and_then(|s| s.parse().ok()).unwrap_or(3));
    let mut all = Vec::new();
    for (name, dial) in setup.both() {
        let socket = ws::connect(&dial, "/ws/echo", &[]).await;
        let mut events = H1::connect(&dial).await;
        let path = "/sse?n=1&step=1";
        events.send("GET", path, &[], b"").await.expect("send");
        events.head().await.expect("the head of the events");
        let mut poll = H1::connect(&dial).await;
        poll.send("GET", "/poll", &[], b"").await.expect("send");
        let mut upload = H1::connect(&dial).await;
        let head = format!("POST /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 8\r\n\r\nhalf");
        upload.raw(head.as_bytes()).await.expect("send");
        let mut idle = H1::connect(&dial).await;
        idle.get("/hello", &[]).await;
        all.push((name, socket, events, poll, upload, idle));
    }
    let mut h2 = H2::connect(&setup.tls()).await;
    let mut h2_events = h2
        .open("/sse?n=1&step=1", &[])
        .await
        .expect("the head of the events")
        .into_body();
    // Bounded wait: nothing may arrive, not even an end.
    for (name, _, events, ..) in &mut all {
        let silence = tokio::time::timeout(hold / 2, events.io.read_u8()).await;
        assert!(silence.is_err(), "{name}: {silence:?} instead of silence");
    }
    node.allow(1);
    node.answer_polls("told");
    for (name, mut socket, mut events, mut poll, mut upload, mut idle) in all {
        socket.say("still here").await;
        assert_eq!(socket.hear().await, "still here", "{name}");
        assert!(events.piece().await.expect("an event").is_some(), "{name}");
        poll.head().await.expect("the poll's answer");
        assert_eq!(poll.rest().await.expect("its body"), b"told", "{name}");
        upload.raw(b"half").await.expect("the other half");
        upload.head().await.expect("the upload's answer");
        assert_eq!(upload.rest().await.expect("its body"), b"halfhalf");
        assert_eq!(idle.get("/hello", &[]).await.status, 200, "{name}");
    }
    let event = piece(&mut h2_events).await.expect("an event");
    assert!(!event.expect("DATA").is_empty());
}
