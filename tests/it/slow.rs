//! Who makes a flow wait: staged cases, all in one edge, and what the edge says of each.
//!
//! In: clients and nodes that do not read, do not answer, are far away or gone; threads that are stopped. Out: the
//! words of `/api/flows`, of the command line, and the metric; the silence before a loss.
//! Source: issue "who is slow"; FAULTS D53, D60.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::certs::{Certs, Key};
use crate::client::h2::H2;
use crate::client::{Dial, Io, ws};
use crate::deadline;
use crate::edge::Edge;
use crate::netns::{Host, skipped};
use crate::node::Node;
use crate::setup::HOST;
use crate::vip::Block;

/// The silence before a loss.
mod loss;
/// The threads of the edge that carry bytes, stopped.
mod stopped;

const YAML: &str = "
threads: 2
nodes:
  n1: { address: 10.0.0.1:8080 }
  full: { address: 10.0.0.2:8080 }
  gone: { address: GONE:8080 }
  far: { address: FAR:8081 }
pools: { away: { nodes: [gone], connect_timeout: 60s } }
certificates:
  push: { chain: DIR/push.pem, key: DIR/push.key }
listeners:
  - { name: plain, bind: [200.0.0.10:80, HERE:7000], mode: http, to: n1 }
  - { name: tls, bind: [200.0.0.10:443], mode: http, tls: { certificates: [push] }, to: n1 }
  - { name: tcp, bind: [200.0.0.10:81], mode: tcp, to: n1 }
  - { name: upload, bind: [200.0.0.10:82], mode: http, to: full }
  - { name: send, bind: [200.0.0.10:83], mode: tcp, to: full }
  - { name: gone, bind: [200.0.0.10:84], mode: http, to: away }
  - { name: far, bind: [200.0.0.10:85], mode: tcp, to: far }
";

/// Who makes each client's flow wait, and why.
type Verdicts = BTreeMap<IpAddr, (String, String)>;

/// A host with a slow cable, a host whose cable will be cut, and the edge with its nodes.
struct Stage {
    block: Block,
    certs: Certs,
    edge: Edge,
    slow: Host,
    cut: Host,
    /// A host that never answers. If it were dropped, its address would be somebody else's.
    _lost: Host,
    _n1: Node,
    /// Accepts no connection itself; its kernel does.
    _full: TcpListener,
    far: TcpListener,
}

impl Stage {
    async fn set() -> Stage {
        let (block, certs) = (Block::claim(), Certs::new());
        certs.leaf("push", &[HOST], Key::Ecdsa);
        let (slow, cut, lost) = (Host::new(), Host::new(), Host::new());
        lost.swallow();
        let far = cut.listen(8081);
        let n1 = Node::start("n1", block.at("10.0.0.1:8080")).await;
        let full = TcpListener::bind(block.at("10.0.0.2:8080")).await;
        let mut yaml = YAML
            .replace("HERE", &slow.here.to_string())
            .replace("GONE", &lost.there.to_string())
            .replace("FAR", &cut.there.to_string())
            .replace("DIR", &certs.dir().display().to_string());
        yaml = yaml.replace(
            "200.0.0.10:80, ",
            &format!("200.0.0.10:80, {}:7001, ", cut.here),
        );
        let edge = Edge::start(&block, &yaml).await;
        slow.slow_down();
        Stage {
            block,
            certs,
            edge,
            slow,
            cut,
            _lost: lost,
            _n1: n1,
            _full: full.expect("a free address"),
            far,
        }
    }

    /// How to dial a port of the VIP from a client's own address.
    fn dial(&self, port: u16, client: u8) -> Dial {
        let to = self.block.at(&format!("200.0.0.10:{port}"));
        let dial = match port {
            443 => Dial::tls(to, HOST, self.certs.ca()),
            _ => Dial::plain(to).host(HOST),
        };
        let small = Dial {
            rcvbuf: Some(4096),
            ..dial
        };
        small.from(address(client))
    }

    /// Sends one request, and keeps the connection without reading.
    async fn ask(&self, port: u16, client: u8, path: &str) -> Box<dyn Io> {
        let mut io = self.dial(port, client).io().await;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        io.write_all(head.as_bytes()).await.expect("send");
        io
    }

    /// Returns who makes each flow wait and why, by client address.
    async fn flows(&self) -> Verdicts {
        let answer = self.edge.admin("GET", "/api/flows?limit=1000").await;
        let answer: Value = serde_json::from_str(&answer.text()).expect("JSON");
        let flows = answer["flows"].as_array().expect("a list");
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let one = |flow: &Value| {
            let client: SocketAddr = word(&flow["client"]).parse().expect("a client");
            (client.ip(), (word(&flow["who"]), word(&flow["why"])))
        };
        flows.iter().map(one).collect()
    }

