//! The flows of all edges count, and each edge uses its part of the limits.
//!
//! In: flows at one edge. Out: what the others say and do; `pushgate edges`. Source: issue 16 §4.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::three::Three;
use crate::browser::Browser;
use crate::client::ws;

/// Aim: each edge knows the flows of the others within two seconds and balances by them; a dead edge is out of the count
/// after 5 s. Fails if an edge counts only its own flows, or a dead edge's for longer.
#[tokio::test(flavor = "multi_thread")]
async fn flows_of_other_edges_count() {
    let three = Three::start(3, 2, "", "").await;
    three.order(0, "/api/nodes/n2/drain?here").await;
    let mut held = Vec::new();
    for _ in 0..20 {
        held.push(ws::connect(&three.dial(0), "/ws/silent", &[]).await);
    }
    let begun = Instant::now();
    for n in 1..3 {
        three.wait_node(n, "n1", "site_flows", 20).await;
        assert_eq!(three.node(n, "n1").await["flows"], 0);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    // As many as its part of the difference: the others are taken to give as many.
    for _ in 0..6 {
        let socket = ws::connect(&three.dial(1), "/ws/silent", &[]).await;
        assert_eq!(socket.node(), "n2", "the other edge has 20 flows at n1");
        held.push(socket);
    }
    let pools = three.get(2, "/api/pools").await;
    assert_eq!(pools[0]["flows"], 0, "{pools}");
    three.wait_node(2, "n2", "site_flows", 6).await;
    assert_eq!(three.edges[2].metric("pushgate_site_edges").await, 3.0);
    let shown = three.get(2, "/api/edges").await;
    let names: Vec<_> = shown["edges"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|e| &e["name"])
        .collect();
    assert_eq!(names, ["a", "b", "c"], "{shown}");
    let killed = Instant::now();
    three.edges[0].signal(libc::SIGKILL);
    three.wait_node(1, "n1", "site_flows", 0).await;
    assert!(
        killed.elapsed() < Duration::from_millis(6_500),
        "{:?}",
        killed.elapsed()
    );
    three.edges[1].wait_log("edge a is gone").await;
}

/// Aim: `max_flows` is the site's: three edges that are stormed exceed it by two at most, and one busy edge gets nearly
/// all of it. Fails if each edge uses the whole limit, or only an even part.
#[tokio::test(flavor = "multi_thread")]
async fn edges_share_max_flows() {
    let three = Three::start(
        3,
        1,
        "",
        "    max_flows: 30\n    queue: 100\n    queue_timeout: 15s\n",
    )
    .await;
    three
        .wait(2, "/api/edges", "three edges", |all| {
            all["edges"].as_array().map(Vec::len) == Some(3)
        })
        .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let storm = |n: usize| {
        let dial = three.dial(n);
        async move {
            let mut asked = tokio::task::JoinSet::new();
            for _ in 0..40 {
                let dial = dial.clone();
                asked.spawn(async move { ws::try_connect(&dial, "/ws/silent", &[]).await.ok() });
            }
            asked
                .join_all()
                .await
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
        }
    };
    let (a, b, c) = tokio::join!(storm(0), storm(1), storm(2));
    let all = a.len() + b.len() + c.len();
    assert!(
        (27..=32).contains(&all),
        "{} {} {}",
        a.len(),
        b.len(),
        c.len()
    );
    drop((a, b, c));
    for n in 0..3 {
        three.wait_node(n, "n1", "site_flows", 0).await;
    }
    let one = storm(0).await;
    assert!((27..=30).contains(&one.len()), "{}", one.len());
}

/// Aim: `pushgate edges` shows who is there, and an edge with another configuration is a warning everywhere. Fails if a
/// difference is not seen, or if addresses of machines count as one.
#[tokio::test(flavor = "multi_thread")]
async fn a_difference_is_told() {
    let three = Three::start(3, 2, "", "").await;
    let differing = |all: &Value| {
        let edges = all["edges"].as_array().into_iter().flatten();
        edges
            .filter(|e| e["warnings"] != Value::Array(Vec::new()))
            .count()
    };
    three
        .wait(0, "/api/edges", "three edges", |all| {
            all["edges"].as_array().map(Vec::len) == Some(3)
        })
        .await;
    assert_eq!(differing(&three.get(0, "/api/edges").await), 0);
    three.reload(1, "    retries: 5\n").await;
    three
        .wait(0, "/api/edges", "a warning", |all| differing(all) == 1)
        .await;
    three
        .wait(1, "/api/edges", "two warnings", |all| differing(all) == 2)
        .await;
    three.edges[0]
        .wait_log("edge b: configuration differs")
        .await;
    let said = Command::new(env!("CARGO_BIN_EXE_pushgate"))
        .args(["edges", "--admin", &three.edges[0].admin_url()])
        .output()
        .expect("the built program starts");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(
        said.contains("a (this)") && said.contains("configuration differs"),
        "{said}"
    );
}

/// Aim: two edges of one name are told, an edge that was killed and starts again is not. Fails if the last report of the
/// killed process is taken for a second edge.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_edge_of_one_name_is_told() {
    let mut three = Three::start(2, 1, "", "").await;
    three
        .wait(0, "/api/edges", "two edges", |all| edges(all) == 2)
        .await;
    let mut killed = three.edges.pop().expect("an edge");
    killed.signal(libc::SIGKILL);
    killed.ended().await;
    // Waits until it has ended.
    drop(killed);
    three.start_next().await;
    three.edges[1].wait_log("edge a is part of the site").await;
    // Longer than the report of the killed process lives.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let logs: String = three.edges.iter().map(|e| e.log()).collect();
    assert!(!logs.contains("same name"), "{logs}");
    three.start_as("b").await;
    three.edges[1]
        .wait_log("edge b: same name as this edge")
        .await;
}

