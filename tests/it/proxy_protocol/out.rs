//! Headers that the plugin `proxy_protocol` and health checks send to nodes.
//!
//! In: clients at layer 7 and 4, plain and TLS. Out: one header in front of each upstream connection, read by
//! another implementation's parser, true for every request after it. Source: Lightstreamer clustering §1;
//! FAULTS D42; the PROXY protocol's specification §2.2.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use ppp::PartialResult;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{address, v1, v2};
use crate::certs::{Certs, Key};
use crate::client::h1::H1;
use crate::client::{Dial, Io, handshake, ws};
use crate::deadline;
use crate::edge::Edge;
use crate::node::Node;
use crate::setup::HOST;
use crate::vip::Block;

/// A port that requires the PROXY protocol, in front of a node that sees the bytes after it.
struct Port {
    heads: Arc<Mutex<Vec<Vec<u8>>>>,
    node: Node,
}

impl Port {
    /// Listens at the guide's address 10.0.0.`n`:8080, as in the configurations here.
    async fn start(block: &Block, n: u8) -> Port {
        let listener = TcpListener::bind(block.at(&format!("10.0.0.{n}:8080"))).await;
        let listener = listener.expect("the node's address");
        let node = Node::start(&format!("n{n}"), block.at(&format!("10.0.0.{n}:8081"))).await;
        let (heads, to) = (Arc::new(Mutex::new(Vec::new())), node.addr);
        let taken = heads.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(stream, to, taken.clone()));
            }
        });
        Port { heads, node }
    }

    /// All headers so far except those of checks.
    fn clients(&self) -> Vec<Vec<u8>> {
        let heads = self.heads.lock();
        heads.iter().filter(|h| !is_check(h)).cloned().collect()
    }
}

fn is_check(head: &[u8]) -> bool {
    head == b"PROXY UNKNOWN\r\n" || head.get(12) == Some(&0x20)
}

/// Reads one header and relays the rest to the node. Drops a connection without a header.
async fn pass(mut stream: TcpStream, to: SocketAddr, heads: Arc<Mutex<Vec<Vec<u8>>>>) {
    let mut bytes = Vec::new();
    let length = loop {
        if stream.read_buf(&mut bytes).await.unwrap_or_default() == 0 {
            return;
        }
        let parsed = ppp::HeaderResult::parse(&bytes);
        match parsed {
            ppp::HeaderResult::V1(Ok(head)) => break head.header.len(),
            ppp::HeaderResult::V2(Ok(head)) => break head.len(),
            other if other.is_incomplete() => {}
            // The test then compares it, and no expected header equals it.
            _ => break bytes.len(),
        }
    };
    heads.lock().push(bytes[..length].to_vec());
    let mut node = TcpStream::connect(to).await.expect("the node listens");
    if node.write_all(&bytes[length..]).await.is_ok() {
        let _ = tokio::io::copy_bidirectional(&mut stream, &mut node).await;
    }
}

/// Listeners of both layers, plain (`:80`) and with TLS that ends at the edge (`:443`); version `v` to the
/// node.
fn yaml(certs: &Certs, block: &Block, v: u8) -> String {
    let (dir, trusted) = (certs.dir().display(), block.client(9));
    let rest = format!(
        "to: p, accept_proxy: [{trusted}], plugins: [{{ proxy_protocol: {{ version: {v} }} }}]"
    );
    let mut yaml = format!(
        "nodes: {{ n1: {{ address: 10.0.0.1:8080 }}, n2: {{ address: 10.0.0.2:8080 }} }}\n\
         pools:\n  \
         p: {{ nodes: [n1], health: {{ http: {{ path: /health }}, interval: 50ms, proxy_protocol: {v} }} }}\n  \
         q: {{ nodes: [n2], health: {{ tcp: {{}}, interval: 50ms, proxy_protocol: {v} }} }}\n\
         certificates: {{ push: {{ chain: {dir}/push.pem, key: {dir}/push.key }} }}\nlisteners:\n"
    );
    for (mode, vip) in [("http", "200.0.0.10"), ("tcp", "200.0.0.11")] {
        yaml += &format!(
            "  - {{ name: {mode}, bind: [{vip}:80], mode: {mode}, {rest} }}\n  \
             - {{ name: {mode}s, bind: [{vip}:443], mode: {mode}, tls: {{ certificates: [push] }}, {rest} }}\n"
        );
    }
    yaml
}

/// A connected client and its own address.
async fn client(dial: &Dial) -> (H1, SocketAddr) {
    let tcp = dial.tcp().await;
    let own = tcp.local_addr().expect("connected");
    let io: Box<dyn Io> = match &dial.tls {
        Some(tls) => Box::new(handshake(tcp, tls).await.expect("a TLS handshake")),
        None => Box::new(tcp),
    };
    (H1::over(io), own)
}

/// The TLVs of a header of version 2.
fn tlvs(head: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let head = ppp::v2::Header::try_from(head).expect("version 2");
    let all = head.tlvs().map(|t| t.expect("a TLV"));
    all.map(|t| (t.kind, t.value.to_vec())).collect()
}