    /// Polls until each flow has the verdict that `expected` has for its client.
    async fn wait(&self, expected: &Verdicts) {
        let end = std::time::Instant::now() + crate::DEADLINE;
        loop {
            let found = self.flows().await;
            if expected
                .iter()
                .all(|(client, verdict)| found.get(client) == Some(verdict))
            {
                return;
            }
            assert!(
                std::time::Instant::now() < end,
                "{}",
                difference(expected, &found)
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn difference(expected: &Verdicts, found: &Verdicts) -> String {
    let wrong = expected
        .iter()
        .filter(|(client, verdict)| found.get(client) != Some(verdict));
    wrong
        .map(|(client, verdict)| {
            format!("{client}: {:?}, expected {verdict:?}\n", found.get(client))
        })
        .collect()
}

/// The address of client `n`.
fn address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 9, 9, n)
}

fn verdicts(all: &[(IpAddr, &str, &str)]) -> Verdicts {
    let one = |(client, who, why): &(IpAddr, &str, &str)| {
        (*client, ((*who).to_owned(), (*why).to_owned()))
    };
    all.iter().map(one).collect()
}

/// Reads as fast as bytes come, in a task.
fn read_on(mut io: impl AsyncReadExt + Unpin + Send + 'static) {
    tokio::spawn(async move {
        let mut scrap = vec![0; 65_536];
        while matches!(io.read(&mut scrap).await, Ok(1..)) {}
    });
}

/// Sends as much as is taken, in a task.
fn send_on(mut io: impl AsyncWriteExt + Unpin + Send + 'static) {
    tokio::spawn(async move { while io.write_all(&[7; 65_536]).await.is_ok() {} });
}

/// What keeps the flows of a test alive.
type Kept = Vec<Box<dyn std::any::Any + Send>>;

/// Clients that do not read, send half a request, are behind a slow line, or are gone.
async fn slow_clients(stage: &Stage, kept: &mut Kept) {
    let floods = [(1, 80), (2, 443), (3, 81)].map(|(n, port)| (n, port, "/flood"));
    for (n, port, path) in floods.into_iter().chain([(4, 80, "/sse?every=1")]) {
        kept.push(Box::new(stage.ask(port, n, path).await));
    }
    let flooded = ws::connect(&stage.dial(80, 5), "/ws/flood", &[]).await;
    let mut h2 = H2::connect(&stage.dial(443, 6)).await;
    let stuck = h2.open("/flood", &[]).await.expect("an answer");
    let mut half = stage.dial(80, 7).io().await;
    let head = format!("POST /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\nabc");
    half.write_all(head.as_bytes()).await.expect("send");
    let to = (stage.slow.here, 7000).into();
    read_on(request(stage.slow.connect(to, None), "/flood").await);
    let to = (stage.cut.here, 7001).into();
    let lost = request(stage.cut.connect(to, None), "/sse?every=100").await;
    kept.extend([Box::new((flooded, stuck, half, lost)) as Box<_>]);
}

/// Nodes that are gone, do not answer, do not read, or cannot be reached. Cuts the cable of the first.
async fn slow_nodes(stage: &Stage, kept: &mut Kept) {
    let mut to_far = stage.dial(85, 8).io().await;
    let accepted = deadline("a connection", stage.far.accept()).await;
    stage.cut.swallow();
    to_far.write_all(b"bytes for nobody").await.expect("send");
    kept.push(Box::new((to_far, accepted.expect("accept"))));
    for (n, port, path) in [
        (9, 80, "/hold"),
        (10, 443, "/poll"),
        (11, 82, "/"),
        (12, 84, "/"),
    ] {
        kept.push(Box::new(stage.ask(port, n, path).await));
    }
    let mut h2 = H2::connect(&stage.dial(443, 13)).await;
    kept.push(Box::new(h2.begin("/hold").await));
    let mut upload = stage.dial(82, 14).io().await;
    let head = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100000000\r\n\r\n");
    upload.write_all(head.as_bytes()).await.expect("send");
    send_on(upload);
    send_on(stage.dial(83, 15).io().await);
}

/// Flows in which nobody waits.
async fn silent(stage: &Stage, kept: &mut Kept) {
    kept.push(Box::new(stage.ask(80, 16, "/sse?silent=1").await));
    kept.push(Box::new(
        ws::connect(&stage.dial(443, 17), "/ws/silent", &[]).await,
    ));
    kept.push(Box::new(stage.dial(81, 18).io().await));
    let mut hears = ws::connect(&stage.dial(80, 19), "/ws/echo", &[]).await;
    hears.say("hello").await;
    assert_eq!(hears.hear().await, "hello");
    kept.push(Box::new(hears));
}

/// Returns who makes clients wait, and why.
fn expected(stage: &Stage) -> Verdicts {
    let client = |n: u8, why| (IpAddr::from(address(n)), "client", why);
    let node = |n: u8, why| (IpAddr::from(address(n)), "node", why);
    let mut all = vec![
        client(6, "stream"),
        client(7, "request"),
        (stage.slow.there.into(), "client", "network"),
        (stage.cut.there.into(), "client", "unacknowledged"),
        node(8, "unacknowledged"),
        node(12, "connect"),
    ];
    all.extend([1, 2, 3, 4, 5].map(|n| client(n, "not_reading")));
    all.extend([9, 10, 11, 13].map(|n| node(n, "answer")));
    all.extend([14, 15].map(|n| node(n, "not_reading")));
    all.extend([16, 17, 18, 19].map(|n| (address(n).into(), "idle", "")));
    verdicts(&all)
}

/// Aim: each of 25 flows, at once in one edge, is said to wait for the one that makes it wait: clients that do not
/// read, send half a request, are behind a slow line or gone; nodes that do not answer, do not read, cannot be reached
/// or are gone; nobody, where all is silent; and the edge, whose threads are stopped while bytes can be read. The
/// command line and the metric say the same. Fails if the kernel's queues are not looked at, if silence counts as a
/// stall, or if one look at readable bytes suffices.
#[tokio::test(flavor = "multi_thread")]
async fn each_flow_waits_for_the_one_who_is_slow() {
    if skipped() {
        return;
    }
    let (stage, mut kept) = (Stage::set().await, Vec::new());
    slow_clients(&stage, &mut kept).await;
    slow_nodes(&stage, &mut kept).await;
    silent(&stage, &mut kept).await;
    let mut expected = expected(&stage);
    stage.wait(&expected).await;

    // The edge: bytes of nodes and of a client that its stopped threads do not read.
    for (n, port) in [(20, 80), (21, 443), (22, 81)] {
        let mut hears = stage.ask(port, n, "/sse?every=10").await;
        // Its node answers before the threads stop: a flow that does not exist yet waits for nobody.
        let first = deadline("an answer", hears.read_u8()).await;
        first.expect("a byte");
        read_on(hears);
    }
    let mut says = ws::connect(&stage.dial(80, 23), "/ws/echo", &[]).await;
    says.say("hello").await;
    assert_eq!(says.hear().await, "hello");
    let stopped = stopped::data_threads(&stage.edge);
    says.say("anybody?").await;
    expected.retain(|_, (who, _)| who == "idle");
    expected.extend(verdicts(
        &[20, 21, 22, 23].map(|n| (address(n).into(), "edge", "busy")),
    ));
    stage.wait(&expected).await;
    // A shorter stop is none that an operator would notice.
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(stopped);
    assert_eq!(says.hear().await, "anybody?");
    told(&stage.edge).await;
}

async fn request(mut stream: TcpStream, path: &str) -> TcpStream {
    let head = format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("send");
    stream
}

/// The command line and the metric tell the same.
async fn told(edge: &Edge) {
    deadline("waits", async {
        loop {
            let metrics = edge.metrics().await;
            let waits =
                |who| metrics.get(&format!("pushgate_stall_seconds_count{{who=\"{who}\"}}"));
            // The slow client waits for each piece; the stopped threads came late.
            if waits("client").is_some() && waits("edge").is_some() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let shown = command(
        edge,
        &["flows", "--client", "127.9.9.0/28", "--who", "client"],
    )
    .await;
    assert!(shown.contains("  client     not_reading  "), "{shown}");
    assert!(
        !shown.contains("  idle  ") && !shown.contains(" answer "),
        "{shown}"
    );
    let top = command(edge, &["top", "--count", "1"]).await;
    assert!(
        top.contains("127.9.9.1:") && !top.contains("127.9.9.16:"),
        "{top}"
    );
}

/// Runs `pushgate` with a command for the edge; returns what it prints.
async fn command(edge: &Edge, args: &[&str]) -> String {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pushgate"));
    command.args(args).args(["--admin", &edge.admin_url()]);
    let output = deadline("the command", command.kill_on_drop(true).output()).await;
    let output = output.expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
