//! What the decisions on one flow cost, without sockets: routing, tokens, heads, framing.
//!
//! In: heads and bodies as push clients and servers send them. Out: criterion's times, watched so
//! that the path of a request stays free of surprises. `cargo bench` in this folder.

#![allow(missing_docs, reason = "criterion_group! makes a pub fn")]

use std::collections::HashMap;
use std::hint::black_box;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use http::header::{COOKIE, SET_COOKIE};
use pingora_http::{RequestHeader, ResponseHeader};
use pushgate::balance::Pool;
use pushgate::config::Config;
use pushgate::listener::request_head;
use pushgate::route::{Assigned, Decision, Table};
use pushgate::stream::framing::Framing;
use pushgate::stream::relay::{HalfClose, Rules, relay};
use pushgate::stream::side::Side;
use pushgate::stream::socket::Tcp;
use pushgate::upstream::Node;
use pushgate_plugins::api::{Flow, How, NodeId, Plugin, PoolId, Target};
use pushgate_plugins::context::{Build, Keep};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Head of a browser's request, with a cookie of ours among others in the place of `{}`.
const HEAD: &str = "GET /lightstreamer?LS_protocol=TLCP-2.5.0 HTTP/1.1\r\n\
     Host: push.mycompany.com\r\n\
     User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/120.0 Safari/537.36\r\n\
     Accept: */*\r\nAccept-Language: en-GB,en;q=0.9\r\nAccept-Encoding: gzip, deflate, br\r\n\
     Origin: https://www.mycompany.com\r\nReferer: https://www.mycompany.com/portfolio\r\n\
     Cookie: theme=dark; {}consent=yes\r\n\r\n";

/// Nodes of the pools that are decided on.
const NODES: [usize; 2] = [2, 1000];

/// A table as the edge builds it from a file: `count` nodes, `plugins` in YAML.
struct Bench {
    table: Table,
    pool: Arc<Pool>,
    limits: pushgate::config::Limits,
}

impl Bench {
    fn new(count: usize, plugins: &str) -> Self {
        let nodes: String = (0..count)
            .map(|i| {
                format!(
                    "  n{i}: {{ address: 10.0.{}.{}:80 }}\n",
                    i / 250,
                    i % 250 + 1
                )
            })
            .collect();
        let names: Vec<String> = (0..count).map(|i| format!("n{i}")).collect();
        let text = format!(
            "nodes:\n{nodes}pools:\n  push: {{ nodes: [{}] }}\nlisteners:\n  - name: push\n    \
             bind: [127.0.0.1:8080]\n    mode: http\n    to: push\n    plugins: [{plugins}]\n",
            names.join(", ")
        );
        let config =
            Config::parse(&text, "bench", Path::new(".")).expect("the bench's file is legal");
        let conf = &config.pools["push"];
        let nodes: Vec<Arc<Node>> = config
            .nodes
            .iter()
            .map(|(name, n)| Node::new(name, n, conf.on_down, None))
            .collect();
        let pool = Arc::new(Pool::new("push", conf, nodes.clone()));
        let listener = &config.listeners[0];
        let (known, pools): (Vec<&str>, _) = (
            names.iter().map(String::as_str).collect(),
            [("push", &names[..])],
        );
        let build = Build {
            listener: "push",
            mode: listener.mode,
            tls: false,
            nodes: &known,
            pools: &pools,
            dir: Path::new("."),
            keep: &Keep::default(),
        };
        let plugins: Vec<Box<dyn Plugin>> = listener
            .plugins
            .iter()
            .map(|p| p.build(&build).expect("the bench's plugins are legal"))
            .collect();
        let table = Table {
            plugins: plugins.into_boxed_slice(),
            default: Some(Target::Pool(pool.id)),
            pools: Arc::new(HashMap::from([(pool.id, pool.clone())])),
            nodes: Arc::new(nodes.into_iter().map(|n| (n.id, n)).collect()),
        };
        Bench {
            table,
            pool,
            limits: listener.limits.clone(),
        }
    }

