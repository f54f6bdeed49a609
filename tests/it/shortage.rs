//! The machine runs out of descriptors or of local ports: live flows go on, and no node is blamed.
//!
//! In: an edge whose limit is lowered, or whose host has few ports. Out: states of nodes, live streams, the
//! answers to new clients. Source: FAULTS D54 ("accept backs off, recovers"), D55 ("other nodes used, clear
//! error").

use std::time::Duration;

use crate::certs::{Certs, Key};
use crate::client::Dial;
use crate::client::h1::{H1, Response};
use crate::deadline;
use crate::edge::Edge;
use crate::netns::{Host, skipped};
use crate::node::Node;
use crate::setup::{self, HOST, Setup};
use crate::vip::Block;

fn sum(metrics: &str, name: &str, labels: &[&str]) -> f64 {
    let of = |line: &&str| line.starts_with(name) && labels.iter().all(|l| line.contains(l));
    let value = |line: &str| line.rsplit_once(' ')?.1.parse::<f64>().ok();
    metrics.lines().filter(of).filter_map(value).sum()
}

/// Limits `edge` to descriptors below `most`; returns the former limit.
fn limit_descriptors(edge: &Edge, most: u64) -> u64 {
    let mut old = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let pid = edge.pid() as i32;
    // SAFETY: prlimit(2) reads and writes the one struct given; the child is not yet waited for.
    let rc = unsafe {
        let got = libc::prlimit(pid, libc::RLIMIT_NOFILE, std::ptr::null(), &mut old);
        let new = libc::rlimit {
            rlim_cur: most,
            ..old
        };
        got | libc::prlimit(pid, libc::RLIMIT_NOFILE, &new, std::ptr::null_mut())
    };
    assert_eq!(rc, 0, "{}", std::io::Error::last_os_error());
    old.rlim_cur
}

/// Asserts that the answer asks the client to come back, and says why.
fn told_to_wait(answer: &Response) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
}

/// Aim: the kernel's table of descriptors has room for all connections from the start. Fails if it grows with them:
/// each time all flows of a thread that opens a socket stand still for some 20 ms.
#[tokio::test(flavor = "multi_thread")]
async fn the_table_of_descriptors_does_not_grow() {
    let setup = Setup::start(1).await;
    let of = |file: &str, name: &str| -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", setup.edge.pid()));
        let text = text.expect("it lives");
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next());
        number.and_then(|n| n.parse().ok()).expect("a number")
    };
    let (room, most) = (of("status", "FDSize:"), of("limits", "Max open files"));
    assert!(
        room >= 400_000.min(most * 15 / 16 - 256),
        "{room} of {most}"
    );
}

/// Aim (D54): no descriptor is left, so no check can be made and no node be connected. The nodes keep their
/// states, and streams go on. Connected clients get 503 with Retry-After, and clients that connect meanwhile
/// are served afterwards. Fails if a check that could not be made counts as failed: both nodes are Down, and
/// every stream is cut.
#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_no_node_falls() {
    let setup = Setup::start(2).await;
    let mut streams = Vec::new();
    for dial in [setup.plain(), setup.tls(), setup.plain(), setup.tls()] {
        streams.push(H1::stream(&dial).await);
    }
    let mut kept = H1::connect(&setup.plain()).await;
    let mut operator = H1::connect(&Dial::plain(setup.block.admin())).await;
    operator.get("/healthz", &[]).await;
    setup
        .edge
        .wait_metric("pushgate_connections", |n| n == 5.0)
        .await;
    // Fewer than the edge has open, so that each new one fails.
    let before = limit_descriptors(&setup.edge, 16);
    let late = H1::connect(&setup.plain()).await;
    deadline("checks that cannot be made", async {
        let unmade = ["result=\"error\""];
        loop {
            let metrics = operator.get("/metrics", &[]).await.text();
            if sum(&metrics, "pushgate_health_checks_total", &unmade) >= 10.0 {
                return;
            }
            streams[0].lives(20).await;
        }
    })
    .await;
    told_to_wait(&kept.get("/hello", &[]).await);
    let nodes = operator.get("/api/nodes", &[]).await.text();
    assert_eq!(nodes.matches("\"state\":\"up\"").count(), 2, "{nodes}");
    limit_descriptors(&setup.edge, before);
    let mut late = late;
    assert_eq!(late.get("/hello", &[]).await.status, 200);
    for stream in &mut streams {
        stream.lives(20).await;
    }
    let changes = setup.edge.metric("pushgate_node_changes_total").await;
    assert_eq!(changes, 0.0, "a node fell");
    let exhausted = |lines: &[serde_json::Value]| lines.iter().any(|l| l["reason"] == "exhausted");
    setup.edge.wait_access("its reason", exhausted).await;
    let log = setup.edge.log();
    let told = log.matches("no descriptor left to connect").count();
    assert_eq!(told, 1, "told once:\n{log}");
}

