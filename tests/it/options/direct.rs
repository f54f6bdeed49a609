//! Access to each single node by its own host name or address, as the dashboard needs it. Source:
//! Lightstreamer clustering §6.

use serde_json::json;

use crate::client::Dial;
use crate::client::h1::H1;
use crate::js::Js;
use crate::vip::port;

use super::Cluster;

async fn cluster() -> Cluster {
    let nodes = ["10.0.0.1:80", "10.0.0.2:80"];
    Cluster::start("direct.yaml", nodes, true, &[]).await
}

/// Aim: a client inside, for which `push1` and `push2` do not resolve, reaches the node it names on every
/// transport and stays there, as the dashboard does. Fails without the pins of `direct`.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_inside_reaches_the_node_it_names() {
    let cluster = cluster().await;
    let mut sessions = [0, 0];
    for (n, (host, vip)) in [
        ("ls1.mycompany.internal", "10.0.0.10"),
        ("ls2.mycompany.internal", "10.0.0.10"),
        ("one.mycompany.internal", "10.0.0.11"),
        ("two.mycompany.internal", "10.0.0.12"),
    ]
    .into_iter()
    .enumerate()
    {
        for transport in ["HTTP-STREAMING", "HTTP-POLLING", "WS-STREAMING"] {
            let options = json!({
                "server": format!("http://{host}:{}", port(80)),
                "transport": transport,
                "ignoreInstance": true,
                "resolve": { host: cluster.block.ip(vip).to_string() },
            });
            let mut client = Js::start(options, None).await;
            client.status(&format!("CONNECTED:{transport}")).await;
            client.updates(10).await;
            client.end().await;
            sessions[n % 2] += 1;
            assert_eq!(cluster.counts().map(|c| c.created), sessions, "{host}");
        }
    }
    cluster.nothing_went_wrong(12);
}

/// Aim: the direct address refuses the balanced name and never balances. A draining node can still be
/// reached there. Fails if an unknown name is balanced.
#[tokio::test(flavor = "multi_thread")]
async fn the_direct_way_is_never_balanced() {
    let cluster = cluster().await;
    let direct = Dial::plain(cluster.block.at("10.0.0.10:80"));
    let answer = H1::connect(&direct.clone().host("push.mycompany.com"))
        .await
        .get("/hello", &[])
        .await;
    assert_eq!(answer.status, 421);
    let drained = cluster.edge.admin("POST", "/api/nodes/ls1/drain").await;
    assert_eq!(drained.status, 200);
    for _ in 0..4 {
        let own = direct.clone().host("ls1.mycompany.internal");
        let answer = H1::connect(&own).await.get("/hello", &[]).await;
        assert_eq!(answer.node(), "ls1");
        let push = Dial::plain(cluster.block.at("200.0.0.10:80")).host("push.mycompany.com");
        let answer = H1::connect(&push).await.get("/hello", &[]).await;
        assert_eq!(answer.node(), "ls2");
    }
}
