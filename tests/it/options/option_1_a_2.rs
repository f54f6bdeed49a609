//! Option 1.A.2: stickiness by a cookie that the edge inserts. Source: Lightstreamer clustering §2.1.2.

use crate::client::Dial;
use crate::client::h1::H1;

use super::Cluster;

async fn cluster() -> Cluster {
    let nodes = ["10.0.0.1:80", "10.0.0.2:80"];
    let cluster = Cluster::start("option-1.A.2.yaml", nodes, false, &[]).await;
    Cluster {
        cookies: true,
        ..cluster
    }
}

/// Fails without `sticky_cookie`.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_stay() {
    cluster().await.sessions_stay().await;
}

/// The first move is from a WebSocket to HTTP: fails if the 101 carries no cookie.
#[tokio::test(flavor = "multi_thread")]
async fn moves_keep_the_session() {
    cluster().await.moves_keep_the_session().await;
}

/// Aim: the edge keeps its cookie from the nodes. Fails if it reaches a node.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_never_see_the_cookie() {
    let cluster = cluster().await;
    let mut client = cluster.client(1, Some("HTTP-POLLING")).await;
    client.updates(30).await;
    client.end().await;
    for node in &cluster.nodes {
        for request in node.seen().requests() {
            assert!(!request.text().contains("PUSHGATE"), "{}", request.text());
        }
    }
}

/// Aim: a new assignment sets one cookie with the configured attributes; a valid cookie is not set again.
/// Fails if each answer sets a cookie.
#[tokio::test(flavor = "multi_thread")]
async fn cookie_is_set_once() {
    let cluster = cluster().await;
    let dial = Dial::plain(cluster.block.at("200.0.0.10:80")).host("push.mycompany.com");
    let first = H1::connect(&dial)
        .await
        .get("/hello?cookie=app=1", &[])
        .await;
    let cookies = first.cookies();
    assert!(cookies.contains(&"app=1"), "{cookies:?}");
    let ours = cookies.iter().find(|c| c.starts_with("PUSHGATE="));
    let ours = ours.expect("a cookie of the edge's").to_string();
    for _ in 0..6 {
        let next = H1::connect(&dial)
            .await
            .get("/hello", &[("Cookie", &ours)])
            .await;
        assert_eq!(next.node(), first.node());
        assert_eq!(next.cookies(), [] as [&str; 0]);
    }
}
