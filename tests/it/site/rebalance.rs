//! One rebalance of three edges: one leads, all close their part.
//!
//! In: clients that come back at another edge when they are closed; nodes that return; a leader that dies. Out: where the
//! clients are, how many were closed and how fast. Source: issue 16 §5; Lightstreamer clustering §5.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::crowd::Crowd;
use super::three::Three;
use crate::deadline;

const COOKIE: &str = "{ sticky_cookie: { key_file: KEYS } }";
const PROGRESS: &str = "/api/pools/p/rebalance";

fn is_over(progress: &Value) -> bool {
    !matches!(
        progress["state"].as_str(),
        None | Some("running" | "settling")
    )
}

fn busiest(closes: &[Instant]) -> usize {
    let within = |at: &Instant| {
        let second = *at..*at + Duration::from_secs(1);
        closes.iter().filter(|t| second.contains(*t)).count()
    };
    closes.iter().map(within).max().unwrap_or(0)
}

/// Aim: 600 clients of three edges on two nodes, the third node returns: the site becomes even by the fewest moves, at the
/// site's pace, although each closed client comes back at another edge. Fails if edges close on their own account, or if
/// a closed client's cookie is still good elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn a_site_is_rebalanced_once() {
    let three = Three::start(3, 3, COOKIE, "").await;
    three.order(0, "/api/nodes/n3/drain").await;
    for n in 0..3 {
        three.wait_node(n, "n3", "state", "draining").await;
    }
    let dials = [0, 1, 2].map(|n| three.dial(n));
    let crowd = Crowd::enter(&dials, 600).await;
    three.order(0, "/api/nodes/n3/up").await;
    for n in 0..3 {
        three.wait_node(n, "n3", "state", "up").await;
        three
            .wait(n, "/api/pools", "600 flows", |all| {
                all[0]["site_flows"] == 600
            })
            .await;
    }
    let before = crowd.counts();
    let most = before.iter().map(|n| n.saturating_sub(200)).sum::<usize>();
    let begun = three
        .order(
            1,
            "/api/pools/p/rebalance?to_even&rate=100/s&tolerance=0%25&close",
        )
        .await;
    assert_eq!(
        (&begun["left"], &begun["edge"]),
        (&most.into(), &"b".into()),
        "{begun}"
    );
    let again = three.edges[0]
        .admin("POST", "/api/pools/p/rebalance?close")
        .await;
    assert_eq!(again.status, 409, "{}", again.text());
    for n in 0..3 {
        three.wait(n, PROGRESS, "the end", is_over).await;
        let end = three.get(n, PROGRESS).await;
        assert_eq!(
            (&end["state"], &end["moved"]),
            (&"done".into(), &most.into()),
            "{end}"
        );
    }
    crowd.settled(600).await;
    assert_eq!(crowd.counts(), [200; 3], "{before:?} before");
    let closes = crowd.closes();
    assert_eq!(closes.len(), most);
    assert!(busiest(&closes) <= 105, "{} in a second", busiest(&closes));
}

/// Aim: a node that returns at three edges is one rebalance. Fails if each edge begins its own, at once or after another.
#[tokio::test(flavor = "multi_thread")]
async fn a_return_is_one_rebalance() {
    let pool =
        "    rebalance: { auto: true, delay: 500ms, rate: 500/s, tolerance: 0%, close: true }\n";
    let three = Three::start(3, 3, COOKIE, pool).await;
    three.order(0, "/api/nodes/n3/down").await;
    for n in 0..3 {
        three.wait_node(n, "n3", "state", "down").await;
    }
    let dials = [0, 1, 2].map(|n| three.dial(n));
    let crowd = Crowd::enter(&dials, 150).await;
    // Everybody knows everybody's flows before the return.
    for n in 0..3 {
        three
            .wait(n, "/api/pools", "150 flows", |all| {
                all[0]["site_flows"] == 150
            })
            .await;
    }
    three.order(0, "/api/nodes/n3/up").await;
    deadline("fifty clients on each node", async {
        while crowd.counts() != [50; 3] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for n in 0..3 {
        three.wait(n, PROGRESS, "the end", is_over).await;
    }
    // Longer than the delay and the pause between two looks at the nodes.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let begun = three
        .edges
        .iter()
        .map(|e| e.log().matches("rebalance of the site begins").count());
    assert_eq!(begun.sum::<usize>(), 1);
    let end = three.get(1, PROGRESS).await;
    assert_eq!(
        (&end["by"], &end["moved"]),
        (&"auto".into(), &50.into()),
        "{end}"
    );
}

/// Aim: if the leader dies, another edge goes on, and the clients of the dead edge are spread. Fails if the run ends with
/// its leader, or begins anew.
#[tokio::test(flavor = "multi_thread")]
async fn another_edge_goes_on_leading() {
    let three = Three::start(3, 3, COOKIE, "").await;
    three.order(0, "/api/nodes/n3/drain").await;
    for n in 0..3 {
        three.wait_node(n, "n3", "state", "draining").await;
    }
    let dials = [0, 1, 2].map(|n| three.dial(n));
    let crowd = Crowd::enter(&dials, 300).await;
    three.order(0, "/api/nodes/n3/up").await;
    for n in 0..3 {
        three.wait_node(n, "n3", "state", "up").await;
        three
            .wait(n, "/api/pools", "300 flows", |all| {
                all[0]["site_flows"] == 300
            })
            .await;
    }
    three
        .order(
            0,
            "/api/pools/p/rebalance?to_even&rate=20/s&tolerance=0%25&close",
        )
        .await;
    three
        .wait(1, PROGRESS, "a start", |p| p["moved"].as_u64() >= Some(20))
        .await;
    three.edges[0].signal(libc::SIGKILL);
    for n in 1..3 {
        three.wait(n, PROGRESS, "the end", is_over).await;
        let end = three.get(n, PROGRESS).await;
        assert_ne!(end["edge"], "a", "{end}");
    }
    crowd.settled(300).await;
    let counts = crowd.counts();
    assert!(counts.iter().all(|n| (90..=110).contains(n)), "{counts:?}");
    let led = three.edges[1..]
        .iter()
        .map(|e| e.log().matches("goes on leading").count());
    assert_eq!(led.sum::<usize>(), 1);
}
