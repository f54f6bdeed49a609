//! The real Lightstreamer client straight to the TLCP node, without an edge: what the tests of options rely
//! on.
//!
//! In: each transport. Out: sessions, updates and messages, nothing degraded. Source: Lightstreamer
//! clustering §1.

use std::time::Duration;

use serde_json::json;

use crate::js::Js;
use crate::node::Node;
use crate::tlcp::{Sessions, Settings, Transport};
use crate::vip::Block;

async fn node_with(block: &Block, settings: Settings) -> Node {
    Node::start_with(
        "ls1",
        block.at("10.0.0.1:80"),
        Sessions::with("ls1", settings),
    )
    .await
}

/// Aim: a forced transport carries a session, updates and messages. Fails if the node does not speak that
/// transport.
async fn forced(name: &str, used: Transport) {
    let block = Block::claim();
    let node = node_with(&block, Settings::default()).await;
    let options = json!({ "server": format!("http://{}", node.addr), "transport": name });
    let mut client = Js::start(options, None).await;
    client.status(&format!("CONNECTED:{name}")).await;
    client.updates(50).await;
    client.message("hello").await;
    assert_eq!(
        client.of("lost").len() + client.of("error").len(),
        0,
        "{:?}",
        client.events()
    );
    let counts = node.sessions().counts();
    assert_eq!(
        (counts.created, counts.wrong_node, counts.unknown),
        (1, 0, 0)
    );
    assert!(counts.transports.contains(&used), "{counts:?}");
    assert_eq!(counts.messages, ["hello"]);
    client.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn websocket_streaming() {
    forced("WS-STREAMING", Transport::WsStreaming).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_streaming() {
    forced("HTTP-STREAMING", Transport::HttpStreaming).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_polling() {
    forced("HTTP-POLLING", Transport::HttpPolling).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn websocket_polling() {
    forced("WS-POLLING", Transport::WsPolling).await;
}

/// Aim: a client that may choose ends on WebSocket streaming. Fails if the node does not return the
/// sub-protocol.
#[tokio::test(flavor = "multi_thread")]
async fn stream_sense_ends_on_websocket() {
    let block = Block::claim();
    let node = node_with(&block, Settings::default()).await;
    let mut client = Js::start(json!({ "server": format!("http://{}", node.addr) }), None).await;
    client.status("CONNECTED:WS-STREAMING").await;
    client.updates(50).await;
    assert_eq!(node.sessions().counts().failures(), [] as [&str; 0]);
    client.end().await;
}

/// Aim: each update arrives once, in order, across the rebinds of short streaming answers, chunked and with a
/// length. Fails if a stream does not go on where the last one stopped.
#[tokio::test(flavor = "multi_thread")]
async fn short_streams_rebind_without_loss() {
    for fixed_length in [false, true] {
        let block = Block::claim();
        let settings = Settings {
            content_length: Some(2000),
            every: Duration::from_millis(5),
            fixed_length,
            ..Settings::default()
        };
        let node = node_with(&block, settings).await;
        let options =
            json!({ "server": format!("http://{}", node.addr), "transport": "HTTP-STREAMING" });
        let mut client = Js::start(options, None).await;
        client.updates(400).await;
        for item in [1, 2] {
            let updates = client.of("update");
            let of_item = updates.iter().filter(|u| u["item"] == item);
            let values: Vec<usize> = of_item
                .map(|u| {
                    u["value"]
                        .as_str()
                        .and_then(|v| v.parse().ok())
                        .expect("a number")
                })
                .collect();
            assert_eq!(
                values,
                (1..=values.len()).collect::<Vec<_>>(),
                "item {item}"
            );
        }
        let counts = node.sessions().counts();
        let binds = counts
            .transports
            .iter()
            .filter(|t| **t == Transport::HttpStreaming);
        assert!(binds.count() > 3, "{counts:?}");
        client.end().await;
    }
}

/// Aim: the harness notices broken stickiness. A request for a session of one node goes to another, as
/// through a balancer without stickiness. Fails if wrong-node requests are not counted.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_node_is_counted() {
    let block = Block::claim();
    let ls2 = Node::start("ls2", block.at("10.0.0.2:80")).await;
    // A control link to a node that does not have the session.
    let settings = Settings {
        control_link: Some("push2.mycompany.com".into()),
        ..Settings::default()
    };
    let ls1 = node_with(&block, settings).await;
    let options = json!({
        "server": format!("http://push.mycompany.com:{}", ls1.addr.port()),
        "resolve": { "push.mycompany.com": ls1.addr.ip(), "push2.mycompany.com": ls2.addr.ip() },
        "transport": "HTTP-STREAMING",
        "localAddress": block.client(7),
    });
    let mut client = Js::start(options, None).await;
    ls2.sessions()
        .wait("a wrong-node request", |c| c.wrong_node > 0)
        .await;
    client
        .wait("error 21", |events| events.iter().any(|e| e["code"] == 21))
        .await;
    let counts = ls1.sessions().counts();
    assert_eq!(counts.clients[0], block.client(7).to_string());
    assert!(
        counts.create_hosts[0].starts_with("push.mycompany.com"),
        "{counts:?}"
    );
}

/// Aim: the client replaces a session that has expired. Source: Lightstreamer clustering §5.1. Fails if the
/// node does not announce the session's end.
#[tokio::test(flavor = "multi_thread")]
async fn expired_session_is_made_anew() {
    let block = Block::claim();
    let node = node_with(&block, Settings::default()).await;
    let options = json!({ "server": format!("http://{}", node.addr), "transport": "WS-STREAMING", "retryDelay": 100 });
    let mut client = Js::start(options, None).await;
    client.updates(10).await;
    node.sessions().expire_all();
    node.sessions()
        .wait("a second session", |c| c.created == 2)
        .await;
    client.updates(10).await;
    client.end().await;
}

/// Aim: one client that moves from transport to transport keeps its session, and takes no move for a failure.
/// Fails if a WebSocket is closed before LOOP is sent.
#[tokio::test(flavor = "multi_thread")]
async fn moves_keep_the_session() {
    let block = Block::claim();
    let node = node_with(&block, Settings::default()).await;
    let options = json!({ "server": format!("http://{}", node.addr), "transport": "WS-STREAMING" });
    let mut client = Js::start(options, None).await;
    for kind in [
        "WS-STREAMING",
        "HTTP-STREAMING",
        "HTTP-POLLING",
        "WS-STREAMING",
        "WS-POLLING",
    ] {
        client.transport(kind).await;
        client.status(&format!("CONNECTED:{kind}")).await;
        client.updates(10).await;
    }
    let counts = node.sessions().counts();
    assert_eq!((counts.created, counts.unknown), (1, 0), "{counts:?}");
    assert_eq!(counts.failures(), [] as [&str; 0], "{counts:?}");
    client.end().await;
}
