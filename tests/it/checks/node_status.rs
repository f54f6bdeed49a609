//! What the admin endpoint shows an operator about a node's checks.

use std::process::Command;

use serde_json::Value;

use super::checked;
use crate::client::h1::H1;
use crate::node::Health;

/// Aim: an operator sees why a node is Down, since when and by whose order, how its last check ended, and how
/// long the node is held. The endpoint distinguishes Down by order, Down by checks, and an ill node under an
/// order. Fails if only the state is shown.
#[tokio::test(flavor = "multi_thread")]
async fn the_api_says_why_a_node_is_down() {
    let check = "{ http: { path: /health }, interval: 1s, fast_interval: 20ms, rise: 1, fall: 1 }";
    let setup = checked(1, check).await;
    let n1 = async |what: &str, good: &dyn Fn(&Value) -> bool| {
        let all = setup.edge.wait_nodes(what, |n| good(&n[0])).await;
        all[0].clone()
    };
    let well = n1("a check", &|n| n["check"]["outcome"] == "pass").await;
    assert_eq!(well["check"]["said"], "checks are good");
    let took = well["check"]["took_seconds"].as_f64();
    assert!(took.is_some_and(|s| s > 0.0), "{well}");
    assert_eq!((&well["why"], &well["order"]), (&Value::Null, &"up".into()));
    assert_eq!(well["held_seconds"], Value::Null);
    let why = "check: answered 500, expected 200";
    setup.nodes[0].set_health(Health::Fail);
    let ill = n1("Down", &|n| n["state"] == "down").await;
    assert_eq!((&ill["why"], &ill["order"]), (&why.into(), &"up".into()));
    let told = (&ill["check"]["outcome"], &ill["check"]["said"]);
    assert_eq!(told, (&"fail".into(), &why.into()));
    // The word of the version before, for one more version.
    assert_eq!(ill["check"]["result"], "bad");
    let seconds = ill["state_seconds"].as_u64();
    assert!(seconds.is_some_and(|s| s < 20), "{ill}");
    setup.nodes[0].set_health(Health::Ok);
    let up = n1("Up", &|n| n["state"] == "up").await;
    assert_eq!(up["why"], "checks are good");
    // This must happen within two intervals of its return.
    setup.nodes[0].set_health(Health::Fail);
    let held = n1("Down again", &|n| n["state"] == "down").await;
    let left = held["held_seconds"].as_u64();
    assert!(left.is_some_and(|s| (1..=2).contains(&s)), "{held}");
    let order = async |word: &str| {
        let path = format!("/api/nodes/n1/{word}");
        setup.edge.admin("POST", &path).await
    };
    order("up").await;
    n1("no hold", &|n| n["held_seconds"].is_null()).await;
    order("down").await;
    let both = setup.edge.nodes().await[0].clone();
    assert_eq!(
        (&both["state"], &both["order"]),
        (&"down".into(), &"down".into())
    );
    assert_eq!(both["check"]["outcome"], "fail");
    setup.nodes[0].set_health(Health::Ok);
    n1("a good check", &|n| n["check"]["outcome"] == "pass").await;
    order("up").await;
    n1("Up", &|n| n["state"] == "up").await;
    order("down").await;
    let taken = setup.edge.nodes().await[0].clone();
    assert_eq!(
        (&taken["why"], &taken["order"]),
        (&"ordered".into(), &"down".into())
    );
}

/// Aim: `up` answers with the state that the checks bring, and if a node stays Down it says why. Fails if it answers
/// before the checks that the order itself asks for.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_up_waits_for_checks_that_pass() {
    let check =
        "{ http: { path: /health }, interval: 1s, rise: 1, fall: 1, passive: { failures: 1 } }";
    let setup = checked(1, check).await;
    let mut client = H1::connect(&setup.plain()).await;
    let _ = client.send("GET", "/fault/reset", &[], b"").await;
    // Held for ten intervals, although its checks pass.
    let held = |n: &Value| n[0]["state"] == "down" && n[0]["check"]["outcome"] == "pass";
    setup.edge.wait_nodes("Down with good checks", held).await;
    let up = setup.edge.admin("POST", "/api/nodes/n1/up").await;
    assert_eq!(up.text(), "{\"name\":\"n1\",\"state\":\"up\"}");
    setup.nodes[0].set_health(Health::Fail);
    setup.wait_state("n1", "down").await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_pushgate"));
    let command = command.args(["up", "n1", "--admin", &setup.edge.admin_url()]);
    let said = command.output().expect("the built program starts").stdout;
    let said = String::from_utf8_lossy(&said);
    let why = "n1 is still down: check: answered 500, expected 200\n";
    assert_eq!(said, why);
}
