//! The PROXY protocol in both directions.
//!
//! In: headers of both versions from trusted and other senders, in any split, in front of HTTP and TLS. Out:
//! the announced client in headers, log and stickiness; counted refusals. Towards nodes: [`out`]; HAProxy on
//! both ends: [`haproxy`]. Source: Lightstreamer clustering §1; FAULTS D38–D42; the PROXY protocol's
//! specification §2.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ppp::v2::{Builder, Command, Protocol, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::certs::{Certs, Key};
use crate::client::h1::H1;
use crate::client::shaped::{each, pieces, shaped};
use crate::client::{Dial, Io, handshake};
use crate::deadline;
use crate::edge::Edge;
use crate::node::Node;
use crate::setup::HOST;
use crate::vip::Block;

/// HAProxy as the balancer in front, and as the node.
mod haproxy;
/// Headers that the edge sends to nodes.
mod out;

/// Two nodes behind listeners that trust the block's client addresses 1 and 2.
struct Behind {
    block: Block,
    nodes: [Node; 2],
    edge: Edge,
    certs: Certs,
}

/// Destination that `vip_route` sends to `n2`.
const TO_N2: [&str; 2] = ["198.51.100.2:443", "[2001:db8::2]:443"];

impl Behind {
    /// Starts them; `timeout` is the deadline of headers and handshakes.
    async fn start(timeout: &str) -> Behind {
        let block = Block::claim();
        let certs = Certs::new();
        certs.leaf("push", &[HOST], Key::Ecdsa);
        let (dir, one, two) = (certs.dir().display(), block.client(1), block.client(2));
        let common = format!("to: p, accept_proxy: [{one}, {two}], handshake_timeout: {timeout}");
        let route = "vip_route: { vips: { 198.51.100.2: n2, '2001:db8::2': n2 } }";
        let yaml = format!(
            "nodes: {{ n1: {{ address: 10.0.0.1:8080 }}, n2: {{ address: 10.0.0.2:8080 }} }}\n\
             pools: {{ p: {{ nodes: [n1, n2], balance: round_robin }} }}\n\
             certificates: {{ push: {{ chain: {dir}/push.pem, key: {dir}/push.key }} }}\n\
             listeners:\n  \
             - {{ name: plain, bind: [200.0.0.10:80], mode: http, {common}, \
             plugins: [{{ {route} }}, {{ sticky_ip: {{}} }}, {{ forwarded: {{}} }}] }}\n  \
             - {{ name: tls, bind: [200.0.0.10:443], mode: http, {common}, \
             tls: {{ certificates: [push] }}, \
             plugins: [{{ {route} }}, {{ sticky_ip: {{}} }}, {{ forwarded: {{}} }}] }}\n  \
             - {{ name: raw, bind: [200.0.0.11:80], mode: tcp, {common}, \
             plugins: [{{ {route} }}, {{ sticky_ip: {{}} }}] }}\n"
        );
        Behind {
            nodes: [
                Node::start("n1", block.at("10.0.0.1:8080")).await,
                Node::start("n2", block.at("10.0.0.2:8080")).await,
            ],
            edge: Edge::start(&block, &yaml).await,
            block,
            certs,
        }
    }

    /// Dials a listener from the block's client address `n`.
    fn dial(&self, listener: &str, n: u8) -> Dial {
        let dial = match listener {
            "plain" => Dial::plain(self.block.at("200.0.0.10:80")),
            "tls" => Dial::tls(self.block.at("200.0.0.10:443"), HOST, self.certs.ca()),
            _ => Dial::plain(self.block.at("200.0.0.11:80")),
        };
        dial.host(HOST).from(self.block.client(n))
    }

    /// A client of the trusted balancer `n`; its first bytes follow `header`, cut at `cuts`.
    async fn client(&self, listener: &str, n: u8, header: Vec<u8>, cuts: Vec<usize>) -> H1 {
        let dial = self.dial(listener, n);
        let fused = move |first: Vec<u8>| [header, first].concat();
        let stream = shaped(dial.tcp().await, fused, cuts);
        let io: Box<dyn Io> = match &dial.tls {
            Some(tls) => Box::new(handshake(stream, tls).await.expect("a TLS handshake")),
            None => Box::new(stream),
        };
        H1::over(io)
    }

