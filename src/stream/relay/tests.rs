//! Two real sockets on each side of a relay.

use std::future::pending;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::*;
use crate::stream::socket::{Options, Tcp, tune};

/// A client, a node, and the two sockets of the relay between them.
async fn pair() -> (TcpStream, Side) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let outer = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (inner, _) = listener.accept().await.unwrap();
    let minute = Duration::from_secs(60);
    let options = Options {
        keepalive: minute,
        user_timeout: minute,
        receive_buffer: Some(4096),
    };
    tune(&inner, &options).unwrap();
    (outer, Side::Plain(Tcp::new(inner)))
}

const RULES: Rules = Rules {
    half_close: HalfClose::Ends,
    read: 4096,
    frames: false,
};

async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), event)
        .await
        .expect(what)
}

/// Bytes kept over the hand-off go first, then what follows, both ways.
#[tokio::test]
async fn kept_bytes_go_first() {
    let ((mut client, c), (mut node, n)) = (pair().await, pair().await);
    let task = tokio::spawn(relay(
        (c, b"early ".to_vec()),
        (n, b"first ".to_vec()),
        RULES,
        pending(),
    ));
    client.write_all(b"late").await.unwrap();
    node.write_all(b"second").await.unwrap();
    let (mut up, mut down) = ([0; 10], [0; 12]);
    soon("bytes at the node", node.read_exact(&mut up))
        .await
        .unwrap();
    soon("bytes at the client", client.read_exact(&mut down))
        .await
        .unwrap();
    assert_eq!((&up, &down), (b"early late", b"first second"));
    drop(client);
    let end = soon("the end", task).await.unwrap();
    assert_eq!(
        (end.why, end.to_node, end.to_client),
        (Why::ClientClosed, 10, 12)
    );
}

/// FAULTS D20: at layer 4 the client's FIN is passed on and the node's bytes still arrive.
#[tokio::test]
async fn half_close_is_kept() {
    let ((mut client, c), (mut node, n)) = (pair().await, pair().await);
    let rules = Rules {
        half_close: HalfClose::Kept,
        ..RULES
    };
    let task = tokio::spawn(relay((c, vec![]), (n, vec![]), rules, pending()));
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut asked = Vec::new();
    soon("FIN at the node", node.read_to_end(&mut asked))
        .await
        .unwrap();
    node.write_all(b"answer").await.unwrap();
    node.shutdown().await.unwrap();
    let mut answered = Vec::new();
    soon("FIN at the client", client.read_to_end(&mut answered))
        .await
        .unwrap();
    assert_eq!(
        (&asked[..], &answered[..]),
        (&b"question"[..], &b"answer"[..])
    );
    assert_eq!(soon("the end", task).await.unwrap().why, Why::ClientClosed);
}

/// A WebSocket is over when either end is: what the node said before still arrives.
#[tokio::test]
async fn the_nodes_end_is_the_end() {
    let ((mut client, c), (mut node, n)) = (pair().await, pair().await);
    let task = tokio::spawn(relay((c, vec![]), (n, vec![]), RULES, pending()));
    node.write_all(b"bye").await.unwrap();
    drop(node);
    let mut got = Vec::new();
    soon("FIN at the client", client.read_to_end(&mut got))
        .await
        .unwrap();
    assert_eq!(got, b"bye");
    assert_eq!(soon("the end", task).await.unwrap().why, Why::NodeClosed);
}

/// FAULTS D20: a node that resets must not look to the client like one that ended.
#[tokio::test]
async fn a_reset_is_passed_on_as_a_reset() {
    let ((mut client, c), (node, n)) = (pair().await, pair().await);
    let task = tokio::spawn(relay((c, vec![]), (n, vec![]), RULES, pending()));
    socket2::SockRef::from(&node)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(node);
    let read = soon("the reset", client.read(&mut [0; 8])).await;
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(soon("the end", task).await.unwrap().why, Why::NodeFailed);
}

/// Back-pressure: while the client does not read, the node can write only what the sockets hold;
/// the kill signal then ends both at once, and afterwards nothing is delivered twice.
#[tokio::test]
async fn a_client_that_does_not_read_stops_the_node_and_can_be_cut() {
    let ((mut client, c), (mut node, n)) = (pair().await, pair().await);
    socket2::SockRef::from(&client)
        .set_recv_buffer_size(4096)
        .unwrap();
    let (kill, killed) = oneshot::channel::<()>();
    let task = tokio::spawn(relay((c, vec![]), (n, vec![]), RULES, async {
        let _ = killed.await;
    }));
    socket2::SockRef::from(&node)
        .set_send_buffer_size(4096)
        .unwrap();
    let mut written = 0usize;
    // Half a second without progress is a stall: every hop is on this machine.
    while let Ok(n) = tokio::time::timeout(Duration::from_millis(500), node.write(&[7; 4096])).await
    {
        written += n.unwrap();
        assert!(written < 4 << 20, "the node is never stopped");
    }
    assert!(
        written < 256 << 10,
        "{written} bytes left the node though the client reads nothing"
    );
    kill.send(()).unwrap();
    let end = soon("the end", task).await.unwrap();
    assert_eq!(end.why, Why::Killed);
    let node_sees = soon("the node's end", node.read(&mut [0; 8])).await;
    assert!(matches!(node_sees, Ok(0) | Err(_)));
    let mut got = Vec::new();
    let _ = soon("the client's end", client.read_to_end(&mut got)).await;
    assert!(got.len() <= written && got.iter().all(|b| *b == 7));
}

/// A silent WebSocket keeps no buffer: the one its request's head was read into was 4 KiB of the
/// 8.3 KiB that 4,000 of them cost each (benches, "silent"). Red without the drop in `Direction::new`.
#[test]
fn an_empty_buffer_is_given_back() {
    let direction = Direction::new(Vec::with_capacity(4096), true, 4096);
    assert_eq!(direction.waiting.capacity(), 0);
}
