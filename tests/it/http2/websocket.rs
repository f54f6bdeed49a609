//! WebSockets over HTTP/2 streams: the request, the messages, the end.
//!
//! In: extended CONNECT, a node whose answers and sockets the test controls. Out: the upgrade that the node
//! read, the answer that the client read, bytes and ends both ways. Source: RFC 8441 §3 to §5; RFC 6455 §4.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::certs::{Certs, Key};
use crate::client::h2::H2;
use crate::client::{Dial, h2_ws};
use crate::deadline;
use crate::edge::Edge;
use crate::setup::{self, HOST, Setup};
use crate::vip::Block;

/// Ends of either side.
mod ends;
/// Many messages at once.
mod many;

/// `tls` of a listener that accepts WebSockets over HTTP/2.
const TAKES: &str = "certificates: [push], h2_websocket: true";

/// As [`Setup::with`], where the TLS VIP accepts WebSockets over HTTP/2.
pub async fn start(nodes: u8, plugins: &str, pool: &str) -> Setup {
    start_more(nodes, plugins, pool, "").await
}

/// As [`start`]; `listeners` are more listeners, as in [`Setup::and`].
pub async fn start_more(nodes: u8, plugins: &str, pool: &str, listeners: &str) -> Setup {
    let (block, certs) = (Block::claim(), Certs::new());
    certs.leaf("push", &[HOST], Key::Ecdsa);
    let mut running = Vec::new();
    for n in 1..=nodes {
        running.push(setup::node(&block, n).await);
    }
    let yaml = setup::yaml(&certs, nodes, plugins, pool).replace("certificates: [push]", TAKES);
    let edge = Edge::start(&block, &(yaml + listeners)).await;
    Setup {
        block,
        nodes: running,
        edge,
        certs,
    }
}

/// The node's answer for a request's head.
type Answer = fn(&str) -> String;

/// A scripted node that leaves its sockets to the test, behind an edge.
struct Rig {
    block: Block,
    certs: Certs,
    edge: Edge,
    /// Head and socket of each request.
    asked: mpsc::Receiver<(String, TcpStream)>,
}

impl Rig {
    async fn start(answer: Answer) -> Rig {
        let (block, certs) = (Block::claim(), Certs::new());
        certs.leaf("push", &[HOST], Key::Ecdsa);
        let dir = certs.dir().display();
        let yaml = format!(
            "nodes: {{ n1: {{ address: 10.0.0.9:8080 }} }}\n\
             certificates: {{ push: {{ chain: {dir}/push.pem, key: {dir}/push.key }} }}\n\
             listeners:\n  - {{ name: tls, bind: [200.0.0.10:443], mode: http, to: n1, \
             tls: {{ {TAKES} }} }}\n"
        );
        let listener = TcpListener::bind(block.at("10.0.0.9:8080")).await;
        let (tell, asked) = mpsc::channel(64);
        tokio::spawn(accept(listener.expect("bind"), answer, tell));
        let edge = Edge::start(&block, &yaml).await;
        Rig {
            block,
            certs,
            edge,
            asked,
        }
    }

    async fn client(&self) -> H2 {
        let at = self.block.at("200.0.0.10:443");
        H2::connect(&Dial::tls(at, HOST, self.certs.ca())).await
    }

    /// Waits for the next request at the node.
    async fn next(&mut self) -> (String, TcpStream) {
        deadline("a request", self.asked.recv()).await.expect("one")
    }
}

async fn accept(listener: TcpListener, answer: Answer, tell: mpsc::Sender<(String, TcpStream)>) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let mut got = Vec::new();
        while memchr::memmem::find(&got, b"\r\n\r\n").is_none() {
            if !matches!(stream.read_buf(&mut got).await, Ok(n) if n > 0) {
                break;
            }
        }
        let head = String::from_utf8_lossy(&got).into_owned();
        let sent = stream.write_all(answer(&head).as_bytes()).await;
        if sent.is_err() || tell.send((head, stream)).await.is_err() {
            return;
        }
    }
}

/// All values of a field of a head.
fn values<'h>(head: &'h str, name: &str) -> Vec<&'h str> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let named = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.trim()).collect()
}

