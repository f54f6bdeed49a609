//! Sessions stuck by their own id: clients without cookies behind one address.
//!
//! In: TLCP over HTTP/1.1, HTTP/2 and WebSocket, by hand and by the real client, all from one source address.
//! Out: both nodes get sessions, and neither gets a request for a session of the other. Source: Lightstreamer
//! clustering §2, §4; Diffusion, "Routing strategies at your load balancer"; FAULTS D47, D52.

use std::time::Instant;

use serde_json::json;

use crate::client::h1::H1;
use crate::client::h2::H2;
use crate::client::{Dial, ws};
use crate::js::Js;
use crate::setup::{HOST, Setup};
use crate::tlcp::SUBPROTOCOL;

const LIGHTSTREAMER: &str = "[{ sticky_session: { preset: lightstreamer } }]";

/// Two nodes behind a plugin list; all clients have one address.
struct Shared {
    setup: Setup,
    plain: Dial,
    tls: Dial,
}

impl Shared {
    async fn start(plugins: &str) -> Shared {
        let setup = Setup::with(2, plugins, "").await;
        let from = setup.block.client(1);
        Shared {
            plain: setup.plain().from(from),
            tls: setup.tls().from(from),
            setup,
        }
    }

    /// Asserts that each node was asked only for its own sessions, and that `sessions` in all are spread over
    /// both.
    fn nothing_went_wrong(&self, sessions: usize) {
        let counts = [0, 1].map(|i| self.setup.nodes[i].sessions().counts());
        for c in &counts {
            assert_eq!((c.wrong_node, c.unknown), (0, 0), "{c:?}");
            assert!(c.created * 5 >= sessions, "spread: {counts:?}");
        }
        assert_eq!(counts[0].created + counts[1].created, sessions);
    }
}

/// The session id in the first line of an answer.
fn id_of(text: &str) -> String {
    let line = text.lines().find_map(|l| l.strip_prefix("CONOK,"));
    let line = line.unwrap_or_else(|| panic!("no CONOK in {text:?}"));
    line.split(',').next().unwrap_or_default().to_owned()
}

async fn post(dial: &Dial, path: &str, form: &str) -> String {
    let mut client = H1::connect(dial).await;
    let answer = client.request("POST", path, &[], form.as_bytes()).await;
    answer.text()
}

/// Binds a stream and reads its first lines; the stream stays open.
async fn stream(dial: &Dial, id: &str) -> H1 {
    let mut client = H1::connect(dial).await;
    let form = format!("LS_session={id}&LS_content_length=100000");
    let sent = client.send(
        "POST",
        "/lightstreamer/bind_session.txt",
        &[],
        form.as_bytes(),
    );
    sent.await.expect("send");
    assert_eq!(client.head().await.expect("head").status, 200);
    let mut lines = Vec::new();
    while !lines.contains(&b'\n') {
        lines.extend(client.piece().await.expect("a piece").expect("lines"));
    }
    assert_eq!(id_of(&String::from_utf8_lossy(&lines)), id);
    client
}

