//! The admin dashboard in a browser, and the same orders from the command line.
//!
//! In: an edge with live WebSockets, Chromium, the built program as a client. Out: what the page and the
//! program show, and the nodes' states. Source: FAULTS D71; Lightstreamer clustering §5.1.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use fantoccini::Locator;
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::client::h1::H1;
use crate::client::{Dial, ws};
use crate::deadline;
use crate::setup::Setup;

mod page;

const COOKIE: &str = "[{ sticky_cookie: {} }]";
const TOKEN: &str = "0123456789abcdef";

/// The key Enter, as WebDriver names it.
const ENTER: &str = "\u{e007}";

/// Presses the button for an order, by the keyboard.
async fn press(browser: &Browser, order: &str) {
    send(browser, &format!("button[data-order='{order}']"), ENTER).await;
}

/// Sends keys to the element that a selector finds.
async fn send(browser: &Browser, selector: &str, keys: &str) {
    let found = browser.client.find(Locator::Css(selector)).await;
    let found = found.unwrap_or_else(|e| panic!("{selector}: {e}"));
    found.send_keys(keys).await.expect("it takes keys");
}

/// Polls the page until `good`.
async fn until(browser: &Browser, what: &str, good: impl Fn(&Value) -> bool) -> Value {
    let script = "
        const rows = (id) => Object.fromEntries([...document.querySelectorAll('#' + id + ' tr')].map(
            (r) => [r.dataset.name, { ...r.dataset, text: [...r.cells].map((c) => c.textContent) }]));
        return { nodes: rows('nodes'), pools: rows('pools'), listeners: rows('listeners'),
            notice: document.getElementById('notice').textContent,
            ready: document.getElementById('ready').textContent,
            login: !document.getElementById('login').hidden,
            certificates: rows('certificates'),
            answer: document.getElementById('pool-answer').textContent,
            dialog: document.querySelector('dialog[open]')?.id ?? null,
            outside: performance.getEntriesByType('resource').map((r) => r.name)
                .filter((n) => !n.startsWith(location.origin)) };";
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let look = browser.client.execute(script, Vec::new()).await;
        let look = look.expect("a script's answer");
        if good(&look) {
            return look;
        }
        assert!(Instant::now() < end, "waited for {what}: {look:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Aim: the page shows states, flows, balance and certificates correctly. Its buttons drain a node, bring it
/// back, and rebalance after a dry run. The page loads nothing from outside. Fails if the event stream stops,
/// if the dry run moves a client, or if a press between two events is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_and_orders() {
    let setup = Setup::with(2, COOKIE, "    rebalance: { rate: 1000/s }\n").await;
    let browser = Browser::at(&format!("http://{}/", setup.block.admin())).await;
    let look = until(&browser, "two nodes", |l| l["nodes"]["n2"]["state"] == "up").await;
    assert_eq!(
        (&look["outside"], &look["ready"]),
        (&json!([]), &json!("ready"))
    );
    press(&browser, "api/nodes/n2/drain").await;
    let look = until(&browser, "a drain", |l| {
        l["nodes"]["n2"]["state"] == "draining"
    })
    .await;
    assert_eq!(look["nodes"]["n2"]["text"][8], "ordered", "{look:#}");
    let mut sockets = Vec::new();
    for _ in 0..8 {
        sockets.push(ws::connect(&setup.plain(), "/ws/silent", &[]).await);
    }
    press(&browser, "api/nodes/n2/up").await;
    let look = until(&browser, "eight flows and the return", |l| {
        l["nodes"]["n1"]["text"][3] == "8" && l["nodes"]["n2"]["state"] == "up"
    })
    .await;
    assert_eq!(look["pools"]["p"]["text"][2], "2.00", "{look:#}");
    assert_eq!(look["listeners"]["plain"]["text"][2], "8", "{look:#}");
    let ends = |l: &Value| {
        let days = l["certificates"]["push "]["text"][2].as_str();
        days.is_some_and(|d| d.parse::<i64>().is_ok())
    };
    until(&browser, "the certificate's days", ends).await;
    press(&browser, "api/pools/p/rebalance").await;
    send(&browser, "#rebalance-form button", ENTER).await;
    let planned = until(&browser, "the dry run", |l| l["answer"] != "").await;
    let answer = planned["answer"].as_str().unwrap_or_default();
    assert!(answer.contains("would move 4 clients"), "{answer}");
    assert_eq!(planned["pools"]["p"]["rebalance"], "", "not given yet");
    send(&browser, "#rebalance-form [name=close]", " ").await;
    send(&browser, "#rebalance", ENTER).await;
    until(&browser, "its begin", |l| {
        l["pools"]["p"]["rebalance"] != "" && l["dialog"].is_null()
    })
    .await;
    deadline("the flows' end", async {
        while setup.edge.metric("pushgate_rebalanced_flows_total").await < 4.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    press(&browser, "api/pools/p/rebalance/cancel").await;
    browser.client.close().await.expect("the browser ends");
}

/// Aim: where a token is required, the page shows nothing without it, refuses a wrong token with a message,
/// and works with the right one. It must not be framed. Fails if the stream or an order works without the
/// token.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_without_a_token_shows_nothing() {
    let (setup, _dir) = with_token().await;
    let admin = setup.block.admin();
    let mut client = H1::connect(&Dial::plain(admin)).await;
    let page = client.get("/", &[]).await;
    assert_eq!(page.status, 200);
    assert!(!page.text().contains("n1"), "{}", page.text());
    let policy = page.header("content-security-policy");
    assert!(policy.is_some_and(|p| p.contains("frame-ancestors 'none'")));
    let script = client.get("/dashboard/nodes.js", &[]).await;
    assert_eq!(script.status, 200);
    let closed = [
        "/api/events",
        "/api/pools",
        "/dashboard/",
        "/dashboard/none.js",
    ];
    for path in closed.into_iter().chain(["/dashboard.js/..", "//"]) {
        let answer = H1::connect(&Dial::plain(admin)).await.get(path, &[]).await;
        assert_eq!(answer.status, 401, "{path}");
    }
    let browser = Browser::at(&format!("http://{admin}/")).await;
    let enter = async |token: &str| {
        let field = browser.client.find(Locator::Id("token")).await;
        let field = field.expect("a field");
        field.clear().await.expect("it can be cleared");
        let sent = field.send_keys(&format!("{token}\u{e007}")).await;
        sent.expect("it takes keys");
    };
    until(&browser, "the question", |l| l["login"] == true).await;
    enter("wrong").await;
    until(&browser, "the refusal", |l| {
        l["notice"]
            .as_str()
            .is_some_and(|n| n.contains("refused this token"))
    })
    .await;
    enter(TOKEN).await;
    until(&browser, "the nodes", |l| l["nodes"]["n1"]["state"] == "up").await;
    press(&browser, "api/nodes/n1/drain").await;
    until(&browser, "a drain", |l| {
        l["nodes"]["n1"]["state"] == "draining"
    })
    .await;
    browser.client.close().await.expect("the browser ends");
}

async fn with_token() -> (Setup, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).expect("write");
    let setup = Setup::with(2, COOKIE, &pool_and_admin(&file)).await;
    (setup, dir)
}

/// More keys of the pool, and an admin section after it.
fn pool_and_admin(token: &Path) -> String {
    let admin = format!("bind: 127.0.0.1:9900, token_file: {}", token.display());
    format!("    retries: 1\nadmin: {{ {admin} }}\n")
}

/// Runs `pushgate` with the arguments in `line` against the setup's edge.
async fn cli(setup: &Setup, line: &str, more: &[&str]) -> Output {
    let url = format!("http://{}", setup.block.admin());
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_pushgate"));
    command
        .args(line.split_whitespace())
        .args(["--admin", &url]);
    let output = command.args(more).kill_on_drop(true).output();
    deadline(line, output).await.expect("it runs")
}

async fn says(setup: &Setup, line: &str) -> String {
    let output = cli(setup, line, &[]).await;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {text}{error}");
    text
}

/// Aim: the command line offers the same: tables, orders, a rebalance that it waits for, and refusals with
/// exit code 1. Fails if the program and the API differ.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_asks_and_orders() {
    let setup = Setup::with(2, COOKIE, "").await;
    assert_eq!(says(&setup, "drain n2").await, "n2 is draining\n");
    let mut sockets = Vec::new();
    for _ in 0..6 {
        sockets.push(ws::connect(&setup.plain(), "/ws/silent", &[]).await);
    }
    let table = says(&setup, "nodes").await;
    let line = |name: &str| {
        table
            .lines()
            .find(|l| l.starts_with(name))
            .map(str::to_owned)
    };
    let n1 = line("n1").unwrap_or_default();
    assert!(n1.contains(" up ") && n1.contains(" 6 "), "{table}");
    assert!(
        line("n2").is_some_and(|l| l.contains("draining")),
        "{table}"
    );
    assert!(
        line("n2").is_some_and(|l| l.ends_with(" ordered")),
        "{table}"
    );
    assert_eq!(says(&setup, "up n2").await, "n2 is up\n");
    let dry = says(&setup, "rebalance p --to-even --close --dry-run").await;
    assert!(
        dry.starts_with("pool p: would move 3 clients, evenness 2.0"),
        "{dry}"
    );
    let done = says(
        &setup,
        "rebalance p --from n1 --share 100% --rate 1000/s --close --wait",
    )
    .await;
    assert!(done.starts_with("pool p: done, 6 moved, 0 left"), "{done}");
    for socket in &mut sockets {
        socket.ended().await;
    }
    assert!(
        says(&setup, "rebalance p --status")
            .await
            .starts_with("pool p: done")
    );
    let top = says(&setup, "top --count 1").await;
    assert!(top.contains("NODE") && top.contains("EVENNESS"), "{top}");
    assert!(says(&setup, "nodes --json").await.contains("\"address\""));
    for (line, said) in [
        ("down n9", "no such node (404)"),
        ("rebalance q", "no pool `q` (404)"),
        ("rebalance p --cancel", "no rebalance is running (409)"),
        ("rebalance p --rate 5", "rate: "),
    ] {
        let output = cli(&setup, line, &[]).await;
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line}: {error}");
        assert!(error.contains(said), "{line}: {error}");
    }
}