/// A 101 with `more` lines that accepts the upgrade of `head`.
fn accepts(head: &str, more: &str) -> String {
    let key = values(head, "sec-websocket-key");
    let accept = derive_accept_key(key.first().unwrap_or(&"").as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
}

/// Aim: an extended CONNECT reaches the node as an HTTP/1.1 upgrade with one key of the edge's own and with
/// the client's other fields. The 101 reaches the client as a 200 without upgrade fields. Source: RFC 8441
/// §5. Fails if a client's key is passed in addition to ours, if a key is used twice, or if a field is lost.
#[tokio::test(flavor = "multi_thread")]
async fn an_extended_connect_is_an_upgrade() {
    let mut rig = Rig::start(|head| {
        let more = "Sec-WebSocket-Protocol: v2.push\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\
                    Set-Cookie: app=1\r\n";
        accepts(head, more)
    })
    .await;
    let mut client = rig.client().await;
    let mut keys = Vec::new();
    for own_key in [None, Some("dGhlIHNhbXBsZSBub25jZQ==")] {
        let mut fields = vec![
            ("sec-websocket-protocol", "v1.push, v2.push"),
            ("sec-websocket-extensions", "permessage-deflate; x=1"),
            ("origin", "https://push.mycompany.com"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
        ];
        fields.extend(own_key.map(|key| ("sec-websocket-key", key)));
        let answer = h2_ws::ask(&mut client, "/ws?x=1", &fields).await;
        let answer = answer.expect("an answer");
        let (head, _socket) = rig.next().await;
        assert!(head.starts_with("GET /ws?x=1 HTTP/1.1\r\n"), "{head}");
        for (name, value) in [
            ("host", HOST),
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "v1.push, v2.push"),
            ("sec-websocket-extensions", "permessage-deflate; x=1"),
            ("origin", "https://push.mycompany.com"),
            ("cookie", "a=1; b=2"),
        ] {
            assert_eq!(values(&head, name), [value], "{head}");
        }
        for name in ["content-length", "transfer-encoding", ":protocol"] {
            assert!(values(&head, name).is_empty(), "{name}: {head}");
        }
        let key = values(&head, "sec-websocket-key");
        assert_eq!(key.len(), 1, "{head}");
        assert!(key[0].len() == 24 && Some(key[0]) != own_key, "{head}");
        keys.push(key[0].to_owned());
        assert_eq!(answer.status(), 200);
        let field = |name: &str| answer.headers().get(name).map(|v| v.as_bytes());
        assert_eq!(field("sec-websocket-protocol"), Some(&b"v2.push"[..]));
        let extensions = field("sec-websocket-extensions");
        assert_eq!(extensions, Some(&b"permessage-deflate"[..]));
        assert_eq!(field("set-cookie"), Some(&b"app=1"[..]));
        for name in ["sec-websocket-accept", "upgrade", "connection"] {
            assert_eq!(field(name), None, "{name}");
        }
    }
    assert_ne!(keys[0], keys[1]);
}

/// Aim: only a 101 with the right Accept makes a WebSocket. Any other 2xx or 101 is a 502, because a client
/// takes each 2xx for a WebSocket. A refusal is passed on with its body. The stream's siblings go on. Source:
/// RFC 8441 §5; RFC 6455 §4.1. Fails if the status alone decides, or if a refusal is hidden.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_right_accept_makes_a_websocket() {
    let mut rig = Rig::start(|head| match head.split(' ').nth(1) {
        Some("/wrong") => {
            let key = values(head, "sec-websocket-key");
            accepts(head, "").replace(&derive_accept_key(key[0].as_bytes()), &"A".repeat(28))
        }
        Some("/none") => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                          Connection: Upgrade\r\n\r\n"
            .into(),
        Some("/200") => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".into(),
        Some("/204") => "HTTP/1.1 204 No Content\r\n\r\n".into(),
        Some("/302") => "HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n".into(),
        Some("/403") => "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno".into(),
        _ => accepts(head, ""),
    })
    .await;
    let mut client = rig.client().await;
    let sibling = h2_ws::ask(&mut client, "/right", &[]).await;
    let mut sibling = sibling.expect("an answer").into_body();
    let (_, mut at_node) = rig.next().await;
    for (path, status, body) in [
        ("/wrong", 502, None),
        ("/none", 502, None),
        ("/200", 502, None),
        ("/204", 502, None),
        ("/302", 302, Some("")),
        ("/403", 403, Some("no")),
    ] {
        let answer = h2_ws::ask(&mut client, path, &[]).await.expect(path);
        assert_eq!(answer.status(), status, "{path}");
        let mut got = String::new();
        let read = answer.into_body().read_to_string(&mut got).await;
        if let Some(body) = body {
            read.expect("an orderly end");
            assert_eq!(got, body, "{path}");
        }
        rig.next().await;
    }
    let lines = rig.edge.wait_access("six lines", |l| l.len() == 6).await;
    for (line, status) in lines.iter().zip([502, 502, 502, 502, 302, 403]) {
        assert_eq!(line["protocol"], "websocket", "{line}");
        assert_eq!(line["status"], status, "{line}");
    }
    sibling.write_all(b"on").await.expect("send");
    let mut got = [0; 2];
    deadline("bytes", at_node.read_exact(&mut got))
        .await
        .expect("bytes");
    assert_eq!(&got, b"on");
}

