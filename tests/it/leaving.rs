//! Answers that are not complete at once: the edge relays their bytes unchanged, and afterwards both
//! connections carry the next request.
//!
//! In: streams in every framing, with everything that the framing allows. Out: bytes at the client,
//! connections at the node, reasons in the access log. Chunk extensions, which a library would drop, show
//! that the bytes are the node's. Source: RFC 9112 §6, §7.1, §9.3; Diffusion load balancers, "Reuse TCP
//! connection".

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::client::h1::H1;
use crate::deadline;
use crate::faults::Rig;
use crate::setup::{HOST, Setup};

/// A path at which the node sends `first`, and `then` when the test allows the second step.
fn say(first: &str, then: &str) -> String {
    let encode = |text: &str| -> String { text.bytes().map(|b| format!("%{b:02x}")).collect() };
    format!("/say?step=1&bytes={}&then={}", encode(first), encode(then))
}

/// Reads until `end` has arrived.
async fn until(client: &mut H1, end: &[u8]) -> Vec<u8> {
    let mut got = Vec::new();
    while !got.ends_with(end) {
        let read = deadline("bytes", client.io.read_buf(&mut got)).await;
        assert!(read.expect("bytes") > 0, "ended: {got:?}");
    }
    got
}

/// The body after the head.
fn body(answer: &[u8]) -> &[u8] {
    let head = memchr::memmem::find(answer, b"\r\n\r\n").expect("a head");
    &answer[head + 4..]
}

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Aim: chunks, extensions and trailers of an answer reach the client byte for byte, whether they came with
/// the head or later. Then the same two connections carry the next request. Fails if the answer is framed
/// anew, if its trailers are lost (W14), or if a connection is.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_passes_as_the_node_wrote_it() {
    let setup = Setup::start(1).await;
    let node = &setup.nodes[0];
    node.allow(2);
    for (name, dial) in setup.both() {
        let before = node.seen().traffic().len();
        let mut client = H1::connect(&dial).await;
        for (begun, rest) in [
            ("", "3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n"),
            ("3;a=b\r\nab", "c\r\n0;last\r\n\r\n"),
            ("3;a=b\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n", ""),
        ] {
            let path = say(&format!("{CHUNKED}{begun}"), rest);
            client.send("GET", &path, &[], b"").await.expect("send");
            let answer = until(&mut client, b"\r\n\r\n").await;
            let answer = match body(&answer).is_empty() {
                true => [answer, until(&mut client, b"\r\n\r\n").await].concat(),
                false => answer,
            };
            let got = String::from_utf8_lossy(body(&answer)).into_owned();
            assert_eq!(got, format!("{begun}{rest}"), "{name}");
            assert_eq!(client.get("/hello", &[]).await.status, 200, "{name}");
        }
        client.get("/stream/length?n=3&every=1", &[]).await;
        assert_eq!(client.get("/hello", &[]).await.status, 200, "{name}");
        assert_eq!(node.seen().traffic().len(), before + 1, "{name}: upstreams");
        // The close of the node's connection ends the answer, but not the client's connection.
        let closed = client.get("/stream/close?n=3&every=1&size=9", &[]).await;
        assert_eq!(closed.body.len(), 30, "{name}");
        assert_eq!(client.get("/hello", &[]).await.status, 200, "{name}");
    }
}

/// Aim: requests pipelined after one with a streamed answer are answered after it, in order, on the same
/// connection. `Connection: close` ends the connection after the stream. Fails if the edge loses what a
/// client sends meanwhile, or if it ends the stream.
#[tokio::test(flavor = "multi_thread")]
async fn requests_behind_a_stream_wait() {
    let setup = Setup::start(1).await;
    let node = &setup.nodes[0];
    for (name, dial) in setup.both() {
        node.allow(0);
        let mut client = H1::connect(&dial).await;
        let head = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let together = head("/sse?n=2&step=1&every=0") + &head("/hello");
        client.raw(together.as_bytes()).await.expect("send");
        client.head().await.expect("the head of the stream");
        client.raw(head("/hello").as_bytes()).await.expect("send");
        node.allow(2);
        let events = client.rest().await.expect("a whole stream");
        assert_eq!(memchr::memmem::find_iter(&events, b"\n\n").count(), 2);
        for _ in 0..2 {
            assert_eq!(client.head().await.expect("an answer").status, 200);
            let hello = client.rest().await.expect("its body");
            assert!(hello.starts_with(b"n1 "), "{name}: {hello:?}");
        }
        let path = "/sse?n=1&step=1&every=0";
        let close = [("Connection", "close")];
        client.send("GET", path, &close, b"").await.expect("send");
        let head = client.head().await.expect("a head");
        assert_eq!(head.header("connection"), Some("close"), "{name}");
        client.rest().await.expect("a whole stream");
        assert!(client.ended().await, "{name}: an orderly end");
    }
}

