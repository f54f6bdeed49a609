//! D71: unauthorised requests to the admin endpoint, and metrics whose labels a client would choose.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::Dial;
use crate::client::h1::H1;
use crate::deadline;

use super::{Rig, exchange};

const YAML: &str = "
nodes: { n1: { address: 10.0.0.1:8080 } }
pools: { p: { nodes: [n1] } }
listeners:
  - name: push
    bind: [200.0.0.10:80]
    mode: http
    to: p
    # A client above its rate begins a series of its own.
    connection_rate_per_client: off
    request_rate_per_client: off
";

const TOKEN: &str = "0123456789abcdef";

/// Sends the request `line`, `Connection: close` and `fields` to the admin endpoint; returns the status.
async fn ask(rig: &Rig, row: &str, line: &str, fields: &str, body: &[u8]) -> u16 {
    let head = format!("{line} HTTP/1.1\r\nConnection: close\r\n{fields}\r\n");
    let bytes = [head.as_bytes(), body].concat();
    let stream = Dial::plain(rig.block.admin()).tcp().await;
    let answer = exchange(row, Box::new(stream), &bytes).await;
    assert!(!answer.contains(TOKEN), "{row}: {answer}");
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
    status.unwrap_or_else(|| panic!("{row}: {answer:?}"))
}

async fn still_up(rig: &Rig, row: &str) {
    let nodes = rig.edge.nodes().await;
    assert_eq!(nodes[0]["state"], "up", "{row}");
}

/// D71: without the token the endpoint shows and does nothing. With it, orders need POST, and a page of the
/// endpoint itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_token_guards_everything() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("token");
    std::fs::write(&file, format!("{TOKEN}\n")).expect("write");
    let admin = format!(
        "admin: {{ bind: 127.0.0.1:9900, token_file: {} }}\n",
        file.display()
    );
    let mut rig = Rig::start(1, &format!("{YAML}{admin}")).await;
    let host = format!("Host: {}\r\n", rig.block.admin());
    let longer = format!("Authorization: Bearer {TOKEN}0\r\n");
    let shorter = format!("Authorization: Bearer {}\r\n", &TOKEN[1..]);
    let basic = format!("Authorization: Basic {TOKEN}\r\n");
    let last = format!("Authorization: Bearer {}0\r\n", &TOKEN[..TOKEN.len() - 1]);
    let elsewhere = format!("X-Token: {TOKEN}\r\nCookie: token={TOKEN}\r\n");
    for fields in [
        "",
        &longer,
        &shorter,
        &basic,
        &last,
        &elsewhere,
        "Authorization: Bearer \r\n",
    ] {
        for line in [
            "GET /metrics",
            "GET /healthz",
            "GET /api/nodes",
            "GET /nothing",
            "POST /api/nodes/n1/down",
            "POST /api/reload",
        ] {
            let row = format!("{line} {fields}");
            assert_eq!(
                ask(&rig, &row, line, &format!("{host}{fields}"), b"").await,
                401,
                "{row}"
            );
        }
    }
    let in_query = format!("GET /metrics?token={TOKEN}");
    assert_eq!(ask(&rig, "query", &in_query, &host, b"").await, 401);
    with_the_token(&rig, &host).await;
    rig.serves("D71").await;
    assert!(!rig.edge.log().contains(TOKEN));
    rig.rest().await;
}

async fn with_the_token(rig: &Rig, host: &str) {
    let own = format!("{host}Authorization: Bearer {TOKEN}\r\n");
    let mebibyte = vec![b'x'; 1 << 20];
    let long = "Content-Length: 1048576\r\n";
    let rows: &[(&str, &str, &[u8], u16)] = &[
        ("GET /api/nodes/n1/down", "", b"", 405),
        ("PUT /api/nodes/n1/down", "", b"", 405),
        ("HEAD /api/nodes/n1/down", "", b"", 405),
        ("GET /api/reload", "", b"", 405),
        ("DELETE /api/nodes", "", b"", 405),
        ("POST /metrics", "", b"", 405),
        (
            "POST /api/nodes/n1/down",
            "Origin: http://evil.example\r\n",
            b"",
            403,
        ),
        ("POST /api/nodes/n1/down", "Origin: null\r\n", b"", 403),
        ("POST /api/nodes/n1/down", long, &mebibyte, 413),
        (
            "POST /api/nodes/n1/down",
            "Transfer-Encoding: chunked\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
            411,
        ),
        ("POST /api/nodes/n2/down", "", b"", 404),
        ("POST /api/nodes/n1/sideways", "", b"", 404),
        ("POST /api/nodes/..%2fn1/down", "", b"", 404),
        ("GET /../../../../etc/passwd", "", b"", 404),
        ("GET /%2e%2e/%2e%2e/etc/passwd", "", b"", 404),
        ("GET /metrics/../api/nodes/n1/down", "", b"", 404),
        ("GET //api/nodes", "", b"", 404),
    ];
    for (line, fields, body, status) in rows {
        let row = format!("{line} {fields}");
        assert_eq!(
            ask(rig, &row, line, &format!("{own}{fields}"), body).await,
            *status,
            "{row}"
        );
        still_up(rig, &row).await;
    }
    assert_eq!(
        ask(rig, "good", "POST /api/nodes/n1/drain", &own, b"").await,
        200
    );
    assert_eq!(rig.edge.nodes().await[0]["state"], "draining");
    assert_eq!(
        ask(rig, "good", "POST /api/nodes/n1/up", &own, b"").await,
        200
    );
}

