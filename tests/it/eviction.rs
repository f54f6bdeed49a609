//! A node that goes Down has no flow: each of its clients sees the end at once, reading or not.
//!
//! In: streams of all kinds on a node that fails its checks while its connections live, so that only the edge
//! can end them. Out: when each client saw the end, and whether it could take its answer for complete.
//! Source: Diffusion load balancers, "TCP retransmission timeout"; Lightstreamer clustering §1.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::client::h1::H1;
use crate::client::h2::{H2, piece};
use crate::client::{Dial, handshake, ws};
use crate::deadline;
use crate::node::{Health, Node};
use crate::setup::{HOST, Setup};

use self::timing::{Starved, print_spread};

mod blocked;
mod timing;

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Chunked,
    Length,
    Close,
    Events,
    Silent,
    WebSocket,
    Http10,
    StoppedChunked,
    StoppedLength,
    StoppedWebSocket,
}

/// All kinds.
const KINDS: [Kind; 10] = [
    Kind::Chunked,
    Kind::Length,
    Kind::Close,
    Kind::Events,
    Kind::Silent,
    Kind::WebSocket,
    Kind::Http10,
    Kind::StoppedChunked,
    Kind::StoppedLength,
    Kind::StoppedWebSocket,
];

impl Kind {
    fn path(self) -> &'static str {
        match self {
            Kind::Chunked => "/stream/chunked?n=0&every=300&size=100",
            Kind::Length => "/stream/length?n=2000&every=300&size=100",
            Kind::Close | Kind::Http10 => "/stream/close?n=2000&every=300&size=100",
            Kind::Events => "/sse?every=300",
            Kind::Silent => "/sse?silent=1",
            Kind::WebSocket => "/ws/tick?every=300",
            Kind::StoppedChunked => "/flood?sndbuf=4096",
            Kind::StoppedLength => "/flood?sndbuf=4096&framing=length",
            Kind::StoppedWebSocket => "/ws/flood?sndbuf=4096",
        }
    }

    fn stopped(self) -> bool {
        matches!(
            self,
            Kind::StoppedChunked | Kind::StoppedLength | Kind::StoppedWebSocket
        )
    }
}

/// How a client's flow ended.
struct End {
    what: String,
    at: Instant,
    /// The client could take the answer for complete.
    complete: bool,
}

/// Opens a flow, reports that it is open, and follows it to its end.
async fn follow(kind: Kind, dial: Dial, open: mpsc::Sender<()>) -> End {
    let what = format!("{kind:?}{}", if dial.tls.is_some() { " TLS" } else { "" });
    let complete = match kind {
        _ if kind.stopped() => stopped(kind, &dial, open).await,
        Kind::Http10 => http10(&dial, open).await,
        Kind::WebSocket => {
            let mut socket = ws::connect(&dial, kind.path(), &[]).await;
            let _ = open.send(()).await;
            socket.ended().await;
            false
        }
        _ => {
            let mut client = H1::connect(&dial).await;
            client
                .send("GET", kind.path(), &[], b"")
                .await
                .expect("send");
            client.head().await.expect("the head");
            let _ = open.send(()).await;
            client.rest().await.is_ok()
        }
    };
    let at = Instant::now();
    End { what, at, complete }
}