/// Aim (D54): clients connect until no descriptor is left for them. The next ones wait, and are not refused,
/// until others leave. Checks go on, and the admin endpoint answers. Fails if flows get the last descriptors.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_descriptors_are_not_for_flows() {
    let (block, certs) = (Block::claim(), Certs::new());
    certs.leaf("push", &[HOST], Key::Ecdsa);
    let _node = setup::node(&block, 1).await;
    let edge = Edge::start_limited(&block, &setup::yaml(&certs, 1, "", ""), 256).await;
    let plain = Dial::plain(block.at("200.0.0.10:80")).host(HOST);
    let mut streams = Vec::new();
    let mut late = loop {
        let mut client = H1::connect(&plain).await;
        let path = "/sse?every=10";
        client.send("GET", path, &[], b"").await.expect("send");
        // Bounded wait: the edge must not answer.
        let head = tokio::time::timeout(Duration::from_secs(1), client.head()).await;
        match head {
            Ok(head) => assert_eq!(head.expect("a head").status, 200),
            Err(_) => break client,
        }
        streams.push(client);
        assert!(streams.len() < 128, "more than there are descriptors for");
    };
    println!("{} clients were let in", streams.len());
    assert!(streams.len() > 40, "{}", streams.len());
    let made = async |result: &str| {
        let metrics = edge.admin("GET", "/metrics").await.text();
        sum(&metrics, "pushgate_health_checks_total", &[result])
    };
    let before = made("pass").await;
    deadline("more checks", async {
        while made("pass").await < before + 10.0 {
            streams[0].lives(20).await;
        }
    })
    .await;
    assert_eq!((made("fail").await, made("error").await), (0.0, 0.0));
    edge.wait_log("no descriptor left; new clients wait").await;
    streams.drain(..10);
    let head = deadline("an answer", late.head()).await;
    assert_eq!(head.expect("a head").status, 200);
    late.lives(20).await;
    for stream in &mut streams {
        stream.lives(20).await;
    }
}

/// Aim (D55): every local port towards a node is in use. The node stays Up with its streams. Another node
/// serves new clients; without another, they get 503 with Retry-After. Fails if a check or a connect that
/// found no port counts against the node: it is Down, and its streams are cut.
#[tokio::test(flavor = "multi_thread")]
async fn without_ports_no_node_falls() {
    if skipped() {
        return;
    }
    let host = Host::new();
    host.leave_ports(16);
    let mut nodes = Vec::new();
    for n in 1..=2 {
        let at = std::net::SocketAddr::from((host.here, 8080 + n));
        nodes.push(Node::start(&format!("n{n}"), at).await);
    }
    let (here, there) = (host.here, host.there);
    // Each check leaves a port in TIME_WAIT for a minute, so that soon none is left.
    let yaml = format!(
        "nodes:\n  n1: {{ address: {here}:8081, health: {{ tcp: {{}}, interval: 30ms, rise: 1, fall: 1 }} }}\n  \
         n2: {{ address: {here}:8082 }}\n\
         pools: {{ alone: {{ nodes: [n1] }}, both: {{ nodes: [n1, n2], balance: round_robin }} }}\n\
         listeners:\n  - {{ name: alone, bind: [{there}:81], mode: http, to: alone }}\n  \
         - {{ name: both, bind: [{there}:82], mode: http, to: both }}\n  \
         - {{ name: plain, bind: [{there}:83], mode: tcp, to: alone }}\n  \
         - {{ name: plainer, bind: [{there}:84], mode: tcp, to: both }}\n"
    );
    let edge = Edge::start_on(&host, &yaml).await;
    let [alone, both, plain, plainer] = [81, 82, 83, 84].map(|p| Dial::plain((there, p).into()));
    let mut streams = [H1::stream(&alone).await, H1::stream(&plain).await];
    deadline("checks that cannot be made", async {
        let unmade = ["result=\"error\""];
        loop {
            let metrics = edge.admin("GET", "/metrics").await.text();
            if sum(&metrics, "pushgate_health_checks_total", &unmade) >= 5.0 {
                return;
            }
            streams[0].lives(20).await;
        }
    })
    .await;
    for dial in [&both, &both, &plainer, &plainer] {
        let answer = H1::connect(dial).await.get("/hello", &[]).await;
        assert_eq!((answer.status, answer.node()), (200, "n2"));
    }
    told_to_wait(&H1::connect(&alone).await.get("/hello", &[]).await);
    told_to_wait(
        &H1::connect(&alone)
            .await
            .request("POST", "/echo", &[], b"x")
            .await,
    );
    let mut closed = H1::connect(&plain).await;
    deadline("its end", closed.ended()).await;
    let ended = |lines: &[serde_json::Value]| {
        let exhausted = lines.iter().filter(|l| l["reason"] == "exhausted");
        exhausted.count() == 3
    };
    edge.wait_access("their reason", ended).await;
    for stream in &mut streams {
        stream.lives(20).await;
    }
    let metrics = edge.admin("GET", "/metrics").await.text();
    let failures = "pushgate_connect_failures_total";
    assert!(
        sum(&metrics, failures, &["n1", "no_local_port"]) >= 3.0,
        "{metrics}"
    );
    assert_eq!(
        sum(&metrics, "pushgate_node_changes_total", &[]),
        0.0,
        "a node fell"
    );
}