    /// Waits until all listeners together have refused `count` connections for `reason`.
    async fn wait_refused(&self, reason: &str, count: usize) {
        let label = format!("reason=\"{reason}\"");
        deadline(&format!("{count} times {label}"), async {
            loop {
                let all = self.edge.metrics().await;
                let of_reason = all.iter().filter(|(name, _)| {
                    name.starts_with("pushgate_connections_refused_total") && name.contains(&label)
                });
                if of_reason.map(|(_, n)| *n as usize).sum::<usize>() == count {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    /// X-Forwarded-For of the last request at any node whose target is `target`.
    fn forwarded_for(&self, target: &str) -> Vec<String> {
        let seen = self.nodes.iter().map(Node::seen);
        let found: Vec<_> = seen
            .flat_map(|s| s.requests().into_iter().cloned().collect::<Vec<_>>())
            .filter(|r| r.target == target)
            .collect();
        found.last().expect("it arrived").header("x-forwarded-for")
    }
}

/// A header of version 1.
fn v1(client: SocketAddr, vip: SocketAddr) -> Vec<u8> {
    let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
    let (c, v) = (client.ip(), vip.ip());
    format!(
        "PROXY {family} {c} {v} {} {}\r\n",
        client.port(),
        vip.port()
    )
    .into_bytes()
}

/// A header of version 2.
fn v2(client: SocketAddr, vip: SocketAddr) -> Vec<u8> {
    let command = Version::Two | Command::Proxy;
    let header = Builder::with_addresses(command, Protocol::Stream, (client, vip));
    header.build().expect("a header")
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

async fn hello(client: &mut H1, target: &str) -> crate::client::h1::Response {
    client.get(target, &[("Host", HOST)]).await
}

/// Aim: D39–D41. Headers of both versions and families arrive in one segment with the request or the
/// ClientHello, or byte by byte, at layer 7 plain and TLS and at layer 4. Node and log see the announced
/// client, and the announced destination routes. Fails if a byte after the header is lost, or if the edge
/// does not wait for the rest of a header.
#[tokio::test(flavor = "multi_thread")]
async fn the_announced_client_counts() {
    let behind = Behind::start("20s").await;
    let mut n = 0;
    for listener in ["plain", "tls", "raw"] {
        for (family, vip) in TO_N2.iter().enumerate() {
            for (version, header) in [(1, v1 as fn(_, _) -> _), (2, v2)] {
                for split in [false, true] {
                    n += 1;
                    let client = match family {
                        0 => address(&format!("192.0.2.{n}:{}", 5000 + n)),
                        _ => address(&format!("[2001:db8::1:{n}]:{}", 5000 + n)),
                    };
                    let what = format!("{listener}, version {version}, {client}, split {split}");
                    let header: Vec<u8> = header(client, address(vip));
                    // The two bytes after the header also come one by one.
                    let cuts = if split {
                        each(header.len() + 3)
                    } else {
                        vec![]
                    };
                    let mut h1 = behind.client(listener, 1, header, cuts).await;
                    let target = format!("/hello?n={n}");
                    let answer = hello(&mut h1, &target).await;
                    assert_eq!((answer.status, answer.node()), (200, "n2"), "{what}");
                    if listener != "raw" {
                        let seen = behind.forwarded_for(&target);
                        assert_eq!(seen, [client.ip().to_string()], "{what}");
                    }
                    drop(h1);
                    let (client, vip) = (client.to_string(), vip.to_string());
                    let logged = |l: &serde_json::Value| {
                        l["client"] == client && l["vip"] == vip && l["listener"] == listener
                    };
                    let any = |lines: &[serde_json::Value]| lines.iter().any(logged);
                    behind.edge.wait_access(&what, any).await;
                }
            }
        }
    }
}

/// Aim: D41. Each client behind a balancer sticks by itself, whichever balancer it uses. Fails if stickiness
/// follows the TCP peer: then all are on one node, and change it with the balancer.
#[tokio::test(flavor = "multi_thread")]
async fn stickiness_follows_the_announced_client() {
    let behind = Behind::start("20s").await;
    let vip = address("198.51.100.9:80");
    for listener in ["plain", "tls", "raw"] {
        let mut used = std::collections::BTreeSet::new();
        for n in 1..=8 {
            let mut nodes = Vec::new();
            for balancer in [1, 2, 1] {
                let client = address(&format!("192.0.2.{n}:{}", 6000 + nodes.len()));
                let header = v2(client, vip);
                let mut h1 = behind.client(listener, balancer, header, vec![]).await;
                nodes.push(hello(&mut h1, "/hello").await.node().to_owned());
            }
            assert!(
                nodes.iter().all(|n| *n == nodes[0]),
                "{listener}: {nodes:?}"
            );
            used.insert(nodes.remove(0));
        }
        assert_eq!(used.len(), 2, "{listener}: {used:?}");
    }
}

/// Aim: D39, D40. `LOCAL`, `UNKNOWN`, no address family and UNIX sockets announce no client: the sender's own
/// address counts. Fails if such a header is refused, or if its addresses are used.
#[tokio::test(flavor = "multi_thread")]
async fn headers_without_a_client() {
    let behind = Behind::start("20s").await;
    let signed = |rest: &[u8]| [b"\r\n\r\n\0\r\nQUIT\n", rest].concat();
    let mut local = v2(address("192.0.2.1:5"), address("198.51.100.2:80"));
    local[12] = 0x20;
    let unix = [&[0x21, 0x31, 0, 216][..], &[b'a'; 216]].concat();
    let cases: [(&str, Vec<u8>); 6] = [
        ("UNKNOWN", b"PROXY UNKNOWN\r\n".to_vec()),
        (
            "UNKNOWN ff",
            b"PROXY UNKNOWN 192.0.2.1 198.51.100.2 5 80\r\n".to_vec(),
        ),
        ("LOCAL", signed(&[0x20, 0, 0, 0])),
        ("LOCAL with addresses", local),
        ("unspecified", signed(&[0x21, 0, 0, 0])),
        ("UNIX", signed(&unix)),
    ];
    for (i, (what, header)) in cases.into_iter().enumerate() {
        let mut h1 = behind.client("tls", 1, header, vec![]).await;
        let target = format!("/hello?n={i}");
        assert_eq!(hello(&mut h1, &target).await.status, 200, "{what}");
        let own = behind.block.client(1).to_string();
        assert_eq!(behind.forwarded_for(&target), [own], "{what}");
    }
}

/// Aim: D38, D41. A header of an untrusted sender is garbage: 400, and no node gets it. The sender is served
/// without a header. Fails if anyone can announce another client's address.
#[tokio::test(flavor = "multi_thread")]
async fn an_untrusted_header_is_garbage() {
    let behind = Behind::start("20s").await;
    let (client, vip) = (address("192.0.2.1:5"), address("198.51.100.2:80"));
    for header in [v1(client, vip), v2(client, vip)] {
        let mut tcp = behind.dial("plain", 3).tcp().await;
        let fused = [
            &header[..],
            b"GET /hello HTTP/1.1\r\nHost: push.mycompany.com\r\n\r\n",
        ]
        .concat();
        tcp.write_all(&fused).await.expect("write");
        let mut answer = Vec::new();
        deadline("an answer", tcp.read_to_end(&mut answer))
            .await
            .expect("read");
        assert!(
            answer.starts_with(b"HTTP/1.1 400 "),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
    let mut tls = behind.dial("tls", 3).tcp().await;
    tls.write_all(&v2(client, vip)).await.expect("write");
    let mut answer = Vec::new();
    let _ = deadline("the end", tls.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"), "an alert at most: {answer:?}");
    assert!(behind.nodes.iter().all(|n| n.seen().requests().is_empty()));
    for listener in ["plain", "tls", "raw"] {
        let mut h1 = H1::connect(&behind.dial(listener, 3)).await;
        assert_eq!(h1.get("/hello", &[]).await.status, 200, "{listener}");
    }
}

/// Aim: D38–D40. A trusted sender without a header, or with a broken one, is closed without an answer and
/// counted; a stream on the same listener goes on. Fails if a broken header is read as data, or interpreted
/// by guesswork.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_headers_are_refused() {
    let behind = Behind::start("20s").await;
    let (client, vip) = (address("192.0.2.1:5"), address("198.51.100.2:80"));
    let mut stream = behind.client("plain", 1, v2(client, vip), vec![]).await;
    let sent = stream
        .send("GET", "/sse?every=5", &[("Host", HOST)], b"")
        .await;
    sent.expect("send");
    assert_eq!(stream.head().await.expect("head").status, 200);
    let tlv = |rest: &[u8]| {
        let mut header = v2(client, vip);
        header[15] += rest.len() as u8;
        [&header[..], rest].concat()
    };
    let long = format!("PROXY TCP4 192.0.2.1 198.51.100.2 5 {}\r\n", "0".repeat(80));
    let huge = [&v2(client, vip)[..14], &[0xff, 0xff], &[0; 3000]].concat();
    let cases: [(&str, Vec<u8>); 9] = [
        ("HTTP", b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        (
            "TLS",
            b"\x16\x03\x01\x00\xf0\x01\x00\x00\xec\x03\x03".to_vec(),
        ),
        ("over 107 bytes", long.into_bytes()),
        (
            "port 70000",
            b"PROXY TCP4 192.0.2.1 198.51.100.2 70000 80\r\n".to_vec(),
        ),
        (
            "TCP6 in TCP4",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 5 80\r\n".to_vec(),
        ),
        ("wrong checksum", tlv(&[3, 0, 4, 1, 2, 3, 4])),
        ("TLV overrun", tlv(&[2, 0, 9, b'a'])),
        ("65535 bytes", huge),
        ("cut off", b"PROXY TCP4 192.0".to_vec()),
    ];
    let mut count = 0;
    for (what, bytes) in cases {
        for listener in ["plain", "tls", "raw"] {
            let mut tcp = behind.dial(listener, 1).tcp().await;
            tcp.write_all(&bytes).await.expect("write");
            tcp.shutdown().await.expect("FIN");
            let mut answer = Vec::new();
            // FIN, or a reset if bytes were left unread.
            let _ = deadline("the end", tcp.read_to_end(&mut answer)).await;
            assert!(answer.is_empty(), "{what}, {listener}: {answer:?}");
            count += 1;
            behind.wait_refused("proxy_protocol", count).await;
        }
    }
    for _ in 0..3 {
        assert!(stream.piece().await.expect("events go on").is_some());
    }
    let seen = behind.nodes.iter().map(|n| n.seen().requests().len());
    assert_eq!(seen.sum::<usize>(), 1, "the stream alone reached a node");
}

/// Aim: D39. A header that is not complete in time ends its own connection and no other, and is counted.
/// Fails without the deadline, or if the wait blocks the listener.
#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_header_ends_in_time() {
    const TIMEOUT: Duration = Duration::from_secs(1);
    let behind = Behind::start("1s").await;
    let (client, vip) = (address("192.0.2.1:5"), address("198.51.100.2:80"));
    let header = v2(client, vip);
    let parts = [
        &b""[..],
        b"PROXY TCP4 192.0.2.1 ",
        &header[..13],
        &header[..header.len() - 1],
    ];
    let mut waiting = Vec::new();
    let start = Instant::now();
    for part in parts {
        for listener in ["plain", "tls", "raw"] {
            let mut tcp = behind.dial(listener, 1).tcp().await;
            pieces(&mut tcp, part, &[]).await.expect("write");
            waiting.push(tcp);
        }
    }
    let mut other = behind.client("plain", 1, header.clone(), vec![]).await;
    assert_eq!(hello(&mut other, "/hello").await.status, 200);
    for tcp in &mut waiting {
        let mut answer = Vec::new();
        let _ = deadline("the end", tcp.read_to_end(&mut answer)).await;
        assert!(
            answer.is_empty() && start.elapsed() >= TIMEOUT,
            "{answer:?}"
        );
    }
    behind
        .wait_refused("proxy_protocol_timeout", waiting.len())
        .await;
    assert_eq!(hello(&mut other, "/hello").await.status, 200);
}