    /// The cookie a client gets from its first answer.
    fn cookie(&self, flow: &Flow<'_>) -> String {
        let node = self.pool.nodes[0].clone();
        let assigned = Assigned {
            node,
            pool: Some(self.pool.clone()),
            how: How::Balanced,
            mark: None,
        };
        let mut answer = ResponseHeader::build(200, None).expect("200 is a status");
        for p in &self.table.plugins {
            p.response(flow, &assigned.facts(), &mut answer)
                .expect("a legal head");
        }
        let line = answer
            .headers
            .get(SET_COOKIE)
            .expect("the plugin sets its cookie");
        let line = line.to_str().expect("a cookie is ASCII");
        line.split(';')
            .next()
            .expect("a line has a first part")
            .to_owned()
    }
}

fn request(cookie: &str) -> RequestHeader {
    let mut head = RequestHeader::build("GET", b"/lightstreamer", None).expect("a legal head");
    head.insert_header("Host", "push.mycompany.com")
        .expect("a legal header");
    let value = format!("theme=dark; {cookie}; consent=yes");
    head.insert_header(COOKIE, value).expect("a legal header");
    head
}

fn flow(request: &RequestHeader) -> Flow<'_> {
    let client = SocketAddr::from(([192, 0, 2, 7], 40_000));
    Flow {
        body: b"",
        listener: "push",
        client,
        peer: client,
        vip: SocketAddr::from(([127, 0, 0, 1], 8080)),
        tls: None,
        host: "push.mycompany.com",
        request: Some(request),
        wall: SystemTime::now(),
        now: Instant::now(),
        random: 0x1234_5678_9abc_def0,
    }
}

/// Flow → node: balanced, and recalled by a cookie, with few and with many nodes.
fn decide(c: &mut Criterion) {
    let mut group = c.benchmark_group("decide");
    for count in NODES {
        let bench = Bench::new(count, "{ sticky_cookie: { name: PUSHGATE, max_age: 8h } }");
        let plain = request("a=b");
        let new = flow(&plain);
        group.bench_function(format!("balanced, {count} nodes"), |b| {
            b.iter(|| matches!(bench.table.decide(black_box(&new), &[]), Decision::Node(_)));
        });
        let stuck = request(&bench.cookie(&new));
        let known = flow(&stuck);
        let recalled = bench.table.decide(&known, &[]);
        assert!(matches!(recalled, Decision::Node(a) if a.word() == "sticky_cookie"));
        group.bench_function(format!("recalled by cookie, {count} nodes"), |b| {
            b.iter(|| {
                matches!(
                    bench.table.decide(black_box(&known), &[]),
                    Decision::Node(_)
                )
            });
        });
    }
    let bench = Bench::new(2, "{ sticky_ip: {} }");
    let plain = request("a=b");
    let known = flow(&plain);
    group.bench_function("recalled by address, 2 nodes", |b| {
        b.iter(|| {
            let decision = bench.table.decide(black_box(&known), &[]);
            bench.table.ended(known.client.ip(), &[], bench.pool.id);
            matches!(decision, Decision::Node(_))
        });
    });
    group.finish();
}

