//! Option 2.B.1.1: TLS passes through, a VIP for each node, wildcard certificates; one domain or two.
//! Source: Lightstreamer clustering §3.2.1.1, §3.2.1.1.1.

use super::passthrough::{Links, Passthrough};

async fn cluster() -> Passthrough {
    let names: &[&str] = &["*.mycompany.com"];
    let sockets = [&[("10.0.0.1:443", names)], &[("10.0.0.2:443", names)]];
    let conf = "option-2.B.1.1.yaml";
    Passthrough::start(conf, sockets.map(|s| &s[..]), Links::Address).await
}

async fn multihosting() -> Passthrough {
    let (my, our): (&[&str], &[&str]) = (&["*.mycompany.com"], &["*.ourcompany.com"]);
    let sockets = [
        &[("10.0.0.1:443", my), ("10.0.0.1:444", our)],
        &[("10.0.0.2:443", my), ("10.0.0.2:444", our)],
    ];
    let conf = "option-2.B.1.1-multihosting.yaml";
    Passthrough::start(conf, sockets.map(|s| &s[..]), Links::Machine).await
}

/// Fails without `vip_route`: CR to `push1` would be balanced.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_stay() {
    let it = cluster().await;
    it.cluster.sessions_stay().await;
    it.hosts_are("mycompany.com");
}

/// Fails without `vip_route`.
#[tokio::test(flavor = "multi_thread")]
async fn moves_keep_the_session() {
    cluster().await.cluster.moves_keep_the_session().await;
}

/// Fails if one domain's VIPs lead to the other's port.
#[tokio::test(flavor = "multi_thread")]
async fn both_domains_are_served() {
    for domain in ["mycompany.com", "ourcompany.com"] {
        let it = multihosting().await.of(domain);
        it.cluster.sessions_stay().await;
        it.hosts_are(domain);
    }
}
