//! Common clients over HTTP/2: the http2 module of Node.js, curl, Java's HttpClient.
//!
//! In: a program of each. Out: whole answers over HTTP/2, streamed bodies, 100 Continue, WebSockets if the
//! client has them. Source: RFC 9113; RFC 8441; RFC 9110 §10.1.1 (Expect).

use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use super::websocket::start;
use crate::client::{curl, curl_at};
use crate::setup::{HOST, Setup};
use crate::vip::port;

/// Runs a program and returns its output; it must succeed within a minute.
async fn output(command: &mut Command) -> String {
    let output = tokio::time::timeout(Duration::from_secs(60), command.kill_on_drop(true).output());
    let output = output.await.expect("an end in time");
    let output = output.expect("it is installed (`tests/setup.sh test`)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Number of client connections, and the protocols, in all access lines.
async fn connections(setup: &Setup, lines: usize) -> (usize, Vec<String>) {
    let all = setup
        .edge
        .wait_access("all lines", |l| l.len() >= lines)
        .await;
    let clients = all.iter().map(|l| l["client"].to_string());
    let protocols = all.iter().filter_map(|l| l["protocol"].as_str());
    let protocols: std::collections::BTreeSet<_> = protocols.map(str::to_owned).collect();
    let clients: std::collections::BTreeSet<_> = clients.collect();
    (clients.len(), protocols.into_iter().collect())
}

/// Aim: Node.js's http2 module: parallel streams, an upload in pieces, 100 Continue, and a WebSocket by
/// extended CONNECT, all on one connection. Fails if one of them differs from HTTP/1.
#[tokio::test(flavor = "multi_thread")]
async fn node_speaks_to_us() {
    let setup = start(1, "", "").await;
    let at = setup.block.at("200.0.0.10:443");
    let mut node = Command::new("node");
    node.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/js/http2.js"))
        .args([
            format!("https://{HOST}"),
            at.ip().to_string(),
            at.port().to_string(),
        ])
        .env("NODE_EXTRA_CA_CERTS", setup.certs.ca_file());
    let said = output(&mut node).await;
    let said: Value = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
    assert_eq!(said["takesWebsockets"], true, "{said}");
    assert_eq!(said["hello"]["status"], 200, "{said}");
    let stream = &said["stream"];
    assert_eq!(
        stream["body"].as_str().map(str::len),
        Some(20 * 101),
        "{said}"
    );
    assert!(stream["pieces"].as_u64() > Some(10), "{said}");
    assert_eq!(said["upload"]["body"], "one two three", "{said}");
    assert_eq!(
        (&said["expect"]["body"], &said["expect"]["continued"]),
        (&json!("body"), &json!(1))
    );
    assert_eq!(said["websocket"], "hello", "{said}");
    let protocols = ["h2", "websocket"].map(str::to_owned).to_vec();
    assert_eq!(connections(&setup, 5).await, (1, protocols));
}

/// Aim: curl: a chunked body of unknown length, a body that waits for 100 Continue, several answers at once
/// on one connection. Fails if curl falls back to HTTP/1.1, or waits for a 100 that does not come.
#[tokio::test(flavor = "multi_thread")]
async fn curl_speaks_to_us() {
    let setup = Setup::start(1).await;
    let at = setup.block.at("200.0.0.10:443");
    let url = format!("https://{HOST}:{}", port(443));
    let base = curl_at(HOST, at, Some(setup.certs.ca_file()));
    let base: Vec<&str> = base.iter().map(String::as_str).chain(["--http2"]).collect();
    let told = "\n%{http_version} %{http_code}";
    let echo = format!("{url}/echo");
    let body = "x".repeat(200_000);
    let file = setup.certs.dir().join("body");
    std::fs::write(&file, &body).expect("a file");
    let data = format!("@{}", file.display());
    for field in ["Expect: 100-continue", "Expect:"] {
        let post = ["--data-binary", &data, "-H", field, "-w", told, &echo];
        let said = curl(&[&base[..], &post].concat()).await;
        assert!(said == format!("{body}\n2 200"), "{field}: {:.100}", said);
    }
    let path = file.display().to_string();
    let streamed = [
        "--upload-file",
        &path,
        "-X",
        "POST",
        "-H",
        "Content-Length:",
        "-w",
        told,
        &echo,
    ];
    let said = curl(&[&base[..], &streamed].concat()).await;
    assert!(said.ends_with("\n2 200"), "{:.100}", said);
    let events = format!("{url}/sse?n=20&every=5");
    let (hello, many) = (format!("{url}/hello"), ["--parallel", "-w", told]);
    let said = curl(&[&base[..], &many, &[&events, &hello, &hello, &hello]].concat()).await;
    assert_eq!(said.matches("2 200").count(), 4, "{said}");
    assert_eq!(said.matches("data: n1").count(), 20, "{said}");
}

/// Aim: Java's HttpClient: bodies of known and of unknown length, with 100 Continue and refused before it,
/// events, 50 requests at once, and its WebSocket, which uses HTTP/1.1. Fails if requests fall back to
/// HTTP/1.1, or if the client hangs without a 100.
#[tokio::test(flavor = "multi_thread")]
async fn java_speaks_to_us() {
    let setup = start(1, "", "").await;
    let hosts = setup.certs.dir().join("hosts");
    let at = setup.block.ip("200.0.0.10");
    std::fs::write(&hosts, format!("{at} {HOST}\n")).expect("a file");
    let mut java = Command::new("java");
    java.arg(format!("-Djdk.net.hosts.file={}", hosts.display()))
        .arg(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/java/Http2.java"
        ))
        .arg(format!("https://{HOST}:{}", port(443)))
        .arg(setup.certs.ca_file());
    let said = output(&mut java).await;
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(
        lines,
        [
            "hello HTTP_2 200 5",
            "length HTTP_2 200 300000",
            "streamed HTTP_2 200 300000",
            "expects HTTP_2 200 300000",
            "refused HTTP_2 404 13",
            "events 20",
            "many 50",
            "websocket hello",
        ]
    );
    let (clients, _) = connections(&setup, 56).await;
    assert!(
        clients <= 2,
        "{clients}: one of HTTP/2, one of the WebSocket"
    );
}