/// One token: verified on the way in, signed on the way out, and a forged one refused.
fn token(c: &mut Criterion) {
    let bench = Bench::new(2, "{ sticky_cookie: { name: PUSHGATE, max_age: 8h } }");
    let plain = request("a=b");
    let cookie = bench.cookie(&flow(&plain));
    let plugin = &bench.table.plugins[0];
    let mut group = c.benchmark_group("token");
    let last = if cookie.ends_with('A') { "B" } else { "A" };
    let forged = format!("{}{last}", &cookie[..cookie.len() - 1]);
    for (name, cookie, good) in [("verified", &cookie, true), ("forged", &forged, false)] {
        let head = request(cookie);
        let known = flow(&head);
        let pool = PoolId::of("push");
        assert_eq!(plugin.recall(&known, pool).is_some(), good, "{name}");
        group.bench_function(name, |b| b.iter(|| plugin.recall(black_box(&known), pool)));
    }
    let node = bench
        .pool
        .node(NodeId::of("n0"))
        .expect("n0 is in the pool")
        .clone();
    let to = Assigned {
        node,
        pool: Some(bench.pool.clone()),
        how: How::Balanced,
        mark: None,
    };
    let new = flow(&plain);
    group.bench_function("signed into an answer", |b| {
        b.iter_batched_ref(
            || ResponseHeader::build(200, Some(4)).expect("200 is a status"),
            |answer| {
                plugin
                    .response(black_box(&new), &to.facts(), answer)
                    .is_ok()
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// The one reading of a request's head.
fn head(c: &mut Criterion) {
    let bench = Bench::new(2, "");
    let text = HEAD.replace(
        "{}",
        "PUSHGATE=AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA; ",
    );
    let mut group = c.benchmark_group("request_head");
    group.throughput(Throughput::Bytes(text.len() as u64));
    assert!(request_head::check(text.as_bytes(), &bench.limits).is_ok());
    group.bench_function("end", |b| {
        b.iter(|| request_head::end(black_box(text.as_bytes()), 0, &bench.limits));
    });
    group.bench_function("check", |b| {
        b.iter(|| request_head::check(black_box(text.as_bytes()), &bench.limits));
    });
    group.finish();
}

/// Where a body ends: one chunk of 100 bytes, and 16 KiB in chunks of 100 and of 4,096 bytes.
fn framing(c: &mut Criterion) {
    let mut group = c.benchmark_group("framing");
    for (name, chunk, count) in [
        ("one chunk of 100 B", 100, 1),
        ("16 KiB by 100 B", 100, 164),
        ("16 KiB by 4 KiB", 4096, 4),
    ] {
        let one = [
            format!("{chunk:x}\r\n").as_bytes(),
            &vec![b'x'; chunk],
            b"\r\n",
        ]
        .concat();
        let body = one.repeat(count);
        group.throughput(Throughput::Bytes(body.len() as u64));
        let mut framing = Framing::chunked();
        assert_eq!(framing.advance(&body), Ok(body.len()));
        group.bench_function(name, |b| {
            b.iter(|| {
                framing
                    .advance(black_box(&body))
                    .is_ok_and(|n| n == body.len())
            });
        });
    }
    group.finish();
}

/// A message of 100 bytes through the relay, from the node's write to the client's read: four
/// sockets on loopback, one thread, so nearly all of it is the kernel's.
fn relayed(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let (mut client, mut node, relay) = runtime.block_on(async {
        let (client, ours) = pair().await;
        let (node, theirs) = pair().await;
        let rules = Rules {
            half_close: HalfClose::Ends,
            read: 4096,
            frames: true,
        };
        let side = |stream| (Side::Plain(Tcp::new(stream)), Vec::new());
        let kill = std::future::pending();
        (
            client,
            node,
            tokio::spawn(relay(side(ours), side(theirs), rules, kill)),
        )
    });
    let mut got = [0; 100];
    c.bench_function("relay/message of 100 B", |b| {
        b.iter(|| {
            runtime.block_on(async {
                node.write_all(&[b'm'; 100]).await.expect("the relay reads");
                client.read_exact(&mut got).await.expect("the relay writes");
            });
        });
    });
    relay.abort();
}

/// Two ends of a connection over loopback.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (one, (other, _)) = (one.expect("it listens"), other.expect("it was connected"));
    for s in [&one, &other] {
        s.set_nodelay(true).expect("a TCP socket");
    }
    (one, other)
}

criterion_group!(benches, decide, token, head, framing, relayed);
criterion_main!(benches);
