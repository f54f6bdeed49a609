//! Shutdown and reload with live flows: live flows go on, new flows follow the new configuration.
//!
//! In: signals and changed files. Out: which connections live, which are refused, the exit code. Source:
//! FAULTS D67, D68, D70; Lightstreamer clustering §3.2.1.1.

use tokio::io::AsyncReadExt;

use crate::client::h1::H1;
use crate::client::h2::{H2, piece};
use crate::client::{Dial, ws};
use crate::deadline;
use crate::setup::{HOST, Setup, node, yaml};

/// Waits until connections to `dial` are refused.
async fn refused(dial: &Dial) {
    deadline("a refused connection", async {
        while dial.try_tcp().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// Aim: after SIGTERM the edge refuses new clients and closes idle connections. A WebSocket, an HTTP/1 and an
/// HTTP/2 stream go on until they end by themselves; then the exit code is 0. Fails if a graceful phase like
/// Pingora's ends live flows, or if idle connections delay the exit.
#[tokio::test(flavor = "multi_thread")]
async fn live_flows_outlive_sigterm() {
    let mut setup = Setup::start(1).await;
    let mut idle = H1::connect(&setup.plain()).await;
    idle.get("/hello", &[]).await;
    let mut unused = setup.plain().io().await;
    let mut secure = ws::connect(&setup.tls(), "/ws/echo", &[]).await;
    let mut socket = ws::connect(&setup.plain(), "/ws/echo", &[]).await;
    let mut events = H1::connect(&setup.plain()).await;
    let path = "/sse?n=2&step=1&every=0";
    events.send("GET", path, &[], b"").await.expect("send");
    events.head().await.expect("the head");
    let mut h2 = H2::connect(&setup.tls()).await;
    let mut body = h2.open(path, &[]).await.expect("a head").into_body();
    setup.edge.signal(libc::SIGTERM);
    refused(&setup.plain()).await;
    refused(&setup.tls()).await;
    assert!(idle.ended().await, "an idle connection ends in order");
    let mut scrap = [0];
    let unused = deadline("the end", unused.read(&mut scrap)).await;
    assert_eq!(unused.expect("an orderly end"), 0);
    setup.nodes[0].allow(2);
    for socket in [&mut secure, &mut socket] {
        socket.say("still here").await;
        assert_eq!(socket.hear().await, "still here");
    }
    let rest = events.rest().await.expect("a whole answer");
    assert!(rest.ends_with(b"data: n1 1\n\n"));
    let mut got = Vec::new();
    while let Some(data) = piece(&mut body).await {
        got.extend_from_slice(&data.expect("DATA"));
    }
    assert!(got.ends_with(b"data: n1 1\n\n"));
    drop((secure, socket, events, h2, body));
    assert_eq!(setup.edge.ended().await.code(), Some(0));
}

/// Aim: a second SIGTERM ends the program at once, also with live flows. Fails if the drain cannot be cut
/// short.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_sigterm_ends_at_once() {
    let mut setup = Setup::start(1).await;
    let mut socket = ws::connect(&setup.plain(), "/ws/silent", &[]).await;
    setup.edge.signal(libc::SIGTERM);
    refused(&setup.plain()).await;
    setup.edge.signal(libc::SIGTERM);
    assert_eq!(setup.edge.ended().await.code(), Some(0));
    socket.ended().await;
}

/// Aim: SIGHUP with a changed file adds an address and a node, and another takes them away. A WebSocket lives
/// through both; an unchanged address serves throughout. Fails if listeners are opened anew, or if live flows
/// follow the new configuration.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_adds_and_removes() {
    let setup = Setup::start(1).await;
    let second = node(&setup.block, 2).await;
    let mut socket = ws::connect(&setup.plain(), "/ws/echo", &[]).await;
    let more = Dial::plain(setup.block.at("200.0.0.20:80")).host(HOST);
    assert!(more.try_tcp().await.is_err(), "nobody listens there yet");
    let two = "[200.0.0.10:80, 200.0.0.20:80]";
    let wide = yaml(&setup.certs, 2, "", "").replace("[200.0.0.10:80]", two);
    setup.edge.rewrite(&setup.block, &wide);
    setup.edge.signal(libc::SIGHUP);
    setup.wait_state("n2", "up").await;
    let mut kept = H1::connect(&more).await;
    let mut seen = std::collections::BTreeSet::new();
    let mut held = Vec::new();
    // Held open: the node with the fewest flows gets the next one.
    while seen.len() < 2 {
        let flow = ws::connect(&more, "/ws/echo", &[]).await;
        seen.insert(flow.node().to_owned());
        held.push(flow);
    }
    let mut on_second = ws::connect(&more, "/ws/echo", &[]).await;
    while on_second.node() != "n2" {
        on_second = ws::connect(&more, "/ws/echo", &[]).await;
    }
    kept.get("/hello", &[]).await;
    drop(held);
    let narrow = yaml(&setup.certs, 1, "", "");
    setup.edge.rewrite(&setup.block, &narrow);
    setup.edge.signal(libc::SIGHUP);
    refused(&more).await;
    for _ in 0..6 {
        let answer = H1::connect(&setup.plain()).await.get("/hello", &[]).await;
        assert_eq!(answer.node(), "n1");
    }
    // Both WebSockets live on; the one on the removed node drains, as its address was removed.
    for socket in [&mut socket, &mut on_second] {
        socket.say("still here").await;
        assert_eq!(socket.hear().await, "still here");
    }
    drop(second);
}

/// Aim: a file with a fault changes nothing: the running configuration stays, the metric shows the failure,
/// and the next good file is applied (D67). Fails if a reload is applied in parts.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_changes_nothing() {
    let setup = Setup::start(1).await;
    let successful = "pushgate_config_last_reload_successful";
    assert_eq!(setup.edge.metric(successful).await, 1.0);
    let good = yaml(&setup.certs, 1, "", "");
    let faults = [
        good.replace("to: p\n", "to: nowhere\n"),
        good.replace("mode: http", "mode: htpt"),
        good[..good.len() / 2].to_owned(),
        good.replace("nodes: [n1]", "nodes: [n1, n9]"),
    ];
    for bad in faults {
        setup.edge.rewrite(&setup.block, &bad);
        let answer = setup.edge.admin("POST", "/api/reload").await;
        assert_eq!(answer.status, 422, "{bad}");
        assert!(
            answer.text().contains("pushgate.yaml:"),
            "{}",
            answer.text()
        );
        assert_eq!(setup.edge.metric(successful).await, 0.0);
        let hello = H1::connect(&setup.plain()).await.get("/hello", &[]).await;
        assert_eq!(hello.node(), "n1");
    }
    setup.edge.rewrite(&setup.block, &good);
    assert_eq!(setup.edge.admin("POST", "/api/reload").await.status, 200);
    assert_eq!(setup.edge.metric(successful).await, 1.0);
}

