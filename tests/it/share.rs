//! One client cannot shut out all others: limits of connections, idle connections that make room, a client's
//! share of descriptors, memory.
//!
//! In: a hostile address that takes what it can, and others. Out: the others are served, live streams go on,
//! what is refused is counted. Source: FAULTS D54, D58; issue "one client cannot shut out all others".

use std::net::IpAddr;
use std::time::Duration;

use ppp::v2::{Builder, Command, Protocol, Version};
use tokio::io::AsyncWriteExt;

use crate::certs::{Certs, Key};
use crate::client::h1::H1;
use crate::client::h2::H2;
use crate::client::{Dial, Io};
use crate::deadline;
use crate::edge::Edge;
use crate::node::Node;
use crate::setup::{self, HOST};
use crate::vip::Block;

/// Memory of the process and of its cgroup.
mod memory;
/// The rates at which a client begins connections and requests.
mod pace;

/// An edge with one node. `top` are keys of the file, `keys` more keys of its three listeners: plain, TLS, and
/// plain behind the PROXY protocol.
struct Rig {
    block: Block,
    edge: Edge,
    certs: Certs,
    _node: Node,
}

impl Rig {
    async fn start(top: &str, keys: &str, descriptors: Option<u64>) -> Rig {
        let (block, certs) = (Block::claim(), Certs::new());
        certs.leaf("push", &[HOST], Key::Ecdsa);
        let dir = certs.dir().display();
        let yaml = format!(
            "{top}nodes: {{ n1: {{ address: 10.0.0.1:8080 }} }}\npools: {{ p: {{ nodes: [n1] }} }}\n\
             certificates: {{ push: {{ chain: {dir}/push.pem, key: {dir}/push.key }} }}\nlisteners:\n  \
             - {{ name: plain, bind: [200.0.0.10:80], mode: http, to: p{keys} }}\n  \
             - {{ name: tls, bind: [200.0.0.10:443], mode: http, to: p, tls: {{ certificates: [push] }}{keys} }}\n  \
             - {{ name: behind, bind: [200.0.0.11:80], mode: http, to: p, accept_proxy: [127.0.0.0/8]{keys} }}\n"
        );
        let node = setup::node(&block, 1).await;
        let edge = match descriptors {
            Some(most) => Edge::start_limited(&block, &yaml, most).await,
            None => Edge::start(&block, &yaml).await,
        };
        Rig {
            block,
            edge,
            certs,
            _node: node,
        }
    }

    /// How client `n` dials the plain listener.
    fn plain(&self, n: u8) -> Dial {
        let dial = Dial::plain(self.block.at("200.0.0.10:80")).host(HOST);
        dial.from(self.block.client(n))
    }

    /// How client `n` dials the TLS listener.
    fn tls(&self, n: u8) -> Dial {
        let dial = Dial::tls(self.block.at("200.0.0.10:443"), HOST, self.certs.ca());
        dial.from(self.block.client(n))
    }

    /// A connection that a balancer opens for `client`.
    async fn behind(&self, client: &str) -> H1 {
        let to = self.block.at("200.0.0.11:80");
        let mut stream = Dial::plain(to).io().await;
        let client: IpAddr = client.parse().expect("an address");
        let vip: IpAddr = match client {
            IpAddr::V4(_) => IpAddr::from([198, 51, 100, 1]),
            IpAddr::V6(_) => "2001:db8:ffff::1".parse().expect("an address"),
        };
        let (client, vip) = ((client, 4000).into(), (vip, 80).into());
        let addresses = proxied(client, vip);
        let head = Version::Two | Command::Proxy;
        let header = Builder::with_addresses(head, Protocol::Stream, addresses).build();
        let header = header.expect("a header");
        stream.write_all(&header).await.expect("send");
        H1::over(stream)
    }

    /// Waits until `reason` of the metric has at least `least`.
    async fn counted(&self, metric: &str, reason: &str, least: f64) {
        let reason = format!("reason=\"{reason}\"");
        deadline(&reason, async {
            loop {
                let metrics = self.edge.metrics().await;
                let of = |name: &str| name.starts_with(metric) && name.contains(&reason);
                let all = metrics.iter().filter(|(name, _)| of(name));
                if all.map(|(_, n)| *n).sum::<f64>() >= least {
                    return;
                }
            }
        })
        .await;
    }
}

const REFUSED: &str = "pushgate_connections_refused_total";
const CLOSED_IDLE: &str = "pushgate_idle_connections_closed_total";

fn proxied(from: std::net::SocketAddr, to: std::net::SocketAddr) -> ppp::v2::Addresses {
    use std::net::SocketAddr::{V4, V6};
    match (from, to) {
        (V4(from), V4(to)) => {
            ppp::v2::IPv4::new(*from.ip(), *to.ip(), from.port(), to.port()).into()
        }
        (V6(from), V6(to)) => {
            ppp::v2::IPv6::new(*from.ip(), *to.ip(), from.port(), to.port()).into()
        }
        _ => unreachable!("one family"),
    }
}

