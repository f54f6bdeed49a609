//! WebSocket upgrades: no byte is lost, out of order, or early, and only a requested WebSocket is tunnelled.
//!
//! In: raw upgrades, so that the test decides each write of either side. Out: byte for byte what either side
//! read. Source: RFC 6455 §4, RFC 9110 §7.8, §15.2; FAULTS D16–D19.

use std::time::Instant;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::certs::{Certs, Key};
use crate::client::h1::H1;
use crate::client::{Dial, Io};
use crate::deadline;
use crate::edge::Edge;
use crate::node::ws::text_frame;
use crate::setup::{HOST, Setup, node, yaml};
use crate::vip::Block;

/// A legal upgrade to `path`, with `extra` header lines.
fn upgrade(path: &str, extra: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{extra}\r\n"
    )
}

/// A text frame as a client sends it, masked with zeros.
fn masked(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).expect("a short text");
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

/// Reads up to and including the empty line; returns the head, and the bytes after it.
async fn head(io: &mut (impl AsyncRead + Unpin + ?Sized)) -> (String, Vec<u8>) {
    let mut got = Vec::new();
    loop {
        if let Some(end) = memchr::memmem::find(&got, b"\r\n\r\n") {
            let rest = got.split_off(end + 4);
            return (String::from_utf8(got).expect("a head is text"), rest);
        }
        let n = deadline("a head", io.read_buf(&mut got)).await;
        assert!(n.expect("bytes of a head") > 0, "ended within a head");
    }
}

/// Reads until `got` holds as many bytes as `expected`, and compares.
async fn expect(io: &mut dyn Io, mut got: Vec<u8>, expected: &[u8], what: &str) {
    while got.len() < expected.len() {
        let n = deadline(what, io.read_buf(&mut got)).await;
        let n = n.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(n > 0, "{what}: ended after {} bytes", got.len());
    }
    assert!(
        got == expected,
        "{what}: {:?} instead of {:?}",
        String::from_utf8_lossy(&got),
        String::from_utf8_lossy(expected)
    );
}

/// Which side sends when.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// The node, in one write with the 101.
    NodeWith101,
    /// The node, at once after the 101, in its own writes.
    NodeAfter101,
    /// The client, the moment it has the 101, in three writes.
    Client,
}

async fn one(dial: &Dial, order: Order) {
    let path = match order {
        Order::NodeWith101 => "/ws/first?n=3",
        Order::NodeAfter101 => "/ws/first?n=3&split=1",
        Order::Client => "/ws/echo",
    };
    let mut io = dial.io().await;
    let asked = upgrade(path, "");
    io.write_all(asked.as_bytes()).await.expect("send");
    let (answer, rest) = head(&mut *io).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let said = ["first 0", "first 1", "first 2"];
    let expected: Vec<u8> = said.iter().flat_map(|m| text_frame(m)).collect();
    if matches!(order, Order::Client) {
        for message in said {
            io.write_all(&masked(message)).await.expect("send");
        }
    }
    expect(&mut *io, rest, &expected, "three messages").await;
    io.write_all(&masked("last")).await.expect("send");
    expect(&mut *io, Vec::new(), &text_frame("last"), "an echo").await;
}

/// Aim: thousands of upgrades at once, either side first: 0 messages lost, 0 out of order. 5,000 of each kind
/// plain, 500 TLS (a handshake costs 10 ms in the dev build); `PUSHGATE_TEST_UPGRADES` sets the number of
/// each instead. Fails if the exchange does not hand over to its own relay: Pingora's own path loses what
/// comes in one write with the 101.
#[tokio::test(flavor = "multi_thread")]
async fn upgrades_lose_nothing() {
    let asked = std::env::var("PUSHGATE_TEST_UPGRADES").ok();
    let asked: Option<usize> = asked.and_then(|n| n.parse().ok());
    let setup = Setup::start(2).await;
    for (name, dial) in setup.both() {
        let each = asked.unwrap_or(if dial.tls.is_some() { 500 } else { 5000 });
        for order in [Order::NodeWith101, Order::NodeAfter101, Order::Client] {
            let start = Instant::now();
            let clients = (0..AT_ONCE).map(|_| {
                let dial = dial.clone();
                tokio::spawn(async move {
                    for _ in 0..each.div_ceil(AT_ONCE) {
                        one(&dial, order).await;
                    }
                })
            });
            for client in clients.collect::<Vec<_>>() {
                client.await.expect("no message lost");
            }
            let took = start.elapsed();
            println!("{name}, {order:?}: {each} upgrades, 0 lost, {took:.1?}");
        }
    }
}

