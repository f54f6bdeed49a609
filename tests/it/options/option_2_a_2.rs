//! Option 2.A.2: TLS ends at the edge, stickiness by cookie. Source: Lightstreamer clustering §3.1.2.

use crate::certs::Certs;
use crate::vip::port;

use super::Cluster;
use super::offload::issue;

/// A cluster and the folder of its certificates.
async fn cluster_of(conf: &str, files: &[(&str, &[&str])]) -> (Cluster, Certs) {
    let certs = Certs::new();
    let changes = issue(&certs, files);
    let changes: Vec<_> = changes.iter().map(|(a, b)| (&**a, &**b)).collect();
    let nodes = ["10.0.0.1:80", "10.0.0.2:80"];
    let cluster = Cluster::start(conf, nodes, false, &changes).await;
    let server = format!("https://push.mycompany.com:{}", port(443));
    let ca = Some(certs.ca_file());
    let cluster = Cluster {
        cookies: true,
        server,
        ca,
        ..cluster
    };
    (cluster, certs)
}

async fn cluster() -> (Cluster, Certs) {
    let push: &[&str] = &["push.mycompany.com"];
    cluster_of("option-2.A.2.yaml", &[("push", push)]).await
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

/// Two domains behind one VIP. Fails if the requested name does not choose the certificate.
#[tokio::test(flavor = "multi_thread")]
async fn both_domains_are_served() {
    let (my, our): (&[&str], &[&str]) = (&["push.mycompany.com"], &["push.ourcompany.com"]);
    for domain in ["mycompany.com", "ourcompany.com"] {
        let conf = "option-2.A.2-multihosting.yaml";
        let (cluster, _certs) = cluster_of(conf, &[("my", my), ("our", our)]).await;
        let server = format!("https://push.{domain}:{}", port(443));
        let cluster = Cluster { server, ..cluster };
        cluster.sessions_stay().await;
        let (s, _) = cluster.hosts();
        assert!(s.iter().all(|host| host.contains(domain)), "{s:?}");
    }
}
