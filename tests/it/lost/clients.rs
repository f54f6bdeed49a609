//! The real Lightstreamer client in polling mode, whose requests are all POSTs, on a node that is lost.
//!
//! In: four clients on one of two nodes, which freezes, is killed, is ordered down, or resets every
//! connection. Out: the time from Down until each has updates from the other node. `PUSHGATE_TEST_RUNS`
//! repeats each loss. Source: Lightstreamer clustering §1, §5.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::deadline;
use crate::js::Js;
use crate::setup::{HOST, Setup};
use crate::tlcp::Settings;

use super::{AT_ONCE, node, start_from};

const CLIENTS: usize = 4;
/// Interval of updates; between two of them a poll waits at its node.
const UPDATES: Duration = Duration::from_millis(200);
const STICKY: &str = "[{ sticky_session: { preset: lightstreamer } }]";
/// A session that was not created may be created elsewhere: its requests are balanced freely.
const POOL: &str = "    retry_on: [/lightstreamer/create_session.txt]\n";

/// The first flow that fails takes its node Down. With checks alone, a client that comes back before Down is
/// sent to the failing node again, and then waits for its own retry delay: 4 s.
const PASSIVE: &str = "{ http: { path: /health }, interval: 50ms, timeout: 500ms, rise: 1, fall: 2, passive: { failures: 1 } }";

/// How the node of all clients is lost.
#[derive(Clone, Copy, Debug)]
enum Loss {
    Frozen,
    Killed,
    Ordered,
    Resetting,
}

/// Aim: four polling clients on a frozen node go on with the other within a second of Down. Fails if one of
/// their requests is answered 502: the client cannot see a status and waits 23 s.
#[tokio::test(flavor = "multi_thread")]
async fn polling_clients_leave_a_frozen_node() {
    runs(Loss::Frozen).await;
}

/// Aim: the same if the node's process dies. Fails as above.
#[tokio::test(flavor = "multi_thread")]
async fn polling_clients_leave_a_killed_node() {
    runs(Loss::Killed).await;
}

/// Aim: the same if an operator orders the node down. Fails as above.
#[tokio::test(flavor = "multi_thread")]
async fn polling_clients_leave_a_node_ordered_down() {
    runs(Loss::Ordered).await;
}

/// Aim: the same if the node accepts and resets. Fails as above.
#[tokio::test(flavor = "multi_thread")]
async fn polling_clients_leave_a_resetting_node() {
    runs(Loss::Resetting).await;
}

/// Performs `PUSHGATE_TEST_RUNS` runs, one by default, and prints the measured times.
async fn runs(loss: Loss) {
    let asked = std::env::var("PUSHGATE_TEST_RUNS").ok();
    let runs = asked.and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut late = Vec::new();
    for _ in 0..runs {
        late.extend(run(loss).await);
    }
    late.sort_unstable();
    let (median, last) = (late[late.len() / 2], late[late.len() - 1]);
    println!(
        "{loss:?}: {runs} runs of {CLIENTS} clients, updates from the other node {median:.0?} (median), \
         {last:.0?} (last) after Down"
    );
}

/// Performs one run; returns how long after Down each client got an update from the other node.
async fn run(loss: Loss) -> Vec<Duration> {
    let settings = Settings {
        every: UPDATES,
        ..Settings::default()
    };
    let setup = start_from(2, STICKY, POOL, PASSIVE, settings).await;
    // All clients begin at n1.
    setup.edge.admin("POST", "/api/nodes/n2/down").await;
    setup.wait_state("n2", "down").await;
    let clients = futures_util::future::join_all((0..CLIENTS).map(|_| client(&setup))).await;
    setup.edge.admin("POST", "/api/nodes/n2/up").await;
    setup.wait_state("n2", "up").await;
    let moved: Vec<_> = clients
        .into_iter()
        .map(|c| tokio::spawn(moves(c)))
        .collect();
    let n1 = node(&setup, "n1");
    match loss {
        Loss::Frozen => n1.freeze(),
        Loss::Killed => n1.kill(),
        Loss::Resetting => n1.reset(),
        Loss::Ordered => drop(setup.edge.admin("POST", "/api/nodes/n1/down").await),
    }
    setup.wait_state("n1", "down").await;
    let down = Instant::now();
    let mut late = Vec::new();
    for moved in moved {
        let (client, at) = deadline("a client to move", moved)
            .await
            .expect("a client that moved");
        let after = at.saturating_duration_since(down);
        assert!(
            after < AT_ONCE,
            "{loss:?}: {after:?} after Down: {:#?}",
            client
                .events()
                .iter()
                .filter(|e| e["event"] != "update")
                .collect::<Vec<_>>()
        );
        late.push(after);
        client.end().await;
    }
    late
}

/// Starts a polling client and waits for updates from n1.
async fn client(setup: &Setup) -> Js {
    let vip = setup.block.at("200.0.0.10:80");
    let options = json!({
        "server": format!("http://{HOST}:{}", vip.port()),
        "resolve": { HOST: vip.ip() },
        "transport": "HTTP-POLLING",
    });
    let mut client = Js::start(options, None).await;
    client
        .wait("updates of n1", |events| has_updates_of(events, "n1"))
        .await;
    client
}

/// Waits until a client gets updates from n2; returns when. Its session was n1's: n2 reports error 21, and
/// the application connects again, as it must.
async fn moves(mut client: Js) -> (Js, Instant) {
    let mut refused = 0;
    loop {
        client
            .wait("updates of n2 or error 21", |events| {
                has_updates_of(events, "n2") || refusals(events) > refused
            })
            .await;
        if has_updates_of(&client.events(), "n2") {
            return (client, Instant::now());
        }
        refused = refusals(&client.events());
        client.connect().await;
    }
}

fn refusals(events: &[Value]) -> usize {
    events.iter().filter(|event| event["code"] == 21).count()
}

/// Whether the last status that names a session names one of `node`, and an update came in it.
fn has_updates_of(events: &[Value], node: &str) -> bool {
    let mut of = None;
    events.iter().any(|event| {
        of = event["node"]
            .as_str()
            .map(str::to_owned)
            .or_else(|| of.take());
        event["event"] == "update" && of.as_deref() == Some(node)
    })
}
