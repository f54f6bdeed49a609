//! The options that concern browsers, with the web client in Chromium.
//!
//! In: pages of the edge's own site and of another, over HTTP/1.1 and HTTP/2. Out: sessions that stay on
//! their node; cookies where a browser sends them; requests of one connection routed by their own names. The
//! pools use `round_robin`: without stickiness, the next request goes to the wrong node. Source:
//! Lightstreamer clustering §1 ("Browser-based clients"), §2.1.2, §3.1.2, §3.2.1.3, §6.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::certs::{Certs, Key};
use crate::node::Node;
use crate::tlcp::Sessions;
use crate::vip::port;

use super::Cluster;

const NODES: [&str; 2] = ["10.0.0.1:80", "10.0.0.2:80"];
/// The line in every file that lists the pool's nodes.
const POOL: (&str, &str) = (
    "nodes: [ls1, ls2]\n",
    "nodes: [ls1, ls2]\n    balance: round_robin\n",
);

/// Starts a browser that resolves the guide's names to the cluster's addresses.
async fn browser(cluster: &Cluster, more: &[(&str, &str)], pins: &[String]) -> Browser {
    let at = |guide: &str| cluster.block.ip(guide).to_string();
    let mut rules: Vec<String> = ["push", "push1", "push2"]
        .map(|host| format!("MAP {host}.mycompany.com {}", at("200.0.0.10")))
        .into();
    rules.extend(
        more.iter()
            .map(|(host, to)| format!("MAP {host} {}", at(to))),
    );
    let pins = pins.join(",");
    Browser::start(&[
        format!("--host-resolver-rules={}", rules.join(", ")),
        format!("--ignore-certificate-errors-spki-list={pins}"),
    ])
    .await
}

impl Cluster {
    /// Whether the first WebSocket that ended was a stream of a connection with other requests.
    async fn websockets_share_connections(&self) -> bool {
        let is_socket = |l: &&Value| l["protocol"] == "websocket";
        let lines = self.edge.wait_access("a WebSocket's end", |lines| {
            lines.iter().any(|l| is_socket(&l))
        });
        let lines = lines.await;
        let socket = lines.iter().find(is_socket).expect("waited for");
        let mut h2 = lines.iter().filter(|l| l["protocol"] == "h2");
        h2.any(|l| l["client"] == socket["client"])
    }
}

/// The web client in the browser's page.
struct Web<'a>(&'a Browser);

impl Web<'_> {
    /// Loads `page` and starts a client in it.
    async fn start<'a>(browser: &'a Browser, page: &str, options: Value) -> Web<'a> {
        browser.goto(page).await;
        browser.run("start(arguments[0])", vec![options]).await;
        Web(browser)
    }

    async fn wait(&self, what: &str, good: impl Fn(&[Value]) -> bool) {
        let good = |events: &Value| good(events.as_array().map_or(&[], Vec::as_slice));
        self.0.until(what, "return events", vec![], good).await;
    }

    /// Waits until the client is connected by `transport`, and then for 20 more updates.
    async fn connected(&self, transport: &str) {
        let status = format!("CONNECTED:{transport}");
        self.wait(&status, |events| {
            let last = events.iter().rfind(|e| e["event"] == "status");
            last.is_some_and(|e| e["status"] == status.as_str())
        })
        .await;
        let updates = |events: &[Value]| events.iter().filter(|e| e["event"] == "update").count();
        let script = "return events.filter((e) => e.event === 'update').length";
        let seen = self.0.run(script, vec![]).await.as_u64().unwrap_or(0) as usize;
        self.wait("updates", |events| updates(events) >= seen + 20)
            .await;
    }

    /// Changes the forced transport; the client binds its session again.
    async fn transport(&self, name: &str) {
        let script = "client.connectionOptions.setForcedTransport(arguments[0])";
        self.0.run(script, vec![json!(name)]).await;
        self.connected(name).await;
    }

    /// Moves through every transport, one after the other.
    async fn moves(&self) {
        for transport in ["HTTP-POLLING", "WS-STREAMING", "HTTP-STREAMING"] {
            self.transport(transport).await;
        }
    }
}

/// Aim: 1.A.2. A browser on the site's own page returns the cookie on every transport. Fails without
/// `sticky_cookie`, or if a browser does not return such a cookie over plain HTTP.
#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_on_a_page_of_the_site() {
    let cluster = Cluster::start("option-1.A.2.yaml", NODES, false, &[POOL]).await;
    let browser = browser(&cluster, &[], &[]).await;
    let page = format!("http://push.mycompany.com:{}/client.html", port(80));
    let options = json!({ "transport": "HTTP-STREAMING", "cookies": true });
    let web = Web::start(&browser, &page, options).await;
    web.connected("HTTP-STREAMING").await;
    web.moves().await;
    cluster.nothing_went_wrong(1);
    browser.close().await;
}

