//! Option 1.A.1: stickiness by the client's address, at layers 7 and 4. Source: Lightstreamer clustering §2.1.1.

use super::{Cluster, polls};

async fn layer4() -> Cluster {
    let nodes = ["10.0.0.1:80", "10.0.0.2:80"];
    let cluster = Cluster::start("option-1.A.1-layer4.yaml", nodes, false, &[]).await;
    Cluster {
        addresses: false,
        ..cluster
    }
}

async fn cluster() -> Cluster {
    Cluster::start(
        "option-1.A.1.yaml",
        ["10.0.0.1:80", "10.0.0.2:80"],
        false,
        &[],
    )
    .await
}

/// Fails without `sticky_ip`.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_stay() {
    cluster().await.sessions_stay().await;
}

/// Fails without `sticky_ip`.
#[tokio::test(flavor = "multi_thread")]
async fn moves_keep_the_session() {
    cluster().await.moves_keep_the_session().await;
}

/// Fails without `sticky_ip`: each HTTP request is its own connection.
#[tokio::test(flavor = "multi_thread")]
async fn layer4_sessions_stay() {
    layer4().await.sessions_stay().await;
}

/// Fails without `sticky_ip`.
#[tokio::test(flavor = "multi_thread")]
async fn layer4_moves_keep_the_session() {
    layer4().await.moves_keep_the_session().await;
}

/// Aim: the edge passes a stream on at once, so that no client with free choice falls back to polling, also
/// with a stream that has a Content-Length. Fails if the edge holds the first bytes for 4 s.
#[tokio::test(flavor = "multi_thread")]
async fn streaming_is_not_degraded() {
    let cluster = cluster().await;
    let mut client = cluster.client(1, Some("HTTP-STREAMING")).await;
    client.status("CONNECTED:HTTP-STREAMING").await;
    client.updates(300).await;
    assert_eq!(polls(&cluster.counts()), 0);
    cluster.nothing_went_wrong(1);
    client.end().await;
}
