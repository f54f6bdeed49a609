//! Nodes that a reload removes or moves while they have flows: an operator still sees and controls them.
//!
//! In: WebSockets on a node, and a file without it, or with another address for it. Out: how API, metrics and
//! command line show the node, and how its flows end. Source: FAULTS D66, D67; Lightstreamer clustering §4.

use serde_json::{Value, json};

use crate::client::ws::{self, Ws};
use crate::setup::{Setup, node, yaml};

/// Two nodes with a WebSocket on each, that of `n1` first; `top`: more sections.
async fn setup(plugins: &str, top: &str) -> (Setup, [Ws; 2]) {
    let setup = Setup::with(2, plugins, top).await;
    let first = ws::connect(&setup.plain(), "/ws/echo", &[]).await;
    let second = ws::connect(&setup.plain(), "/ws/echo", &[]).await;
    match first.node() == "n1" {
        true => (setup, [first, second]),
        false => (setup, [second, first]),
    }
}

async fn reload(setup: &Setup, yaml: &str) {
    setup.edge.rewrite(&setup.block, yaml);
    assert_eq!(setup.edge.admin("POST", "/api/reload").await.status, 200);
}

/// Of each node: name, state, flows, and whether it was removed.
fn told(nodes: &Value) -> Vec<Value> {
    let all = nodes.as_array().into_iter().flatten();
    all.map(|n| json!([n["name"], n["state"], n["flows"], n["removed"]]))
        .collect()
}

/// Aim: a removed node is listed as long as it has flows, and orders end them. If a new node has the same
/// name, `?removed` selects the removed one, and gauges count both. Fails if only nodes of the tables are
/// found.
#[tokio::test(flavor = "multi_thread")]
async fn a_removed_node_is_listed_and_ordered() {
    let (setup, [_one, mut two]) = setup("", "").await;
    let _other = node(&setup.block, 3).await;
    let both = yaml(&setup.certs, 2, "", "");
    reload(&setup, &both.replace("10.0.0.2:8080", "10.0.0.3:8080")).await;
    let nodes = setup.edge.nodes().await;
    let here = json!(["n1", "up", 1, false]);
    let new = json!(["n2", "up", 0, false]);
    let old = json!(["n2", "draining", 1, true]);
    assert_eq!(told(&nodes), [here.clone(), new.clone(), old.clone()]);
    assert_eq!(nodes[2]["pools"], json!([]));
    let gauges = setup.edge.metrics().await;
    assert_eq!(gauges["pushgate_node_flows{node=\"n2\"}"], 1.0);
    assert_eq!(gauges["pushgate_node_state{node=\"n2\",state=\"up\"}"], 1.0);
    let evict = async |query: &str| {
        let path = format!("/api/nodes/n2/evict{query}");
        setup.edge.admin("POST", &path).await.text()
    };
    assert_eq!(evict("").await, r#"{"evicted":0}"#);
    two.say("still here").await;
    assert_eq!(two.hear().await, "still here");

    reload(&setup, &yaml(&setup.certs, 1, "", "")).await;
    assert_eq!(told(&setup.edge.nodes().await), [here.clone(), old]);
    let gauges = setup.edge.metrics().await;
    assert_eq!(gauges["pushgate_node_flows{node=\"n2\"}"], 1.0);
    assert_eq!(
        gauges["pushgate_node_state{node=\"n2\",state=\"draining\"}"],
        1.0
    );
    assert_eq!(evict("").await, r#"{"evicted":1}"#);
    two.ended().await;
    let gone = |nodes: &Value| told(nodes) == [here.clone()];
    setup.edge.wait_nodes("its end", gone).await;
    let gauges = setup.edge.metrics().await;
    assert!(!gauges.keys().any(|k| k.contains("node=\"n2\"")));
}

/// Aim: an order with `?removed` applies to the removed node, although a new one has its name. Fails if the
/// new one is evicted, or both are.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_tells_the_old_from_the_new() {
    let (setup, [one, mut two]) = setup("", "").await;
    let _other = node(&setup.block, 3).await;
    let both = yaml(&setup.certs, 2, "", "");
    reload(&setup, &both.replace("10.0.0.2:8080", "10.0.0.3:8080")).await;
    let mut on_new = ws::connect(&setup.plain(), "/ws/echo", &[]).await;
    assert_eq!(on_new.node(), "n3");
    let gauges = setup.edge.metrics().await;
    assert_eq!(gauges["pushgate_node_flows{node=\"n2\"}"], 2.0);
    let order = "/api/nodes/n2/down?removed";
    let said = setup.edge.admin("POST", order).await.text();
    assert_eq!(said, r#"{"name":"n2","state":"down"}"#);
    two.ended().await;
    on_new.say("still here").await;
    assert_eq!(on_new.hear().await, "still here");
    assert_eq!(setup.edge.nodes().await[1]["state"], "up");
    drop(one);
}

/// Aim: `cut_at_max_age` also applies to flows of a removed node, and the end of the program cuts and logs
/// them. Fails if either covers only the nodes of the tables.
#[tokio::test(flavor = "multi_thread")]
async fn flows_of_a_removed_node_end_as_others_do() {
    let ends = |reason: &'static str| {
        move |lines: &[Value]| {
            let is = |l: &Value| l["reason"] == reason && l["node"] == "n2";
            lines.iter().any(is)
        }
    };
    let cut = "[{ sticky_cookie: { max_age: 2s, jitter: 0%, cut_at_max_age: true } }]";
    let (first, [_one, mut two]) = setup(cut, "").await;
    reload(&first, &yaml(&first.certs, 1, cut, "")).await;
    two.ended().await;
    first.edge.wait_access("its age", ends("expired")).await;

    let top = "drain_deadline: 300ms\n";
    let (second, [_one, mut two]) = setup("", top).await;
    reload(&second, &yaml(&second.certs, 1, "", top)).await;
    second.edge.signal(libc::SIGTERM);
    two.ended().await;
    second.edge.wait_access("its line", ends("drained")).await;
}
