//! Tests the demo's nodes with real clients, and the configuration that the edge gets.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use super::*;
use crate::config::Config;

const DEADLINE: Duration = Duration::from_secs(10);

/// Starts the nodes, on a runtime that lives as long as the test.
fn nodes() -> (tokio::runtime::Runtime, [SocketAddr; 2]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let nodes = runtime
        .block_on(serve_nodes("http://127.0.0.1:1/metrics"))
        .unwrap();
    (runtime, nodes)
}

/// Starts curl with `arguments`; its standard output is a pipe.
fn curl(arguments: &[&str]) -> Child {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-N", "--max-time", "10"]).args(arguments);
    curl.stdout(Stdio::piped())
        .spawn()
        .expect("curl is installed")
}

/// Runs curl and returns its whole standard output.
fn curled(arguments: &[&str]) -> String {
    let output = curl(arguments).wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text:?}"))
}

/// Reads until `part` has arrived; returns everything read.
fn read_until(from: &mut impl Read, part: &str) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(part) {
        let mut byte = [0];
        from.read_exact(&mut byte).unwrap_or_else(|e| {
            panic!(
                "{e} before {part:?} in {:?}",
                String::from_utf8_lossy(&seen)
            )
        });
        seen.push(byte[0]);
    }
    String::from_utf8(seen).unwrap()
}