/// Aim: D42. Each upstream connection begins with one header that names its client and the address the client
/// reached. Requests of one persistent client share it; another client has another. Version 2 carries server
/// name and TLS. Fails if a header is missing, comes twice or after a byte, or names the edge.
#[tokio::test(flavor = "multi_thread")]
async fn one_header_in_front_of_each_connection() {
    for version in [1, 2] {
        let (block, certs) = (Block::claim(), Certs::new());
        certs.leaf("push", &[HOST], Key::Ecdsa);
        let ports = [Port::start(&block, 1).await, Port::start(&block, 2).await];
        let port = &ports[0];
        let edge = Edge::start(&block, &yaml(&certs, &block, version)).await;
        for (vip, layer7) in [("200.0.0.10", true), ("200.0.0.11", false)] {
            for tls in [false, true] {
                let (plain, secure) = (format!("{vip}:80"), format!("{vip}:443"));
                let dial = match tls {
                    true => Dial::tls(block.at(&secure), HOST, certs.ca()),
                    false => Dial::plain(block.at(&plain)).host(HOST),
                };
                for n in 1..=2 {
                    let what = format!("version {version}, {vip}, TLS {tls}, client {n}");
                    port.heads.lock().clear();
                    let (mut h1, own) = client(&dial.clone().from(block.client(n))).await;
                    for _ in 0..3 {
                        let answer = h1.get("/hello", &[("Host", HOST)]).await;
                        assert_eq!(answer.status, 200, "{what}");
                    }
                    let heads = port.clients();
                    assert_eq!(heads.len(), 1, "{what}: {heads:?}");
                    if version == 1 {
                        assert_eq!(heads[0], v1(own, dial.to), "{what}");
                        continue;
                    }
                    let head = ppp::v2::Header::try_from(&heads[0][..]).expect("version 2");
                    assert_eq!(head.addresses, (own, dial.to).into(), "{what}");
                    let told = tlvs(&heads[0]);
                    let of = |kind| told.iter().find(|(k, _)| *k == kind).map(|(_, v)| &v[..]);
                    let name = (layer7 || tls).then_some(HOST.as_bytes());
                    assert_eq!(of(2), name, "PP2_TYPE_AUTHORITY: {what}");
                    let ssl = tls.then_some(&b"\x01\0\0\0\x01\x21\0\x07TLSv1.3"[..]);
                    assert_eq!(of(0x20), ssl, "PP2_TYPE_SSL: {what}");
                }
                port.heads.lock().clear();
                let socket = ws::connect(&dial, "/ws/echo", &[]).await;
                assert_eq!(socket.node(), "n1");
                assert_eq!(port.clients().len(), 1, "a WebSocket's");
            }
        }
        checks(&edge, &ports, version).await;
    }
}

/// Checks by HTTP and by connect begin with a header that names no client, and pass.
async fn checks(edge: &Edge, ports: &[Port; 2], version: u8) {
    let up = |nodes: &serde_json::Value| {
        let mut all = nodes.as_array().into_iter().flatten();
        all.all(|n| n["state"] == "up")
    };
    edge.wait_nodes("both nodes to be up", up).await;
    let expected = match version {
        1 => b"PROXY UNKNOWN\r\n".to_vec(),
        _ => b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(),
    };
    for port in ports {
        deadline("three checks", async {
            while port.heads.lock().len() < 3 {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
        let heads = port.heads.lock().clone();
        let checks: Vec<_> = heads.iter().filter(|h| is_check(h)).collect();
        assert!(
            !checks.is_empty() && checks.iter().all(|h| **h == expected),
            "{checks:?}"
        );
    }
    assert!(ports[1].clients().is_empty(), "n2 is only checked");
    let asked = |s: &crate::node::Seen| {
        let mut all = s.connections.iter().flat_map(|c| &c.requests);
        all.any(|r| r.target == "/health")
    };
    ports[0].node.wait("a check behind its header", asked).await;
}

/// Aim: D42. The client that a balancer in front announces reaches the node, also with IPv6; an IPv4-mapped
/// address arrives as IPv4. Fails if the balancer is announced as the client, or if a family is mixed up.
#[tokio::test(flavor = "multi_thread")]
async fn the_announced_client_is_passed_on() {
    for version in [1, 2] {
        let (block, certs) = (Block::claim(), Certs::new());
        certs.leaf("push", &[HOST], Key::Ecdsa);
        let ports = [Port::start(&block, 1).await, Port::start(&block, 2).await];
        let _edge = Edge::start(&block, &yaml(&certs, &block, version)).await;
        for (client, vip, seen) in [
            ("192.0.2.1:5001", "198.51.100.1:80", "192.0.2.1:5001"),
            (
                "[2001:db8::1]:5002",
                "[2001:db8::2]:80",
                "[2001:db8::1]:5002",
            ),
            (
                "[::ffff:192.0.2.3]:5003",
                "198.51.100.1:80",
                "192.0.2.3:5003",
            ),
        ] {
            for at in ["200.0.0.10:80", "200.0.0.11:80"] {
                ports[0].heads.lock().clear();
                let mapped = client.contains("ffff");
                let (client, vip) = (address(client), address(vip));
                let header = match mapped {
                    true => format!("PROXY TCP6 {} ::ffff:198.51.100.1 5003 80\r\n", client.ip()),
                    false => String::from_utf8(v1(client, vip)).expect("text"),
                };
                let dial = Dial::plain(block.at(at)).from(block.client(9));
                let mut h1 = H1::connect(&dial).await;
                h1.raw(header.as_bytes()).await.expect("write");
                assert_eq!(h1.get("/hello", &[("Host", HOST)]).await.status, 200);
                let told = ports[0].clients();
                let expected = match version {
                    1 => v1(address(seen), vip),
                    _ => v2(address(seen), vip),
                };
                // Length and TLVs differ by the authority.
                let same = match version {
                    1 => told[0] == expected,
                    _ => {
                        told[0][12..14] == expected[12..14]
                            && told[0][16..].starts_with(&expected[16..])
                    }
                };
                assert!(same && told.len() == 1, "{seen} at {at}: {told:?}");
            }
        }
    }
}