/// Aim: every end of a stream has its reason and its bytes in the access log, and a cut never counts as an
/// end. Fails if a cut looks whole, or if a line is missing or wrong.
#[tokio::test(flavor = "multi_thread")]
async fn each_end_of_a_stream_is_logged() {
    let setup = Setup::start(1).await;
    let node = &setup.nodes[0];
    let rows = [
        (say(CHUNKED, "2\r\nok\r\n0\r\n\r\n"), "done"),
        (say(CHUNKED, "2\r\nok\r\nzz\r\n"), "bad_answer"),
        (
            say(CHUNKED, "2\r\nok\r\n0\r\nHost: a\r\n\r\n"),
            "bad_answer",
        ),
        (say(CHUNKED, "2\r\nok\r\n") + "&end=1", "node_failed"),
        ("/sse?n=1&step=1&silent=1".to_owned(), "client_closed"),
        ("/sse?n=1&step=1&silent=2".to_owned(), "evicted"),
    ];
    for (path, reason) in rows {
        let mut client = H1::connect(&setup.plain()).await;
        let lines = setup.edge.access().len();
        node.allow(1);
        client.send("GET", &path, &[], b"").await.expect("send");
        client.head().await.expect("the head");
        // Only now: the rest must reach the relay, not come with the head.
        node.allow(2);
        match reason {
            "client_closed" => drop(client),
            "evicted" => {
                setup.edge.admin("POST", "/api/nodes/n1/evict").await;
                assert!(client.rest().await.is_err(), "{path}");
            }
            _ => assert_eq!(client.rest().await.is_ok(), reason == "done", "{path}"),
        }
        let told = |all: &[Value]| all[lines..].iter().any(|l| l["reason"] == reason);
        let all = setup.edge.wait_access(reason, told).await;
        let line = &all[lines..].iter().find(|l| l["reason"] == reason);
        let line = line.expect("just waited for");
        assert_eq!(
            (&line["status"], &line["node"]),
            (&200.into(), &"n1".into())
        );
        if reason == "done" {
            // Head and body, as on the wire.
            let head = "HTTP/1.1 200 OK\r\n\r\n".len() as u64;
            let bytes = line["bytes_down"].as_u64().expect("a number");
            assert!((head..300).contains(&bytes), "{line}");
        }
    }
    let hidden = setup.edge.metric("pushgate_hidden_bytes_count").await;
    assert!(hidden >= 5.0, "of each cut answer: {hidden}");
}

/// Reads from `io` until the bytes end with `end`.
async fn heard(io: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut got = Vec::new();
    while !got.ends_with(end) {
        let read = deadline("bytes at the node", io.read_buf(&mut got)).await;
        assert!(read.expect("bytes") > 0, "ended: {got:?}");
    }
    got
}

const POST: &str = "POST / HTTP/1.1\r\nHost: push.mycompany.com\r\n";

/// Aim: an answer that begins before its request is whole passes while the request goes on, in both
/// directions, and the same two connections serve on. Fails with a deadlock, if bytes of the request are
/// lost, or if the client is asked to close because its request was not whole.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_may_begin_before_its_request_ends() {
    let rig = Rig::start(0, YAML).await;
    let listener = TcpListener::bind(rig.block.at("10.0.0.9:8080")).await;
    let listener = listener.expect("bind");
    let mut client = H1::connect(&rig.good).await;
    let head = format!("{POST}Content-Length: 8\r\n\r\nhalf");
    client.raw(head.as_bytes()).await.expect("send");
    let (mut node, _) = deadline("the edge", listener.accept())
        .await
        .expect("accept");
    heard(&mut node, b"\r\n\r\nhalf").await;
    let begun = format!("{CHUNKED}1\r\na\r\n");
    node.write_all(begun.as_bytes()).await.expect("answer");
    client
        .head()
        .await
        .expect("the head, before the request is whole");
    assert_eq!(client.piece().await.expect("a chunk"), Some(b"a".to_vec()));
    client.raw(b"rest").await.expect("send");
    heard(&mut node, b"rest").await;
    node.write_all(b"1\r\nb\r\n0\r\n\r\n")
        .await
        .expect("answer");
    assert_eq!(client.rest().await.expect("the end"), b"b");
    let bodies = [
        "Content-Length: 4\r\n\r\nfour",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n0\r\n\r\n",
    ];
    for (body, end) in bodies.into_iter().zip([&b"four"[..], b"0\r\n\r\n"]) {
        client
            .raw(format!("{POST}{body}").as_bytes())
            .await
            .expect("send");
        let asked = heard(&mut node, end).await;
        assert!(memchr::memmem::find(&asked, b"four").is_some(), "{asked:?}");
        node.write_all(CHUNKED.as_bytes()).await.expect("answer");
        until(&mut client, b"\r\n\r\n").await;
        let answer = b"1;a=b\r\nc\r\n0\r\n\r\n";
        node.write_all(answer).await.expect("answer");
        assert_eq!(until(&mut client, b"\r\n\r\n").await, answer);
    }
}

const YAML: &str = "
nodes: { n1: { address: 10.0.0.9:8080 } }
pools: { p: { nodes: [n1] } }
listeners:
  - { name: push, bind: [200.0.0.10:80], mode: http, to: p }
";
