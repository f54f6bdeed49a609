//! How the edge ends flows: with a close frame where the client can read one, at `evict_rate`, and at a
//! drain's deadline.
//!
//! In: nodes that fail or drain. Out: close codes, and when each flow saw its end. Source: Diffusion load
//! balancers, "TCP retransmission timeout"; RFC 6455 §7.4; Lightstreamer clustering §5.

use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::StreamExt;

use crate::client::Dial;
use crate::client::h1::H1;
use crate::client::h2::{H2, piece};
use crate::client::ws::{self, Ws};
use crate::deadline;
use crate::node::Health;
use crate::setup::Setup;

/// Aim: a WebSocket client of a dead node gets 1012 "Service Restart" if the edge is between two frames:
/// silent, busy, plain, TLS. In the middle of a frame the edge inserts nothing; the connection just ends.
/// Fails if clients are cut without a close frame, or if it lands in a payload.
#[tokio::test(flavor = "multi_thread")]
async fn websocket_clients_get_close_1012() {
    let setup = Setup::start(1).await;
    let mut sockets = Vec::new();
    for (name, dial) in setup.both() {
        for (path, code) in [
            ("/ws/silent", Some(1012)),
            ("/ws/echo", Some(1012)),
            ("/ws/tick?every=2", Some(1012)),
            ("/ws/half", None),
        ] {
            let mut socket = ws::connect(&dial, path, &[]).await;
            match path {
                "/ws/echo" => {
                    socket.say(&"long ".repeat(30_000)).await;
                    assert_eq!(socket.hear().await.len(), 150_000);
                }
                "/ws/tick?every=2" => assert_eq!(socket.hear().await, "tick 0"),
                _ => {}
            }
            sockets.push((name, path, socket, code));
        }
    }
    // Half a frame must have passed before the end.
    setup
        .edge
        .wait_nodes("8 flows", |n| n[0]["flows"] == 8)
        .await;
    setup.nodes[0].set_health(Health::Fail);
    for (name, path, mut socket, code) in sockets {
        if path == "/ws/half" {
            let next = deadline("the end", socket.socket.next()).await;
            assert!(!matches!(next, Some(Ok(_))), "{name}: {next:?}");
        }
        assert_eq!(socket.ended().await, code, "{name} {path}");
    }
}

/// Aim: the flows of a dead node end the same way if the edge speaks TLS to the node, whatever it speaks to
/// the client. Fails if the edge waits for the node's TLS.
#[tokio::test(flavor = "multi_thread")]
async fn flows_of_a_dead_tls_node_end_the_same() {
    let setup = Setup::tls_node().await;
    let mut sockets = Vec::new();
    let mut events = Vec::new();
    for (_, dial) in setup.both() {
        sockets.push(ws::connect(&dial, "/ws/tick?every=5", &[]).await);
        let mut client = H1::connect(&dial).await;
        client
            .send("GET", "/sse?silent=1", &[], b"")
            .await
            .expect("send");
        client.head().await.expect("the head");
        events.push(client);
    }
    setup.nodes[0].set_health(Health::Fail);
    for mut socket in sockets {
        assert_eq!(socket.ended().await, Some(1012));
    }
    for mut client in events {
        let rest = deadline("its end", client.rest()).await;
        assert!(rest.is_err(), "a cut answer looks whole: {rest:?}");
    }
    setup.nodes[0]
        .wait("no connection", |s| s.open_now() == 0)
        .await;
}

/// Opens `count` WebSockets.
async fn sockets(setup: &Setup, count: usize) -> Vec<Ws> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(ws::connect(&setup.plain(), "/ws/silent", &[]).await);
    }
    all
}

/// When each of the sockets saw its end.
async fn ends(sockets: Vec<Ws>) -> Vec<Instant> {
    let end = |mut socket: Ws| async move {
        assert_eq!(socket.ended().await, Some(1012));
        Instant::now()
    };
    futures_util::future::join_all(sockets.into_iter().map(end)).await
}

/// Asserts that the ends came one after the other, the oldest first, `rate` a second.
fn paced(ends: &[Instant], rate: f64) {
    assert!(ends.is_sorted(), "the oldest first");
    let took = ends[ends.len() - 1] - ends[0];
    let least = (ends.len() - 1) as f64 / rate * 0.9;
    assert!(
        took.as_secs_f64() >= least,
        "{took:?} is faster than {rate}/s"
    );
}

