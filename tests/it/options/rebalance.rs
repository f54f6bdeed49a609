//! A server that returns gets its share of sessions back: `conf/rebalance.yaml` with real clients. Source:
//! Lightstreamer clustering §5, §5.1.

use std::time::Duration;

use crate::deadline;

use super::Cluster;

const NODES: [&str; 2] = ["10.0.0.1:80", "10.0.0.2:80"];

/// Aim: six sessions, streaming and over WebSocket, are all on one server because the other was out of
/// service. When it returns, half of the sessions are created anew on it, without an order. The application
/// does that if the library reports error 20 or 21. The other sessions go on. Fails if a closed client's
/// cookie is still valid.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_move_to_a_server_that_returned() {
    let changes = [
        ("delay: 30s", "delay: 1s"),
        ("tolerance: 5%", "tolerance: 0%"),
    ];
    let cluster = Cluster::start("rebalance.yaml", NODES, false, &changes).await;
    let cluster = Cluster {
        cookies: true,
        ..cluster
    };
    let order = async |word: &str| {
        let path = format!("/api/nodes/ls2/{word}");
        assert_eq!(cluster.edge.admin("POST", &path).await.status, 200);
    };
    order("down").await;
    let mut clients = Vec::new();
    for n in 1..=6 {
        let kind = ["WS-STREAMING", "HTTP-STREAMING"][n % 2];
        let mut client = cluster.client(n as u8, Some(kind)).await;
        client.updates(5).await;
        clients.push(client);
    }
    assert_eq!(cluster.counts().map(|c| c.created), [6, 0]);
    order("up").await;
    let returned = cluster.nodes[1].sessions();
    let mut told = vec![false; clients.len()];
    deadline("three sessions on it", async {
        while returned.counts().created < 3 {
            for (client, told) in clients.iter_mut().zip(&mut told) {
                // "The application will then be responsible for recovering with a new session" (§4).
                if !*told && !client.of("error").is_empty() {
                    *told = true;
                    client.connect().await;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    for client in &mut clients {
        client.updates(20).await;
    }
    assert_eq!(cluster.counts().map(|c| c.created), [6, 3]);
    for client in clients {
        client.end().await;
    }
}
