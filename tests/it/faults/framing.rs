//! D1–D13: requests with two readings, or with no legal one. Source: RFC 9112 §2.2, §3, §5, §6, §7.1.

use std::fmt::Write;

use crate::client::h1::H1;
use crate::deadline;

use super::{Counted, Rig, SECRET, SMUGGLED, Verdict, request};

const YAML: &str = "
nodes: { n1: { address: 10.0.0.1:8080 } }
pools: { p: { nodes: [n1] } }
listeners:
  - { name: push, bind: [200.0.0.10:80], mode: http, to: p, head_timeout: 1s }
";

/// Rows whose fault is in the fields: id, fields, status.
const FIELDS: &[(&str, &str, u16)] = &[
    (
        "D1 CL and TE",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        400,
    ),
    (
        "D1 TE and CL",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        400,
    ),
    (
        "D2 equal",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        400,
    ),
    (
        "D2 different",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        400,
    ),
    ("D2 list", "Content-Length: 5, 5\r\n", 400),
    ("D3 +5", "Content-Length: +5\r\n", 400),
    ("D3 -1", "Content-Length: -1\r\n", 400),
    ("D3 0x5", "Content-Length: 0x5\r\n", 400),
    ("D3 5 5", "Content-Length: 5 5\r\n", 400),
    ("D3 empty", "Content-Length: \r\n", 400),
    ("D3 2^64", "Content-Length: 18446744073709551616\r\n", 400),
    ("D4 xchunked", "Transfer-Encoding: xchunked\r\n", 400),
    (
        "D4 chunked, identity",
        "Transfer-Encoding: chunked, identity\r\n",
        400,
    ),
    ("D4 identity", "Transfer-Encoding: identity\r\n", 400),
    ("D4 q", "Transfer-Encoding: chunked;q=1\r\n", 400),
    ("D4 fold", "Transfer-Encoding:\r\n chunked\r\n", 400),
    ("D4 vtab", "Transfer-Encoding: \x0bchunked\r\n", 400),
    (
        "D4 two lines",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        400,
    ),
    ("D4 underscore", "Transfer_Encoding: chunked\r\n", 400),
    ("D7 bare LF", "X: y\nA: b\r\n", 400),
    ("D7 CR in value", "X: a\rb\r\n", 400),
    ("D7 fold", "X: a\r\n b\r\n", 400),
    ("D7 space before colon", "Content-Length : 5\r\n", 400),
    ("D7 NUL", "X: a\0b\r\n", 400),
    ("D7 DEL", "X: a\x7fb\r\n", 400),
    ("D8 empty name", ": x\r\n", 400),
    ("D8 space in name", "A b: x\r\n", 400),
    ("D8 control in name", "A\x01b: x\r\n", 400),
    ("D10 two hosts", "Host: push.mycompany.com\r\n", 400),
    (
        "D18 upgrade with a body",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n",
        400,
    ),
];