/// Aim: with `evict_rate` the flows of a dead node end at that rate, the oldest first. An unanswered request
/// moves to another node at once. When the node returns, the remaining flows go on. Fails if all end at once.
#[tokio::test(flavor = "multi_thread")]
async fn evict_rate_paces_the_ends() {
    let setup = Setup::with(2, "", "    evict_rate: 20/s\n").await;
    setup.edge.admin("POST", "/api/nodes/n2/drain").await;
    let mut flows = sockets(&setup, 12).await;
    let mut poll = H1::connect(&setup.plain()).await;
    poll.send("GET", "/poll", &[], b"").await.expect("send");
    let all = |s: &crate::node::Seen| s.open_now() == 13;
    setup.nodes[0].wait("all flows", all).await;
    setup.edge.admin("POST", "/api/nodes/n2/up").await;
    let kept = flows.split_off(8);
    setup.nodes[0].set_health(Health::Fail);
    setup.nodes[1].wait("the poll", |s| s.open_now() == 1).await;
    assert!(setup.nodes[0].seen().open_now() > 8, "the poll went first");
    paced(&ends(flows).await, 20.0);
    setup.nodes[0].set_health(Health::Ok);
    setup.wait_state("n1", "up").await;
    let left = setup.edge.nodes().await[0]["flows"].as_u64();
    assert!(left.is_some_and(|n| (1..=4).contains(&n)), "{left:?}");
    drop(kept);
}

/// Aim: `evict_rate` also paces layer-4 flows and single streams of an HTTP/2 connection, in one queue with
/// all other flows. Fails if a protocol's flows end at once, or if a connection ends with its first stream.
#[tokio::test(flavor = "multi_thread")]
async fn evict_rate_paces_every_protocol() {
    let raw = "  - { name: raw, bind: [200.0.0.10:81], mode: tcp, to: p }\n";
    let setup = Setup::and(2, "", "    evict_rate: 20/s\n", raw).await;
    setup.edge.admin("POST", "/api/nodes/n2/drain").await;
    let raw = Dial::plain(setup.block.at("200.0.0.10:81"));
    let mut h2 = H2::connect(&setup.tls()).await;
    let mut ends: Vec<Pin<Box<dyn Future<Output = Instant> + Send>>> = Vec::new();
    for _ in 0..4 {
        for dial in [&raw, &setup.plain()] {
            let mut socket = ws::connect(dial, "/ws/silent", &[]).await;
            ends.push(Box::pin(async move {
                socket.ended().await;
                Instant::now()
            }));
        }
        let answer = h2.open("/sse?silent=1", &[]).await.expect("a head");
        let mut body = answer.into_body();
        ends.push(Box::pin(async move {
            let end = deadline("a stream's end", piece(&mut body)).await;
            assert!(!matches!(end, Some(Ok(_))), "{end:?}");
            Instant::now()
        }));
    }
    setup.edge.admin("POST", "/api/nodes/n2/up").await;
    setup.nodes[0].set_health(Health::Fail);
    paced(&futures_util::future::join_all(ends).await, 20.0);
    assert_eq!(h2.get("/hello", &[]).await.headers()["x-node"], "n2");
}

/// Aim: under `on_down: keep` a node that goes Down keeps its flows, answered or not, until they end by
/// themselves. Its stuck clients and all new ones go elsewhere. Fails if its flows are closed, or if the node
/// still gets new ones.
#[tokio::test(flavor = "multi_thread")]
async fn flows_are_kept_where_the_pool_says_so() {
    let cookie = "[{ sticky_cookie: { name: PUSHGATE } }]";
    let setup = Setup::with(2, cookie, "    on_down: keep\n").await;
    setup.edge.admin("POST", "/api/nodes/n2/drain").await;
    let mut sockets = Vec::new();
    for (_, dial) in setup.both() {
        sockets.push(ws::connect(&dial, "/ws/echo", &[]).await);
    }
    let mut events = H1::connect(&setup.plain()).await;
    events
        .send("GET", "/sse?every=5", &[], b"")
        .await
        .expect("send");
    events.head().await.expect("the head");
    let mut h2 = H2::connect(&setup.tls()).await;
    let mut body = h2
        .open("/sse?every=5", &[])
        .await
        .expect("a head")
        .into_body();
    let hello = H1::connect(&setup.plain()).await.get("/hello", &[]).await;
    let cookie = hello.cookies()[0].to_owned();
    setup.nodes[0].hold_polls();
    let mut poll = H1::connect(&setup.plain()).await;
    poll.send("GET", "/poll", &[], b"").await.expect("send");
    let all = |n: &serde_json::Value| n[0]["flows"] == 5;
    setup.edge.wait_nodes("five flows", all).await;
    setup.edge.admin("POST", "/api/nodes/n2/up").await;
    setup.nodes[0].set_health(Health::Fail);
    setup.wait_state("n1", "down").await;
    for _ in 0..20 {
        assert!(
            !events
                .piece()
                .await
                .expect("an event")
                .expect("no end")
                .is_empty()
        );
        piece(&mut body).await.expect("no end").expect("DATA");
    }
    for socket in &mut sockets {
        socket.say("still here").await;
        assert_eq!(socket.hear().await, "still here");
    }
    let stuck = [("Cookie", cookie.as_str())];
    let moved = H1::connect(&setup.plain())
        .await
        .get("/hello", &stuck)
        .await;
    assert_eq!(moved.node(), "n2");
    setup.nodes[0].answer_polls("late");
    assert_eq!(poll.head().await.expect("an answer").status, 200);
    drop((sockets, events, h2, body, poll));
    let none = |n: &serde_json::Value| n[0]["flows"] == 0;
    setup.edge.wait_nodes("no flow", none).await;
    assert_eq!(setup.edge.metric("pushgate_evicted_flows_total").await, 0.0);
    assert_eq!(setup.edge.nodes().await[0]["state"], "down");
}

