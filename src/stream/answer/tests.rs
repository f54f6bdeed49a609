//! A node's and a client's real sockets on each side of one relayed answer.

use std::future::pending;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;
use crate::stream::fixtures::pair;

/// Client, node, and the relay of one answer between them, of which `begun` was read already.
async fn relayed(
    framing: Framing,
    wrap: Wrap,
    begun: &[u8],
) -> (TcpStream, TcpStream, JoinHandle<Relayed>) {
    let ((client, c), (node, n)) = (pair().await, pair().await);
    let answer = Answer {
        framing,
        keep_node: true,
        wrap,
        keep_client: true,
    };
    let begun = begun.to_vec();
    let task = tokio::spawn(async move {
        let rules = Rules {
            unsent: 4096,
            ahead: 1024,
        };
        Relay::new((c, Vec::new()), (n, begun), answer, rules)
            .run(pending())
            .await
    });
    (client, node, task)
}

async fn soon<T>(what: &str, event: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), event)
        .await
        .expect(what)
}

/// Reads `n` bytes.
async fn take(from: &mut TcpStream, n: usize) -> Vec<u8> {
    let mut got = vec![0; n];
    soon("bytes", from.read_exact(&mut got)).await.unwrap();
    got
}

fn whole(relayed: Relayed) -> Whole {
    relayed.end.unwrap_or_else(|cut| panic!("{cut:?}"))
}

fn why(relayed: Relayed) -> Cut {
    match relayed.end {
        Ok(_) => panic!("whole"),
        Err(cut) => cut.why,
    }
}

/// Fails if a byte is changed, if the relay waits beyond the end, or if a socket is lost.
#[tokio::test]
async fn a_chunked_answer_passes_as_it_is() {
    let begun = b"3;a=b\r\nab";
    let (mut client, mut node, task) = relayed(Framing::chunked(), Wrap::AsIs, begun).await;
    let rest = b"c\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n";
    client.write_all(b"GET /next").await.unwrap();
    for part in rest.chunks(3) {
        node.write_all(part).await.unwrap();
    }
    let got = take(&mut client, begun.len() + rest.len()).await;
    assert_eq!(got, [&begun[..], rest].concat());
    let relayed = soon("the end", task).await.unwrap();
    assert_eq!(relayed.to_client, got.len() as u64);
    let whole = whole(relayed);
    assert!(whole.node.is_some(), "it can carry the next request");
    let (mut side, mut ahead) = whole.client;
    while ahead.len() < 9 {
        let read = soon("the next request", side.read_buf(&mut ahead)).await;
        assert!(read.unwrap() > 0);
    }
    assert_eq!(ahead, b"GET /next");
}

/// Fails if bytes behind an answer reach the client, or if their connection is used again.
#[tokio::test]
async fn not_a_byte_beyond_the_end() {
    let cases: [(Framing, &[u8], &[u8]); 2] = [
        (Framing::length(5), b"hel", b"lo"),
        (Framing::chunked(), b"1\r\nx\r\n", b"0\r\n\r\n"),
    ];
    for (framing, begun, rest) in cases {
        let (mut client, mut node, task) = relayed(framing, Wrap::AsIs, begun).await;
        node.write_all(&[rest, b"HTTP/1.1 200 OK\r\n"].concat())
            .await
            .unwrap();
        let whole = whole(soon("the end", task).await.unwrap());
        assert!(whole.node.is_none(), "it cannot be trusted");
        drop(whole);
        let mut got = Vec::new();
        soon("FIN", client.read_to_end(&mut got)).await.unwrap();
        assert_eq!(got, [begun, rest].concat());
    }
}

/// Fails if a close-delimited answer does not become chunks, each at once, with an end.
#[tokio::test]
async fn a_nodes_close_becomes_the_last_chunk() {
    let (mut client, mut node, task) = relayed(Framing::UntilClose, Wrap::Chunks, b"ab").await;
    assert_eq!(take(&mut client, 7).await, b"2\r\nab\r\n");
    node.write_all(&[b'x'; 300]).await.unwrap();
    let chunk = [b"12c\r\n", &[b'x'; 300][..], b"\r\n"].concat();
    assert_eq!(take(&mut client, chunk.len()).await, chunk);
    drop(node);
    assert_eq!(take(&mut client, 5).await, b"0\r\n\r\n");
    whole(soon("the end", task).await.unwrap());
}

/// Fails if an answer that is cut or broken counts as whole, or if its client could think so.
#[tokio::test]
async fn what_is_cut_is_no_answer() {
    let faults: [(Framing, Wrap, &[u8], Cut); 4] = [
        (Framing::length(5), Wrap::AsIs, b"lo", Cut::NodeFailed),
        (Framing::chunked(), Wrap::AsIs, b"0\r\n", Cut::NodeFailed),
        (Framing::chunked(), Wrap::AsIs, b"5\n", Cut::BadAnswer),
        (
            Framing::chunked(),
            Wrap::AsIs,
            b"0\r\nHost: a\r\n",
            Cut::BadAnswer,
        ),
    ];
    for (framing, wrap, bytes, expected) in faults {
        let (mut client, mut node, task) = relayed(framing, wrap, b"").await;
        node.write_all(bytes).await.unwrap();
        node.shutdown().await.unwrap();
        assert_eq!(why(soon("the end", task).await.unwrap()), expected);
        let mut got = Vec::new();
        soon("the end", client.read_to_end(&mut got)).await.unwrap();
        assert!(!got.ends_with(b"\r\n\r\n"), "{got:?}");
    }
    // A node that resets: where only the end of the connection tells, the client must see a reset.
    for (wrap, reset) in [(Wrap::AsIs, true), (Wrap::Chunks, false)] {
        let (mut client, node, task) = relayed(Framing::UntilClose, wrap, b"").await;
        node.set_zero_linger().unwrap();
        drop(node);
        assert_eq!(why(soon("the end", task).await.unwrap()), Cut::NodeFailed);
        let mut got = Vec::new();
        let end = soon("the end", client.read_to_end(&mut got)).await;
        assert_eq!(end.is_err(), reset, "{end:?}");
        assert!(got.is_empty(), "{got:?}");
    }
    let (_client, _node, task) = relayed(Framing::chunked(), Wrap::AsIs, b"no chunk").await;
    assert_eq!(why(soon("the end", task).await.unwrap()), Cut::BadAnswer);
}

/// Fails if the client's end is not seen while the node is silent, or if what it sends has no limit.
#[tokio::test]
async fn the_client_is_heard_meanwhile() {
    let (client, mut node, task) = relayed(Framing::chunked(), Wrap::AsIs, b"").await;
    drop(client);
    assert_eq!(why(soon("the end", task).await.unwrap()), Cut::ClientClosed);
    assert_eq!(soon("FIN", node.read(&mut [0])).await.unwrap(), 0);
    let (mut client, mut node, task) = relayed(Framing::length(2), Wrap::AsIs, b"").await;
    client.write_all(&[b'x'; 5000]).await.unwrap();
    node.write_all(b"a").await.unwrap();
    take(&mut client, 1).await;
    node.write_all(b"b").await.unwrap();
    let kept = whole(soon("the end", task).await.unwrap()).client.1.len();
    assert!((1..1024 + 512).contains(&kept), "{kept} bytes kept");
}