/// Rows that are whole heads: id, head, status.
const HEADS: &[(&str, &str, u16)] = &[
    (
        "D5 TE in 1.0",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    ("D7 only LF", "GET / HTTP/1.1\nHost: a\n\n", 400),
    (
        "D7 leading space",
        " GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    ),
    (
        "D7 first line folded",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        400,
    ),
    ("D10 no host", "GET / HTTP/1.1\r\n\r\n", 400),
    ("D10 userinfo", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    ("D10 fragment", "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", 400),
    ("D10 port 0", "GET / HTTP/1.1\r\nHost: a:0\r\n\r\n", 400),
    ("D10 comma", "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
    (
        "D10 absolute differs",
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    ),
    ("D11 lower case", "get / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (
        "D11 CONNECT",
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
        405,
    ),
    ("D11 TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    ("D11 PRI", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("D9 version", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
];

/// Bytes after each bad head: a request, in case the edge reads on.
fn behind() -> String {
    format!("0\r\n\r\nGET /{SMUGGLED} HTTP/1.1\r\nHost: a\r\n\r\n")
}

/// D1–D11: the answer is 4xx, the connection closes, and the edge connects to no node. Fails if a head that
/// the strict reading refuses reaches the hooks, or if the bytes after it are read as a request.
#[tokio::test(flavor = "multi_thread")]
async fn heads_with_two_readings_are_refused() {
    let mut rig = Rig::start(1, YAML).await;
    for (row, fields, status) in FIELDS {
        let bytes = [request("POST", "/echo", fields), behind().into_bytes()].concat();
        rig.judge(row, &bytes, Verdict::refused(*status)).await;
    }
    for (row, head, status) in HEADS {
        let bytes = [head.as_bytes(), behind().as_bytes()].concat();
        rig.judge(row, &bytes, Verdict::refused(*status)).await;
    }
    rig.rest().await;
}

/// D8, D9, D11: heads beyond the limits are refused, in bounded memory. Fails if the answer is lost because
/// the client was still sending.
#[tokio::test(flavor = "multi_thread")]
async fn heads_beyond_the_limits_are_refused() {
    let mut rig = Rig::start(1, YAML).await;
    let line = |n: usize| request("GET", "/hello", &"X: y\r\n".repeat(n));
    let name = |n: usize| request("GET", "/hello", &format!("{}: x\r\n", "a".repeat(n)));
    let block = request("GET", "/hello", &format!("X: {}\r\n", "a".repeat(1 << 20)));
    let rows: &[(&str, Vec<u8>, u16)] = &[
        ("D9 257 headers", line(257), 431),
        ("D9 101 headers", line(99), 431),
        ("D9 1 MiB and one", block, 431),
        (
            "D9 64 KiB URI",
            request("GET", &format!("/{}", "a".repeat(1 << 16)), ""),
            414,
        ),
        ("D8 64 KiB name", name(1 << 16), 431),
        (
            "D11 64 KiB method",
            request(&"A".repeat(1 << 16), "/hello", ""),
            414,
        ),
    ];
    let before = rig.edge.rss();
    for (row, bytes, status) in rows {
        rig.judge(row, bytes, Verdict::refused(*status)).await;
    }
    let grown = rig.edge.rss().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more");
    let late = Verdict {
        counted: Counted::Flow("head_timeout"),
        ..Verdict::refused(408)
    };
    rig.judge("D18 an unfinished head", b"GET / HTTP/1.1\r\nHost: a", late)
        .await;
    rig.rest().await;
}

/// D6, D13: malformed chunked bodies. Fails if the bytes after the fault are read as a request.
#[tokio::test(flavor = "multi_thread")]
async fn bad_chunks_end_the_connection() {
    let mut rig = Rig::start(1, YAML).await;
    let long = format!("5;{}\r\nhello\r\n", "x".repeat(1 << 20));
    let rows: &[(&str, &str)] = &[
        ("D6 0x5", "0x5\r\nhello\r\n"),
        ("D6 5_", "5_\r\nhello\r\n"),
        ("D6 negative", "-5\r\nhello\r\n"),
        ("D6 > 2^63", "ffffffffffffffff\r\nhello\r\n"),
        ("D6 1 MB extension", &long),
        ("D6 bare LF", "5\nhello\r\n"),
        ("D6 bare CR", "5\rhello\r\n"),
        ("D6 missing CRLF", "5\r\nhello0\r\n\r\n"),
        ("D13 Content-Length", "0\r\nContent-Length: 5\r\n\r\n"),
        ("D13 Host", "0\r\nHost: b\r\n\r\n"),
        (
            "D13 Transfer-Encoding",
            "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        ("D13 Cookie", "0\r\nCookie: a=b\r\n\r\n"),
    ];
    let verdict = Verdict {
        reaches: true,
        ..Verdict::refused(400)
    };
    for (row, body) in rows {
        let head = request("POST", "/echo", "Transfer-Encoding: chunked\r\n");
        let bytes = [&head, body.as_bytes(), behind().as_bytes()].concat();
        rig.judge(row, &bytes, verdict).await;
    }
    rig.rest().await;
}

/// D3, D5, D10, D11, D13: unusual but legal requests. Fails if the edge is stricter than the RFC, or misses a
/// body's end: the second request of each connection must be answered.
#[tokio::test(flavor = "multi_thread")]
async fn odd_and_legal_requests_are_served() {
    let mut rig = Rig::start(1, YAML).await;
    let chunked = "Transfer-Encoding: Chunked\r\n\r\n";
    let rows: &[(&str, String, &str)] = &[
        ("D3 OWS", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: \t5 \r\n\r\nhello".into(), "hello"),
        ("D5 1.0 keep-alive", "POST /echo HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello".into(), "hello"),
        ("D10 absolute", "POST http://a/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".into(), "hello"),
        ("D12 GET with a body", "GET /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".into(), "hello"),
        ("D6 extension", format!("POST /echo HTTP/1.1\r\nHost: a\r\n{chunked}5;a=\"b\"\r\nhello\r\n0\r\n\r\n"), "hello"),
        ("D13 a trailer", format!("POST /echo HTTP/1.1\r\nHost: a\r\n{chunked}5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"), "hello"),
        ("D12 expect", "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello".into(), "hello"),
    ];
    for (row, bytes, body) in rows {
        let mut client = H1::connect(&rig.good).await;
        client.raw(bytes.as_bytes()).await.expect("send");
        let head = client.head().await.unwrap_or_else(|e| panic!("{row}: {e}"));
        assert_eq!(head.status, 200, "{row}");
        let got = client.rest().await.expect("a body");
        assert_eq!(String::from_utf8_lossy(&got), *body, "{row}");
        assert_eq!(
            client.get("/hello", &[]).await.status,
            200,
            "{row}: the next"
        );
    }
    rig.rest().await;
}

/// D12: a thousand requests in one write are answered in order. Fails if answers are swapped or lost.
#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let mut rig = Rig::start(1, YAML).await;
    let mut all = String::new();
    for n in 0..1000 {
        let tail = format!("Host: a\r\nContent-Length: 4\r\n\r\n{n:04}");
        write!(all, "POST /echo HTTP/1.1\r\n{tail}").expect("a String takes all");
    }
    let (read, mut write) = tokio::io::split(rig.good.io().await);
    let sender = tokio::spawn(async move {
        tokio::io::AsyncWriteExt::write_all(&mut write, all.as_bytes())
            .await
            .expect("send");
        write
    });
    let mut client = H1::over(Box::new(tokio::io::join(read, tokio::io::sink())));
    for n in 0..1000 {
        assert_eq!(client.head().await.expect("a head").status, 200, "{n}");
        let body = client.rest().await.expect("a body");
        assert_eq!(String::from_utf8_lossy(&body), format!("{n:04}"));
    }
    drop((client, sender.await.expect("the sender")));
    rig.rest().await;
}

/// D12: a node that answers HEAD with a body, and a request body that never comes. Fails if the next answer
/// on the connection begins with the body of the one before, or if the node's connection outlives the
/// client's.
#[tokio::test(flavor = "multi_thread")]
async fn head_and_continue_do_not_desync() {
    let mut rig = Rig::start(1, YAML).await;
    let mut client = H1::connect(&rig.good).await;
    for _ in 0..3 {
        client
            .send("HEAD", "/stream/chunked?n=3&every=0", &[], b"")
            .await
            .expect("send");
        let head = client.bare_head().await.expect("a head");
        assert_eq!(head.status, 200);
        let next = client.get("/hello", &[]).await;
        assert!(next.text().starts_with("n1 "), "{}", next.text());
    }
    drop(client);
    let mut waits = H1::connect(&rig.good).await;
    let fields = [("Expect", "100-continue"), ("Content-Length", "5")];
    let path = format!("/echo?password={SECRET}");
    let before = rig.reached();
    waits.send("POST", &path, &fields, b"").await.expect("send");
    deadline("the node's connection", async {
        while rig.reached() == before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(waits);
    rig.nodes[0]
        .wait("no open connection", |s| {
            s.connections.iter().all(|c| c.closed.is_some())
        })
        .await;
    rig.serves("100-continue never fulfilled").await;
    rig.rest().await;
}