/// A client that was served once and keeps its connection.
async fn come(dial: &Dial) -> H1 {
    let mut client = H1::connect(dial).await;
    assert_eq!(client.get("/hello", &[]).await.status, 200);
    client
}

/// Aim: an address has no more connections at a listener than it may; TLS ones are refused before their
/// handshake. Others are served, and so is the address after one has left. Behind the PROXY protocol the named
/// client counts, of IPv6 its /64, and the balancer does not. Fails if peers are counted instead of clients, or
/// if a place is not given back.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_no_more_connections_than_it_may() {
    let rig = Rig::start("", ", max_connections_per_client: 3", None).await;
    for dial in [Rig::plain, Rig::tls] {
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(come(&dial(&rig, 1)).await);
        }
        let mut fourth = dial(&rig, 1).tcp().await;
        let mut byte = [0];
        let read = tokio::io::AsyncReadExt::read(&mut fourth, &mut byte);
        assert!(matches!(deadline("its end", read).await, Ok(0) | Err(_)));
        come(&dial(&rig, 2)).await;
        held.pop();
        deadline("a free place", async {
            loop {
                let io: Box<dyn Io> = Box::new(dial(&rig, 1).tcp().await);
                let mut raw = H1::over(io);
                // A plain request to the TLS port gets a hint; a refused connection gets nothing.
                let _ = raw.send("GET", "/hello", &[], b"").await;
                if raw.head().await.is_ok() {
                    return;
                }
            }
        })
        .await;
    }
    rig.counted(REFUSED, "max_connections_per_client", 2.0)
        .await;
    let mut held = Vec::new();
    for client in [
        "203.0.113.1",
        "203.0.113.2",
        "2001:db8::1",
        "2001:db8:0:1::1",
    ] {
        for _ in 0..3 {
            let mut client = rig.behind(client).await;
            assert_eq!(client.get("/hello", &[("Host", HOST)]).await.status, 200);
            held.push(client);
        }
    }
    for client in ["203.0.113.1", "2001:db8::ffff"] {
        assert!(rig.behind(client).await.ended().await, "{client}");
    }
    assert_eq!(held[11].get("/hello", &[("Host", HOST)]).await.status, 200);
}

/// Aim: a trusted HTTP proxy passes with any number of connections, because they carry many clients. Fails if it
/// counts as one client.
#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_has_no_limit() {
    let keys =
        ", max_connections_per_client: 3, plugins: [{ forwarded: { trust: [127.0.0.0/8] } }]";
    let rig = Rig::start("max_connections: 16\nclient_share: 0%\n", keys, None).await;
    let mut held = Vec::new();
    for _ in 0..14 {
        held.push(come(&rig.plain(1)).await);
    }
    for client in &mut held {
        assert_eq!(client.get("/hello", &[]).await.status, 200);
    }
}

/// Aim: at `max_connections` the longest idle connections of the address with most make room, also ones that
/// send nothing or only began a handshake. Others keep theirs, and no live stream ends. Fails if new clients are
/// refused, if age alone decides, or if a flow counts as idle.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_of_the_greediest_make_room() {
    let rig = Rig::start("max_connections: 16\nclient_share: 100%\n", "", None).await;
    let mut kept = come(&rig.plain(1)).await;
    let mut live = [
        H1::stream(&rig.plain(9)).await,
        H1::stream(&rig.tls(9)).await,
    ];
    let mut greedy = Vec::new();
    for n in 0..9 {
        greedy.push(match n % 3 {
            0 => come(&rig.plain(9)).await,
            1 => H1::over(Box::new(rig.plain(9).tcp().await)),
            _ => H1::over(Box::new(rig.tls(9).tcp().await)),
        });
        rig.edge
            .wait_metric("pushgate_connections", |open| open >= 4.0 + n as f64)
            .await;
    }
    let mut others = Vec::new();
    for n in 2..9 {
        let dial = if n % 2 == 0 { rig.plain(n) } else { rig.tls(n) };
        others.push(come(&dial).await);
    }
    // 12 were open, so the last 3 of these 7 needed room.
    for client in &mut greedy[..3] {
        assert!(deadline("its end", client.ended()).await);
    }
    assert_eq!(greedy[3].get("/hello", &[]).await.status, 200);
    assert_eq!(kept.get("/hello", &[]).await.status, 200);
    for other in &mut others {
        assert_eq!(other.get("/hello", &[]).await.status, 200);
    }
    for stream in &mut live {
        stream.lives(5).await;
    }
    rig.counted(CLOSED_IDLE, "max_connections", 3.0).await;
}