/// D71: on loopback without a token, a name rebound to us (DNS rebinding) or another site's page gets
/// nothing.
#[tokio::test(flavor = "multi_thread")]
async fn other_sites_pages_get_nothing() {
    let mut rig = Rig::start(1, YAML).await;
    let admin = rig.block.admin();
    let own = format!("Host: {admin}\r\n");
    for (host, status) in [
        ("evil.example".to_owned(), 421),
        (format!("evil.example:{}", admin.port()), 421),
        (format!("{}.evil.example", admin.ip()), 421),
        (String::new(), 421),
        ("localhost".to_owned(), 200),
        ("[::1]:9900".to_owned(), 200),
        (admin.to_string(), 200),
    ] {
        for line in ["GET /metrics", "POST /api/nodes/n1/up"] {
            let row = format!("{line} at {host}");
            let fields = format!("Host: {host}\r\n");
            assert_eq!(ask(&rig, &row, line, &fields, b"").await, status, "{row}");
        }
    }
    for (origin, status) in [
        ("http://evil.example".to_owned(), 403),
        ("null".to_owned(), 403),
        (format!("http://{}:1", admin.ip()), 403),
        (format!("http://{admin}.evil.example"), 403),
        (format!("http://{admin}"), 200),
    ] {
        let fields = format!("{own}Origin: {origin}\r\n");
        let row = format!("from {origin}");
        let line = "POST /api/nodes/n1/up";
        assert_eq!(ask(&rig, &row, line, &fields, b"").await, status, "{row}");
    }
    for (site, status) in [
        ("cross-site", 403),
        ("same-site", 403),
        ("whatever", 403),
        ("none", 200),
        ("same-origin", 200),
    ] {
        let fields = format!("{own}Sec-Fetch-Site: {site}\r\n");
        let row = format!("Sec-Fetch-Site: {site}");
        let line = "POST /api/nodes/n1/up";
        assert_eq!(ask(&rig, &row, line, &fields, b"").await, status, "{row}");
        assert_eq!(ask(&rig, &row, "GET /readyz", &fields, b"").await, 200);
    }
    still_up(&rig, "others").await;
    rig.rest().await;
}

/// D71: clients that never finish a head are closed in time and delay no other client.
#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_of_the_endpoint() {
    let mut rig = Rig::start(1, YAML).await;
    let dial = Dial::plain(rig.block.admin());
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut stream = dial.tcp().await;
        stream.write_all(b"GET /metrics HT").await.expect("send");
        slow.push(stream);
    }
    let start = Instant::now();
    still_up(&rig, "slow").await;
    assert!(start.elapsed() < Duration::from_secs(2), "others wait");
    for stream in &mut slow {
        let mut rest = Vec::new();
        // Either way of closing is right.
        let _ = deadline("the end of a slow client", stream.read_to_end(&mut rest)).await;
    }
    assert!(start.elapsed() < Duration::from_secs(15));
    rig.rest().await;
}

/// D71: no metrics label holds what a client sent. Fails if the number of samples grows with the number of
/// hosts, paths, methods or cookies, or if a client can forge a line of the metrics.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_labels_are_a_closed_set() {
    let mut rig = Rig::start(1, YAML).await;
    let one = async |n: usize| {
        let host = format!("evil{n}.example");
        let headers = [
            ("Host", host.as_str()),
            ("Cookie", "a=evil"),
            ("X-Client-Id", "evil"),
        ];
        let mut client = H1::connect(&rig.good).await;
        client.get(&format!("/hello?evil={n}"), &headers).await;
        client
            .request("EVIL", &format!("/evil{n}"), &headers, b"")
            .await;
    };
    one(0).await;
    let before = rig.edge.metrics().await.len();
    for n in 1..200 {
        one(n).await;
    }
    let text = rig.edge.admin("GET", "/metrics").await.text();
    assert!(!text.contains("evil") && !text.contains("EVIL"), "{text}");
    assert_eq!(rig.edge.metrics().await.len(), before);
    rig.rest().await;
}
