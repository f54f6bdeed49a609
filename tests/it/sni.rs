//! TLS passthrough at layer 4, routed by the name in the ClientHello.
//!
//! In: handshakes in every split, other protocols, silence. Out: the node of that name completes the
//! handshake with its own certificate, so no byte was lost or changed. Everything else goes to the default
//! node, byte for byte. Source: Lightstreamer clustering §3.2.1.1; RFC 8446 §4.1.2, §5.1; RFC 6066 §3; FAULTS
//! D31, D32.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::certs::{Certs, Key};
use crate::client::h1::H1;
use crate::client::shaped::{client_hello, each, pieces, shaped};
use crate::client::{Dial, handshake};
use crate::deadline;
use crate::edge::Edge;
use crate::node::Node;
use crate::tlcp::Sessions;
use crate::vip::Block;

/// `n1` is push1, `n2` everything below push2, `n3` the default; each ends TLS under its own name.
const NAMES: [&str; 3] = [
    "push1.mycompany.com",
    "*.push2.mycompany.com",
    "*.mycompany.com",
];

/// Listeners, by plugin and by the handling of unknown names.
const SNI: &str = "200.0.0.10:443";
const HOST: &str = "200.0.0.11:443";
const REFUSING: &str = "200.0.0.12:443";
const PROXIED: &str = "200.0.0.13:443";
const TO_RAW: &str = "200.0.0.14:443";
/// One name leads to the raw node at this address, every other name to the default.
const RAW: &str = "200.0.0.15:443";

struct Routed {
    block: Block,
    _nodes: Vec<Node>,
    edge: Edge,
    certs: Certs,
}

impl Routed {
    async fn start(timeout: &str) -> Routed {
        let (block, certs) = (Block::claim(), Certs::new());
        let mut nodes = Vec::new();
        for (i, name) in NAMES.iter().enumerate() {
            let n = format!("n{}", i + 1);
            let at = block.at(&format!("10.0.0.{}:8080", i + 1));
            let tls = certs.leaf(&n, &[name], Key::Ecdsa).context();
            nodes.push(Node::start_tls(&n, at, Sessions::new(&n), Some(tls)).await);
        }
        let names = "{ push1.mycompany.com: n1, '*.push2.mycompany.com': p2 }";
        let sni = format!("sni_route: {{ names: {names} }}");
        let host = format!("host_route: {{ hosts: {names} }}");
        let refusing = format!("sni_route: {{ names: {names}, unknown: {{ refuse: 421 }} }}");
        let raw = "sni_route: { names: { raw.mycompany.com: raw } }".to_owned();
        let trusted = format!(", accept_proxy: [{}]", block.client(1));
        let mut yaml = "nodes: { n1: { address: 10.0.0.1:8080 }, n2: { address: 10.0.0.2:8080 }, \
                        n3: { address: 10.0.0.3:8080 }, raw: { address: 10.0.0.4:8080 } }\n\
                        pools: { p2: { nodes: [n2] }, rest: { nodes: [n3] } }\nlisteners:\n"
            .to_owned();
        for (vip, plugin, to, more) in [
            (SNI, &sni, "rest", ""),
            (HOST, &host, "rest", ""),
            (REFUSING, &refusing, "rest", ""),
            (PROXIED, &sni, "rest", &trusted),
            (TO_RAW, &sni, "raw", ""),
            (RAW, &raw, "rest", ""),
        ] {
            yaml += &format!(
                "  - {{ name: 'l{}', bind: [{vip}], mode: tcp, to: {to}, \
                 handshake_timeout: {timeout}{more}, plugins: [{{ {plugin} }}] }}\n",
                &vip[6..10].replace('.', "-")
            );
        }
        let edge = Edge::start(&block, &yaml).await;
        Routed {
            block,
            _nodes: nodes,
            edge,
            certs,
        }
    }

    fn dial(&self, vip: &str, name: &str) -> Dial {
        Dial::tls(self.block.at(vip), name, self.certs.ca())
    }

    /// Shakes hands as `dial` with the first flight changed and cut. Returns the node that answered and
    /// proved its name.
    async fn node(
        &self,
        dial: &Dial,
        change: impl FnOnce(Vec<u8>) -> Vec<u8> + Send + 'static,
        cuts: Vec<usize>,
    ) -> String {
        let stream = shaped(dial.tcp().await, change, cuts);
        let tls = dial.tls.as_ref().expect("TLS");
        let tls = handshake(stream, tls).await.expect("a TLS handshake");
        let mut client = H1::over(Box::new(tls));
        let answer = client.get("/hello", &[("Host", &dial.host)]).await;
        answer.node().to_owned()
    }
}

