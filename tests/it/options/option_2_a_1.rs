//! Option 2.A.1: TLS passes through, stickiness by the client's address; one domain or two.
//! Source: Lightstreamer clustering §3.1.1, §3.1.1.1.

use super::passthrough::{Links, Passthrough};

async fn cluster() -> Passthrough {
    let names: &[&str] = &["push.mycompany.com"];
    let sockets = [&[("10.0.0.1:443", names)], &[("10.0.0.2:443", names)]];
    Passthrough::start("option-2.A.1.yaml", sockets.map(|s| &s[..]), Links::None).await
}

/// Two certificates, on two ports of each node.
async fn multihosting() -> Passthrough {
    let (my, our): (&[&str], &[&str]) = (&["push.mycompany.com"], &["push.ourcompany.com"]);
    let sockets = [
        &[("10.0.0.1:443", my), ("10.0.0.1:444", our)],
        &[("10.0.0.2:443", my), ("10.0.0.2:444", our)],
    ];
    let conf = "option-2.A.1-multihosting.yaml";
    Passthrough::start(conf, sockets.map(|s| &s[..]), Links::None).await
}

/// Fails without `sticky_ip`: each HTTP request is its own TLS connection.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_stay() {
    cluster().await.cluster.sessions_stay().await;
}

/// Fails without `sticky_ip`.
#[tokio::test(flavor = "multi_thread")]
async fn moves_keep_the_session() {
    cluster().await.cluster.moves_keep_the_session().await;
}

/// Fails if 200.0.0.20 leads to port 443, whose certificate is for the other domain.
#[tokio::test(flavor = "multi_thread")]
async fn both_domains_are_served() {
    multihosting().await.cluster.sessions_stay().await;
    let our = multihosting().await.of("ourcompany.com");
    our.cluster.sessions_stay().await;
    let (s, _) = our.cluster.hosts();
    assert!(
        s.iter().all(|h| h.starts_with("push.ourcompany.com")),
        "{s:?}"
    );
}
