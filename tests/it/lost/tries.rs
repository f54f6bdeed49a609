//! How often the edge tries a request: `retry_unanswered`, `retries`, `no_node`.
//!
//! In: nodes that lose every request, or refuse connections without being Down. Out: how many nodes a request
//! visited. Source: RFC 9110 §9.2.2; FAULTS D59, D63.

use crate::client::h1::H1;
use crate::node::Held;
use crate::setup::Setup;
use crate::tlcp::Settings;

use super::{Asked, Loss, answer, ends_unanswered, holder, start, start_from, visits};

/// Aim: with `retry_unanswered: off` a GET that was sent is not sent again, however its node is lost. Fails
/// if it reaches the second node.
#[tokio::test(flavor = "multi_thread")]
async fn retry_unanswered_off_does_not_repeat() {
    for loss in super::LOSSES {
        let setup = start(2, "    retry_unanswered: off\n    retry_on: [/hold]\n").await;
        let mut client = Asked::get().send(&setup.plain()).await;
        let holder = holder(&setup).await;
        let waits = tokio::spawn(async move { ends_unanswered(&mut client, "off").await });
        loss.happens(&setup, &holder).await;
        waits.await.unwrap_or_else(|e| panic!("{loss:?}: {e}"));
        assert_eq!(visits(&setup).iter().sum::<usize>(), 1, "{loss:?}");
    }
}

/// Aim: a request that takes down every node it reaches visits `retry_unanswered` nodes more than one: two of
/// three by default, GET and POST on a path of `retry_on`. Fails if `retries`, 2 by default, counts these
/// tries.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadly_request_visits_two_nodes_of_three() {
    for (keys, most) in [
        ("", 2),
        ("    retry_unanswered: 2\n", 3),
        ("    retries: 0\n", 2),
    ] {
        for held in [Held::Resets, Held::Closes] {
            for asked in [Asked::get(), Asked::form()] {
                let setup = start(3, &format!("    retry_on: [/hold]\n{keys}")).await;
                setup.nodes.iter().for_each(|node| node.hold(held));
                let mut client = asked.send(&setup.plain()).await;
                let what = format!("{keys:?} {held:?} {}", asked.name);
                ends_unanswered(&mut client, &what).await;
                let mut visits = visits(&setup);
                visits.sort_unstable();
                let expected: Vec<usize> = (1..=3).map(|n| usize::from(n > 3 - most)).collect();
                assert_eq!(visits, expected, "{what}");
            }
        }
    }
}

/// Checks that take no node Down within the test.
const LENIENT: &str = "{ tcp: {}, interval: 1h, fall: 100 }";

/// Nodes that are Up and stay Up; the first `refusing` of them refuse connections.
async fn lenient(nodes: u8, refusing: usize, pool: &str) -> Setup {
    let setup = start_from(nodes, "", pool, LENIENT, Settings::default()).await;
    for node in &setup.nodes[..refusing] {
        node.deafen();
    }
    for node in &setup.nodes[..refusing] {
        refuses(node.addr).await;
    }
    setup
}

async fn refuses(addr: std::net::SocketAddr) {
    crate::deadline("a closed listener", async {
        while crate::client::Dial::plain(addr).try_tcp().await.is_ok() {}
    })
    .await
}

/// Aim: `retries` counts failed connects and nothing else. With round robin over two nodes, one refuses. With
/// `retries: 1` alone every POST is served; with `retries: 0` each turn of the refusing node fails, whatever
/// `retry_unanswered` allows. Fails if one key does the other's work.
#[tokio::test(flavor = "multi_thread")]
async fn retries_counts_failed_connects_only() {
    for (keys, served) in [
        ("    retries: 1\n    retry_unanswered: off\n", 4),
        ("    retries: 0\n    retry_unanswered: 10\n", 2),
    ] {
        let setup = lenient(2, 1, &format!("    balance: round_robin\n{keys}")).await;
        setup.nodes[1].hold(Held::Echo);
        let asked = Asked::form();
        let mut good = 0;
        for _ in 0..4 {
            let mut client = asked.send(&setup.plain()).await;
            let answer = answer(&mut client, keys).await;
            if answer.status == 200 {
                assert!(answer.body == asked.body, "{keys}");
                good += 1;
            }
        }
        assert_eq!(good, served, "{keys}");
        assert_eq!(visits(&setup), [0, good], "{keys}");
    }
}

/// Aim: `no_node: close` closes without an answer while all nodes refuse and are not Down yet; without the
/// key the answer is 503 or 502. Source: Lightstreamer clustering §5. Fails if only a pool whose nodes are
/// Down follows the key.
#[tokio::test(flavor = "multi_thread")]
async fn no_node_closes_while_nodes_refuse() {
    for close in [true, false] {
        let keys = if close { "    no_node: close\n" } else { "" };
        let setup = lenient(2, 2, keys).await;
        for asked in [Asked::get(), Asked::form()] {
            for dial in [setup.plain(), setup.tls()] {
                let mut client: H1 = asked.send(&dial).await;
                match close {
                    true => drop(ends_unanswered(&mut client, asked.name).await),
                    false => assert_eq!(answer(&mut client, asked.name).await.status, 502),
                }
            }
        }
        let nodes = setup.edge.nodes().await;
        assert!(
            nodes
                .as_array()
                .is_some_and(|n| n.iter().all(|n| n["state"] == "up"))
        );
    }
}

/// Aim: a lost POST does not count as a failed connect: the node that resets is tried once only, although
/// `retries` allows three. Fails if a request that was sent falls under `retries`.
#[tokio::test(flavor = "multi_thread")]
async fn retries_sends_no_post_twice() {
    for loss in [Loss::Reset, Loss::Closed] {
        let setup = start(2, "    retries: 3\n    retry_unanswered: 10\n").await;
        let mut client = Asked::form().send(&setup.plain()).await;
        let holder = holder(&setup).await;
        loss.happens(&setup, &holder).await;
        ends_unanswered(&mut client, "a POST").await;
        assert_eq!(visits(&setup).iter().sum::<usize>(), 1, "{loss:?}");
    }
}