/// The ClientHello in `flight`, in records of `n` bytes.
fn in_records(flight: &[u8], n: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&[22, 3, 1][..], &(part.len() as u16).to_be_bytes(), part].concat();
    flight[5..].chunks(n).flat_map(record).collect()
}

/// Aim: each name reaches its node by `sni_route` and by `host_route`, in upper or lower case. Other names
/// reach the default, or are refused. Fails if a name is misread: the node's certificate would not cover it.
#[tokio::test(flavor = "multi_thread")]
async fn each_name_reaches_its_node() {
    let routed = Routed::start("20s").await;
    for vip in [SNI, HOST, REFUSING] {
        for (name, node) in [
            ("push1.mycompany.com", "n1"),
            ("PUSH1.MyCompany.com", "n1"),
            ("a.push2.mycompany.com", "n2"),
            ("other.mycompany.com", "n3"),
        ] {
            let dial = routed.dial(vip, name);
            if (vip, node) == (REFUSING, "n3") {
                let tls = dial.tls.as_ref().expect("TLS");
                let end = handshake(dial.tcp().await, tls).await;
                assert!(end.is_err(), "an unknown name is refused");
                let refused = |l: &serde_json::Value| l["reason"] == "refused" && l["sni"] == name;
                let any = |lines: &[serde_json::Value]| lines.iter().any(refused);
                routed.edge.wait_access("the refusal", any).await;
            } else {
                let by = routed.node(&dial, |f| f, vec![]).await;
                assert_eq!(by, node, "{name} at {vip}");
            }
        }
        let mut nameless = routed.dial(vip, "other.mycompany.com");
        nameless.tls.as_mut().expect("TLS").sni = None;
        let tls = nameless.tls.as_ref().expect("TLS");
        let end = handshake(nameless.tcp().await, tls).await;
        assert_eq!(end.is_err(), vip == REFUSING, "no name at {vip}");
    }
}

/// Aim: D31. The edge reads a ClientHello in any split: cut in two at many places, byte by byte, in several
/// records, after a PROXY header, up to 16 KiB long. A ClientHello over 16 KiB goes to the default. Fails if
/// a part is taken for the whole, or if a byte is lost or changed.
#[tokio::test(flavor = "multi_thread")]
async fn any_split_of_the_client_hello() {
    let routed = Routed::start("20s").await;
    let dial = routed.dial(SNI, "push1.mycompany.com");
    for cut in (1..12).chain((12..1600).step_by(53)) {
        assert_eq!(
            routed.node(&dial, |f| f, vec![cut]).await,
            "n1",
            "cut at {cut}"
        );
    }
    assert_eq!(
        routed.node(&dial, |f| f, each(4000)).await,
        "n1",
        "byte by byte"
    );
    for size in [1, 7, 100] {
        for cuts in [vec![], each(300)] {
            let split = cuts.len();
            let records = move |f: Vec<u8>| in_records(&f, size);
            let by = routed.node(&dial, records, cuts).await;
            assert_eq!(by, "n1", "records of {size}, {split} cuts");
        }
    }
    let proxied = routed
        .dial(PROXIED, "push1.mycompany.com")
        .from(routed.block.client(1));
    for cuts in [vec![], each(300)] {
        let header = |f: Vec<u8>| [b"PROXY TCP4 192.0.2.1 192.0.2.2 5 443\r\n", &f[..]].concat();
        assert_eq!(routed.node(&proxied, header, cuts).await, "n1");
    }
    for (size, name, node) in [
        (14_500, "push1.mycompany.com", "n1"),
        (20_000, "other.mycompany.com", "n3"),
    ] {
        let mut dial = routed.dial(SNI, name);
        dial.tls.as_mut().expect("TLS").alpn = long_alpn(size);
        let grown = move |f: Vec<u8>| {
            // Or its first record, if there are two.
            assert!(
                f.len() > size.min(16_000),
                "a ClientHello of {} bytes",
                f.len()
            );
            f
        };
        assert_eq!(
            routed.node(&dial, grown, vec![]).await,
            node,
            "{size} bytes"
        );
    }
}

