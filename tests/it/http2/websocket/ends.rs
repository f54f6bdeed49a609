//! How a WebSocket over HTTP/2 ends: an end reaches the other side as an end, a reset as a reset.
//!
//! Source: RFC 8441 §5 ("END_STREAM … FIN", "RST_STREAM … RST"); RFC 6455 §7.4; RFC 9113 §5.4.2.

use std::io::ErrorKind;

use super::*;
use crate::node::Health;

/// Opens a stream and its socket at the node, and passes bytes both ways.
async fn pair(rig: &mut Rig, client: &mut H2) -> (h2_ws::Duplex, TcpStream) {
    let answer = h2_ws::ask(client, "/ws", &[]).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let (mut stream, (_, mut socket)) = (answer.into_body(), rig.next().await);
    let mut got = [0; 2];
    stream.write_all(b"up").await.expect("send");
    deadline("bytes", socket.read_exact(&mut got))
        .await
        .expect("bytes");
    assert_eq!(&got, b"up");
    socket.write_all(b"dn").await.expect("send");
    deadline("bytes", stream.read_exact(&mut got))
        .await
        .expect("bytes");
    assert_eq!(&got, b"dn");
    (stream, socket)
}

/// Aim: the client's END_STREAM becomes a FIN at the node, after all bytes, and the client still gets what
/// the node sends after it. The client's RST_STREAM becomes a reset, before END_STREAM and after it. The
/// node's FIN becomes END_STREAM after all bytes; its reset becomes RST_STREAM with CANCEL. When the client's
/// connection ends, the node is reset. Each time a sibling on the connection goes on. Fails if a cut looks
/// like an orderly end to the other side.
#[tokio::test(flavor = "multi_thread")]
async fn ends_and_resets_are_passed_as_they_are() {
    let mut rig = Rig::start(|head| accepts(head, "")).await;
    let mut client = rig.client().await;
    let (mut sibling, mut at_node) = pair(&mut rig, &mut client).await;

    let (mut stream, mut socket) = pair(&mut rig, &mut client).await;
    stream.write_all(b"last").await.expect("send");
    stream.shutdown().await.expect("END_STREAM");
    let mut got = Vec::new();
    let ended = deadline("the node's end", socket.read_to_end(&mut got)).await;
    ended.expect("a FIN");
    assert_eq!(got, b"last");
    socket.write_all(b"bye").await.expect("send");
    drop(socket);
    let mut got = Vec::new();
    let ended = deadline("END_STREAM", stream.read_to_end(&mut got)).await;
    ended.expect("END_STREAM");
    assert_eq!(got, b"bye");

    let (mut stream, mut socket) = pair(&mut rig, &mut client).await;
    stream.shutdown().await.expect("END_STREAM");
    let ended = deadline("the node's end", socket.read(&mut [0])).await;
    assert_eq!(ended.expect("a FIN"), 0);
    stream.reset();
    deadline("the reset", async {
        // A write to a socket that was reset fails.
        while socket.write_all(b"more").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;

    let (stream, mut socket) = pair(&mut rig, &mut client).await;
    stream.reset();
    let ended = deadline("the node's end", socket.read(&mut [0])).await;
    let kind = ended.map_err(|e| e.kind());
    assert_eq!(kind, Err(ErrorKind::ConnectionReset), "RST_STREAM");

    let (mut stream, mut socket) = pair(&mut rig, &mut client).await;
    socket.write_all(b"last").await.expect("send");
    socket.shutdown().await.expect("FIN");
    let mut got = Vec::new();
    let ended = deadline("END_STREAM", stream.read_to_end(&mut got)).await;
    ended.expect("END_STREAM");
    assert_eq!(got, b"last");

    let (mut stream, socket) = pair(&mut rig, &mut client).await;
    let linger = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
    linger.expect("SO_LINGER");
    drop(socket);
    let ended = deadline("RST_STREAM", stream.was_reset()).await;
    assert_eq!(ended.expect("a reason"), h2::Reason::CANCEL);

    sibling.write_all(b"on").await.expect("send");
    let mut got = [0; 2];
    deadline("bytes", at_node.read_exact(&mut got))
        .await
        .expect("bytes");
    assert_eq!(&got, b"on");
    let lines = rig.edge.wait_access("five lines", |l| l.len() == 5).await;
    let reasons: Vec<_> = lines.iter().map(|l| l["reason"].as_str()).collect();
    let expected = [
        "client_closed",
        "client_closed",
        "client_closed",
        "node_closed",
        "node_failed",
    ];
    assert_eq!(reasons, expected.map(Some));

    drop((client, sibling));
    let ended = deadline("the node's end", at_node.read(&mut [0])).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}

/// WebSockets at a node: silent, busy, and in the middle of a frame.
const PATHS: [&str; 4] = ["/ws/silent", "/ws/echo", "/ws/tick?every=2", "/ws/half"];

/// Aim: an eviction sends 1012 on a WebSocket over HTTP/2 and ends its stream; in the middle of a frame it
/// resets the stream without a close frame. Streams of the connection to another node go on, and so does the
/// connection. Fails if the connection ends with the flow, or if a close frame lands in a payload.
#[tokio::test(flavor = "multi_thread")]
async fn an_eviction_ends_its_stream_alone() {
    let setup = start(2, "", "").await;
    let mut client = H2::connect(&setup.tls()).await;
    let order = |node: &str, order: &str| format!("/api/nodes/{node}/{order}");
    setup.edge.admin("POST", &order("n2", "drain")).await;
    let mut on_n1 = Vec::new();
    for path in PATHS {
        on_n1.push((path, h2_ws::connect(&mut client, path, &[]).await));
    }
    setup.edge.admin("POST", &order("n2", "up")).await;
    setup.edge.admin("POST", &order("n1", "drain")).await;
    let mut on_n2 = Vec::new();
    for path in PATHS {
        let socket = h2_ws::connect(&mut client, path, &[]).await;
        assert_eq!(socket.node(), "n2", "{path}");
        on_n2.push((path, socket));
    }
    for (path, socket) in on_n1.iter_mut().filter(|(path, _)| path.contains("tick")) {
        assert_eq!(socket.hear().await, "tick 0", "{path}");
    }
    setup.nodes[0].set_health(Health::Fail);
    for (path, mut socket) in on_n1 {
        let code = (path != "/ws/half").then_some(1012);
        assert_eq!(socket.ended().await, code, "{path}");
    }
    for (path, socket) in &mut on_n2 {
        match *path {
            "/ws/echo" => {
                socket.say("on").await;
                assert_eq!(socket.hear().await, "on");
            }
            "/ws/tick?every=2" => assert!(socket.hear().await.starts_with("tick ")),
            _ => {}
        }
    }
    assert_eq!(client.get("/hello", &[]).await.status(), 200);
    let lines = setup.edge.wait_access("four ends", |l| {
        l.iter().filter(|l| l["reason"] == "evicted").count() == 4
    });
    assert!(lines.await.iter().all(|l| l["reason"] != "node_failed"));
}
