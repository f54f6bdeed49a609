//! HTTP/2 clients of HTTP/1 nodes: the ends of bodies, and streams side by side.
//!
//! In: requests over TLS with ALPN `h2`. Out: what the node read. Source: RFC 9113 §6.1, §8.1;
//! RFC 9112 §7.1.

/// ALPN at layer 4.
mod alpn;
/// Ends of answers.
mod answers;
/// Streams that share one connection.
mod fair;
/// Requests that both versions refuse, and requests that both pass.
mod heads;
/// Drains with idle and live connections.
mod drain;
/// Nodes that fail a request.
mod lost;
/// Interim answers, trailers, fields, bytes.
mod passes;
/// Streams of one connection do not affect each other: routes, stalls, ends.
mod siblings;
/// An edge with a node that the test scripts byte by byte.
mod rig;
/// Clients that break the rules, never finish, or leave.
mod errors;
/// Frames that cost their sender little.
mod floods;
/// The conformance tests of h2spec.
mod spec;
/// Windows, and clients that read nothing.
mod windows;
/// Observes what a hostile client does to others.
mod witness;

use crate::client::h2::{H2, piece};
use crate::setup::Setup;

/// Chromium.
mod chromium;
/// The http2 module of Node.js, curl, Java's HttpClient.
mod clients;
/// WebSockets over streams.
mod websocket;

/// Aim: an upload that ends with an empty DATA frame reaches the node with exactly one end, and its
/// connection carries the next request. Fails if the chunked end is written twice: the node then reads `0` as
/// a request (W8).
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_last_frame_ends_a_body_once() {
    let setup = Setup::start(1).await;
    let node = &setup.nodes[0];
    let mut client = H2::connect(&setup.tls()).await;
    for parts in [&[&b"abc"[..], b"def"][..], &[b"abc"], &[]] {
        let answer = client.upload("/echo", parts).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(*answer.body(), parts.concat());
        let hello = client.get("/hello", &[]).await;
        assert_eq!(hello.status(), 200);
    }
    let seen = node.seen();
    assert_eq!((seen.traffic().len(), seen.requests().len()), (1, 6));
}

/// Aim: streams of one connection do not wait for each other: a silent one, one in pieces, and short ones
/// beside them. Fails if a connection serves one stream at a time.
#[tokio::test(flavor = "multi_thread")]
async fn streams_do_not_wait_for_each_other() {
    let setup = Setup::start(2).await;
    let mut client = H2::connect(&setup.tls()).await;
    let mut other = client.open("/sse?silent=1", &[]).await.expect("a head");
    let ticks = client.open("/sse?every=1", &[]).await.expect("a head");
    let mut ticks = ticks.into_body();
    for _ in 0..50 {
        let hello = client.get("/hello", &[]).await;
        assert_eq!(hello.status(), 200);
        piece(&mut ticks).await.expect("an event").expect("DATA");
    }
    other
        .body_mut()
        .flow_control()
        .release_capacity(0)
        .expect("still open");
}

/// Aim: when a client resets a stream, silent or busy, the end reason is that the client closed it. Fails if
/// every HTTP/2 error counts as a bad request.
#[tokio::test(flavor = "multi_thread")]
async fn a_reset_stream_is_closed_by_its_client() {
    let setup = Setup::start(1).await;
    let mut h2 = H2::connect(&setup.tls()).await;
    for (n, path) in ["/sse?silent=1", "/sse?every=1"].into_iter().enumerate() {
        drop(h2.open(path, &[]).await.expect("a head"));
        let lines = setup.edge.wait_access("its line", |l| l.len() > n).await;
        assert_eq!(lines[n]["reason"], "client_closed", "{path}");
    }
}