/// Aim: without the store an edge keeps its part of a limit, because the others may live; with it again, the site's holds.
/// Fails if each edge uses the whole limit while the store is away, or full limits while an empty store fills.
#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_without_the_store() {
    let mut three = Three::start(3, 1, "", "    max_flows: 30\n").await;
    three
        .wait(2, "/api/edges", "three edges", |all| edges(all) == 3)
        .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let fill = async |three: &Three, n: usize| {
        let mut held = Vec::new();
        while let Ok(socket) = ws::try_connect(&three.dial(n), "/ws/silent", &[]).await {
            held.push(socket);
        }
        held
    };
    three.redis.kill();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let first = fill(&three, 0).await;
    assert_eq!(first.len(), 10);
    three.redis.again().await;
    let second = fill(&three, 1).await;
    assert!((10..=15).contains(&second.len()), "{}", second.len());
}

/// Aim: the dashboard shows the edges of the site and the flows of all, and hides both where an edge is alone. Fails if the
/// table stays empty, or a difference is not marked.
#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_shows_the_edges() {
    let three = Three::start(2, 1, "", "").await;
    let held = ws::connect(&three.dial(1), "/ws/silent", &[]).await;
    three.wait_node(0, "n1", "site_flows", 1).await;
    three.reload(1, "    retries: 5\n").await;
    let browser = Browser::at(&format!("{}/", three.edges[0].admin_url())).await;
    let script = "return [...document.querySelectorAll('#edges tr, #nodes tr')]
        .map((r) => [...r.cells].map((c) => c.textContent).join('|')).join('\\n') + document.getElementById('store').textContent";
    let shown = browser.until("the edges", script, Vec::new(), |shown| {
        let shown = shown.as_str().unwrap_or_default();
        shown.contains("a (this edge)") && shown.contains("configuration differs")
    });
    let shown = shown.await;
    let shown = shown.as_str().unwrap_or_default();
    assert!(
        shown.contains("0 of 1") && shown.contains("Store: ok for"),
        "{shown}"
    );
    drop(held);
}

fn edges(all: &Value) -> usize {
    all["edges"].as_array().map_or(0, Vec::len)
}
