//! Chromium over HTTP/2: WebSockets, EventSource and fetch streams on one page.
//!
//! In: a page of the edge, scripts in it. Out: what they received, on which connection, from which node, and
//! how much an unread stream of the page takes. Source: RFC 8441; docs/decisions/0019 (why `h2_websocket` is
//! off).

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::websocket::{start, start_more};
use crate::browser::Browser;
use crate::certs::Leaf;
use crate::deadline;
use crate::setup::{HOST, Setup};
use crate::vip::port;

/// Two more listeners: one without WebSockets over HTTP/2, and one without HTTP/2.
const OTHERS: &str = "  - { name: off, bind: [200.0.0.10:4443], mode: http, to: p, \
                      tls: { certificates: [push] } }\n  \
                      - { name: old, bind: [200.0.0.10:444], mode: http, to: p, \
                      tls: { certificates: [push], h2: false } }\n";

/// Starts a browser that resolves the host's name to the edge, on a page of the listener at port `to`.
async fn page(setup: &Setup, to: u16) -> Browser {
    let leaf = Leaf {
        chain: setup.certs.dir().join("push.pem"),
        key: setup.certs.dir().join("push.key"),
    };
    let browser = Browser::start(&[
        format!(
            "--host-resolver-rules=MAP {HOST} {}",
            setup.block.ip("200.0.0.10")
        ),
        format!("--ignore-certificate-errors-spki-list={}", leaf.pin()),
    ])
    .await;
    browser.goto(&format!("https://{HOST}:{to}/hello")).await;
    browser
}

/// Starts all streams of a page; `seen` holds what arrived on each.
const STREAMS: &str = "
    window.seen = { said: [], events: [], pieces: 0 };
    const socket = new WebSocket(`wss://${location.host}/ws/echo`, []);
    socket.onopen = () => { for (const m of ['a', 'b', 'c'.repeat(100000)]) socket.send(m); };
    socket.onmessage = (m) => {
        seen.said.push(m.data.length);
        if (seen.said.length === 3) socket.close(1000);
    };
    socket.onclose = (c) => { seen.code = c.code; };
    const events = new EventSource('/sse?n=20&every=5');
    events.onmessage = (e) => {
        seen.events.push(e.data);
        if (seen.events.length === 20) events.close();
    };
    (async () => {
        const stream = await fetch('/stream/chunked?n=20&every=5&size=100');
        const reader = stream.body.getReader();
        for (let bytes = 0; ;) {
            const { done, value } = await reader.read();
            if (done) { seen.bytes = bytes; break; }
            seen.pieces += 1;
            bytes += value.length;
        }
        const echo = await fetch('/echo', { method: 'POST', body: 'x'.repeat(300000) });
        seen.echoed = (await echo.text()).length;
    })();";

/// Aim: on one page over HTTP/2 a WebSocket, an EventSource and fetch streams each receive everything, in
/// order, at once. With the key the WebSocket is a stream of the page's connection; without it, it has its
/// own HTTP/1.1 connection. Fails if Chromium falls back to HTTP/1.1 with the key, or if WebSockets over
/// HTTP/2 are announced without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_streams_in_every_way() {
    let setup = start_more(1, "", "", OTHERS).await;
    for (n, (to, shares)) in [(port(443), true), (4443, false)].into_iter().enumerate() {
        let browser = page(&setup, to).await;
        browser.run(STREAMS, vec![]).await;
        let all =
            |s: &Value| s["code"].is_u64() && s["echoed"].is_u64() && s["events"][19].is_string();
        let seen = browser
            .until("all streams", "return seen", vec![], all)
            .await;
        assert_eq!(seen["said"], json!([1, 1, 100_000]), "{seen}");
        assert_eq!(seen["code"], 1000, "{seen}");
        assert_eq!(seen["events"][19], "n1 19", "{seen}");
        assert_eq!(
            (&seen["bytes"], &seen["echoed"]),
            (&json!(20 * 101), &json!(300_000))
        );
        assert!(seen["pieces"].as_u64() > Some(2), "{seen}");
        // Page, WebSocket, events, stream, echo; the browser requests an icon as well.
        let listener = ["tls", "off"][n];
        let of = |lines: &[Value], path: &str| {
            let mut lines = lines.iter().filter(|l| l["listener"] == listener);
            lines.find(|l| l["path"] == path).cloned()
        };
        let paths = ["/hello", "/ws/echo", "/sse", "/stream/chunked", "/echo"];
        let lines = setup
            .edge
            .wait_access("all lines", |l| paths.iter().all(|p| of(l, p).is_some()));
        let lines = lines.await;
        let [page, socket, rest @ ..] = paths.map(|path| of(&lines, path).expect("waited for"));
        assert_eq!(page["protocol"], "h2", "{page}");
        assert_eq!(socket["protocol"], "websocket", "{socket}");
        assert_eq!(
            socket["client"] == page["client"],
            shares,
            "{page} {socket}"
        );
        for line in rest {
            assert_eq!(
                (&line["protocol"], &line["client"]),
                (&page["protocol"], &page["client"])
            );
        }
        browser.close().await;
    }
}