/// Aim: if a token is required, the program asks for its file. Fails if it works without, or prints the
/// token.
#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_shows_its_token() {
    let (setup, dir) = with_token().await;
    let output = cli(&setup, "nodes", &[]).await;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("see --token-file"), "{error}");
    let file = dir.path().join("token").display().to_string();
    let output = cli(&setup, "nodes", &["--token-file", &file]).await;
    assert!(output.status.success());
    assert!(!String::from_utf8_lossy(&output.stdout).contains(TOKEN));
}

/// Aim: `healthcheck` tells by its exit code whether the edge lives, and with `--ready` whether clients find
/// a node. Fails if it ignores the status of the answer, or asks the wrong path.
#[tokio::test(flavor = "multi_thread")]
async fn healthcheck_tells_by_its_exit_code() {
    let setup = Setup::with(1, COOKIE, "").await;
    assert_eq!(says(&setup, "healthcheck --ready").await, "ready\n");
    says(&setup, "down n1").await;
    let unready = cli(&setup, "healthcheck --ready", &[]).await;
    assert_eq!(unready.status.code(), Some(1));
    let error = String::from_utf8_lossy(&unready.stderr);
    assert_eq!(error, "pushgate: pool p has no node (503)\n");
    assert_eq!(says(&setup, "healthcheck").await, "ok\n");
}