/// Aim: 2.A.2. On a page of another site a browser returns the cookie if it is `SameSite=None; Secure;
/// Partitioned`, on a 101 as on any answer, and not if it has none of the three. With the settings of docs/plugins.md the session stays; with
/// those of the file it does not. The same holds where WebSockets are streams of the page's connection. Fails
/// if an attribute is missing or misspelt, or if the answer to a stream has other cookies.
#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_on_a_page_of_another_site() {
    let ours = "sticky_cookie: { name: PUSHGATE, max_age: 8h }";
    let cross = "sticky_cookie: { name: PUSHGATE, max_age: 8h, secure: true, same_site: none, \
                 partitioned: true }";
    let (own, shared) = (
        "certificates: [push] }",
        "certificates: [push], h2_websocket: true }",
    );
    for (cookie, stays, takes) in [
        (ours, false, own),
        (cross, true, own),
        (cross, true, shared),
    ] {
        let certs = Certs::new();
        let push = certs.leaf("push", &["push.mycompany.com"], Key::Ecdsa);
        let other = certs.leaf("other", &["www.other-site.com"], Key::Ecdsa);
        let [chain, key] = [&push.chain, &push.key].map(|file| file.display().to_string());
        let changes = [
            POOL,
            ("push.pem", &chain),
            ("push.key", &key),
            (ours, cookie),
            (own, takes),
        ];
        let cluster = Cluster::start("option-2.A.2.yaml", NODES, false, &changes).await;
        let site = cluster.block.at("10.0.0.9:443");
        let tls = Some(other.context());
        let _site = Node::start_tls("site", site, Sessions::new("site"), tls).await;
        let pins = [push.pin(), other.pin()];
        let browser = browser(&cluster, &[("www.other-site.com", "10.0.0.9")], &pins).await;
        let page = format!("https://www.other-site.com:{}/client.html", port(443));
        let server = format!("https://push.mycompany.com:{}", port(443));
        let options = json!({ "server": server, "transport": "HTTP-STREAMING", "cookies": true });
        let web = Web::start(&browser, &page, options).await;
        if stays {
            web.connected("HTTP-STREAMING").await;
            web.moves().await;
            cluster.nothing_went_wrong(1);
            let sockets = cluster.websockets_share_connections().await;
            assert_eq!(sockets, takes == shared);
        } else {
            let told = |e: &Value| e["event"] == "error" && (e["code"] == 20 || e["code"] == 21);
            web.wait("error 20 or 21", |events| events.iter().any(told))
                .await;
            let wrong: usize = cluster.counts().iter().map(|c| c.wrong_node).sum();
            assert!(
                wrong > 0,
                "without the cookie the next request goes elsewhere"
            );
        }
        browser.close().await;
    }
}

/// Aim: 2.B.1.3. Under the wildcard certificate a browser sends requests for `push1` or `push2` over the
/// HTTP/2 connection that it opened to `push`, and each reaches the node of its own name. Fails if a
/// connection, also one with a WebSocket, is routed as its first request was. The number of connections
/// proves that the browser used only one.
#[tokio::test(flavor = "multi_thread")]
async fn one_http2_connection_for_several_names() {
    let certs = Certs::new();
    let leaf = certs.leaf("wildcard", &["*.mycompany.com"], Key::Ecdsa);
    let [chain, key] = [&leaf.chain, &leaf.key].map(|file| file.display().to_string());
    let takes = "certificates: [wildcard], h2_websocket: true }";
    let changes = [
        POOL,
        ("wildcard.pem", &chain),
        ("wildcard.key", &key),
        ("certificates: [wildcard] }", takes),
    ];
    let cluster = Cluster::start("option-2.B.1.3.yaml", NODES, true, &changes).await;
    let browser = browser(&cluster, &[], &[leaf.pin()]).await;
    let page = format!("https://push.mycompany.com:{}/client.html", port(443));
    for _ in 0..2 {
        let options = json!({ "transport": "HTTP-STREAMING", "cookies": true });
        let web = Web::start(&browser, &page, options).await;
        web.connected("HTTP-STREAMING").await;
        web.transport("WS-STREAMING").await;
        web.transport("HTTP-POLLING").await;
    }
    let (s, cr) = cluster.hosts();
    assert!(s.iter().all(|host| host.starts_with("push.")), "{s:?}");
    let pinned = |host: &String| host.starts_with("push1.") || host.starts_with("push2.");
    assert!(cr.iter().any(pinned), "{cr:?}");
    let h2 = cluster
        .edge
        .wait_access("a CR request over HTTP/2", |lines| {
            let cr = |l: &Value| l["protocol"] == "h2" && l["path"] == "/lightstreamer/control.txt";
            lines.iter().any(cr)
        })
        .await;
    let of = |test: &dyn Fn(&str) -> bool| -> BTreeSet<String> {
        let lines = h2.iter().filter(|l| l["protocol"] == "h2");
        lines
            .filter(|l| l["host"].as_str().is_some_and(test))
            .map(|l| l["client"].to_string())
            .collect()
    };
    let push = of(&|host| host == "push.mycompany.com");
    let own = of(&|host| host == "push1.mycompany.com" || host == "push2.mycompany.com");
    assert!(push.intersection(&own).next().is_some(), "{push:?} {own:?}");
    assert!(cluster.websockets_share_connections().await);
    // Two sessions, one for each page: each was created at `push` and requested nowhere else.
    cluster.nothing_went_wrong(2);
    browser.close().await;
}

/// Aim: §6. A page that a node itself serves, opened by the node's own name, uses only that node and ignores
/// its control link, as the monitoring dashboard does. Fails if the direct name is balanced.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_one_node_by_its_own_name() {
    let cluster = Cluster::start("direct.yaml", NODES, true, &[]).await;
    let names = ["ls1", "ls2"].map(|n| format!("{n}.mycompany.internal"));
    let more = [&names[0], &names[1]].map(|name| (name.as_str(), "10.0.0.10"));
    let browser = browser(&cluster, &more, &[]).await;
    for (n, name) in names.iter().enumerate() {
        let page = format!("http://{name}:{}/client.html", port(80));
        let options = json!({ "ignoreInstance": true, "transport": "HTTP-STREAMING" });
        let web = Web::start(&browser, &page, options).await;
        web.connected("HTTP-STREAMING").await;
        web.moves().await;
        let created = cluster.counts().map(|c| c.created);
        assert_eq!(created, [[1, 0], [1, 1]][n], "{name}");
    }
    cluster.nothing_went_wrong(2);
    browser.close().await;
}