/// Aim: an address in use fails the whole reload: no address, node or route of the new file is applied. Fails
/// if sockets are bound after the first change.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_changes_nothing() {
    let setup = Setup::start(1).await;
    let taken = std::net::TcpListener::bind(setup.block.at("200.0.0.30:80")).expect("bind");
    let two = "[200.0.0.20:80, 200.0.0.30:80]";
    let wide = yaml(&setup.certs, 2, "", "").replace("[200.0.0.10:80]", two);
    setup.edge.rewrite(&setup.block, &wide);
    let answer = setup.edge.admin("POST", "/api/reload").await;
    assert_eq!(answer.status, 422, "{}", answer.text());
    let more = Dial::plain(setup.block.at("200.0.0.20:80"));
    refused(&more).await;
    let hello = H1::connect(&setup.plain()).await.get("/hello", &[]).await;
    assert_eq!(hello.node(), "n1");
    assert_eq!(setup.edge.nodes().await.as_array().map(Vec::len), Some(1));
    drop(taken);
}

/// Aim: at `drain_deadline` the edge cuts the remaining flows. Each has its access line with `drained`,
/// whatever its protocol and whether it was answered or not. Fails if the process just exits, or omits a kind
/// of flow.
#[tokio::test(flavor = "multi_thread")]
async fn flows_cut_by_a_stop_have_access_lines() {
    let mut setup = Setup::start(1).await;
    let short = yaml(&setup.certs, 1, "", "") + "drain_deadline: 500ms\n";
    setup.edge.rewrite(&setup.block, &short);
    assert_eq!(setup.edge.admin("POST", "/api/reload").await.status, 200);
    let _secure = ws::connect(&setup.tls(), "/ws/silent", &[]).await;
    let mut socket = ws::connect(&setup.plain(), "/ws/echo", &[]).await;
    let events = "/sse?n=0&step=1&every=0";
    let mut h1 = H1::connect(&setup.plain()).await;
    h1.send("GET", events, &[], b"").await.expect("send");
    h1.head().await.expect("the head");
    let mut h2 = H2::connect(&setup.tls()).await;
    let _body = h2.open(events, &[]).await.expect("a head").into_body();
    setup.nodes[0].hold_polls();
    let mut poll = H1::connect(&setup.plain()).await;
    poll.send("GET", "/poll", &[], b"").await.expect("send");
    let there = |n: &serde_json::Value| n[0]["flows"] == 5;
    setup.edge.wait_nodes("5 flows", there).await;
    setup.edge.signal(libc::SIGTERM);
    assert_eq!(socket.ended().await, Some(1012));
    assert_eq!(setup.edge.ended().await.code(), Some(0));
    let lines = setup.edge.access();
    let drained = lines.iter().filter(|l| l["reason"] == "drained");
    let mut paths: Vec<_> = drained.map(|l| l["path"].as_str()).collect();
    paths.sort();
    let all = ["/poll", "/sse", "/sse", "/ws/echo", "/ws/silent"];
    assert_eq!(paths, all.map(Some), "{lines:?}");
}
