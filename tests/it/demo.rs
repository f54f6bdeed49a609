//! `pushgate demo` as a person meets it: in a browser.
//!
//! In: the real program (and once a bare node), Chromium driven by WebDriver. Out: what the page
//! shows. Needs `chromium` and `chromedriver`; `tests/setup.sh` installs both.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

/// A page on a busy two-core machine takes seconds. Below a minute on purpose: that is how long the
/// demo's Content-Length stream and the framework's own read timeout could hide a request that hangs.
const DEADLINE: Duration = Duration::from_secs(30);
/// Pause between two looks at the page.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const TRANSPORTS: [&str; 5] = ["ws", "sse", "chunked", "length", "poll"];

/// A process group that ends with this value: chromedriver takes its browsers along.
struct Group(Child);

impl Group {
    fn spawn(command: &mut Command) -> Group {
        let child = command.process_group(0).stdout(Stdio::piped()).spawn();
        Group(child.unwrap_or_else(|e| {
            panic!(
                "{:?}: {e}; tests/setup.sh installs what the tests need",
                command.get_program()
            )
        }))
    }

    /// What follows `marker` on the first line of standard output that has it, without the blanks
    /// around it and the full stop.
    fn says(&mut self, marker: &str) -> String {
        let mut output = BufReader::new(self.0.stdout.take().expect("piped above"));
        let mut line = String::new();
        let found = loop {
            line.clear();
            let n = output.read_line(&mut line).expect("text");
            assert!(n > 0, "it ended without saying {marker:?}");
            if let Some((_, rest)) = line.split_once(marker) {
                break rest.trim().trim_end_matches('.').to_owned();
            }
        };
        // Whoever prints must never wait for us.
        std::thread::spawn(move || output.read_to_end(&mut Vec::new()));
        found
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let group = -i32::try_from(self.0.id()).expect("a process id");
        // SAFETY: plain system call; the group is ours and its leader is not reaped yet.
        unsafe { libc::kill(group, libc::SIGKILL) };
        let _ = self.0.wait();
    }
}

/// A browser at a page.
struct Browser {
    client: Client,
    _driver: Group,
}

impl Browser {
    async fn at(url: &str) -> Browser {
        let mut driver = Group::spawn(Command::new("chromedriver").arg("--port=0"));
        let port = driver.says("started successfully on port ");
        // CI runs as root in a container with a small /dev/shm.
        let options = json!({ "args": [
            "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1100,1100",
        ] });
        let capabilities = [("goog:chromeOptions".to_owned(), options)];
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities.into_iter().collect())
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("chromedriver starts a Chromium");
        client.goto(url).await.expect("the page loads");
        Browser {
            client,
            _driver: driver,
        }
    }

    /// Loads the page again.
    async fn reload(&self) {
        let loaded = tokio::time::timeout(DEADLINE, self.client.refresh()).await;
        loaded
            .expect("the page answers in time")
            .expect("the page loads again");
    }

    /// The page as it is now: `here`, `notice`, `events`, `buttons`, and of each card its node and
    /// count.
    async fn look(&self) -> Value {
        let script = "
            const text = (q) => document.querySelector(q)?.textContent ?? '';
            const card = (k) => ({ ...document.querySelector('#card-' + k)?.dataset });
            return {
                here: text('#here'), notice: text('#notice'), events: text('#events ol'),
                north: text('#north'), south: text('#south'), cookie: document.cookie,
                cards: Object.fromEntries(arguments[0].map((k) => [k, card(k)])),
                outside: performance.getEntriesByType('resource').map((r) => r.name)
                    .filter((n) => !n.startsWith(location.origin)),
            };";
        let look = self.client.execute(script, vec![json!(TRANSPORTS)]).await;
        look.expect("a script's answer")
    }

    /// Looks until `good`, then gives back that look.
    async fn until(&self, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + DEADLINE;
        loop {
            let look = self.look().await;
            if good(&look) {
                return look;
            }
            assert!(Instant::now() < end, "waited for {what}: {look:#}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until every transport shows a second message of `node`.
    async fn all_live_on(&self, node: &str) -> Value {
        let what = format!("live messages of {node} on every transport");
        self.until(&what, |look| {
            look["here"] == node && TRANSPORTS.iter().all(|t| live_on(&look["cards"][*t], node))
        })
        .await
    }

    /// Presses the button `id` by the keyboard.
    async fn press(&self, id: &str) {
        let button = self.client.find(Locator::Id(id)).await.expect("a button");
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

/// Aim: the page itself, straight at a node: five live transports, switches by keyboard, the last
/// node cannot be stopped, nothing is loaded from outside.
#[tokio::test(flavor = "multi_thread")]
async fn page_is_live_at_a_bare_node() {
    let nodes = pushgate::demo::serve_nodes("http://127.0.0.1:9/metrics").await;
    let [_, south] = nodes.expect("nodes start");
    let browser = Browser::at(&format!("http://{south}/")).await;
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
    browser.client.close().await.expect("the browser ends");
}

/// Aim: through the edge, what the demo promises: every transport of a browser on one node, over
/// reloads; "forget me" moves it; a stopped node is left at once by all of them, without a reload;
/// the link leads to the metrics. Source: Lightstreamer clustering §2, §3. Fails without
/// `sticky_cookie` (first and second step), without eviction (fourth).
#[tokio::test(flavor = "multi_thread")]
async fn browser_sticks_moves_and_is_rehomed() {
    let mut program = Command::new(env!("CARGO_BIN_EXE_pushgate"));
    let mut demo = Group::spawn(program.args(["demo", "--port", "0"]));
    let browser = Browser::at(&demo.says("page:")).await;
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
        browser.reload().await;
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
    browser.reload().await;
    browser.all_live_on(first).await;
    let link = browser
        .client
        .find(Locator::Id("metrics"))
        .await
        .expect("a link");
    link.click().await.expect("it leads somewhere");
    let source = browser.client.source().await.expect("a page");
    assert!(source.contains("pushgate_"), "{source}");
    browser.client.close().await.expect("the browser ends");
}
