//! A relay between two pairs of real sockets.

use std::future::{pending, poll_fn};
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::stream::fixtures::{pair, pair_with, soon};
use crate::stream::framing::{Framing, Wrap};
use crate::stream::socket;

const RULES: Rules = Rules {
    unsent: 4096,
    bulk: false,
};

/// A WebSocket whose client sent `early` after its request, and whose node sent `first` after its 101.
async fn websocket(client: Side, node: Side, early: &[u8], first: &[u8]) -> Relaying<Never> {
    let mut relay = Relay::request(client, node, RULES, (Framing::Done, Wrap::AsIs), false);
    relay.ahead.keep(early.to_vec());
    poll_fn(|cx| Poll::Ready(relay.switch(cx, &mut Vec::new(), first)))
        .await
        .expect("the client is connected");
    Relaying::new(relay, pending())
}

type Never = std::future::Pending<EndReason>;

fn layer4(client: Side, node: Side, rules: Rules) -> Relaying<Never> {
    Relaying::new(Relay::layer4(client, node, rules), pending())
}

/// A layer-4 flow with its kill switch.
fn cuttable(client: Side, node: Side, rules: Rules) -> (oneshot::Sender<()>, JoinHandle<End>) {
    let (kill, killed) = oneshot::channel();
    let killed = Box::pin(async {
        let _ = killed.await;
        EndReason::Evicted
    });
    let relay = Relay::layer4(client, node, rules);
    (kill, tokio::spawn(Relaying::new(relay, killed)))
}

/// Fails if bytes read before the switch are lost, or come after later ones.
#[tokio::test]
async fn kept_bytes_go_first() {
    let ((mut client, c), (mut node, n)) = (pair().await, pair().await);
    let task = tokio::spawn(websocket(c, n, b"early ", b"first ").await);
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
        (end.reason, end.to_node, end.to_client),
        (EndReason::ClientClosed, 10, 12)
    );
}

/// FAULTS D20. Fails if at layer 4 the client's FIN is not passed on, or if it stops the node's bytes.
#[tokio::test]
async fn half_close_is_kept() {
    let ((mut client, c), (mut node, n)) = (pair().await, pair().await);
    let task = tokio::spawn(layer4(c, n, RULES));
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
    let end = soon("the end", task).await.unwrap();
    assert_eq!(end.reason, EndReason::ClientClosed);
}

/// A WebSocket ends with either side. Fails if the node's last bytes are lost.
#[tokio::test]
async fn the_nodes_end_is_the_end() {
    let ((mut client, c), (mut node, n)) = (pair().await, pair().await);
    let task = tokio::spawn(websocket(c, n, b"", b"").await);
    node.write_all(b"bye").await.unwrap();
    drop(node);
    let mut got = Vec::new();
    soon("FIN at the client", client.read_to_end(&mut got))
        .await
        .unwrap();
    assert_eq!(got, b"bye");
    let end = soon("the end", task).await.unwrap();
    assert_eq!(end.reason, EndReason::NodeClosed);
}

/// FAULTS D20. Fails if a reset of the node looks like an orderly end to the client.
#[tokio::test]
async fn a_reset_is_passed_on_as_a_reset() {
    for switched in [false, true] {
        let ((mut client, c), (node, n)) = (pair().await, pair().await);
        let task = tokio::spawn(match switched {
            false => layer4(c, n, RULES),
            true => websocket(c, n, b"", b"").await,
        });
        node.set_zero_linger().unwrap();
        drop(node);
        let read = soon("the reset", client.read(&mut [0; 8])).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        let end = soon("the end", task).await.unwrap();
        assert_eq!(end.reason, EndReason::NodeFailed);
    }
}

/// Back-pressure: while the client does not read, the node can write only as much as the sockets hold. The
/// kill signal then ends both at once. Fails if more leaves the node, or if bytes are delivered twice.
#[tokio::test]
async fn a_client_that_does_not_read_stops_the_node_and_can_be_cut() {
    let ((mut client, c), (mut node, n)) = (pair().await, pair().await);
    socket2::SockRef::from(&client)
        .set_recv_buffer_size(4096)
        .unwrap();
    let (kill, task) = cuttable(c, n, RULES);
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
    assert_eq!(end.reason, EndReason::Evicted);
    let node_sees = soon("the node's end", node.read(&mut [0; 8])).await;
    assert!(matches!(node_sees, Ok(0) | Err(_)));
    let mut got = Vec::new();
    let _ = soon("the client's end", client.read_to_end(&mut got)).await;
    assert!(got.len() <= written && got.iter().all(|b| *b == 7));
}

/// Rules of a listener with a large `max_hidden`, whose bulk is spliced.
const BULK: Rules = Rules {
    unsent: 64 * 1024,
    bulk: false,
};

