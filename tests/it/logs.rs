//! Logs that cannot be written, or that somebody would flood: nothing waits for them.
//!
//! In: a standard error that nobody reads, a full disk, nodes that fail each connect. Out: clients that are
//! served, live streams that go on, checks, orders and signals that are heard; counts of lost lines.
//! Source: FAULTS D70, D54.

use std::io::Read;
use std::time::{Duration, Instant};

use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::client::h1::H1;
use crate::deadline;
use crate::edge::Edge;
use crate::node::Node;
use crate::tlcp::Sessions;
use crate::vip::Block;

/// One data thread; a node that is checked; a node whose TLS fails, so that each connect logs a line.
const YAML: &str = "
threads: 1
nodes:
  n1: { address: 10.0.0.1:8080, health: { tcp: {}, interval: 50ms, rise: 1, fall: 1 } }
  n2: { address: 10.0.0.2:8080 }
  bad: { address: 10.0.0.3:8080, tls: { server_name: push.mycompany.com, ca_file: CA }, health: { tcp: {}, fall: 100 } }
listeners:
  - { name: one, bind: [200.0.0.10:80], mode: http, to: n1 }
  - { name: two, bind: [200.0.0.20:80], mode: http, to: n2 }
  - { name: bad, bind: [200.0.0.30:80], mode: http, to: bad }
drain_deadline: 100ms
";

/// A node with a certificate of `certs`.
async fn secure(block: &Block, certs: &Certs) -> Node {
    let tls = certs.leaf("n3", &["push.mycompany.com"], Key::Ecdsa);
    let at = block.at("10.0.0.3:8080");
    Node::start_tls("n3", at, Sessions::new("n3"), Some(tls.context())).await
}

/// The configuration, and the authority of the node `bad` when the edge starts.
fn yaml() -> (String, Certs) {
    let certs = Certs::new();
    let ca = certs.ca_file().display().to_string();
    (YAML.replace("CA }", &format!("{ca} }}")), certs)
}

/// Gives the node `bad` a certificate that the edge does not trust. A hundred checks take it Down, not before.
async fn spoil(node: Node, block: &Block) -> Node {
    let dial = Dial::plain(node.addr);
    node.kill();
    deadline("the end of its listener", async {
        while dial.try_tcp().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    drop(node);
    secure(block, &Certs::new()).await
}

async fn status(block: &Block, at: &str) -> u16 {
    let mut client = H1::connect(&Dial::plain(block.at(at))).await;
    client.get("/hello", &[]).await.status
}

/// Aim: standard error takes nothing, while a node goes Down and connects to a TLS node fail. New clients are
/// served, a live stream goes on, the check is counted, the admin endpoint answers, and TERM ends the process
/// in bounded time. Fails if any thread writes to standard error itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_stderr_stops_nothing() {
    let block = Block::claim();
    let n1 = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let _n2 = Node::start("n2", block.at("10.0.0.2:8080")).await;
    let (yaml, certs) = yaml();
    let bad = secure(&block, &certs).await;
    let (mut edge, mut pipe) = Edge::start_on_pipe(&block, &yaml).await;
    let _bad = spoil(bad, &block).await;
    let mut stream = H1::connect(&Dial::plain(block.at("200.0.0.20:80"))).await;
    let sent = stream.send("GET", "/sse?every=10", &[], b"").await;
    sent.expect("send");
    stream.head().await.expect("a head");
    pipe.fill();
    n1.kill();
    let down = |nodes: &serde_json::Value| nodes[1]["state"] == "down";
    edge.wait_nodes("n1 Down", down).await;
    for _ in 0..3 {
        assert_eq!(status(&block, "200.0.0.30:80").await, 502);
        assert_eq!(status(&block, "200.0.0.20:80").await, 200);
    }
    let until = Instant::now() + Duration::from_millis(300);
    while Instant::now() < until {
        let piece = deadline("a piece", stream.piece()).await;
        assert!(piece.expect("not cut").is_some(), "not at its end");
    }
    assert_eq!(edge.admin("POST", "/api/reload").await.status, 200);
    edge.signal(libc::SIGTERM);
    assert_eq!(edge.ended().await.code(), Some(0));
    let mut first = [0; 4096];
    let _ = pipe.reader.read(&mut first);
    let first = String::from_utf8_lossy(&first);
    assert!(first.contains("listener one on"), "{first}");
}

/// Aim: clients whose node fails each connect get few lines into the service log, then a count with an
/// example. Fails without the limit, or if the end of the process forgets the count.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_failures_is_few_lines() {
    let block = Block::claim();
    let _n1 = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let _n2 = Node::start("n2", block.at("10.0.0.2:8080")).await;
    let (yaml, certs) = yaml();
    let bad = secure(&block, &certs).await;
    let mut edge = Edge::start(&block, &yaml).await;
    let _bad = spoil(bad, &block).await;
    let begin = Instant::now();
    for _ in 0..60 {
        assert_eq!(status(&block, "200.0.0.30:80").await, 502);
    }
    let most = 10 + 3 * (begin.elapsed().as_secs() as usize + 1);
    let lost = edge.metrics().await;
    let lost = lost["pushgate_log_lines_lost_total{log=\"service\",reason=\"limited\"}"];
    edge.signal(libc::SIGTERM);
    edge.ended().await;
    edge.wait_log("more like this").await;
    let log = edge.log();
    let lines = log.lines().filter(|l| l.contains("cannot connect"));
    let (counts, lines): (Vec<_>, Vec<_>) = lines.partition(|l| l.contains("more like this"));
    assert!((10..=most).contains(&lines.len()), "{log}");
    assert!(lost as usize + lines.len() >= 60, "{lost} lost");
    assert!(counts[0].contains("node bad"), "{counts:?}");
}