/// Aim: an HTTP/2 connection without a stream makes room, and one with a stream does not. Fails if the state of
/// a connection does not follow its streams.
#[tokio::test(flavor = "multi_thread")]
async fn an_http2_connection_without_a_stream_makes_room() {
    let rig = Rig::start("max_connections: 2\nclient_share: 100%\n", "", None).await;
    let mut busy = H2::connect(&rig.tls(1)).await;
    let mut answer = busy.open("/sse?every=10", &[]).await.expect("a head");
    let mut idle = H2::connect(&rig.tls(1)).await;
    assert_eq!(idle.get("/hello", &[]).await.status(), 200);
    let mut new = come(&rig.plain(2)).await;
    rig.counted(CLOSED_IDLE, "max_connections", 1.0).await;
    assert_eq!(new.get("/hello", &[]).await.status, 200);
    for _ in 0..5 {
        let piece = crate::client::h2::piece(answer.body_mut());
        assert!(deadline("a piece", piece).await.is_some_and(|p| p.is_ok()));
    }
    // Nothing is idle now but the newest, which is not the greediest client's.
    drop(idle);
    rig.edge
        .wait_metric("pushgate_connections", |open| open == 2.0)
        .await;
}

/// Aim: an address whose live flows fill the edge gets no more room at the cost of others' idle connections.
/// Fails if any idle connection makes room for anybody.
#[tokio::test(flavor = "multi_thread")]
async fn the_greediest_gets_no_room_from_others() {
    let rig = Rig::start("max_connections: 12\nclient_share: 100%\n", "", None).await;
    let mut live = Vec::new();
    for _ in 0..11 {
        live.push(H1::stream(&rig.plain(9)).await);
    }
    let mut kept = come(&rig.plain(1)).await;
    assert!(deadline("its end", H1::connect(&rig.plain(9)).await.ended()).await);
    rig.counted(REFUSED, "max_connections", 1.0).await;
    assert_eq!(kept.get("/hello", &[]).await.status, 200);
    live[0].lives(5).await;
}

/// Aim: one client over HTTP/2 opens streams to silent answers until it holds its share of the descriptors;
/// what is over gets 429 with Retry-After, and others are served. Fails if only clients' connections are
/// counted: one client took 19,936 of 20,000 descriptors.
#[tokio::test(flavor = "multi_thread")]
async fn an_http2_client_has_a_share_of_the_descriptors() {
    let keys = ", limits: { http2: { streams: 1000 } }";
    let rig = Rig::start("", keys, Some(1024)).await;
    let mut greedy = H2::connect(&rig.tls(9)).await;
    let (mut held, mut over) = (Vec::new(), 0);
    while over < 20 {
        let answer = greedy.open("/sse?silent=1", &[]).await.expect("a head");
        match answer.status().as_u16() {
            200 => held.push(answer),
            429 => {
                assert!(answer.headers().contains_key("retry-after"));
                over += 1;
            }
            status => panic!("{status} after {} streams", held.len()),
        }
    }
    // 896, without 128 for others and those that the edge itself has.
    let open = std::fs::read_dir(format!("/proc/{}/fd", rig.edge.pid()));
    println!(
        "{} streams, {} descriptors",
        held.len(),
        open.expect("our child").count()
    );
    assert!((600..850).contains(&held.len()), "{}", held.len());
    for n in 1..20 {
        come(&rig.tls(n % 5)).await;
    }
    rig.counted("pushgate_connect_failures_total", "client_share", 20.0)
        .await;
    drop(held);
    drop(greedy);
    // Until its share is given back, its handshake would be refused.
    for held in ["pushgate_connections", "pushgate_node_flows"] {
        rig.edge.wait_metric(held, |n| n == 0.0).await;
    }
    let mut back = H2::connect(&rig.tls(9)).await;
    deadline("its share", async {
        while back.get("/hello", &[]).await.status() != 200 {}
    })
    .await;
}

/// Aim: idle connections take every descriptor that clients may have; the longest idle ones of the address with
/// most make room, so that new clients wait for nobody. Fails if they wait until somebody leaves.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_make_room_for_descriptors() {
    let rig = Rig::start("", "", Some(256)).await;
    let mut live = H1::stream(&rig.plain(1)).await;
    let mut greedy = Vec::new();
    for _ in 0..300 {
        greedy.push(rig.plain(9).tcp().await);
    }
    for n in 1..9 {
        let dial = if n % 2 == 0 { rig.plain(n) } else { rig.tls(n) };
        let mut client = deadline("a place", come(&dial)).await;
        assert_eq!(client.get("/hello", &[]).await.status, 200);
    }
    live.lives(5).await;
    rig.counted(CLOSED_IDLE, "descriptors", 1.0).await;
    let log = rig.edge.log();
    let told = log.matches("no descriptor left").count();
    assert!(told <= 2, "told at a bounded pace:\n{log}");
}

/// Aim: a flood of handshakes of one address that never finish does not stop those of others. Fails if they
/// count as flows, or hold what others need.
#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_never_finish_stop_nobody() {
    let rig = Rig::start("max_connections: 40\n", "", None).await;
    let mut greedy = Vec::new();
    for n in 0..200 {
        let mut half = rig.tls(9).tcp().await;
        // The begin of a record with a ClientHello.
        let _ = half.write_all(&[22, 3, 1, 1, 0, 1][..n % 7]).await;
        greedy.push(half);
    }
    let begun = std::time::Instant::now();
    for n in 1..9 {
        come(&rig.tls(n)).await;
    }
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "before they are late"
    );
}