/// Aim: each stream sends its first message at once, and further ones long before its end. Fails if a
/// message waits for the next one, which comes after a minute, or for the stream's end.
#[test]
fn streams_push_at_once() {
    let (_runtime, [north, south]) = nodes();
    for (path, framing) in [
        ("/sse", "transfer-encoding: chunked"),
        ("/stream/chunked", "transfer-encoding: chunked"),
        ("/stream/length", "content-length: 7680"),
    ] {
        for (node, name) in [(north, "north"), (south, "south")] {
            let first = format!(r#"{{"node":"{name}","count":1,"#);
            let mut slow = curl(&["-i", &format!("http://{node}{path}?every_ms=60000")]);
            let head = read_until(slow.stdout.as_mut().unwrap(), &first);
            assert!(head.contains(framing), "{path}: {head}");
            slow.kill().and_then(|()| slow.wait()).unwrap();
        }
        let mut fast = curl(&[&format!("http://{north}{path}?every_ms=1")]);
        read_until(fast.stdout.as_mut().unwrap(), r#""count":100,"#);
        fast.kill().and_then(|()| fast.wait()).unwrap();
    }
}

/// Aim: the Content-Length stream is as long as announced, to the byte; otherwise curl fails.
#[test]
fn length_stream_is_complete() {
    let (_runtime, [north, _]) = nodes();
    let all = curled(&["-f", &format!("http://{north}/stream/length?every_ms=1")]);
    let counts: Vec<_> = all
        .lines()
        .map(|line| json(line)["count"].as_u64().unwrap())
        .collect();
    assert_eq!(counts, (1..=120).collect::<Vec<_>>());
    assert_eq!(all.len(), 7680);
}

/// Aim: short answers carry the node's name and the node's own count.
#[test]
fn short_answers_are_stamped() {
    let (_runtime, [north, south]) = nodes();
    for (node, name) in [(north, "north"), (south, "south")] {
        for (count, path) in [(1, "/hello"), (2, "/poll?every_ms=1"), (3, "/hello")] {
            let got = json(&curled(&[&format!("http://{node}{path}")]));
            assert_eq!(
                (got["node"].as_str(), got["count"].as_u64()),
                (Some(name), Some(count))
            );
        }
    }
}

/// Aim: on a WebSocket the node speaks first and counts its messages; the client's message comes back.
#[test]
fn websocket_pushes_and_echoes() {
    let (runtime, [_, south]) = nodes();
    runtime.block_on(async {
        let url = format!("ws://{south}/ws?every_ms=1");
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let mut next = async || match timeout(DEADLINE, socket.next()).await.unwrap() {
            Some(Ok(Message::Text(text))) => json(&text),
            other => panic!("{other:?}"),
        };
        for count in 1..=3 {
            let got = next().await;
            assert_eq!(
                (got["node"].as_str(), got["count"].as_u64()),
                (Some("south"), Some(count))
            );
        }
        let url = format!("ws://{south}/ws?every_ms=60000");
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let _first = timeout(DEADLINE, socket.next()).await.unwrap();
        socket.send(Message::text("hi")).await.unwrap();
        let echo = timeout(DEADLINE, socket.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(echo, Message::text("hi"));
    });
}

/// Aim: a node answers ping and close, echoes a fragmented message as one, and closes the connection of a client
/// that sends too much. Fails without the answers in `talk` or if `Socket` does not join the fragments.
#[test]
fn websocket_keeps_to_the_protocol() {
    let (runtime, [_, south]) = nodes();
    runtime.block_on(async {
        let url = format!("ws://{south}/ws?every_ms=60000");
        let connect = async || {
            let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
            let _first = timeout(DEADLINE, socket.next()).await.unwrap();
            socket
        };
        let part = |text: &'static str, opcode, last| {
            Message::Frame(Frame::message(text, OpCode::Data(opcode), last))
        };
        let (mut socket, long) = (connect().await, "x".repeat(64 * 1024));
        let cases = [
            (vec![Message::Ping("p".into())], Message::Pong("p".into())),
            (vec![Message::text(&long)], Message::text(&long)),
            (
                vec![
                    part("a", Data::Text, false),
                    part("b", Data::Continue, true),
                ],
                Message::text("ab"),
            ),
            (vec![Message::Close(None)], Message::Close(None)),
        ];
        for (sent, expected) in cases {
            for message in sent {
                socket.send(message).await.unwrap();
            }
            let got = timeout(DEADLINE, socket.next()).await.unwrap();
            assert_eq!(got.unwrap().unwrap(), expected);
        }
        let mut socket = connect().await;
        socket.send(Message::text(long + "x")).await.unwrap();
        let ended = timeout(DEADLINE, socket.next()).await.unwrap();
        assert!(!matches!(ended, Some(Ok(_))), "{ended:?}");
    });
    let status = ["-o", "/dev/null", "-w", "%{http_code}"];
    let url = format!("http://{south}/ws");
    assert_eq!(curled(&[&status[..], &[&url]].concat()), "400");
}

/// Aim: either node can stop one of the two, whose health check then fails; both are never stopped. A start
/// makes the check pass again. Fails if a stop does not look at the other node.
#[test]
fn switches_stop_one_node_at_most() {
    let (_runtime, [north, south]) = nodes();
    let status = |method: &str, node: SocketAddr, path: &str| {
        let url = format!("http://{node}{path}");
        curled(&["-X", method, "-o", "/dev/null", "-w", "%{http_code}", &url])
    };
    let health = || [north, south].map(|node| status("GET", node, "/healthz"));
    let stop = |node, name| status("POST", node, &format!("/demo/nodes/{name}/stop"));
    assert_eq!(health(), ["200", "200"]);
    assert_eq!(
        status("GET", south, "/demo/nodes/north/stop"),
        "405",
        "a change is a POST"
    );
    assert_eq!(stop(south, "nobody"), "404");
    assert_eq!(stop(south, "north"), "200");
    assert_eq!(health(), ["503", "200"]);
    assert_eq!(stop(south, "south"), "409");
    assert_eq!(stop(south, "north"), "200", "again is fine");
    assert_eq!(health(), ["503", "200"]);
    let overview = json(&curled(&[&format!("http://{south}/demo/nodes")]));
    assert_eq!(overview["here"], "south");
    assert_eq!(
        overview["nodes"][0],
        serde_json::json!({ "name": "north", "up": false })
    );
    assert_eq!(status("POST", south, "/demo/nodes/north/start"), "200");
    assert_eq!(health(), ["200", "200"]);
}

/// Aim: "forget me" expires exactly the cookie that the edge sets.
#[test]
fn forgetting_expires_the_cookie() {
    let (_runtime, [north, _]) = nodes();
    let head = curled(&["-i", "-X", "POST", &format!("http://{north}/demo/forget")]);
    let expected = format!("set-cookie: {COOKIE}=; Path=/; Max-Age=0; HttpOnly");
    assert!(head.contains(&expected), "{head}");
}

/// Aim: the configuration passes the checks of every file, and binds loopback addresses only.
#[test]
fn configuration_decodes() {
    let nodes = ["127.0.0.1:7001", "127.0.0.1:7002"].map(|a| a.parse().unwrap());
    let text = configuration(7000, 7003, nodes);
    let config = Config::parse(&text, "demo", Path::new("."));
    let config = config.unwrap_or_else(|faults| panic!("{faults}\nin\n{text}"));
    assert_eq!(
        config.listeners[0].bind,
        ["127.0.0.1:7000".parse().unwrap()]
    );
    assert_eq!(
        config.admin.unwrap().bind,
        "127.0.0.1:7003".parse().unwrap()
    );
    for (name, address) in NAMES.iter().zip(nodes) {
        assert_eq!(config.nodes[*name].address.socket(), Some(address));
    }
}

/// Aim: the nodes answer as soon as the demo has started, and every printed command names the edge.
#[test]
fn banner_names_what_runs() {
    let demo = Demo::start(0).unwrap();
    let text = demo.banner();
    assert!(
        text.contains(&format!("\npage:      http://{}/\n", demo.edge)),
        "{text}"
    );
    let lines = text.lines().filter(|l| l.trim_start().starts_with("curl"));
    assert!(lines.clone().count() == 5 && { lines }.all(|l| l.contains(&demo.edge.to_string())));
    let config: serde_yaml::Value = serde_yaml::from_str(&demo.configuration).unwrap();
    let south = config["nodes"]["south"]["address"].as_str().unwrap();
    assert!(curled(&[&format!("http://{south}/hello")]).contains("south"));
}
