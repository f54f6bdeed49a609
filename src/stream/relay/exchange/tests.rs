//! One exchange between real sockets: the bytes that reach the client, and the connections that can be used
//! again.

mod request;

use std::future::{pending, ready};
use std::io::ErrorKind::ConnectionReset;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::stream::fixtures::{pair, segments, soon};
use crate::stream::relay::MAX_READ_AHEAD;

const RULES: Rules = Rules {
    unsent: 4096,
    bulk: false,
};
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\n\r\n";
const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";

/// Client and node of one exchange, with the relay between them.
struct Ends {
    client: TcpStream,
    node: TcpStream,
    relay: Relay,
}

impl Ends {
    async fn new(framing: Framing, copy: bool) -> Self {
        let ((client, c), (node, n)) = (pair().await, pair().await);
        let relay = Relay::request(c, n, RULES, (framing, Wrap::AsIs), copy);
        Ends {
            client,
            node,
            relay,
        }
    }

    /// A request whose head the node has read; `ahead` was read after it.
    async fn asked(framing: Framing, ahead: &[u8]) -> Self {
        let mut ends = Ends::new(framing, false).await;
        ends.send(ahead).await.expect("a legal request");
        assert_eq!(take(&mut ends.node, REQUEST.len()).await, REQUEST);
        ends
    }

    async fn send(&mut self, ahead: &[u8]) -> Result<(), DirectionError> {
        let (relay, mut out) = (&mut self.relay, REQUEST.to_vec());
        poll_fn(|cx| Poll::Ready(relay.send(cx, &mut out, ahead.to_vec()))).await
    }

    /// Sends an answer's head with `begun`, which was read after it.
    async fn answer(
        &mut self,
        (framing, wrap): (Framing, Wrap),
        begun: &[u8],
        leaves_request: bool,
    ) -> Result<(), DirectionError> {
        let by_close = wrap == Wrap::Bare || (framing == Framing::UntilClose && wrap == Wrap::AsIs);
        let kind = Kind::Exchange {
            by_close,
            ends_by_node: framing == Framing::UntilClose,
            leaves_request,
        };
        let (relay, mut out) = (&mut self.relay, HEAD.to_vec());
        poll_fn(|cx| {
            let body = (framing.clone(), wrap);
            Poll::Ready(relay.answer(cx, kind, body, &mut out, begun))
        })
        .await
    }

    /// Relays to the end in a task of its own.
    fn run(self) -> (TcpStream, TcpStream, JoinHandle<(End, Relay)>) {
        let mut relay = self.relay;
        let task = tokio::spawn(async move { (relay.run(pending()).await, relay) });
        (self.client, self.node, task)
    }
}

/// A running answer: the client has its head, and `begun` was read after it.
async fn relayed(
    framing: Framing,
    wrap: Wrap,
    begun: &[u8],
) -> (TcpStream, TcpStream, JoinHandle<(End, Relay)>) {
    let mut ends = Ends::asked(Framing::Done, b"").await;
    let answered = ends.answer((framing, wrap), begun, false).await;
    answered.expect("a legal answer");
    assert_eq!(take(&mut ends.client, HEAD.len()).await, HEAD);
    ends.run()
}

/// Reads `n` bytes.
async fn take(from: &mut TcpStream, n: usize) -> Vec<u8> {
    let mut got = vec![0; n];
    soon("bytes", from.read_exact(&mut got)).await.unwrap();
    got
}

async fn over(task: JoinHandle<(End, Relay)>, reason: EndReason) -> (End, Relay) {
    let (end, relay) = soon("the end", task).await.unwrap();
    assert_eq!(end.reason, reason);
    (end, relay)
}

/// Fails if a byte changes at any split, if the relay waits beyond the end, or if a socket is lost.
#[tokio::test]
async fn a_chunked_answer_passes_as_it_is() {
    let body = b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n";
    for at in 0..=body.len() {
        let (mut client, mut node, task) =
            relayed(Framing::chunked(), Wrap::AsIs, &body[..at]).await;
        client.write_all(b"GET /next").await.unwrap();
        // In two parts, so that the client is read in between.
        let half = at + (body.len() - at) / 2;
        node.write_all(&body[at..half]).await.unwrap();
        let mut got = take(&mut client, half).await;
        node.write_all(&body[half..]).await.unwrap();
        got.extend(take(&mut client, body.len() - half).await);
        assert_eq!(got, body, "split at {at}");
        let (end, relay) = over(task, EndReason::Done).await;
        let told = (HEAD.len() + body.len()) as u64;
        assert_eq!((end.to_node, end.to_client, end.hidden), (0, told, 0));
        assert!(relay.is_over() && relay.bytes() == (0, told));
        let (mut side, mut ahead, node) = relay.into_sides();
        assert!(node.is_some(), "it can carry the next request");
        while ahead.len() < 9 {
            let read = soon("the next request", side.read_buf(&mut ahead)).await;
            assert!(read.unwrap() > 0);
        }
        assert_eq!(ahead, b"GET /next");
    }
}

