//! `pushgate demo` in a browser, as a person sees it.
//!
//! In: the real program (and once a bare node), Chromium driven by WebDriver. Out: what the page shows.

use std::process::Command;

use fantoccini::Locator;
use serde_json::{Value, json};

use crate::browser::{Browser, Group};

const TRANSPORTS: [&str; 5] = ["ws", "sse", "chunked", "length", "poll"];

/// State of the page: `here`, `notice`, `events`, `buttons`, and for each card its node and count.
const LOOK: &str = "
    const text = (q) => document.querySelector(q)?.textContent ?? '';
    const card = (k) => ({ ...document.querySelector('#card-' + k)?.dataset });
    return {
        here: text('#here'), notice: text('#notice'), events: text('#events ol'),
        north: text('#north'), south: text('#south'), cookie: document.cookie,
        cards: Object.fromEntries(arguments[0].map((k) => [k, card(k)])),
        outside: performance.getEntriesByType('resource').map((r) => r.name)
            .filter((n) => !n.startsWith(location.origin)),
    };";

/// The demo's page in a browser.
struct Page(Browser);

impl Page {
    async fn at(url: &str) -> Page {
        Page(Browser::at(url).await)
    }

    /// Polls the page until its state is `good`, and returns that state.
    async fn until(&self, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        self.0
            .until(what, LOOK, vec![json!(TRANSPORTS)], good)
            .await
    }

    /// Waits until every transport shows a second message from `node`.
    async fn all_live_on(&self, node: &str) -> Value {
        let what = format!("live messages of {node} on every transport");
        self.until(&what, |look| {
            look["here"] == node && TRANSPORTS.iter().all(|t| live_on(&look["cards"][*t], node))
        })
        .await
    }

    /// Presses the button `id` by the keyboard.
    async fn press(&self, id: &str) {
        let button = self.0.client.find(Locator::Id(id)).await.expect("a button");
        button.send_keys("\u{e007}").await.expect("it takes Enter");
    }
}

fn live_on(card: &Value, node: &str) -> bool {
    let count = card["count"].as_str().and_then(|c| c.parse::<u64>().ok());
    card["node"] == node && count.is_some_and(|count| count > 1)
}

fn other(node: &str) -> &'static str {
    if node == "north" { "south" } else { "north" }
}

/// Aim: the page itself, without an edge: five live transports, buttons that work by keyboard; the last node
/// cannot be stopped; nothing is loaded from outside.
#[tokio::test(flavor = "multi_thread")]
async fn page_is_live_at_a_bare_node() {
    let nodes = pushgate::demo::serve_nodes("http://127.0.0.1:9/metrics").await;
    let [_, south] = nodes.expect("nodes start");
    let browser = Page::at(&format!("http://{south}/")).await;
    let look = browser.all_live_on("south").await;
    assert_eq!(look["outside"], json!([]));
    assert_eq!(look["north"], "Stop north");
    browser.press("north").await;
    browser
        .until("north to be stopped", |l| l["north"] == "Start north")
        .await;
    browser.press("south").await;
    browser
        .until("the refusal", |l| {
            l["notice"].as_str().is_some_and(|n| n.contains("409"))
        })
        .await;
    browser.press("north").await;
    browser
        .until("north to be started", |l| {
            l["north"] == "Stop north" && l["notice"] == ""
        })
        .await;
    browser.0.close().await;
}

/// Aim: the demo keeps its promises behind the edge. Every transport of a browser is on one node, over
/// reloads; "forget me" moves it. All transports leave a stopped node at once, without a reload. The link
/// leads to the metrics. Source: Lightstreamer clustering §2, §3. Fails without `sticky_cookie` (first and
/// second step), without eviction (fourth).
#[tokio::test(flavor = "multi_thread")]
async fn browser_sticks_moves_and_is_rehomed() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_pushgate"));
    let mut demo = Group::spawn(program.args(["demo", "--port", "0"]));
    let browser = Page::at(&demo.says("page:")).await;
    let look = browser
        .until("a node", |l| {
            ["north", "south"].iter().any(|n| l["here"] == *n)
        })
        .await;
    let first = other(other(look["here"].as_str().expect("text")));
    let look = browser.all_live_on(first).await;
    assert_eq!(
        (&look["outside"], &look["cookie"]),
        (&json!([]), &json!(""))
    );
    for _ in 0..5 {
        browser.0.reload().await;
        browser.all_live_on(first).await;
    }
    let second = other(first);
    browser.press("forget").await;
    browser.all_live_on(second).await;
    browser.press(second).await;
    let look = browser.all_live_on(first).await;
    let moved = format!("WebSocket: moved from {second} to {first}");
    assert!(
        look["events"].as_str().is_some_and(|e| e.contains(&moved)),
        "{look:#}"
    );
    let start = format!("Start {second}");
    browser
        .until("the switch to show it", |l| l[second] == start.as_str())
        .await;
    browser.press(second).await;
    browser
        .until("it to be started", |l| {
            l[second] == format!("Stop {second}").as_str()
        })
        .await;
    browser.0.reload().await;
    browser.all_live_on(first).await;
    let link = browser
        .0
        .client
        .find(Locator::Id("metrics"))
        .await
        .expect("a link");
    link.click().await.expect("it leads somewhere");
    let source = browser.0.client.source().await.expect("a page");
    assert!(source.contains("pushgate_"), "{source}");
    browser.0.close().await;
}