/// Aim: D32. A ClientHello cut in two at any byte is read whole, routed by its name and passed on byte for
/// byte. Fails if a prefix is taken for the whole, or for another protocol.
#[tokio::test(flavor = "multi_thread")]
async fn cut_at_every_position() {
    const AT_ONCE: usize = 16;
    let routed = Arc::new(Routed::start("20s").await);
    let node = TcpListener::bind(routed.block.at("10.0.0.4:8080")).await;
    let node = node.expect("the node's address");
    let hello = Arc::new(client_hello("raw.mycompany.com"));
    for from in (1..hello.len()).step_by(AT_ONCE) {
        let cuts = from..(from + AT_ONCE).min(hello.len());
        let mut clients = tokio::task::JoinSet::new();
        for cut in cuts.clone() {
            let (routed, hello) = (routed.clone(), hello.clone());
            clients.spawn(async move {
                let mut client = Dial::plain(routed.block.at(RAW)).tcp().await;
                let sent = pieces(&mut client, &hello, &[cut]).await;
                sent.expect("write");
                client
            });
        }
        for _ in cuts.clone() {
            let accepted = deadline(&format!("cuts {cuts:?}"), node.accept()).await;
            let (mut up, _) = accepted.expect("accept");
            let mut got = vec![0; hello.len()];
            deadline("the ClientHello", up.read_exact(&mut got))
                .await
                .expect("all of it");
            assert!(got == *hello, "cuts {cuts:?}");
        }
        clients.join_all().await;
    }
}

/// A list of unknown protocols, `size` bytes long.
fn long_alpn(size: usize) -> &'static [u8] {
    let entry = [&[249][..], &[b'x'; 249]].concat();
    Box::leak(entry.repeat(size / 250).into_boxed_slice())
}

/// Aim: D32. Bytes that are no ClientHello, or end within one, go to the default byte for byte. Fails if the
/// inspection loses a byte, or if such a client is refused or delayed.
#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_go_to_the_default_untouched() {
    let routed = Routed::start("20s").await;
    let node = TcpListener::bind(routed.block.at("10.0.0.4:8080")).await;
    let node = node.expect("the node's address");
    let cases: [&[u8]; 8] = [
        b"GET / HTTP/1.1\r\nHost: push1.mycompany.com\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"\x80\x2e\x01\x03\x01",
        b"\x15\x03\x01\x00\x02\x01\x00",
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\xff\xff\x01",
        b"\x16\x03\x01\x00\x08\x01\x00\x00\x04\x09\x09\x09\x09",
        // Unfinished, and then FIN.
        b"\x16\x03\x01\x00\xf0\x01\x00\x00\xec\x03\x03",
    ];
    for bytes in cases {
        let mut client = Dial::plain(routed.block.at(TO_RAW)).tcp().await;
        client.write_all(bytes).await.expect("write");
        client.shutdown().await.expect("FIN");
        let (mut up, _) = deadline("the edge's connection", node.accept())
            .await
            .expect("accept");
        let mut got = Vec::new();
        deadline("FIN", up.read_to_end(&mut got))
            .await
            .expect("read");
        assert_eq!(got, bytes);
        up.write_all(b"seen").await.expect("write");
        drop(up);
        let mut answer = Vec::new();
        deadline("the answer", client.read_to_end(&mut answer))
            .await
            .expect("read");
        assert_eq!(answer, b"seen");
    }
}

/// Aim: D32. A ClientHello that is never finished, or never begun, ends at `handshake_timeout` and is
/// counted. It reaches no node, and others are served meanwhile. Fails without the deadline.
#[tokio::test(flavor = "multi_thread")]
async fn an_unfinished_client_hello_ends_in_time() {
    let routed = Routed::start("1s").await;
    let node = TcpListener::bind(routed.block.at("10.0.0.4:8080")).await;
    let node = node.expect("the node's address");
    let start = Instant::now();
    let mut waiting = Vec::new();
    for part in [
        &b""[..],
        b"\x16",
        b"\x16\x03\x01\x02",
        b"\x16\x03\x01\x00\xf0\x01\x00\x00\xec",
    ] {
        let mut client = Dial::plain(routed.block.at(TO_RAW)).tcp().await;
        client.write_all(part).await.expect("write");
        waiting.push(client);
    }
    let dial = routed.dial(SNI, "push1.mycompany.com");
    assert_eq!(routed.node(&dial, |f| f, vec![]).await, "n1");
    for client in &mut waiting {
        let mut answer = Vec::new();
        let _ = deadline("the end", client.read_to_end(&mut answer)).await;
        assert!(
            answer.is_empty() && start.elapsed() >= Duration::from_secs(1),
            "{answer:?}"
        );
    }
    let key =
        "pushgate_connections_refused_total{listener=\"l0-14\",reason=\"client_hello_timeout\"}";
    deadline("the count", async {
        while routed.edge.metrics().await.get(key) != Some(&4.0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    let none = tokio::time::timeout(Duration::ZERO, node.accept()).await;
    assert!(none.is_err(), "no node hears of it");
}