/// Aim: a WebSocket counts as a client connection to its end, also for `max_connections`, although the task
/// that served its upgrade is gone. Fails if only that task counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_counts_as_a_connection_to_its_end() {
    let (block, certs) = (Block::claim(), Certs::new());
    certs.leaf("push", &[HOST], Key::Ecdsa);
    let _node = node(&block, 1).await;
    let conf = format!("max_connections: 1\n{}", yaml(&certs, 1, "", ""));
    let edge = Edge::start(&block, &conf).await;
    let dial = Dial::plain(block.at("200.0.0.10:80")).host(HOST);
    for _ in 0..2 {
        let mut first = dial.io().await;
        let asked = upgrade("/ws/echo", "");
        first.write_all(asked.as_bytes()).await.expect("send");
        let (answer, rest) = head(&mut *first).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        let mut second = dial.io().await;
        let hello = format!("GET /hello HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        // The connection may be closed already. If it were admitted, it would be answered.
        let _ = second.write_all(hello.as_bytes()).await;
        let got = deadline("the refusal", second.read(&mut [0])).await;
        assert!(matches!(got, Ok(0) | Err(_)), "{got:?}");
        assert_eq!(edge.metric("pushgate_connections").await, 1.0);
        first.write_all(&masked("alive")).await.expect("send");
        expect(&mut *first, rest, &text_frame("alive"), "an echo").await;
        drop(first);
        edge.wait_metric("pushgate_connections", |n| n == 0.0).await;
    }
}

/// Aim: an interim 103 arrives in one write with the 101 and the first message. Fails if the exchange treats
/// the first head as the final one.
#[tokio::test(flavor = "multi_thread")]
async fn hints_and_101_in_one_write() {
    let setup = Setup::start(1).await;
    for (name, dial) in setup.both() {
        let mut io = dial.io().await;
        let asked = upgrade("/ws/first?n=2&hints=1", "");
        io.write_all(asked.as_bytes()).await.expect("send");
        let (mut answer, mut rest) = head(&mut *io).await;
        if answer.starts_with("HTTP/1.1 103 ") {
            let mut both = std::io::Cursor::new(rest).chain(&mut io);
            (answer, rest) = head(&mut both).await;
        }
        assert!(answer.starts_with("HTTP/1.1 101 "), "{name}: {answer}");
        let expected = [text_frame("first 0"), text_frame("first 1")].concat();
        expect(&mut *io, rest, &expected, name).await;
    }
}

/// Aim: bytes that a client sends before the 101 wait at the edge until then, and reach the node in order.
/// The node, asked only after they have reached the edge, has seen none (D16, CVE-2026-2833). Fails if the
/// edge reads on from the client while the upgrade is pending.
#[tokio::test(flavor = "multi_thread")]
async fn early_bytes_wait_for_the_101() {
    let setup = Setup::start(1).await;
    for (round, (name, dial)) in setup.both().into_iter().enumerate() {
        setup.nodes[0].allow(0);
        let mut io = dial.io().await;
        let asked = [
            upgrade("/ws/echo?step=1&early=1", "").into_bytes(),
            masked("early 0"),
        ];
        io.write_all(&asked.concat()).await.expect("send");
        setup.nodes[0]
            .wait("the upgrade", |s| s.requests().len() > round)
            .await;
        io.write_all(&masked("early 1")).await.expect("send");
        // Bounded wait: an edge that passed them on would have done so in 100 ms.
        tokio::time::sleep(SHORT).await;
        setup.nodes[0].allow(1);
        let (answer, rest) = head(&mut *io).await;
        assert!(
            answer.to_lowercase().contains("x-early: 0"),
            "{name}: {answer}"
        );
        let expected = [text_frame("early 0"), text_frame("early 1")].concat();
        expect(&mut *io, rest, &expected, name).await;
    }
}

/// Aim: if the node declines, the bytes after the upgrade are the next request, judged as such (D16). Fails
/// if they are passed on as bytes of a tunnel, or dropped.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_after_a_declined_upgrade_are_a_request() {
    let setup = Setup::start(1).await;
    for (name, dial) in setup.both() {
        let mut client = H1::connect(&dial).await;
        let next = format!("GET /hello HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let asked = upgrade("/ws/decline", "") + &next;
        client.raw(asked.as_bytes()).await.expect("send");
        let declined = client.head().await.expect("an answer");
        assert_eq!(declined.status, 403, "{name}");
        client.rest().await.expect("its body");
        let hello = client.head().await.expect("the second answer");
        assert_eq!(hello.status, 200, "{name}");
        assert_eq!(client.rest().await.expect("its body")[..3], *b"n1 ");
        let smuggled = upgrade("/ws/decline", "") + "\0\0\0 smuggled\r\n\r\n";
        client.raw(smuggled.as_bytes()).await.expect("send");
        assert_eq!(client.head().await.expect("an answer").status, 403);
        client.rest().await.expect("its body");
        assert_eq!(client.head().await.expect("an answer").status, 400);
    }
    assert!(
        !setup.nodes[0]
            .seen()
            .requests()
            .iter()
            .any(|r| r.text().contains("smuggled"))
    );
}

