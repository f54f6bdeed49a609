//! A client above its rate waits, is served in the end, and holds up nobody else.
//!
//! In: rates of five a second, so that each client may begin 20 connections or 100 requests at once and the rest one by one. Out: times,
//! and the number of those that waited. Source: issue "one client cannot shut out all others".

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use crate::client::Dial;
use crate::client::frames::{Frames, HEADERS, RESET, get, ids};
use crate::client::h1::H1;
use crate::client::h2::{H2, piece};
use crate::deadline;
use crate::setup::{HOST, Setup};

/// Begun at once.
const BURST: usize = 20;
/// Requests begun at once on a connection to the edge, which takes one connection to a node for them: 100 turns, of which
/// that connection takes four.
const REQUESTS: usize = 96;
/// Three more wait 0.2 s each.
const MORE: usize = 3;
const WAIT: Duration = Duration::from_millis(590);

const WAITS: &str = "pushgate_rate_waits_total";

/// An edge with a plain, a TLS and a layer-4 listener, and one that trusts a proxy. `keys` are keys of all of
/// them.
async fn edge(keys: &str) -> Setup {
    let listeners = format!(
        "  - {{ name: tcp, bind: [200.0.0.12:80], mode: tcp, to: p, {keys} }}\n  \
         - {{ name: behind, bind: [200.0.0.13:80], mode: http, to: p, {keys}, \
         plugins: [{{ forwarded: {{ trust: [127.0.0.0/8] }} }}] }}\n"
    );
    let keys = format!("[]\n    {}", keys.replace(", ", "\n    "));
    Setup::and(1, &keys, "", &listeners).await
}

async fn ask(dial: Dial) -> u16 {
    H1::connect(&dial).await.get("/hello", &[]).await.status
}

/// Aim: connections above the rate of their client wait and are served, plain, over TLS and at layer 4; those of
/// another client do not wait. Fails if nothing is paced, if what is above is refused, or if clients share a
/// pace.
#[tokio::test(flavor = "multi_thread")]
async fn connections_above_the_rate_wait_and_are_served() {
    let setup = edge("connection_rate_per_client: 5/s").await;
    let layer4 = Dial::plain(setup.block.at("200.0.0.12:80")).host(HOST);
    let ways = [setup.plain(), setup.tls(), layer4];
    let begun = Instant::now();
    let mut greedy = JoinSet::new();
    for (n, way) in ways.iter().enumerate() {
        for _ in 0..BURST + MORE {
            let dial = way.clone().from(setup.block.client(9));
            greedy.spawn(async move { (n, ask(dial).await, Instant::now()) });
        }
    }
    for way in &ways {
        for _ in 0..5 {
            assert_eq!(ask(way.clone().from(setup.block.client(1))).await, 200);
        }
    }
    let mut last = [begun; 3];
    while let Some(served) = greedy.join_next().await {
        let (n, status, at) = served.expect("no panic");
        assert_eq!(status, 200);
        last[n] = last[n].max(at);
    }
    let times = last.map(|at| at - begun);
    assert!(times.iter().all(|time| *time >= WAIT), "{times:?}");
    let waits = setup.edge.metric(WAITS).await;
    assert!((3.0..=9.0).contains(&waits), "{waits} have waited");
}