/// Aim: 50 clients from one address, without cookies, plain and TLS in turn. Each creates a session, binds a
/// stream, sends a control by the query and a poll by the form, each on its own connection. Fails without the
/// plugin (half of the requests reach the wrong node), or if all go to one node as by address.
#[tokio::test(flavor = "multi_thread")]
async fn http_sessions_behind_one_address_are_spread_and_stuck() {
    let it = Shared::start(LIGHTSTREAMER).await;
    let clients = (0..50).map(|n| {
        let dial = if n % 2 == 0 {
            it.plain.clone()
        } else {
            it.tls.clone()
        };
        tokio::spawn(async move {
            let created = post(&dial, "/lightstreamer/create_session.txt", "LS_cid=x").await;
            let id = id_of(&created);
            let streaming = stream(&dial, &id).await;
            let control = format!("/lightstreamer/control.txt?LS_session={id}");
            let form = "LS_reqId=1&LS_op=constrain\r\nLS_reqId=2&LS_op=constrain";
            assert_eq!(post(&dial, &control, form).await, "REQOK,1\r\nREQOK,2\r\n");
            drop(streaming);
            let poll = format!("LS_session={id}&LS_polling=true&LS_idle_millis=0");
            let polled = post(&dial, "/lightstreamer/bind_session.txt", &poll).await;
            assert_eq!(id_of(&polled), id);
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("a session that stays");
    }
    it.nothing_went_wrong(50);
    let how = |line: &serde_json::Value| line["how"] == "sticky_session";
    let stuck = |lines: &[serde_json::Value]| lines.iter().filter(|l| how(l)).count() >= 150;
    it.setup
        .edge
        .wait_access("three flows of each stuck", stuck)
        .await;
}

/// Aim: a session created inside a WebSocket is recalled when its client comes back by HTTP, while the socket
/// is open and after it. Fails if the edge does not read the node's frames.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_made_on_a_websocket_is_found_by_http() {
    let it = Shared::start(LIGHTSTREAMER).await;
    let protocol = [("Sec-WebSocket-Protocol", SUBPROTOCOL)];
    for n in 0..20 {
        let dial = if n % 2 == 0 { &it.plain } else { &it.tls };
        let mut socket = ws::connect(dial, "/lightstreamer", &protocol).await;
        socket.say("wsok").await;
        assert_eq!(socket.hear().await, "WSOK\r\n");
        socket.say("create_session\r\nLS_cid=x").await;
        let id = id_of(&socket.hear().await);
        let control = format!("/lightstreamer/control.txt?LS_session={id}");
        assert_eq!(
            post(dial, &control, "LS_reqId=1&LS_op=constrain").await,
            "REQOK,1\r\n"
        );
        drop(socket);
        drop(stream(dial, &id).await);
    }
    it.nothing_went_wrong(20);
}

/// Aim: over HTTP/2, as browsers send it, the form also identifies the session. Fails if the edge reads only
/// HTTP/1 bodies.
#[tokio::test(flavor = "multi_thread")]
async fn http2_forms_are_read() {
    let it = Shared::start(LIGHTSTREAMER).await;
    for _ in 0..20 {
        let created = H2::connect(&it.tls).await;
        let created = { created }
            .post("/lightstreamer/create_session.txt", b"LS_cid=x")
            .await;
        let id = id_of(&String::from_utf8_lossy(created.body()));
        let poll = format!("LS_session={id}&LS_polling=true&LS_idle_millis=0");
        let mut other = H2::connect(&it.tls).await;
        let polled = other
            .post("/lightstreamer/bind_session.txt", poll.as_bytes())
            .await;
        assert_eq!(id_of(&String::from_utf8_lossy(polled.body())), id);
    }
    it.nothing_went_wrong(20);
}

/// Aim: six real clients behind one address each move from WebSocket to HTTP streaming and polling; their
/// sessions go on. Fails as the tests above.
#[tokio::test(flavor = "multi_thread")]
async fn the_real_client_keeps_its_session() {
    let it = Shared::start(LIGHTSTREAMER).await;
    let mut clients = Vec::new();
    for n in 0..6 {
        let transport = ["WS-STREAMING", "HTTP-STREAMING", "HTTP-POLLING"][n % 3];
        let options = json!({
            "server": format!("http://{HOST}:{}", it.plain.to.port()),
            "transport": transport,
            "localAddress": it.setup.block.client(1),
            "resolve": { HOST: it.plain.to.ip() },
        });
        clients.push(Js::start(options, None).await);
    }
    for client in &mut clients {
        client.updates(10).await;
        for kind in ["HTTP-STREAMING", "HTTP-POLLING"] {
            client.transport(kind).await;
            client.status(&format!("CONNECTED:{kind}")).await;
            client.updates(10).await;
            client.message(kind).await;
        }
        let errors = client.of("lost").len() + client.of("error").len();
        assert_eq!(errors, 0, "{:?}", client.events());
    }
    let counts = [0, 1].map(|i| it.setup.nodes[i].sessions().counts());
    assert_eq!(counts[0].created + counts[1].created, 6, "{counts:?}");
    for c in counts {
        assert_eq!((c.wrong_node, c.unknown), (0, 0), "{c:?}");
    }
    for client in clients {
        client.end().await;
    }
}

/// Aim: bodies pass byte for byte whether the edge reads their beginning or not. A form that does not arrive
/// in time is routed without it, and its rest is passed on. Source: FAULTS D52. Fails if bytes read ahead are
/// lost or sent twice, or if a slow form waits for ever.
#[tokio::test(flavor = "multi_thread")]
async fn inspected_bodies_pass_whole() {
    let it = Shared::start(LIGHTSTREAMER).await;
    for size in [1, 4_095, 4_096, 4_097, 20_000, 65_536, 65_537, 300_000] {
        let body: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
        for dial in [&it.plain, &it.tls] {
            let mut client = H1::connect(dial).await;
            for _ in 0..2 {
                let answer = client.request("POST", "/echo", &[], &body).await;
                assert!(
                    answer.body == body,
                    "{size} bytes came back as {}",
                    answer.body.len()
                );
            }
        }
        let mut h2 = H2::connect(&it.tls).await;
        // The test client's windows have the protocol's default.
        if size < 65_535 {
            let answer = h2.post("/echo", &body).await;
            assert!(*answer.body() == body, "{size} bytes over HTTP/2");
        }
    }
    use tokio::io::AsyncWriteExt;
    let mut slow = H1::connect(&it.plain).await;
    let head = format!("POST /echo HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\nLS_");
    let began = Instant::now();
    slow.io.write_all(head.as_bytes()).await.expect("send");
    let live = |nodes: &serde_json::Value| {
        let nodes = nodes.as_array().into_iter().flatten();
        nodes.filter_map(|n| n["flows"].as_u64()).sum::<u64>() == 1
    };
    it.setup
        .edge
        .wait_nodes("the slow request at a node", live)
        .await;
    let waited = began.elapsed();
    assert!((900..5_000).contains(&waited.as_millis()), "{waited:?}");
    slow.io.write_all(b"session").await.expect("send");
    assert_eq!(slow.head().await.expect("head").status, 200);
    assert_eq!(slow.rest().await.expect("body"), b"LS_session");
}

/// Aim: an answer that the edge inspects is not held back: each piece reaches the client before the node
/// sends the next. Fails if the edge collects 4 KiB first.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_never_delayed() {
    let it = Shared::start(LIGHTSTREAMER).await;
    for framing in ["chunked", "length", "close"] {
        let mut client = H1::connect(&it.plain).await;
        it.setup.nodes.iter().for_each(|n| n.allow(0));
        let path = format!("/stream/{framing}?n=3&every=0&step=1");
        client.send("GET", &path, &[], b"").await.expect("send");
        client.head().await.expect("head");
        for i in 1..=3 {
            it.setup.nodes.iter().for_each(|n| n.allow(i));
            let piece = client.piece().await.expect("a piece");
            assert!(piece.is_some(), "{framing} {i}");
        }
    }
}

/// Aim: the session cookie of a Diffusion server sticks whichever client sends it, on every listener that
/// shares the table, also on an upgrade. Fails if cookies are learned from requests, or if heads are not
/// inspected.
#[tokio::test(flavor = "multi_thread")]
async fn diffusions_session_cookie_sticks() {
    let it = Shared::start("[{ sticky_session: { preset: diffusion, table: both } }]").await;
    let mut nodes = Vec::new();
    for n in 0..20 {
        let path = format!("/hello?cookie=session=c{n}-00");
        let mut client = H1::connect(&it.plain).await;
        let node = client.get(&path, &[]).await.node().to_owned();
        let cookie = format!("other=1; session=c{n}-00");
        for _ in 0..3 {
            let mut again = H1::connect(&it.plain).await;
            let answer = again.get("/hello", &[("Cookie", &cookie)]).await;
            assert_eq!(answer.node(), node);
            let socket = ws::connect(&it.tls, "/ws/echo", &[("Cookie", &cookie)]).await;
            assert_eq!(socket.node(), node);
        }
        nodes.push(node);
    }
    assert!(nodes.iter().any(|n| n == "n1") && nodes.iter().any(|n| n == "n2"));
}