/// A head leaves with the body bytes read with it. A second write would cost a system call, a wake-up and,
/// under TLS, a record. Fails if either head leaves alone.
#[tokio::test]
async fn a_head_and_its_body_are_one_segment() {
    let mut ends = Ends::new(Framing::length(4), false).await;
    let before = segments(&ends.node);
    ends.send(b"body").await.unwrap();
    let sent = take(&mut ends.node, REQUEST.len() + 4).await;
    assert_eq!(sent, [REQUEST, b"body"].concat());
    assert_eq!(segments(&ends.node) - before, 1);
    let before = segments(&ends.client);
    let answered = ends.answer((Framing::UntilClose, Wrap::Chunks), b"hello", false);
    answered.await.unwrap();
    let chunk = b"5\r\nhello\r\n";
    let got = take(&mut ends.client, HEAD.len() + chunk.len()).await;
    assert_eq!(got, [HEAD, chunk].concat());
    assert_eq!(segments(&ends.client) - before, 1);
}

/// Fails if bytes after an answer reach the client, or if their connection is used again.
#[tokio::test]
async fn not_a_byte_beyond_the_end() {
    let cases: [(Framing, &[u8], &[u8]); 5] = [
        (Framing::Done, b"HTTP", b""),
        (Framing::length(5), b"helloHTTP", b""),
        (Framing::length(5), b"hel", b"loHTTP"),
        (Framing::chunked(), b"0\r\n\r\nHTTP", b""),
        (Framing::chunked(), b"1\r\nx\r\n", b"0\r\n\r\nHTTP"),
    ];
    for (framing, begun, rest) in cases {
        let (mut client, mut node, task) = relayed(framing, Wrap::AsIs, begun).await;
        node.write_all(rest).await.unwrap();
        let (side, _, node) = over(task, EndReason::Done).await.1.into_sides();
        assert!(node.is_none(), "it cannot be trusted");
        drop(side);
        let mut got = Vec::new();
        soon("FIN", client.read_to_end(&mut got)).await.unwrap();
        let all = [begun, rest].concat();
        assert_eq!(got, all[..all.len() - 4]);
    }
}

/// Fails if a close-delimited answer is not sent as chunks, each at once, with a last chunk.
#[tokio::test]
async fn a_nodes_close_becomes_the_last_chunk() {
    let (mut client, mut node, task) = relayed(Framing::UntilClose, Wrap::Chunks, b"ab").await;
    assert_eq!(take(&mut client, 7).await, b"2\r\nab\r\n");
    node.write_all(&[b'x'; 300]).await.unwrap();
    let chunk = [b"12c\r\n", &[b'x'; 300][..], b"\r\n"].concat();
    assert_eq!(take(&mut client, chunk.len()).await, chunk);
    drop(node);
    assert_eq!(take(&mut client, 5).await, b"0\r\n\r\n");
    over(task, EndReason::Done).await;
}

/// RFC 9112 §6.1: a client of HTTP/1.0 gets the data of chunks without their framing, at any split, and its
/// connection ends the answer. Fails if a byte of the framing reaches it.
#[tokio::test]
async fn an_old_client_gets_bare_data() {
    let body = b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n";
    for at in 0..=body.len() {
        let (mut client, mut node, task) =
            relayed(Framing::chunked(), Wrap::Bare, &body[..at]).await;
        node.write_all(&body[at..]).await.unwrap();
        let (end, relay) = over(task, EndReason::Done).await;
        assert_eq!(end.to_client, HEAD.len() as u64 + 5);
        let (side, _, node) = relay.into_sides();
        assert!(node.is_some(), "it can carry the next request");
        drop(side);
        let mut got = Vec::new();
        soon("FIN", client.read_to_end(&mut got)).await.unwrap();
        assert_eq!(got, b"abcde", "split at {at}");
    }
}

