//! Option 2.B.2.2: TLS passes through, a certificate for each name on its own address; the edge balances S,
//! CR goes straight to the nodes. Source: Lightstreamer clustering §3.2.2.2.

use super::passthrough::{Links, Passthrough};

async fn cluster() -> Passthrough {
    let push: &[&str] = &["push.mycompany.com"];
    let (push1, push2): (&[&str], &[&str]) = (&["push1.mycompany.com"], &["push2.mycompany.com"]);
    let sockets = [
        &[("10.0.0.1:443", push), ("200.0.0.1:443", push1)],
        &[("10.0.0.2:443", push), ("200.0.0.2:443", push2)],
    ];
    let conf = "option-2.B.2.2.yaml";
    Passthrough::start(conf, sockets.map(|s| &s[..]), Links::Address).await
}

/// Fails if the edge sends S to the nodes' public sockets: their certificates are not for `push`.
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