/// Aim: a drain with a deadline leaves flows and stuck clients alone until the deadline. Then the node is
/// Down, its remaining flows end at the rate, and its clients are balanced anew. Until then `/api/nodes`
/// shows the drain's progress. Fails if the deadline does nothing, or if stuck clients come back after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_at_its_deadline() {
    let setup = Setup::with(2, "[{ sticky_cookie: { name: PUSHGATE } }]", "").await;
    setup.edge.admin("POST", "/api/nodes/n2/drain").await;
    let flows = sockets(&setup, 8).await;
    let hello = H1::connect(&setup.plain()).await.get("/hello", &[]).await;
    let cookie = hello.cookies()[0].to_owned();
    let stuck = [("Cookie", cookie.as_str())];
    setup.edge.admin("POST", "/api/nodes/n2/up").await;
    let order = "/api/nodes/n1/drain?deadline=1500ms&rate=20%2Fs";
    let answer = setup.edge.admin("POST", order).await;
    assert!(answer.text().contains("draining"), "{}", answer.text());
    let drain = setup.edge.nodes().await[0]["drain"].clone();
    assert_eq!(drain["deadline_seconds"], 1, "{drain}");
    assert!(drain["eta_seconds"]["last"].as_u64() <= Some(1), "{drain}");
    let again = H1::connect(&setup.plain())
        .await
        .get("/hello", &stuck)
        .await;
    assert_eq!(again.node(), "n1", "stuck clients stay");
    let begun = Instant::now();
    let ends = ends(flows).await;
    assert!(
        begun.elapsed() > Duration::from_secs(1),
        "before the deadline"
    );
    paced(&ends, 20.0);
    setup.wait_state("n1", "down").await;
    let moved = H1::connect(&setup.plain())
        .await
        .get("/hello", &stuck)
        .await;
    assert_eq!(moved.node(), "n2");
    setup.edge.admin("POST", "/api/nodes/n1/up").await;
    setup.wait_state("n1", "up").await;
    assert!(setup.edge.nodes().await[0]["drain"].is_null());
}

/// Aim: `up` cancels a drain's deadline. Fails if the old deadline still closes flows.
#[tokio::test(flavor = "multi_thread")]
async fn up_takes_a_deadline_back() {
    let setup = Setup::start(1).await;
    let mut socket = ws::connect(&setup.plain(), "/ws/echo", &[]).await;
    let mut other = ws::connect(&setup.plain(), "/ws/echo", &[]).await;
    setup
        .edge
        .admin("POST", "/api/nodes/n1/drain?deadline=300ms")
        .await;
    setup.edge.admin("POST", "/api/nodes/n1/up").await;
    // A second drain gets a later deadline, which passes after the first one would have.
    setup
        .edge
        .admin("POST", "/api/nodes/n1/drain?deadline=600ms")
        .await;
    let begun = Instant::now();
    assert_eq!(socket.ended().await, Some(1012));
    assert!(begun.elapsed() > Duration::from_millis(500), "by the first");
    assert_eq!(other.ended().await, Some(1012));
}

/// An order with a bad query is refused with what was expected, and nothing is ordered.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_drain_is_refused() {
    let setup = Setup::start(1).await;
    for (query, says) in [
        (
            "drain?deadline=10",
            "deadline: found `10`; expected a duration with its unit",
        ),
        (
            "drain?deadline=500000000000y",
            "deadline: found `500000000000y`; expected a duration up to `3650d`",
        ),
        (
            "drain?rate=fast",
            "rate: found `fast`; expected a rate above zero",
        ),
        (
            "drain?pace=1",
            "unknown `pace`; expected `deadline`, `rate`, `to`, `removed` or `here`",
        ),
        ("down?rate=5/s", "only `drain` takes a deadline"),
    ] {
        let answer = setup
            .edge
            .admin("POST", &format!("/api/nodes/n1/{query}"))
            .await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.text().contains(says), "{query}: {}", answer.text());
    }
    assert_eq!(setup.edge.nodes().await[0]["state"], "up");
}