/// Fails if a cut or illegal answer counts as whole, or looks whole to its client.
#[tokio::test]
async fn a_cut_answer_is_not_whole() {
    let faults: [(Framing, &[u8], EndReason); 5] = [
        (Framing::length(5), b"lo", EndReason::NodeFailed),
        (Framing::chunked(), b"0\r\n", EndReason::NodeFailed),
        (Framing::chunked(), b"5\n", EndReason::BadAnswer),
        (
            Framing::chunked(),
            b"0\r\nHost: a\r\n",
            EndReason::BadAnswer,
        ),
        (Framing::chunked(), b"no chunk", EndReason::BadAnswer),
    ];
    for (framing, bytes, expected) in faults {
        let (mut client, mut node, task) = relayed(framing, Wrap::AsIs, b"").await;
        node.write_all(bytes).await.unwrap();
        node.shutdown().await.unwrap();
        drop(over(task, expected).await);
        let mut got = Vec::new();
        soon("the end", client.read_to_end(&mut got)).await.unwrap();
        assert!(!got.ends_with(b"\r\n\r\n"), "{got:?}");
    }
    // The node resets. If only the end of the connection ends the answer, the client must see a reset.
    for (framing, wrap, reset) in [
        (Framing::UntilClose, Wrap::AsIs, true),
        (Framing::UntilClose, Wrap::Chunks, true),
        (Framing::chunked(), Wrap::AsIs, false),
        (Framing::chunked(), Wrap::Bare, true),
    ] {
        let (mut client, node, task) = relayed(framing, wrap, b"").await;
        node.set_zero_linger().unwrap();
        drop(node);
        drop(over(task, EndReason::NodeFailed).await);
        let mut got = Vec::new();
        let end = soon("the end", client.read_to_end(&mut got)).await;
        assert_eq!(end.is_err(), reset, "{end:?}");
        assert!(got.is_empty(), "{got:?}");
    }
}

/// A body that is illegal from its first byte is cut like one that is illegal later. Fails if the client gets
/// no head, or an orderly end after it.
#[tokio::test]
async fn a_body_that_is_not_legal_from_the_first_ends_behind_its_head() {
    let (body, begun) = ((Framing::chunked(), Wrap::Bare), b"no chunk");
    let mut ends = Ends::asked(Framing::Done, b"").await;
    let answered = ends.answer(body, begun, false).await;
    assert!(matches!(answered, Err(DirectionError::Framing(_))));
    let end = ends.relay.broken(EndReason::BadAnswer).await;
    let passed = HEAD.len() as u64;
    assert_eq!((end.reason, end.to_client), (EndReason::BadAnswer, passed));
    assert_eq!(take(&mut ends.client, HEAD.len()).await, HEAD);
    drop(ends.relay);
    let read = soon("the end", ends.client.read(&mut [0; 8])).await;
    assert_eq!(read.unwrap_err().kind(), ConnectionReset);
}

/// Fails if a killed flow ends for another reason, or if a cut answer that only the close ends looks complete
/// to its client.
#[tokio::test]
async fn a_killed_client_sees_the_cut() {
    for (framing, wrap, reset) in [
        (Framing::chunked(), Wrap::AsIs, false),
        (Framing::UntilClose, Wrap::Chunks, false),
        (Framing::UntilClose, Wrap::AsIs, true),
        (Framing::chunked(), Wrap::Bare, true),
    ] {
        let mut ends = Ends::asked(Framing::Done, b"").await;
        ends.answer((framing, wrap), b"", false).await.unwrap();
        assert_eq!(take(&mut ends.client, HEAD.len()).await, HEAD);
        let end = ends.relay.run(ready(EndReason::Rebalanced)).await;
        assert_eq!(end.reason, EndReason::Rebalanced);
        drop(ends.relay);
        let read = soon("the end", ends.client.read(&mut [0; 8])).await;
        assert_eq!(read.is_err(), reset, "{read:?}");
    }
}

/// Fails if the client's end goes unnoticed while the node is silent, or if the bytes it sends ahead have no
/// limit.
#[tokio::test]
async fn the_client_is_watched_during_its_answer() {
    for (resets, reason) in [
        (false, EndReason::ClientClosed),
        (true, EndReason::ClientFailed),
    ] {
        let (client, mut node, task) = relayed(Framing::chunked(), Wrap::AsIs, b"").await;
        if resets {
            client.set_zero_linger().unwrap();
        }
        drop(client);
        drop(over(task, reason).await);
        // Reset in both cases: an orderly close would keep the local port for a minute.
        let read = soon("the end", node.read(&mut [0])).await;
        assert!(read.is_err(), "{read:?}");
    }
    let (mut client, mut node, task) = relayed(Framing::length(1), Wrap::AsIs, b"").await;
    client.write_all(&[b'x'; 3 * MAX_READ_AHEAD]).await.unwrap();
    // Holds for 200 ms, in which the relay could read on: no event proves that it does not.
    tokio::time::sleep(Duration::from_millis(200)).await;
    node.write_all(b"a").await.unwrap();
    take(&mut client, 1).await;
    let kept = over(task, EndReason::Done).await.1.into_sides().1.len();
    assert_eq!(kept, MAX_READ_AHEAD);
}
