//! Option 2.B.2.1: TLS passes through, a VIP and a certificate for each name; one domain or two.
//! Source: Lightstreamer clustering §3.2.2.1, §3.2.2.1.1.

use super::passthrough::{Links, Passthrough};

const PUSH: &[&str] = &["push.mycompany.com"];
const PUSH1: &[&str] = &["push1.mycompany.com"];
const PUSH2: &[&str] = &["push2.mycompany.com"];

async fn cluster() -> Passthrough {
    let sockets = [
        &[("10.0.0.1:443", PUSH), ("10.0.0.1:444", PUSH1)],
        &[("10.0.0.2:443", PUSH), ("10.0.0.2:444", PUSH2)],
    ];
    let conf = "option-2.B.2.1.yaml";
    Passthrough::start(conf, sockets.map(|s| &s[..]), Links::Address).await
}

/// Six certificates; each box has two addresses.
async fn multihosting() -> Passthrough {
    let push: &[&str] = &["push.ourcompany.com"];
    let (push1, push2): (&[&str], &[&str]) = (&["push1.ourcompany.com"], &["push2.ourcompany.com"]);
    let sockets = [
        &[
            ("10.0.0.1:443", PUSH),
            ("10.0.0.1:444", PUSH1),
            ("10.0.0.11:443", push),
            ("10.0.0.11:444", push1),
        ],
        &[
            ("10.0.0.2:443", PUSH),
            ("10.0.0.2:444", PUSH2),
            ("10.0.0.12:443", push),
            ("10.0.0.12:444", push2),
        ],
    ];
    let conf = "option-2.B.2.1-multihosting.yaml";
    Passthrough::start(conf, sockets.map(|s| &s[..]), Links::Machine).await
}

/// Fails if `push1` leads to port 443, whose certificate is for `push`.
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

/// Fails if any of the six names leads to another's socket.
#[tokio::test(flavor = "multi_thread")]
async fn both_domains_are_served() {
    for domain in ["mycompany.com", "ourcompany.com"] {
        let it = multihosting().await.of(domain);
        it.cluster.sessions_stay().await;
        it.hosts_are(domain);
    }
}
