//! Waiting flows whose clients give up, or whose nodes go.

use tokio::io::AsyncWriteExt;

use super::*;
use crate::client::h2::H2;

/// Aim: a waiting client that gives up is not admitted, whatever it speaks: plain, TLS, a stream or the whole
/// connection of HTTP/2, layer 4 by a reset, TLS passthrough by a FIN. Its place is free at once, its node
/// gets nothing, and the next client is served. A layer-4 client that only half-closes is still there. Fails
/// if the edge does not watch waiting clients.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_gave_up_is_not_admitted() {
    let pool = "    max_flows: 1\n    queue_timeout: 60s\n";
    let setup = Setup::and(1, "", pool, LAYER_4).await;
    let [raw, sni] = [81, 444].map(|port| setup.block.at(&format!("200.0.0.10:{port}")));
    let (raw, sni) = (Dial::plain(raw), Dial::tls(sni, HOST, setup.certs.ca()));
    let holds = ws::connect(&setup.plain(), "/ws/echo", &[]).await;
    let queued = async |n: f64| {
        let edge = &setup.edge;
        edge.wait_metric("pushgate_queued_flows", |queued| queued == n)
            .await;
    };
    for (name, dial) in [
        ("plain", setup.plain()),
        ("TLS", setup.tls()),
        ("layer 4", raw.clone()),
    ] {
        let mut client = H1::over(match name {
            "layer 4" => Box::new(resetting(&dial).await),
            _ => dial.io().await,
        });
        client
            .send("GET", "/gone", &[("Host", HOST)], b"")
            .await
            .expect("send");
        queued(1.0).await;
        drop(client);
        queued(0.0).await;
    }
    let mut h2 = H2::connect(&setup.tls()).await;
    for whole in [false, true] {
        let mut stream = h2.clone();
        let asks = tokio::spawn(async move { drop(stream.open("/gone", &[]).await) });
        queued(1.0).await;
        if whole {
            h2 = H2::connect(&setup.tls()).await;
        }
        asks.abort();
        queued(0.0).await;
    }
    let shakes = tokio::spawn(async move { drop(sni.io().await) });
    queued(1.0).await;
    shakes.abort();
    queued(0.0).await;
    let mut half = H1::connect(&raw).await;
    half.send("GET", "/hello", &[("Host", HOST)], b"")
        .await
        .expect("send");
    half.io.shutdown().await.expect("FIN");
    queued(1.0).await;
    let next = tokio::spawn(get(setup.plain(), "/hello", None));
    queued(2.0).await;
    drop((holds, h2));
    assert_eq!(half.head().await.expect("an answer").status, 200);
    assert_eq!(next.await.expect("a client that lives").0.status, 200);
    let seen = setup.nodes[0].seen();
    assert!(seen.requests().iter().all(|r| r.target != "/gone"));
    let gone = "pushgate_queue_refused_total{pool=\"p\",reason=\"gone\"}";
    assert_eq!(setup.edge.metrics().await.get(gone), Some(&6.0));
    let lines = setup.edge.access();
    let left = lines.iter().filter(|l| l["node"].is_null());
    assert!(
        left.clone().all(|l| l["reason"] == "client_closed"),
        "{lines:?}"
    );
    assert_eq!(left.count(), 6);
}

/// Aim: when the last node that takes new flows goes Down or drains, waiting flows get the answer for a pool
/// without nodes at once (D64), as new flows do, and the pool recovers without help. Fails if they wait for
/// `queue_timeout` and get the answer for busy nodes.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_loses_its_nodes_answers_its_queue() {
    let pool = "    max_flows: 1\n    queue_timeout: 60s\n";
    let setup = Setup::with(2, "", pool).await;
    for (first, second) in [("down", "down"), ("drain", "drain"), ("down", "drain")] {
        let held = [
            ws::connect(&setup.plain(), "/ws/echo", &[]).await,
            ws::connect(&setup.plain(), "/ws/echo", &[]).await,
        ];
        let rushing = rush(&setup, 20);
        let fall = async {
            let edge = &setup.edge;
            edge.wait_metric("pushgate_queued_flows", |n| n == 20.0)
                .await;
            // The remaining node is full, so no flow is admitted meanwhile.
            edge.admin("POST", &format!("/api/nodes/n1/{first}")).await;
            edge.admin("POST", &format!("/api/nodes/n2/{second}")).await;
        };
        let begun = Instant::now();
        let (answers, ()) = tokio::join!(rushing, fall);
        assert!(begun.elapsed() < Duration::from_secs(10), "they waited");
        for (answer, _) in &answers {
            assert_eq!(answer.status, 503, "{first}, {second}");
            assert!(answer.header("retry-after").is_some());
        }
        drop(held);
        for node in ["n1", "n2"] {
            setup
                .edge
                .admin("POST", &format!("/api/nodes/{node}/up"))
                .await;
            setup.wait_state(node, "up").await;
        }
        let empty = |n: &serde_json::Value| n[0]["flows"] == 0 && n[1]["flows"] == 0;
        setup.edge.wait_nodes("empty nodes", empty).await;
        let (answer, _) = get(setup.plain(), "/hello", None).await;
        assert_eq!(answer.status, 200, "it recovers alone");
    }
    let none = |l: &&serde_json::Value| l["reason"] == "no_node";
    let told = |lines: &[serde_json::Value]| lines.iter().filter(none).count() == 60;
    setup.edge.wait_access("60 times no_node", told).await;
}

/// Listeners without HTTP in front of the pool.
const LAYER_4: &str = "  - { name: raw, bind: [200.0.0.10:81], mode: tcp, to: p }\n  \
    - { name: sni, bind: [200.0.0.10:444], mode: tcp, plugins: [{ sni_route: { names: { push.mycompany.com: p } } }] }\n";

/// A connection whose drop sends a reset.
async fn resetting(dial: &Dial) -> tokio::net::TcpStream {
    let stream = dial.tcp().await;
    let socket = socket2::SockRef::from(&stream);
    socket.set_linger(Some(Duration::ZERO)).expect("linger");
    stream
}
