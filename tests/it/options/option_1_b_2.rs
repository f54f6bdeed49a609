//! Option 1.B.2: the edge balances S; CR goes straight to the nodes' public addresses.
//! Source: Lightstreamer clustering §2.2.2.

use super::Cluster;

async fn cluster() -> Cluster {
    let nodes = ["200.0.0.1:80", "200.0.0.2:80"];
    let cluster = Cluster::start("option-1.B.2.yaml", nodes, true, &[]).await;
    Cluster {
        own_vips: true,
        ..cluster
    }
}

/// Fails without balancing: one node would get all sessions.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_stay() {
    cluster().await.sessions_stay().await;
}

/// Aim: a client over HTTP passes the edge once, for S. Fails if CR comes through the edge.
#[tokio::test(flavor = "multi_thread")]
async fn only_s_passes_the_edge() {
    let cluster = cluster().await;
    let mut client = cluster.client(1, Some("HTTP-STREAMING")).await;
    client.updates(30).await;
    client.message("straight").await;
    let (s, cr) = cluster.hosts();
    assert_eq!((s.len(), cr.len()), (1, cr.len().max(2)), "{s:?} {cr:?}");
    let through_the_edge = |text: &str| text.to_ascii_lowercase().contains("x-forwarded-for:");
    for node in &cluster.nodes {
        for request in node.seen().requests() {
            let is_s = request.target.contains("create_session");
            assert_eq!(
                through_the_edge(&request.text()),
                is_s,
                "{}",
                request.text()
            );
        }
    }
    cluster.nothing_went_wrong(1);
    client.end().await;
}
