//! Option 2.A.2: TLS ends at the edge, stickiness by cookie. Source: Lightstreamer clustering §3.1.2.

use crate::certs::{Certs, Key};
use crate::vip::port;

use super::Cluster;

/// A cluster and the folder its certificate is in.
async fn cluster() -> (Cluster, Certs) {
    let certs = Certs::new();
    let leaf = certs.leaf("push", &["push.mycompany.com"], Key::Ecdsa);
    let (chain, key) = (
        leaf.chain.display().to_string(),
        leaf.key.display().to_string(),
    );
    let changes = [("push.pem", chain.as_str()), ("push.key", key.as_str())];
    let nodes = ["10.0.0.1:80", "10.0.0.2:80"];
    let cluster = Cluster::start("option-2.A.2.yaml", nodes, false, &changes).await;
    let server = format!("https://push.mycompany.com:{}", port(443));
    let ca = Some(certs.ca_file());
    (
        Cluster {
            cookies: true,
            server,
            ca,
            ..cluster
        },
        certs,
    )
}

/// Fails without `sticky_cookie`, or if a TLS record waits for more bytes.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_stay() {
    let (cluster, _certs) = cluster().await;
    cluster.sessions_stay().await;
}

/// Fails if the 101 carries no cookie.
#[tokio::test(flavor = "multi_thread")]
async fn moves_keep_the_session() {
    let (cluster, _certs) = cluster().await;
    cluster.moves_keep_the_session().await;
}
