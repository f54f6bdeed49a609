//! Option 2.B.1.2: TLS passes through, the edge balances S; CR goes straight to the nodes.
//! Source: Lightstreamer clustering §3.2.1.2.

use super::passthrough::{Links, Passthrough};

async fn cluster() -> Passthrough {
    let names: &[&str] = &["*.mycompany.com"];
    let sockets = [&[("200.0.0.1:443", names)], &[("200.0.0.2:443", names)]];
    let conf = "option-2.B.1.2.yaml";
    Passthrough::start(conf, sockets.map(|s| &s[..]), Links::Address).await
}

/// Fails without balancing: one node would get all sessions.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_stay() {
    let it = cluster().await;
    it.cluster.sessions_stay().await;
    it.hosts_are("mycompany.com");
}

/// Fails if CR comes through the edge.
#[tokio::test(flavor = "multi_thread")]
async fn only_s_passes_the_edge() {
    cluster().await.cluster.one_connection_passes().await;
}