/// Aim: requests above the rate of their client wait and are served: on a kept connection of HTTP/1, as streams of
/// HTTP/2, and of a client that a trusted proxy names. Both versions have one rate, and a live stream goes on
/// meanwhile. Those of another client do not wait. Fails if one kind is not paced, or if the proxy is paced.
#[tokio::test(flavor = "multi_thread")]
async fn requests_above_the_rate_wait_and_are_served() {
    let setup = edge("request_rate_per_client: 5/s").await;
    let (plain, tls) = (setup.plain(), setup.tls());
    let from = |dial: &Dial, n| dial.clone().from(setup.block.client(n));
    let behind = Dial::plain(setup.block.at("200.0.0.13:80")).host(HOST);
    let begun = Instant::now();
    let kept = async {
        let mut client = H1::connect(&from(&plain, 9)).await;
        for _ in 0..REQUESTS + MORE {
            assert_eq!(client.get("/hello", &[]).await.status, 200);
        }
        begun.elapsed()
    };
    let both = async {
        let mut first = H1::connect(&from(&tls, 9)).await;
        for _ in 0..BURST {
            assert_eq!(first.get("/hello", &[]).await.status, 200);
        }
        let mut second = H2::connect(&from(&tls, 9)).await;
        let live = second.open("/sse?every=10", &[]).await;
        let mut live = live.expect("a head").into_body();
        // The live stream takes five turns, and the others four more than they are.
        for _ in 0..REQUESTS - BURST - 5 - 4 + MORE {
            let next = deadline("a piece", piece(&mut live)).await;
            assert!(next.is_some_and(|piece| piece.is_ok()));
            let answer = second.begin("/hello").await;
            let answer = deadline("an answer", answer).await;
            assert_eq!(answer.expect("an answer").status(), 200);
        }
        begun.elapsed()
    };
    let named = async {
        let mut proxy = H1::connect(&behind).await;
        for _ in 0..REQUESTS + MORE {
            let headers = [("X-Forwarded-For", "203.0.113.1")];
            assert_eq!(proxy.get("/hello", &headers).await.status, 200);
        }
        begun.elapsed()
    };
    let others = async {
        let mut proxy = H1::connect(&behind).await;
        for n in 0..BURST {
            assert_eq!(ask(from(&plain, 1 + n as u8 % 4)).await, 200);
            let client = format!("203.0.113.{}", 2 + n % 4);
            let headers = [("X-Forwarded-For", &client[..])];
            assert_eq!(proxy.get("/hello", &headers).await.status, 200);
        }
    };
    let (kept, both, named, ()) = tokio::join!(kept, both, named, others);
    let times = [kept, both, named];
    assert!(times.iter().all(|time| *time >= WAIT), "{times:?}");
    let waits = setup.edge.metric(WAITS).await;
    assert!((3.0..=9.0).contains(&waits), "{waits} have waited");
}

/// Aim: connections that leave before their turn give it back, so the next one of the client need not wait for
/// them. Fails if it waits for 40 that are gone, 8 s.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_left_gives_its_turn_back() {
    let setup = edge("connection_rate_per_client: 5/s").await;
    let dial = setup.tls().from(setup.block.client(9));
    let mut open = Vec::new();
    for _ in 0..BURST + 40 {
        open.push(dial.tcp().await);
    }
    setup.edge.wait_metric(WAITS, |n| n >= 35.0).await;
    drop(open);
    setup
        .edge
        .wait_metric("pushgate_connections", |n| n == 0.0)
        .await;
    let begun = Instant::now();
    assert_eq!(ask(dial).await, 200);
    assert!(begun.elapsed() < Duration::from_secs(4));
}

/// Aim: streams that the edge refuses have the rate too, and an HTTP/2 client that does not confirm the limit of
/// streams cannot have thousands of them refused at once. Fails if only those that are served are paced.
#[tokio::test(flavor = "multi_thread")]
async fn refused_streams_have_the_rate_too() {
    let keys = "request_rate_per_client: 5/s, limits: { http2: { streams: 1 } }";
    let setup = edge(keys).await;
    let mut client = Frames::connect(&setup.tls(), &[]).await;
    let begun = Instant::now();
    let all: Vec<u8> = ids(200).flat_map(|id| get(id, "/hold")).collect();
    client.send(&all).await;
    let refused = |f: &Frames| f.frames(RESET) + f.frames(HEADERS) > REQUESTS + 1;
    client.wait("refused streams", refused).await;
    assert!(begun.elapsed() >= Duration::from_millis(190));
    assert!(!client.ended && client.frames(RESET) < 100);
}

/// Aim: `off` is no rate. Fails if the default holds then.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_rate_nothing_waits() {
    let setup = edge("connection_rate_per_client: off, request_rate_per_client: off").await;
    let mut all = JoinSet::new();
    for _ in 0..200 {
        all.spawn(ask(setup.plain().from(setup.block.client(9))));
    }
    while let Some(status) = all.join_next().await {
        assert_eq!(status.expect("no panic"), 200);
    }
    assert_eq!(setup.edge.metric(WAITS).await, 0.0);
}
