//! Option 1.B.1: a host name for each node behind the edge, routed by name or by VIP. Source: Lightstreamer
//! clustering §2.2.1.

use super::Cluster;

async fn cluster(conf: &str) -> Cluster {
    let cluster = Cluster::start(conf, ["10.0.0.1:80", "10.0.0.2:80"], true, &[]).await;
    let own_vips = conf.contains("vip");
    Cluster {
        own_vips,
        ..cluster
    }
}

/// Asserts that S goes to `push`, and CR over HTTP to `push1` or `push2`.
fn hosts_are_the_guides(cluster: &Cluster) {
    let (s, cr) = cluster.hosts();
    assert!(s.iter().all(|host| host.starts_with("push.")), "{s:?}");
    let pinned = |host: &&String| host.starts_with("push1.") || host.starts_with("push2.");
    assert!(cr.iter().any(|host| pinned(&host)), "{cr:?}");
}

/// Fails without `host_route`.
#[tokio::test(flavor = "multi_thread")]
async fn by_host_sessions_stay() {
    let cluster = cluster("option-1.B.1.yaml").await;
    cluster.sessions_stay().await;
    hosts_are_the_guides(&cluster);
}

/// Fails without `host_route`.
#[tokio::test(flavor = "multi_thread")]
async fn by_host_moves_keep_the_session() {
    cluster("option-1.B.1.yaml")
        .await
        .moves_keep_the_session()
        .await;
}

/// Fails without `vip_route`.
#[tokio::test(flavor = "multi_thread")]
async fn by_vip_sessions_stay() {
    let cluster = cluster("option-1.B.1-vip.yaml").await;
    cluster.sessions_stay().await;
    hosts_are_the_guides(&cluster);
}

/// Fails without `vip_route`.
#[tokio::test(flavor = "multi_thread")]
async fn by_vip_moves_keep_the_session() {
    cluster("option-1.B.1-vip.yaml")
        .await
        .moves_keep_the_session()
        .await;
}