/// Receive buffer of such a listener.
const WIDE: usize = 256 * 1024;

/// Bytes that show their order.
fn numbered(bytes: usize) -> Vec<u8> {
    let words = 0..(bytes / 4) as u32;
    words.flat_map(u32::to_be_bytes).collect()
}

/// Aim: bulk passes whole and in order both ways at once, through pipes that go back to their thread, and
/// each side sees the other's end. Fails if a byte in a pipe is lost or sent twice, or if no pipe is used.
#[tokio::test]
async fn bulk_passes_through_pipes() {
    let ((client, c), (node, n)) = (pair_with(WIDE).await, pair_with(WIDE).await);
    let task = tokio::spawn(layer4(c, n, BULK));
    let sent = numbered(16 << 20);
    let each = |stream: TcpStream, data: Vec<u8>| async move {
        let (mut from, mut to) = stream.into_split();
        let write = tokio::spawn(async move {
            to.write_all(&data).await.unwrap();
            to.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        from.read_to_end(&mut got).await.unwrap();
        write.await.unwrap();
        got
    };
    let both = async { tokio::join!(each(client, sent.clone()), each(node, sent.clone())) };
    let (at_client, at_node) = soon("both streams", both).await;
    assert!(at_client == sent && at_node == sent);
    let end = soon("the end", task).await.unwrap();
    assert_eq!((end.to_node, end.to_client), (16 << 20, 16 << 20));
    assert!(crate::stream::bulk::spare_here() > 0, "no pipe was used");
}

/// Aim: a pipe hides no more than a copy would. A client that stops within bulk leaves at most one read in
/// it, and gets the rest exactly when it reads on. Fails if a pipe is filled twice.
#[tokio::test]
async fn a_pipe_holds_no_more_than_a_read() {
    let ((mut client, c), (node, n)) = (pair_with(WIDE).await, pair_with(WIDE).await);
    let (kill, task) = cuttable(c, n, BULK);
    let sent = numbered(32 << 20);
    let all = sent.clone();
    let node = tokio::spawn(async move {
        let mut node = node;
        let _ = node.write_all(&all).await;
        node
    });
    let mut got = vec![0; 8 << 20];
    soon("bulk", client.read_exact(&mut got)).await.unwrap();
    // Half a second without progress is a stall: every hop is on this machine.
    let mut queued = 0;
    while let Ok(now) = tokio::time::timeout(Duration::from_millis(500), async {
        loop {
            let now = socket::unread(client.as_raw_fd());
            if now != queued {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    {
        queued = now;
    }
    kill.send(()).unwrap();
    let end = soon("the end", task).await.unwrap();
    assert_eq!(end.reason, EndReason::Evicted);
    let passed = usize::try_from(end.to_client).unwrap();
    let mut rest = Vec::new();
    let _ = soon("the rest", client.read_to_end(&mut rest)).await;
    got.extend(rest);
    assert!(got.len() <= passed && got == sent[..got.len()]);
    // One read in the pipe, one unsent in the kernel, and the receive buffer, which the kernel doubles.
    assert!(end.hidden < 1 << 20, "{} bytes", end.hidden);
    node.abort();
}

/// Aim: a client that does not read leaves at most `max_hidden` bytes with proxy and kernel, in bulk and in
/// messages, for each bound; in fact three quarters of it. Counted as the bytes that left the node's kernel,
/// less those in the client's. Fails with a receive buffer of half the bound, or without the limit on unsent
/// bytes.
#[tokio::test]
async fn no_more_is_hidden_than_allowed() {
    for (bound, piece) in [
        (16 << 10, 100),
        (32 << 10, 100),
        (32 << 10, 1000),
        (32 << 10, 64 << 10),
        (256 << 10, 64 << 10),
    ] {
        let (mut node, n) = pair_with(socket::receive_buffer(bound)).await;
        let (client, c) = pair().await;
        let unsent = socket::unsent_allowance(bound);
        let task = tokio::spawn(layer4(c, n, Rules { unsent, ..RULES }));
        let message = vec![7; piece];
        let mut written = 0;
        // Half a second without progress is a stall: every hop is on this machine.
        while let Ok(n) =
            tokio::time::timeout(Duration::from_millis(500), node.write(&message)).await
        {
            written += n.unwrap() as u64;
        }
        let sent = written - socket::unacknowledged(node.as_raw_fd());
        let hidden = sent - socket::unread(client.as_raw_fd());
        println!("{bound}, {piece}: {hidden} bytes hidden");
        assert!(
            hidden <= bound / 4 * 3,
            "{bound}, {piece}: {hidden} bytes hidden"
        );
        task.abort();
    }
}