/// Opens a flow and reads nothing; the client sees the end as its socket's error.
async fn stopped(kind: Kind, dial: &Dial, open: mpsc::Sender<()>) -> bool {
    let slow = Dial {
        rcvbuf: Some(8192),
        ..dial.clone()
    };
    let stream = slow.tcp().await;
    let mut request = format!("GET {} HTTP/1.1\r\nHost: {HOST}\r\n", kind.path());
    if kind == Kind::StoppedWebSocket {
        request += "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    }
    request += "\r\n";
    match &dial.tls {
        None => reset(stream, |s| s, &request, open).await,
        Some(tls) => {
            let stream = handshake(stream, tls).await.expect("a handshake");
            reset(stream, |s| s.get_ref(), &request, open).await;
        }
    }
    false
}

/// Sends `request`, reads nothing, and waits until the underlying socket is reset.
async fn reset<S: AsyncWrite + Unpin>(
    mut stream: S,
    socket: fn(&S) -> &TcpStream,
    request: &str,
    open: mpsc::Sender<()>,
) {
    stream.write_all(request.as_bytes()).await.expect("send");
    let readable = socket(&stream).readable();
    deadline("the first byte", readable).await.expect("bytes");
    let _ = open.send(()).await;
    let reset = socket(&stream).ready(Interest::ERROR);
    deadline("a reset", reset).await.expect("a socket");
}

/// An HTTP/1.0 client sees the end of a body only by that of the connection: it must be reset.
async fn http10(dial: &Dial, open: mpsc::Sender<()>) -> bool {
    let mut io = dial.io().await;
    let request = format!(
        "GET {} HTTP/1.0\r\nHost: {HOST}\r\n\r\n",
        Kind::Http10.path()
    );
    io.write_all(request.as_bytes()).await.expect("send");
    let mut got = [0; 4096];
    deadline("bytes", io.read(&mut got)).await.expect("bytes");
    let _ = open.send(()).await;
    let mut rest = Vec::new();
    deadline("the end", io.read_to_end(&mut rest)).await.is_ok()
}

/// Fails the node's checks without touching its connections.
fn fail(node: &Node) {
    node.set_health(Health::Fail);
    node.deafen();
}

/// Aim: 500 active streams of every kind (plain, TLS, HTTP/2), a third of them not reading, on a node that
/// goes Down. Each client sees its end within a second; the time that a loaded machine let the edge or this
/// test wait for a core is not counted. No client can take its answer for complete, and its next request
/// succeeds elsewhere. Fails if flows are only closed gracefully, or only when their client reads.
#[tokio::test(flavor = "multi_thread")]
async fn every_flow_of_a_dead_node_ends() {
    let setup = Setup::start(2).await;
    setup.edge.admin("POST", "/api/nodes/n2/drain").await;
    let (open, mut opened) = mpsc::channel(FLOWS);
    let mut flows = Vec::new();
    for n in 0..FLOWS - HTTP2 {
        let kind = KINDS[n % KINDS.len()];
        let dial = if (n / KINDS.len()).is_multiple_of(3) {
            setup.tls()
        } else {
            setup.plain()
        };
        flows.push(tokio::spawn(follow(kind, dial, open.clone())));
        if n % AT_ONCE == AT_ONCE - 1 {
            began(&mut opened, AT_ONCE).await;
        }
    }
    for _ in 0..HTTP2 / STREAMS {
        let mut client = H2::connect(&setup.tls()).await;
        for _ in 0..STREAMS {
            let answer = client.open("/sse?every=300", &[]).await.expect("a head");
            let open = open.clone();
            let keep = client.clone();
            flows.push(tokio::spawn(async move {
                let _ = open.send(()).await;
                let mut body = answer.into_body();
                let complete = loop {
                    match piece(&mut body).await {
                        None => break true,
                        Some(Err(_)) => break false,
                        Some(Ok(_)) => {}
                    }
                };
                drop(keep);
                let (what, at) = ("HTTP/2".to_owned(), Instant::now());
                End { what, at, complete }
            }));
        }
    }
    began(&mut opened, HTTP2).await;
    setup.nodes[0]
        .wait("all flows", |s| s.open_now() == FLOWS)
        .await;
    setup.edge.admin("POST", "/api/nodes/n2/up").await;
    fail(&setup.nodes[0]);
    setup.edge.wait_log("node n1 is down").await;
    let down = Instant::now();
    let starved = Starved::begin(&setup);
    let mut ends = Vec::new();
    for flow in flows {
        let end = flow.await.expect("a flow that ended");
        assert!(!end.complete, "{} looks complete", end.what);
        let after = end.at.saturating_duration_since(down);
        ends.push((after, end.what));
    }
    ends.sort();
    let slowest = ends.last().expect("many flows");
    println!(
        "{FLOWS} flows, ends after Down: median {:.1?}, last {slowest:?}",
        ends[FLOWS / 2].0
    );
    print_spread(&setup, FLOWS).await;
    let starved = starved.until_now();
    println!("of that a thread waited for a core: {starved:.1?}");
    assert!(slowest.0 < Duration::from_secs(1) + starved, "{slowest:?}");
    let next = H1::connect(&setup.plain()).await.get("/hello", &[]).await;
    assert_eq!(next.node(), "n2");
    setup.nodes[0]
        .wait("no connection", |s| s.open_now() == 0)
        .await;
}

/// Waits until `n` more flows have begun: handshakes must not starve the edge's checks.
async fn began(opened: &mut mpsc::Receiver<()>, n: usize) {
    for _ in 0..n {
        let one = deadline("a flow to begin", opened.recv()).await;
        one.expect("the flows live");
    }
}

/// Opens `path` until `n1` answers.
async fn on_n1(dial: &Dial, path: &str) -> H1 {
    loop {
        let mut client = H1::connect(dial).await;
        client.send("GET", path, &[], b"").await.expect("send");
        if client.head().await.expect("a head").node() == "n1" {
            return client;
        }
    }
}

/// Aim: an eviction leaves flows of other nodes alone. An idle upstream to the dead node is closed, and its
/// client is served elsewhere on the same connection. Fails if the client's whole connection, or every node's
/// flows, are closed.
#[tokio::test(flavor = "multi_thread")]
async fn other_flows_are_left_alone() {
    let setup = Setup::start(2).await;
    setup.edge.admin("POST", "/api/nodes/n1/drain").await;
    let mut socket = ws::connect(&setup.plain(), "/ws/echo", &[]).await;
    let mut secure = ws::connect(&setup.tls(), "/ws/echo", &[]).await;
    assert_eq!((socket.node(), secure.node()), ("n2".into(), "n2".into()));
    setup.edge.admin("POST", "/api/nodes/n1/up").await;
    let mut idle = on_n1(&setup.plain(), "/hello").await;
    idle.rest().await.expect("the answer's body");
    fail(&setup.nodes[0]);
    setup.wait_state("n1", "down").await;
    setup.nodes[0]
        .wait("idle upstreams closed", |s| s.open_now() == 0)
        .await;
    assert_eq!(idle.get("/hello", &[]).await.node(), "n2");
    for socket in [&mut socket, &mut secure] {
        socket.say("alive").await;
        assert_eq!(socket.hear().await, "alive");
    }
}

/// Aim: over HTTP/2 only the stream on the dead node is reset. Its sibling on another node and the connection
/// go on. Fails if the connection is closed with the flow.
#[tokio::test(flavor = "multi_thread")]
async fn http2_loses_only_the_dead_nodes_stream() {
    let setup = Setup::start(2).await;
    let mut client = H2::connect(&setup.tls()).await;
    let mut bodies = Vec::new();
    for (name, other) in [("n1", "n2"), ("n2", "n1")] {
        let order = |word| format!("/api/nodes/{other}/{word}");
        setup.edge.admin("POST", &order("drain")).await;
        let answer = client.open("/sse?every=5", &[]).await.expect("a head");
        assert_eq!(answer.headers()["x-node"], name);
        bodies.push(answer.into_body());
        setup.edge.admin("POST", &order("up")).await;
    }
    fail(&setup.nodes[0]);
    let dead = loop {
        match piece(&mut bodies[0]).await {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert!(dead.is_some_and(|e| e.is_err()), "a cut stream looks whole");
    for _ in 0..20 {
        let alive = piece(&mut bodies[1]).await.expect("not the end");
        alive.expect("DATA of the sibling");
    }
    let next = client.get("/hello", &[]).await;
    assert_eq!(next.headers()["x-node"], "n2");
}

/// Aim: if a node dies while a request waits for its answer, another node answers it and the client notices
/// nothing. Fails if every flow of the node is cut at its client.
#[tokio::test(flavor = "multi_thread")]
async fn an_unanswered_get_moves_on() {
    let setup = Setup::start(2).await;
    for (name, dial) in setup.both() {
        setup.edge.admin("POST", "/api/nodes/n2/drain").await;
        let mut poll = H1::connect(&dial).await;
        poll.send("GET", "/poll", &[], b"").await.expect("send");
        let at = |s: &crate::node::Seen| s.open_now() == 1;
        setup.nodes[0].wait("the poll", at).await;
        setup.edge.admin("POST", "/api/nodes/n2/up").await;
        setup.nodes[0].set_health(Health::Fail);
        setup.nodes[1].wait("the poll, again", at).await;
        setup.nodes[1].answer_polls("from the other");
        poll.head().await.expect("an answer");
        assert_eq!(
            poll.rest().await.expect("its body"),
            b"from the other",
            "{name}"
        );
        drop(poll);
        setup.nodes[1].hold_polls();
        setup.nodes[1].wait("its end", |s| s.open_now() == 0).await;
        setup.nodes[0].set_health(Health::Ok);
        setup.wait_state("n1", "up").await;
    }
}

/// Aim: a client stuck to a dead node gets an assignment to another node and stays there, also when the first
/// one comes back. Fails if the cookie of a Down node is obeyed, or not replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_client_is_learned_anew() {
    let setup = Setup::with(2, "[{ sticky_cookie: { name: PUSHGATE } }]", "").await;
    let (mut first, mut cookie) = (String::new(), String::new());
    while first != "n1" {
        let answer = H1::connect(&setup.plain()).await.get("/hello", &[]).await;
        first = answer.node().to_owned();
        cookie = answer.cookies()[0].to_owned();
    }
    setup.nodes[0].set_health(Health::Fail);
    setup.wait_state("n1", "down").await;
    let mut client = H1::connect(&setup.plain()).await;
    let moved = client.get("/hello", &[("Cookie", &cookie)]).await;
    assert_eq!(moved.node(), "n2");
    let anew = moved.cookies()[0].to_owned();
    setup.nodes[0].set_health(Health::Ok);
    setup.wait_state("n1", "up").await;
    for _ in 0..6 {
        let mut client = H1::connect(&setup.plain()).await;
        let answer = client.get("/hello", &[("Cookie", &anew)]).await;
        assert_eq!((answer.node(), answer.cookies().len()), ("n2", 0));
    }
}

/// Flows of the large test, and how many of them are HTTP/2 streams.
const FLOWS: usize = 500;
const HTTP2: usize = 50;
/// Flows that open at the same time.
const AT_ONCE: usize = 30;
/// HTTP/2 streams on one connection.
const STREAMS: usize = 10;