/// Aim: an access log on a full disk stops nothing, is counted, and is reported once. Fails if the error of the
/// write is dropped, or if each line reports it.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_counted() {
    let block = Block::claim();
    let _n1 = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let _n2 = Node::start("n2", block.at("10.0.0.2:8080")).await;
    let (yaml, certs) = yaml();
    let _bad = secure(&block, &certs).await;
    let yaml = yaml + "log: { access: { file: /dev/full } }\n";
    let edge = Edge::start(&block, &yaml).await;
    for _ in 0..20 {
        assert_eq!(status(&block, "200.0.0.20:80").await, 200);
    }
    let lost = "pushgate_log_lines_lost_total";
    edge.wait_metric(lost, |n| n == 20.0).await;
    edge.wait_log("cannot write").await;
    assert_eq!(edge.log().matches("cannot write").count(), 1);
}

/// One listener with ids for its requests.
const LOGGED: &str = "
nodes: { n1: { address: 10.0.0.1:8080 } }
listeners:
  - { name: push, bind: [200.0.0.10:80], mode: http, to: n1, plugins: [forwarded: { request_id: true }] }
  - { name: tcp, bind: [200.0.0.10:81], mode: tcp, to: n1 }
";

/// Aim: a line says who ended a flow in which phase, as HAProxy's users know it, with the id that the node got; a
/// stream has a line at its beginning, too. Fails if a client that closes its WebSocket seems to abort, if an answer
/// that is whole at once has two lines, or if node and log name a request differently.
#[tokio::test(flavor = "multi_thread")]
async fn a_line_tells_who_ended_a_flow_and_when() {
    let block = Block::claim();
    let node = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let yaml = LOGGED.to_owned() + "log: { access: stdout, begin: true }\n";
    let edge = Edge::start(&block, &yaml).await;
    let dial = Dial::plain(block.at("200.0.0.10:80"));
    let mut client = H1::connect(&dial).await;
    let agent = [("User-Agent", "tester/1 (\"x\")")];
    assert_eq!(client.get("/hello", &agent).await.status, 200);
    client.send("GET", "/hold", &[], b"").await.expect("send");
    node.wait("the request", |seen| {
        let mut all = seen.connections.iter().flat_map(|c| &c.requests);
        all.any(|r| r.target == "/hold")
    })
    .await;
    drop(client);
    drop(H1::stream(&dial).await);
    let mut socket = crate::client::ws::connect(&dial, "/ws/echo", &[]).await;
    socket.socket.close(None).await.expect("a close frame");
    socket.ended().await;
    drop(socket);
    drop(Dial::plain(block.at("200.0.0.10:81")).tcp().await);
    let is_end = |line: &serde_json::Value| line["event"] == "end";
    let lines = edge
        .wait_access("the ends", |lines| {
            lines.iter().filter(|l| is_end(l)).count() == 5
        })
        .await;
    let of = |path: &str, event: &str| {
        let mut found = lines
            .iter()
            .filter(|l| l["path"] == path && l["event"] == event);
        (found.next(), found.next().is_none())
    };
    for (path, ended, begins) in [
        ("/hello", "--", false),
        ("/hold", "CH", false),
        ("/sse", "CD", true),
        ("/ws/echo", "--", true),
    ] {
        let (Some(end), true) = of(path, "end") else {
            panic!("one end of {path}: {lines:?}");
        };
        assert_eq!(end["ended"], ended, "{path}");
        let (begin, _) = of(path, "begin");
        assert_eq!(
            begin.map(|line| &line["flow"]),
            begins.then_some(&end["flow"]),
            "{path}"
        );
        assert!(begin.is_none_or(|line| line["reason"].is_null() && line["status"] != 0));
    }
    let (hello, _) = of("/hello", "end");
    let hello = hello.expect("a line");
    assert_eq!(hello["user_agent"], agent[0].1);
    let id = hello["request_id"].as_str().expect("an id").to_owned();
    let seen = node.seen();
    let mut heads = seen
        .connections
        .iter()
        .flat_map(|c| &c.requests)
        .map(|r| r.head.to_ascii_lowercase());
    assert!(
        heads.any(|head| String::from_utf8_lossy(&head).contains(&format!("x-request-id: {id}"))),
        "{id}"
    );
    assert!(seconds_between(hello) < 0.01, "{hello}");
}

