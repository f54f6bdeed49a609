//! How many bytes the edge adds between a node and a client that stopped reading.
//!
//! In: a flood, a client with a small window that does not read. Out: bytes the node could write until
//! it stalled, with the edge and without; then every byte, in order. Source: Lightstreamer clustering
//! §1 (TCP back-pressure tells a slow client).

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::h1::H1;
use crate::client::{Dial, ws};
use crate::deadline;
use crate::node::Node;
use crate::node::endpoints::{BLOCK, flood_block};
use crate::setup::Setup;

/// The dial of a client with a receive buffer of 16 KiB.
fn slow(dial: &Dial) -> Dial {
    Dial {
        rcvbuf: Some(8 * 1024),
        ..dial.clone()
    }
}

/// Bytes of each flood that is read to its end.
const FLOOD: u64 = 512 << 10;
/// Most bytes the edge may add; seen: 2 to 10 KiB.
const MOST: u64 = 24 << 10;
/// No byte for so long: the node has stalled.
const QUIET: Duration = Duration::from_millis(300);

/// A flood in `framing` until it stalls, then read to its end; how much the node had written.
async fn http(dial: &Dial, node: &Node, framing: &str) -> u64 {
    let mut client = H1::connect(&slow(dial)).await;
    let before = node.flooded();
    let path = format!("/flood?sndbuf=2048&framing={framing}&bytes={FLOOD}");
    client.send("GET", &path, &[], b"").await.expect("send");
    deadline("the flood", async {
        while node.flooded() == before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let stalled = node.stalled(QUIET).await - before;
    assert_eq!(client.head().await.expect("the head").status, 200);
    let mut got = Vec::new();
    let mut blocks = 0;
    while let Some(piece) = client.piece().await.expect("bytes of the flood") {
        got.extend(piece);
        while got.len() >= BLOCK {
            assert!(got[..BLOCK] == flood_block(blocks), "block {blocks}");
            got.drain(..BLOCK);
            blocks += 1;
        }
    }
    assert_eq!((blocks, got.len()), (FLOOD / BLOCK as u64, 0), "{framing}");
    stalled
}

/// The same over a WebSocket.
async fn websocket(dial: &Dial, node: &Node) -> u64 {
    let before = node.flooded();
    let count = FLOOD / 1000;
    let path = format!("/ws/flood?sndbuf=2048&size=1000&n={count}");
    let mut socket = ws::connect(&slow(dial), &path, &[]).await;
    deadline("the flood", async {
        while node.flooded() == before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let stalled = node.stalled(QUIET).await - before;
    for n in 0..count {
        let heard: u64 = socket.hear().await.parse().expect("a number");
        assert_eq!(heard, n);
    }
    stalled
}

/// Aim: a stopped reader stalls its node after at most 24 KiB more than without the edge, over a
/// WebSocket and over HTTP/1 streams, plain and TLS, with default settings; nothing is lost when it reads
/// on. Fails without the gate on reading the node, with a kernel's default receive buffer, or without
/// TCP_NOTSENT_LOWAT.
#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_reader_stalls_its_node() {
    let setup = Setup::start(1).await;
    let node = &setup.nodes[0];
    let direct = Dial::plain(node.addr);
    for framing in ["chunked", "length", "close"] {
        let without = http(&direct, node, framing).await;
        for (name, dial) in setup.both() {
            let with = http(&dial, node, framing).await;
            let hidden = with.saturating_sub(without);
            println!("{framing}, {name}: {with} bytes, direct {without}, hidden {hidden}");
            assert!(hidden <= MOST, "{framing}, {name}: {hidden}");
        }
    }
    let without = websocket(&direct, node).await;
    for (name, dial) in setup.both() {
        let with = websocket(&dial, node).await;
        let hidden = with.saturating_sub(without);
        println!("WebSocket, {name}: {with} bytes, direct {without}, hidden {hidden}");
        assert!(hidden <= MOST, "{name}: {hidden}");
    }
}

/// Aim: an upload to a node that does not read stalls its client; the edge is no store. Fails if a
/// body is collected before it is passed on.
#[tokio::test(flavor = "multi_thread")]
async fn an_upload_nobody_reads_stalls_its_client() {
    let setup = Setup::start(1).await;
    let node = &setup.nodes[0];
    for (name, dial) in setup.both() {
        let mut io = dial.io().await;
        // The node holds its answer, and does not read, until allowed.
        node.allow(0);
        let head = "GET /ws/echo?step=1 HTTP/1.1\r\nHost: push.mycompany.com\r\n\
                    Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        io.write_all(head.as_bytes()).await.expect("send");
        let frame = [&[0x82, 0xfe, 0x10, 0, 0, 0, 0, 0][..], &[7; 4096]].concat();
        let mut sent = 0;
        // Bounded wait: a write that is not taken for 300 ms has stalled.
        while let Ok(written) = tokio::time::timeout(QUIET, io.write_all(&frame)).await {
            written.expect("send");
            sent += frame.len();
            assert!(sent < 16 << 20, "{name}: {sent} bytes taken before the 101");
        }
        println!("{name}: {sent} bytes taken before the 101");
        drop(io);
    }
    let mut scrap = [0];
    let mut fresh = setup.plain().io().await;
    let idle = tokio::time::timeout(Duration::from_millis(50), fresh.read(&mut scrap)).await;
    assert!(idle.is_err(), "the edge serves on");
}