/// Aim: a node's odd answers to an upgrade, and an unrequested 101, never make a tunnel (D17). Fails if the
/// status alone decides.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_requested_101_switches() {
    let setup = Setup::start(1).await;
    let cases = [
        ("/fault/upgrade-200", true, 200),
        ("/fault/upgrade-other", true, 502),
        ("/fault/upgrade-body", true, 502),
        ("/fault/upgrade-unasked", false, 502),
    ];
    for (name, dial) in setup.both() {
        for (path, asks, status) in cases {
            let mut client = H1::connect(&dial).await;
            let asked = match asks {
                true => upgrade(path, ""),
                false => format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            };
            client.raw(asked.as_bytes()).await.expect("send");
            let answer = client.head().await.expect("an answer");
            assert_eq!(answer.status, status, "{name} {path}");
        }
    }
}

/// Aim: each odd upgrade request has one defined answer (D18): if it is not an upgrade to a WebSocket, it
/// reaches the node without `Upgrade`, or is refused. Fails if the header is passed on unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn odd_upgrades_have_a_defined_answer() {
    let setup = Setup::start(1).await;
    let ws = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    // Header lines and body; status; whether the node sees an `Upgrade`.
    let cases = [
        (format!("GET {ws}{key}Content-Length: 2\r\n\r\nhi"), 400),
        (
            format!("GET {ws}{key}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            400,
        ),
        ("GET Connection: Upgrade\r\nUpgrade: foo\r\n\r\n".into(), 200),
        (
            "GET Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
                .into(),
            200,
        ),
        (
            format!("GET Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n{key}\r\n"),
            200,
        ),
        (format!("GET Upgrade: websocket\r\n{key}\r\n"), 200),
        (format!("POST {ws}{key}Content-Length: 0\r\n\r\n"), 200),
    ];
    for (case, status) in &cases {
        let (method, rest) = case.split_once(' ').expect("method and header lines");
        let seen = setup.nodes[0].seen().requests().len();
        let mut client = H1::connect(&setup.plain()).await;
        let asked = format!("{method} /hello HTTP/1.1\r\nHost: {HOST}\r\n{rest}");
        client.raw(asked.as_bytes()).await.expect("send");
        let answer = client.head().await.expect("an answer");
        assert_eq!(answer.status, *status, "{asked}");
        let now = setup.nodes[0].seen();
        assert_eq!(now.requests().len() - seen, usize::from(*status == 200));
        if *status == 200 {
            let last = now.requests()[seen].clone();
            assert_eq!(last.header("upgrade"), [""; 0], "{}", last.text());
        }
    }
}

/// Aim: the 101 carries the sticky cookie and the application's own (D19). Fails if plugins do not edit a
/// 101.
#[tokio::test(flavor = "multi_thread")]
async fn the_101_sets_the_cookie() {
    let plugins = "[{ sticky_cookie: { name: PUSHGATE } }]";
    let setup = Setup::with(2, plugins, "").await;
    for (name, dial) in setup.both() {
        let mut client = H1::connect(&dial).await;
        let asked = upgrade("/ws/echo?cookie=app%3D1", "");
        client.raw(asked.as_bytes()).await.expect("send");
        let answer = client.head().await.expect("a 101");
        let ours = answer
            .cookies()
            .into_iter()
            .find(|c| c.starts_with("PUSHGATE="))
            .unwrap_or_else(|| panic!("{name}: {answer:?}"))
            .to_owned();
        assert!(answer.cookies().contains(&"app=1"), "{name}: {answer:?}");
        for _ in 0..6 {
            let mut again = H1::connect(&dial).await;
            let hello = again.get("/hello", &[("Cookie", &ours)]).await;
            assert_eq!(hello.node(), answer.node(), "{name}");
        }
    }
}

/// Clients that upgrade at the same time.
const AT_ONCE: usize = 50;
/// Time in which an edge that passes bytes on early would have done so.
const SHORT: std::time::Duration = std::time::Duration::from_millis(100);