/// Aim: an extended CONNECT for another protocol is a 501, a plain CONNECT a 405, with the key and without
/// it. Without the key the edge does not announce extended CONNECT, and a WebSocket is a 501 too. None of
/// them reaches the node. Source: RFC 8441 §3, §4; RFC 9110 §9.3.6. Fails if the edge tunnels an unknown
/// protocol.
#[tokio::test(flavor = "multi_thread")]
async fn other_protocols_are_refused() {
    let (with, without) = (start(1, "", "").await, Setup::start(1).await);
    for (setup, takes) in [(with, true), (without, false)] {
        let mut client = H2::connect(&setup.tls()).await;
        assert_eq!(client.get("/hello", &[]).await.status(), 200);
        assert_eq!(client.takes_protocols(), takes);
        for (protocol, status) in [
            (Some("connect-udp"), 501),
            (Some("WebSocket"), 501),
            (None, 405),
            (Some("websocket"), if takes { 200 } else { 501 }),
        ] {
            let asked = client
                .connect_to(protocol, "/ws/echo", &[h2_ws::VERSION])
                .await;
            let (answer, _open) = asked.expect("an answer");
            assert_eq!(answer.status(), status, "{protocol:?}, {takes}");
        }
        let requests = setup.nodes[0].seen().requests().len();
        assert_eq!(requests, 1 + usize::from(takes));
    }
}

/// Lengths around those at which a frame's head grows, a window, and a mebibyte.
const LENGTHS: [usize; 8] = [0, 1, 125, 126, 65_535, 65_536, 200_000, 1 << 20];

/// Aim: messages pass both ways whole and in order, also those in one write with the 101. The access line has
/// `websocket`, the node's 101, and every byte of the frames, without the head. Fails if a frame's bytes are
/// counted twice, or if DATA is cut at a window.
#[tokio::test(flavor = "multi_thread")]
async fn messages_pass_whole_and_are_counted() {
    let setup = start(1, "", "").await;
    let mut client = H2::connect(&setup.tls()).await;
    let mut first = h2_ws::connect(&mut client, "/ws/first?n=3", &[]).await;
    for n in 0..3 {
        assert_eq!(first.hear().await, format!("first {n}"));
    }
    drop(first);
    let lines = setup.edge.wait_access("a line", |l| l.len() == 1).await;
    // Three frames, each two bytes and its text.
    assert_eq!(lines[0]["bytes_down"], 3 * (2 + 7), "{}", lines[0]);
    assert_eq!(lines[0]["bytes_up"], 0, "{}", lines[0]);
    let mut socket = h2_ws::connect(&mut client, "/ws/echo", &[]).await;
    let (mut up, mut down) = (0, 0);
    for length in LENGTHS {
        let text: String = (0..length)
            .map(|n| char::from(b'a' + (n % 26) as u8))
            .collect();
        socket.say(&text).await;
        assert!(socket.hear().await == text, "{length}");
        let head = match length {
            0..=125 => 2,
            126..=65_535 => 4,
            _ => 10,
        };
        down += head + length;
        up += head + 4 + length;
    }
    // Its close frame has no code; the node answers it with its own.
    socket.socket.close(None).await.expect("a close frame");
    socket.ended().await;
    let lines = setup.edge.wait_access("its line", |l| l.len() == 2).await;
    let line = &lines[1];
    assert_eq!(
        (&line["protocol"], &line["status"]),
        (&"websocket".into(), &101.into())
    );
    assert_eq!(line["bytes_up"], up + 2 + 4, "{line}");
    assert_eq!(line["bytes_down"], down + 2, "{line}");
}

/// Aim: the 200 carries the sticky cookie and the application's own. The cookie leads the next WebSocket and
/// the next request to the same node, each on a new connection. Fails if plugins do not edit a 101 that
/// becomes a 200.
#[tokio::test(flavor = "multi_thread")]
async fn the_200_sets_the_cookie() {
    let balance = "    balance: round_robin\n";
    let setup = start(2, "[{ sticky_cookie: { name: PUSHGATE } }]", balance).await;
    for _ in 0..2 {
        let mut client = H2::connect(&setup.tls()).await;
        let first = h2_ws::connect(&mut client, "/ws/echo?cookie=app%3D1", &[]).await;
        let cookies = first.response.headers().get_all("set-cookie").iter();
        let cookies: Vec<_> = cookies.map(|c| c.to_str().expect("text")).collect();
        assert!(cookies.contains(&"app=1"), "{cookies:?}");
        let ours = cookies.iter().find(|c| c.starts_with("PUSHGATE="));
        let ours = ours.expect("the sticky cookie").split(';').next();
        let cookie = [("cookie", ours.expect("a value"))];
        for _ in 0..3 {
            let mut again = H2::connect(&setup.tls()).await;
            let socket = h2_ws::connect(&mut again, "/ws/echo", &cookie).await;
            assert_eq!(socket.node(), first.node());
            let hello = again.get("/hello", &cookie).await;
            assert_eq!(hello.headers()["x-node"], first.node());
        }
    }
}