/// Aim: Chromium keeps the sticky cookie of the 200 that opens a WebSocket over HTTP/2: with round robin,
/// every later request and WebSocket of the page reaches the WebSocket's node. Fails without `Set-Cookie` on
/// the 200.
#[tokio::test(flavor = "multi_thread")]
async fn the_cookie_on_the_200_is_kept() {
    let plugins = "[{ sticky_cookie: { name: PUSHGATE } }]";
    let setup = start(2, plugins, "    balance: round_robin\n").await;
    let browser = page(&setup, port(443)).await;
    for round in 1..=2 {
        let deleted = browser.client.delete_all_cookies().await;
        deleted.expect("no cookie of the page");
        // The requests in between do not stick, so both nodes get some.
        let script = "
            window.seen = [];
            const open = () => new Promise((done) => {
                const socket = new WebSocket(`wss://${location.host}/ws/tick?n=1`);
                socket.onclose = done;
            });
            (async () => {
                await open();
                for (let n = 0; n < 3; n++) {
                    seen.push((await (await fetch('/hello')).text()).split(' ')[0]);
                    await open();
                }
                window.over = true;
            })();
            window.over = false;";
        browser.run(script, vec![]).await;
        browser
            .until("the end", "return over", vec![], |over| {
                over == &json!(true)
            })
            .await;
        let seen = browser.run("return seen", vec![]).await;
        let is_socket = |l: &&Value| l["path"] == "/ws/tick";
        let count = |l: &[Value]| l.iter().filter(is_socket).count();
        let lines = setup
            .edge
            .wait_access("its lines", |l| count(l) == 4 * round)
            .await;
        let sockets = lines.iter().filter(is_socket).skip(4 * (round - 1));
        for line in sockets {
            assert_eq!(
                (&line["node"], &line["protocol"]),
                (&seen[0], &json!("websocket"))
            );
        }
        assert_eq!(seen, json!([seen[0], seen[0], seen[0]]), "round {round}");
        // The page's connection carries all of them.
        let clients: std::collections::BTreeSet<_> =
            lines.iter().map(|l| l["client"].to_string()).collect();
        assert_eq!(clients.len(), 1, "{clients:?}");
    }
    browser.close().await;
}

/// WebSockets of the page, messages on each, and how many of them may be unanswered at a time.
const SOCKETS: usize = 10;
const EACH: usize = 10_000;
const AHEAD: usize = 100;
/// Limit for the whole run.
const MOST: Duration = Duration::from_secs(60);

/// Aim: 100,000 messages through Chromium over WebSockets on one HTTP/2 connection, to the node and back: 0
/// lost, 0 reordered. Fails if a message is lost or early.
#[tokio::test(flavor = "multi_thread")]
async fn chromium_loses_no_message() {
    let setup = start(1, "", "").await;
    let browser = page(&setup, port(443)).await;
    let script = "
        const [sockets, each, ahead] = arguments;
        window.seen = { got: 0, wrong: [], ended: 0 };
        for (let s = 0; s < sockets; s++) {
            const socket = new WebSocket(`wss://${location.host}/ws/echo`);
            let sent = 0, got = 0;
            const send = () => { if (sent < each) socket.send(`${s} ${sent++}`); };
            socket.onopen = () => { for (let n = 0; n < ahead; n++) send(); };
            socket.onmessage = (m) => {
                if (m.data !== `${s} ${got}`) seen.wrong.push([s, got, m.data]);
                got++;
                seen.got++;
                send();
                if (got === each) socket.close();
            };
            socket.onclose = () => { seen.ended++; };
        }";
    let begun = Instant::now();
    browser
        .run(script, vec![json!(SOCKETS), json!(EACH), json!(AHEAD)])
        .await;
    let seen = loop {
        let seen = browser.run("return seen", vec![]).await;
        if seen["ended"] == SOCKETS || begun.elapsed() > MOST {
            break seen;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    println!("{} messages in {:.1?}", seen["got"], begun.elapsed());
    assert_eq!(seen["wrong"], json!([]), "{seen}");
    assert_eq!(seen["got"], SOCKETS * EACH, "{seen}");
    let lines = setup.edge.wait_access("its lines", |l| {
        l.iter().filter(|l| l["path"] == "/ws/echo").count() == SOCKETS
    });
    let clients: std::collections::BTreeSet<_> = lines
        .await
        .iter()
        .map(|l| l["client"].to_string())
        .collect();
    assert_eq!(clients.len(), 1, "one connection: {clients:?}");
    browser.close().await;
}

/// The window that Chromium announces for a stream.
const WINDOW: u64 = 6 << 20;
/// Most hidden bytes of a stopped stream beyond that; seen: 16 KiB.
const MOST_HIDDEN: u64 = 64 << 10;
/// Most bytes that an unread HTTP/1.1 WebSocket takes; seen: 245 to 265 KiB.
const MOST_HTTP_1: u64 = 1 << 20;

/// Aim: measures how much an unread WebSocket of a page takes before its node is stopped. Over HTTP/2:
/// Chromium's window, and at most 64 KiB more; over HTTP/1.1: a fraction of that. This decides the default of
/// `h2_websocket`. Fails if the edge reads on although Chromium gives no window. (An unread fetch takes 58
/// MiB over either.)
#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_stops_stalls_its_node() {
    let setup = start_more(1, "", "", OTHERS).await;
    let node = &setup.nodes[0];
    let script = "
        (async () => {
            const stream = new WebSocketStream(`wss://${location.host}/ws/flood?sndbuf=2048`);
            window.kept = (await stream.opened).readable.getReader();
        })();";
    for (what, to, most) in [
        ("HTTP/2", port(443), WINDOW + MOST_HIDDEN),
        ("HTTP/1.1", 4443, MOST_HTTP_1),
    ] {
        let browser = page(&setup, to).await;
        let before = node.flooded();
        browser.run(script, vec![]).await;
        deadline("the flood", async {
            while node.flooded() == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        // Bounded wait: a stream that takes nothing for this long has stopped.
        let stalled = node.stalled(Duration::from_millis(700)).await - before;
        println!("{what}: {} KiB", stalled / 1024);
        assert!(stalled <= most, "{what}: {stalled}");
        browser.close().await;
    }
}