/// Returns by how much the two times of a line differ.
fn seconds_between(line: &serde_json::Value) -> f64 {
    let date = line["date"].as_str().expect("a date");
    let date = humantime::parse_rfc3339(date).expect("RFC 3339");
    let since = date.duration_since(std::time::UNIX_EPOCH);
    (since.expect("after 1970").as_secs_f64() - line["time"].as_f64().expect("a time")).abs()
}

/// Aim: a syslog server gets the chosen fields of each line in a message, and the journal the level of each line of
/// the service log. Fails if the fields come in another order, or if a level is missing.
#[tokio::test(flavor = "multi_thread")]
async fn syslog_and_journal_get_lines_of_their_form() {
    let block = Block::claim();
    let _node = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let server = tokio::net::UdpSocket::bind("127.0.0.1:0")
        .await
        .expect("a socket");
    let to = server.local_addr().expect("bound");
    let log = format!(
        "log: {{ access: {{ syslog: {to} }}, fields: [ended, path, status], service: journal }}\n"
    );
    let edge = Edge::start(&block, &(LOGGED.to_owned() + &log)).await;
    assert_eq!(status(&block, "200.0.0.10:80").await, 200);
    let mut message = [0; 1024];
    let received = deadline("a message", server.recv(&mut message)).await;
    let message = String::from_utf8_lossy(&message[..received.expect("a message")]).into_owned();
    let begin = format!(" pushgate {} access - ", edge.pid());
    assert!(
        message.starts_with("<134>1 ") && message.contains(&begin),
        "{message}"
    );
    assert!(
        message.ends_with("{\"ended\":\"--\",\"path\":\"/hello\",\"status\":200}"),
        "{message}"
    );
    edge.wait_log("<6>pushgate::server: listener push on ")
        .await;
}

/// Aim: systemd's journal gets each line as an entry with fields, of both logs, over its own socket; elsewhere a line is
/// the text that the file asks for. Fails if a field is missing, or if a client's bytes begin a line.
#[tokio::test(flavor = "multi_thread")]
async fn the_journal_gets_entries_and_a_text_is_the_operators() {
    let block = Block::claim();
    let _node = Node::start("n1", block.at("10.0.0.1:8080")).await;
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("socket");
    let journal = tokio::net::UnixDatagram::bind(&path).expect("a socket");
    let to = path.display();
    let log = format!(
        "log: {{ access: {{ journald: {to} }}, fields: [node, path, user_agent], service: {{ journald: {to} }} }}\n"
    );
    let edge = Edge::start(&block, &(LOGGED.to_owned() + &log)).await;
    let agent = [("User-Agent", "x\" y")];
    let dial = Dial::plain(block.at("200.0.0.10:80")).host("push.example");
    let answer = H1::connect(&dial).await.get("/hello", &agent).await;
    assert_eq!(answer.status, 200);
    let next = async |words: &str| {
        let mut entry = [0; 8192];
        loop {
            let received = deadline(words, journal.recv(&mut entry)).await;
            let entry = String::from_utf8_lossy(&entry[..received.expect("an entry")]).into_owned();
            if entry.contains(words) {
                return entry;
            }
        }
    };
    let service = next("MESSAGE=listener push on ").await;
    let begin = "PRIORITY=6\nSYSLOG_IDENTIFIER=pushgate\nMESSAGE=";
    let target = "\nPUSHGATE_TARGET=pushgate::server\nCODE_FILE=src/server.rs\nCODE_LINE=";
    assert!(service.starts_with(begin), "{service}");
    assert!(service.contains(target), "{service}");
    let access = next("PUSHGATE_PATH=").await;
    let fields = "\nPUSHGATE_NODE=n1\nPUSHGATE_PATH=/hello\nPUSHGATE_USER_AGENT=x\" y\n";
    assert!(access.ends_with(fields), "{access}");
    assert!(
        access.contains(" \"GET push.example/hello\" 200 n1 --\n"),
        "{access}"
    );
    drop(edge);

    let text = "log: { access: stdout, format: '[{node}] {sni} {status} \"{user_agent}\" {{' }\n";
    let edge = Edge::start(&block, &(LOGGED.to_owned() + text)).await;
    let answer = H1::connect(&dial).await.get("/hello", &agent).await;
    assert_eq!(answer.status, 200);
    edge.wait_log("[n1] - 200 \"x\\\" y\" {\n").await;
}
