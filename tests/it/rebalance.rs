//! Clients moved off nodes that have too many: by order, and automatically after a node's return.
//!
//! In: WebSockets and requests that return their cookie, orders of the admin endpoint. Out: where the clients
//! are afterwards, how many were closed and how fast. Source: Lightstreamer clustering §5, §5.1.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::h1::H1;
use crate::client::ws;
use crate::deadline;
use crate::setup::Setup;

use self::age::pair;
use self::crowd::Crowd;

pub mod age;
mod crowd;
mod forget;
mod layer4;
mod sessions;

const COOKIE: &str = "[{ sticky_cookie: {} }]";

/// Sends an order for the pool; asserts the answer's `status` and returns its body.
async fn ask(setup: &Setup, query: &str, status: u16) -> String {
    let path = format!("/api/pools/p/rebalance{query}");
    let answer = setup.edge.admin("POST", &path).await;
    assert_eq!(answer.status, status, "{path}: {}", answer.text());
    answer.text()
}

async fn order(setup: &Setup, query: &str) -> Value {
    serde_json::from_str(&ask(setup, query, 202).await).expect("JSON")
}

async fn progress(setup: &Setup) -> Value {
    let text = setup
        .edge
        .admin("GET", "/api/pools/p/rebalance")
        .await
        .text();
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// Waits until the rebalance is over.
async fn over(setup: &Setup) -> Value {
    deadline("the end of the rebalance", async {
        loop {
            let progress = progress(setup).await;
            let state = progress["state"].as_str();
            if !matches!(state, Some("running" | "settling")) {
                return progress;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

async fn drain(setup: &Setup, node: &str, word: &str) {
    let path = format!("/api/nodes/{node}/{word}");
    assert_eq!(setup.edge.admin("POST", &path).await.status, 200);
}

/// Aim: 600 live WebSockets on two nodes; a third node returns. The pool becomes even within 5 % by the
/// fewest moves, at the rate, and clients of the third are left alone. Fails if a closed client's cookie is
/// still valid (the client would come back, and the moves would double), or without the rate.
#[tokio::test(flavor = "multi_thread")]
async fn a_returned_node_gets_its_share() {
    let setup = Setup::with(3, COOKIE, "").await;
    drain(&setup, "n3", "drain").await;
    let crowd = Crowd::enter(&setup.plain(), 600).await;
    assert_eq!(crowd.counts(), [300, 300, 0]);
    drain(&setup, "n3", "up").await;
    let dry = order(&setup, "?to_even&rate=100/s&tolerance=5%&close&dry_run").await;
    assert_eq!(
        (&dry["left"], &dry["dry_run"]),
        (&180.into(), &true.into()),
        "{dry}"
    );
    assert_eq!(dry["evenness"], 1.5);
    let start = Instant::now();
    order(&setup, "?to_even&rate=100/s&tolerance=5%&close").await;
    assert!(
        ask(&setup, "?close", 409)
            .await
            .contains("a rebalance is running")
    );
    let end = over(&setup).await;
    assert_eq!(end["state"], "done", "{end}");
    let moved = end["moved"].as_u64().unwrap_or_default();
    assert!((180..=184).contains(&moved), "{end}");
    crowd.settled(600).await;
    let counts = crowd.counts();
    assert!(
        counts.iter().all(|n| *n * 3 * 100 <= 600 * 105),
        "{counts:?}"
    );
    let closes = crowd.closes();
    assert_eq!(closes.len() as u64, moved);
    assert!(closes.iter().all(|(_, node)| node != "n3"), "{closes:?}");
    let within = |at: Instant| {
        let second = at..at + Duration::from_secs(1);
        closes.iter().filter(|(t, _)| second.contains(t)).count()
    };
    let busiest = closes.iter().map(|(at, _)| within(*at)).max();
    assert!(busiest <= Some(110), "{busiest:?} in a second");
    assert!(
        start.elapsed() >= Duration::from_millis(1_700),
        "{:?}",
        start.elapsed()
    );
    let lines = setup
        .edge
        .wait_access("the closed flows", |lines| {
            let of = lines.iter().filter(|l| l["reason"] == "rebalanced");
            of.count() as u64 >= moved
        })
        .await;
    assert!(lines.iter().all(|l| l["reason"] != "evicted"));
    let metric = async |name: &str| setup.edge.metric(name).await;
    assert_eq!(
        metric("pushgate_rebalanced_flows_total").await as u64,
        moved
    );
    assert!(metric("pushgate_pool_evenness_ratio").await <= 1.05);
    assert_eq!(metric("pushgate_rebalance_rate").await, 0.0);
    // An even pool is left alone.
    order(&setup, "?close").await;
    assert_eq!(over(&setup).await["moved"], 0);
}

/// Aim: the same automatically, `delay` after the node's return, also if clients stick by address and the
/// pool uses round robin. Fails if a table entry outlives its flow's end, or if the balancer's method places
/// closed clients.
#[tokio::test(flavor = "multi_thread")]
async fn a_return_starts_a_rebalance() {
    let pool = "    balance: round_robin\n    \
                rebalance: { auto: true, delay: 0s, rate: 500/s, tolerance: 0%, close: true }\n";
    let setup = Setup::with(3, "[{ sticky_ip: {} }]", pool).await;
    drain(&setup, "n3", "down").await;
    setup.wait_state("n3", "down").await;
    let mut crowd = Vec::new();
    for n in 1..=60 {
        let dial = setup.plain().from(setup.block.client(n));
        crowd.push(Crowd::enter(&dial, 1).await);
    }
    drain(&setup, "n3", "up").await;
    let counts = async || {
        let mut all = [0; 3];
        for one in &crowd {
            one.counts()
                .iter()
                .zip(&mut all)
                .for_each(|(n, sum)| *sum += n);
        }
        all
    };
    deadline("twenty clients on each node", async {
        while counts().await != [20, 20, 20] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let end = over(&setup).await;
    assert_eq!(
        (&end["by"], &end["state"]),
        (&"auto".into(), &"done".into())
    );
    // On a busy machine a client may come back so late that it is moved twice.
    let moved = end["moved"].as_u64().unwrap_or_default();
    assert!((20..=25).contains(&moved), "{end}");
}

/// Aim: a share of a node's assignments is forgotten and nothing is closed. Live WebSockets stay. Of the
/// clients that come back, the share is balanced anew: the same clients however often they come, also after a
/// reload. Fails if a reload loses the rules together with the plugins that held them.
#[tokio::test(flavor = "multi_thread")]
async fn a_share_is_forgotten() {
    let setup = Setup::with(2, COOKIE, "    balance: round_robin\n").await;
    let mut cookies = Vec::new();
    let mut live = Vec::new();
    while cookies.len() < 200 {
        let answer = H1::connect(&setup.plain()).await.get("/hello", &[]).await;
        if answer.node() == "n1" {
            let set = answer.cookies();
            let cookie = set[0].split(';').next().expect("a pair").to_owned();
            if live.len() < 20 {
                let headers = [("Cookie", cookie.as_str())];
                live.push(ws::connect(&setup.plain(), "/ws/echo", &headers).await);
            }
            cookies.push(cookie);
        }
    }
    order(&setup, "?from=n1&share=50%&rate=1000/s").await;
    assert_eq!(over(&setup).await["state"], "done");
    let forgotten = async || {
        let mut gone = Vec::new();
        for (i, cookie) in cookies.iter().enumerate() {
            let headers = [("Cookie", cookie.as_str())];
            let answer = H1::connect(&setup.plain())
                .await
                .get("/hello", &headers)
                .await;
            if !answer.cookies().is_empty() {
                gone.push(i);
            }
        }
        gone
    };
    let first = forgotten().await;
    assert!(first.len().abs_diff(100) < 30, "{}", first.len());
    assert_eq!(setup.edge.admin("POST", "/api/reload").await.status, 200);
    // A client that the balancer sent to the same node again still gets a new cookie.
    assert_eq!(forgotten().await, first);
    for socket in &mut live {
        socket.say("still here").await;
        assert_eq!(socket.hear().await, "still here");
        assert_eq!(socket.node(), "n1");
    }
}

/// Aim: a share of a node's live flows is closed, and a run can be cancelled in the middle. Fails if `share`
/// is ignored, or if a cancelled run goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_share_is_closed_and_a_run_cancelled() {
    let setup = Setup::with(2, COOKIE, "").await;
    let crowd = Crowd::enter(&setup.plain(), 200).await;
    assert_eq!(crowd.counts()[..2], [100, 100]);
    order(&setup, "?from=n1&share=40%&rate=1000/s&close").await;
    let end = over(&setup).await;
    let moved = end["moved"].as_u64().unwrap_or_default();
    assert!(moved.abs_diff(40) < 20, "{end}");
    crowd.settled(200).await;
    assert!(crowd.closes().iter().all(|(_, node)| node == "n1"));
    order(&setup, "?from=n2&share=100%&rate=1/min&close").await;
    let cancelled = setup
        .edge
        .admin("POST", "/api/pools/p/rebalance/cancel")
        .await;
    assert_eq!(cancelled.status, 200);
    assert!(
        cancelled.text().contains("cancelled"),
        "{}",
        cancelled.text()
    );
    let again = setup
        .edge
        .admin("POST", "/api/pools/p/rebalance/cancel")
        .await;
    assert_eq!(again.status, 409);
    order(&setup, "?to_even&close&rate=1000/s").await;
    over(&setup).await;
}

/// Aim: impossible orders are refused with an explanation, and change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn impossible_orders_are_refused() {
    let setup = Setup::with(2, COOKIE, "").await;
    for (query, status, said) in [
        ("?rate=fast", 400, "rate: "),
        ("?from=n1", 400, "needs a `share`"),
        ("?from=n9&share=5%", 404, "no node `n9` in pool `p`"),
        ("?before=4102444800", 400, "in the future"),
        ("?close=x", 400, "close: "),
        ("?spare=5%", 400, "unknown field `spare`"),
    ] {
        let answer = ask(&setup, query, status).await;
        assert!(answer.contains(said), "{query}: {answer}");
    }
    let none = setup.edge.admin("GET", "/api/pools/p/rebalance").await;
    assert_eq!(none.status, 404);
    let unknown = setup.edge.admin("POST", "/api/pools/q/rebalance").await;
    assert_eq!(
        (unknown.status, unknown.text().trim()),
        (404, "no pool `q`")
    );
    let get = setup.edge.admin("DELETE", "/api/pools/p/rebalance").await;
    assert_eq!(get.status, 405);
}

/// Aim: requests that begin a session go to the emptiest node although the client has a cookie, and the
/// cookie follows. All other requests stay (§1: S "can always be freely balanced"). Fails without
/// `rebalance_on`, or if the old assignment is kept.
#[tokio::test(flavor = "multi_thread")]
async fn new_sessions_balance_freely() {
    for plugin in [COOKIE, "[{ sticky_ip: {} }]"] {
        let setup = Setup::with(2, plugin, "    rebalance_on: [/echo]\n").await;
        let dial = setup.plain();
        let first = H1::connect(&dial).await.get("/hello", &[]).await;
        let mut cookie = pair(&first.cookies());
        // A stream makes its node the fuller one.
        let stream = ws::connect(&dial, "/ws/echo", &[("Cookie", &cookie)]).await;
        assert_eq!(stream.node(), first.node());
        let get = async |path: &str, cookie: &str| {
            let method = if path == "/echo" { "POST" } else { "GET" };
            let headers = [("Cookie", cookie)];
            H1::connect(&dial)
                .await
                .request(method, path, &headers, b"")
                .await
        };
        assert_eq!(
            get("/hello", &cookie).await.node(),
            first.node(),
            "{plugin}"
        );
        let session = get("/echo?LS_cid=1", &cookie).await;
        assert_ne!(session.node(), first.node(), "{plugin}");
        if plugin == COOKIE {
            cookie = pair(&session.cookies());
        }
        assert_eq!(
            get("/hello", &cookie).await.node(),
            session.node(),
            "{plugin}"
        );
        let lines = setup.edge.wait_access("its line", |lines| {
            lines
                .iter()
                .any(|l| l["how"] == "rebalanced" && l["path"] == "/echo")
        });
        lines.await;
    }
}

/// Aim: a rebalance goes on in a process that takes over. The successor has the counts of moved clients, and
/// also moves clients that reconnect when the predecessor ends, 2 s later. Fails if the rebalance is lost, or
/// ends as soon as it finds no flow to close.
#[tokio::test(flavor = "multi_thread")]
async fn a_rebalance_goes_on_in_a_successor() {
    let more = "upgrade_socket: up.sock\ndrain_deadline: 2s\n";
    let mut setup = Setup::with(3, COOKIE, more).await;
    drain(&setup, "n3", "drain").await;
    let crowd = Crowd::enter(&setup.plain(), 150).await;
    drain(&setup, "n3", "up").await;
    order(&setup, "?to_even&rate=10/s&tolerance=5%&close").await;
    deadline("the first clients to move", async {
        while progress(&setup).await["moved"] == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let new = setup.edge.successor();
    let mut old = std::mem::replace(&mut setup.edge, new);
    old.wait_log("another process has taken over").await;
    let at_first = progress(&setup).await;
    assert_eq!(at_first["state"], "running", "{at_first}");
    assert!(at_first["moved"].as_u64() >= Some(1), "{at_first}");
    assert_eq!(old.ended().await.code(), Some(0));
    let end = over(&setup).await;
    assert_eq!(
        (&end["state"], &end["by"]),
        (&"done".into(), &"operator".into())
    );
    assert_eq!(end["before"], at_first["before"]);
    crowd.settled(150).await;
    let counts = crowd.counts();
    assert!(counts.iter().all(|n| n.abs_diff(50) <= 5), "{counts:?}");
    // The edge's own count is smaller: a client that was reconnecting to the successor when its assignment
    // was forgotten moves without a second close.
    let (moves, told) = (crowd.moves(), end["moved"].as_u64());
    assert!((40..=54).contains(&moves), "{moves} moves, {end}");
    assert!(
        told > at_first["moved"].as_u64() && told <= Some(moves),
        "{moves} moves, {end}"
    );
}
