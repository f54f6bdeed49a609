//! Plugins that decide by path, by address and by a value, in the running program.
//!
//! In: one listener with all three. Out: which clients are let in, and which node answers. Source:
//! Lightstreamer clustering §2, §2.2; FAULTS D41.

use crate::client::h1::H1;
use crate::client::ws;
use crate::setup::Setup;

/// Aim: a denied address gets 403 and reaches no node. A path leads to its node. All members of a room reach
/// one node, whether the query or a header names the room, and rooms are spread. Fails without any of the
/// three plugins.
#[tokio::test(flavor = "multi_thread")]
async fn paths_addresses_and_values_decide() {
    let plugins = "[{ access: { deny: [127.0.0.0/8], allow: [127.0.0.0/8] } }]";
    let closed = Setup::with(1, plugins, "").await;
    let answer = H1::connect(&closed.plain()).await.get("/hello", &[]).await;
    assert_eq!(answer.status, 403);
    assert_eq!(closed.nodes[0].seen().traffic().len(), 0);

    let plugins = "[{ access: { deny: [192.0.2.0/24] } }, { path_route: { paths: { /stream: n2 } } }, \
                   { sticky_param: { from: [{ query: room }, { header: x-room }] } }]";
    let open = Setup::with(2, plugins, "").await;
    let stream = "/stream/length?n=1&every=0";
    for _ in 0..4 {
        let answer = H1::connect(&open.plain()).await.get(stream, &[]).await;
        assert_eq!(answer.status, 200);
    }
    let seen = open.nodes[1].seen().requests().len();
    assert_eq!((seen, open.nodes[0].seen().requests().len()), (4, 0));
    let mut nodes = Vec::new();
    for room in 0..20 {
        let path = format!("/hello?room=r{room}");
        let node = H1::connect(&open.plain()).await.get(&path, &[]).await;
        let node = node.node().to_owned();
        for n in 2..5 {
            let dial = open.plain().from(open.block.client(n));
            let value = format!("r{room}");
            let headers = [("X-Room", value.as_str())];
            let answer = H1::connect(&dial).await.get("/hello", &headers).await;
            assert_eq!(answer.node(), node, "room {room}");
            let socket = ws::connect(&dial, &format!("/ws/echo?room={value}"), &[]).await;
            assert_eq!(socket.node(), node, "room {room}");
        }
        nodes.push(node);
    }
    assert!(nodes.iter().any(|n| n == "n1") && nodes.iter().any(|n| n == "n2"));
}
