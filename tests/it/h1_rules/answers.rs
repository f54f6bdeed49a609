//! Fields of a node's answer that stop at the edge, and fields that the edge adds.
//!
//! Source: RFC 9110 §6.6.1 (Date), §7.6.1 (hop-by-hop), §7.8 (Upgrade), §8.6 (Content-Length); RFC 9112 §2.2
//! (line ends), §6.1, §6.3 (framing).

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::{HOST, Scripted, until, values};
use crate::client::h1::H1;
use crate::client::h2::H2;

/// Answers with hop-by-hop fields, by path.
fn hop_by_hop(head: &str) -> Vec<u8> {
    let fields = match head.split(' ').nth(1) {
        Some("/nominated") => {
            "Connection: keep-alive, X-Internal\r\nX-Internal: secret\r\nX-INTERNAL: twice"
        }
        Some("/keep-alive") => "Connection: keep-alive\r\nKeep-Alive: timeout=1, max=5",
        Some("/bare-keep-alive") => "Keep-Alive: timeout=1",
        Some("/proxy-connection") => "Proxy-Connection: keep-alive",
        Some("/upgrade") => "Connection: Upgrade\r\nUpgrade: h2c",
        Some("/length") => {
            "Connection: Content-Length, Date\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT"
        }
        _ => "X-Other: 1",
    };
    let status = if head.contains("/426") {
        "426 Upgrade Required"
    } else {
        "200 OK"
    };
    let upgrade = if head.contains("/426") {
        "Connection: Upgrade\r\nUpgrade: h2c\r\n"
    } else {
        ""
    };
    format!("HTTP/1.1 {status}\r\n{upgrade}{fields}\r\nX-Kept: 1\r\nContent-Length: 2\r\n\r\nok")
        .into_bytes()
}

/// Aim: hop-by-hop fields of the node's connection stop at the edge: nominated fields, Keep-Alive,
/// Proxy-Connection, and Upgrade of an answer other than 101 or 426. HTTP/1 and HTTP/2. Source: RFC 9110
/// §7.6.1, §7.8. Fails if one of them reaches a client (`Keep-Alive: timeout=1` makes undici open a
/// connection for each request), or if another field is lost.
#[tokio::test(flavor = "multi_thread")]
async fn fields_of_the_nodes_connection_stay_there() {
    let it = Scripted::start(hop_by_hop).await;
    let mut h2 = H2::connect(&it.tls()).await;
    for path in [
        "/nominated",
        "/keep-alive",
        "/bare-keep-alive",
        "/proxy-connection",
        "/upgrade",
        "/other",
    ] {
        let head = it.head_of(path).await;
        let answer = h2.get(path, &[]).await;
        for name in [
            "x-internal",
            "keep-alive",
            "proxy-connection",
            "upgrade",
            "connection",
        ] {
            assert!(values(&head, name).is_empty(), "{path}: {name} in {head}");
            assert!(
                !answer.headers().contains_key(name),
                "{path}: {name} over HTTP/2"
            );
        }
        assert_eq!(values(&head, "x-kept"), ["1"], "{path}: {head}");
        assert_eq!(answer.body(), b"ok", "{path}");
    }
    // Without these fields the client would read another body, or another date.
    let head = it.head_of("/length").await;
    assert_eq!(values(&head, "content-length"), ["2"], "{head}");
    assert_eq!(
        values(&head, "date"),
        ["sun, 06 nov 1994 08:49:37 gmt"],
        "{head}"
    );
    // RFC 9110 §15.5.22: a 426 must name the protocols to upgrade to.
    let head = it.head_of("/426").await;
    assert_eq!(values(&head, "upgrade"), ["h2c"], "{head}");
    assert_eq!(values(&head, "connection"), ["upgrade"], "{head}");
}

/// Answers with various line ends, by path.
fn line_ends(head: &str) -> Vec<u8> {
    let answer: &[u8] = match head.split(' ').nth(1) {
        Some("/all") => b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
        Some("/first") => b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok",
        Some("/one") => b"HTTP/1.1 200 OK\r\nX: 1\nContent-Length: 2\r\n\r\nok",
        Some("/last") => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok",
        Some("/begun") => b"HTTP/1.1 200 OK\nContent",
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    };
    answer.to_vec()
}

/// Aim: a node's head that ends lines with LF alone is a 502 at once, while the node's connection stays open.
/// Source: RFC 9112 §2.2. Fails if the edge waits for CRLF, or accepts one of these heads.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_with_lf_is_a_502_at_once() {
    let it = Scripted::start(line_ends).await;
    for path in ["/all", "/first", "/one", "/last", "/begun"] {
        let head = it.head_of(path).await;
        assert!(head.starts_with("http/1.1 502 "), "{path}: {head:?}");
    }
    let told = |l: &serde_json::Value| l["reason"] == "bad_answer" && l["status"] == 502;
    let all = |l: &[serde_json::Value]| l.iter().filter(|l| told(l)).count() == 5;
    it.edge.wait_access("five bad answers", all).await;
    assert!(it.head_of("/good").await.starts_with("http/1.1 200 "));
}

/// Length fields for an answer of 5 bytes, by path.
fn lengths(head: &str) -> Vec<u8> {
    let fields = match head.split(' ').nth(1) {
        Some("/list") => "Content-Length: 5, 5",
        Some("/repeat") => "Content-Length: 5\r\nX: 1\r\ncontent-length: 5",
        Some("/both") => "Content-Length: 5,5\r\nContent-Length: 5",
        Some("/list-differs") => "Content-Length: 5, 6",
        Some("/repeat-differs") => "Content-Length: 5\r\nContent-Length: 6",
        Some("/plus") => "Content-Length: +5",
        Some("/empty") => "Content-Length:",
        Some("/hex") => "Content-Length: 0x5",
        Some("/large") => "Content-Length: 18446744073709551616",
        Some("/chunked-too") => "Content-Length: 5\r\nTransfer-Encoding: chunked",
        Some("/gzip") => "Transfer-Encoding: gzip, chunked",
        _ => "Content-Length: 5",
    };
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nhello").into_bytes()
}

/// Aim: repeated lengths that agree reach the client as one; any other repetition is a 502. Source: RFC 9110
/// §8.6, RFC 9112 §6.3. Fails if a list or repeat is passed on or refused, or if a contradiction is accepted.
/// The next request of the connection must be answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_length_passes_once() {
    let it = Scripted::start(lengths).await;
    for path in ["/list", "/repeat", "/both", "/once"] {
        let mut client = H1::connect(&it.plain()).await;
        for _ in 0..2 {
            let answer = client.get(path, &[]).await;
            let told = answer
                .headers
                .iter()
                .filter(|(key, _)| key == "content-length");
            let told: Vec<&str> = told.map(|(_, value)| value.as_str()).collect();
            assert_eq!(
                (told, answer.text().as_str()),
                (vec!["5"], "hello"),
                "{path}"
            );
        }
    }
    for path in [
        "/list-differs",
        "/repeat-differs",
        "/plus",
        "/empty",
        "/hex",
        "/large",
        "/chunked-too",
        "/gzip",
    ] {
        let head = it.head_of(path).await;
        assert!(head.starts_with("http/1.1 502 "), "{path}: {head:?}");
    }
}

/// Answers without a body whose fields announce one, by path.
fn bodiless(head: &str) -> Vec<u8> {
    let text = match head.split(' ').nth(1) {
        Some("/204-length") => "204 No Content\r\nContent-Length: 5",
        Some("/204-chunked") => "204 No Content\r\nTransfer-Encoding: chunked",
        Some("/304-length") => "304 Not Modified\r\nContent-Length: 5",
        Some("/304-chunked") => "304 Not Modified\r\nTransfer-Encoding: chunked",
        Some("/length") => "200 OK\r\nContent-Length: 5",
        Some("/chunked") => "200 OK\r\nTransfer-Encoding: chunked",
        _ => return b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext".to_vec(),
    };
    format!("HTTP/1.1 {text}\r\n\r\n").into_bytes()
}

/// Aim: answers that have no body end with their head, whatever their fields announce; a 204 reaches the
/// client without such fields. Source: RFC 9110 §8.6, RFC 9112 §6.1, §6.3. Fails if the edge waits for a
/// body, or if a 204 reaches the client with a length or coding: the client would read the next answer as its
/// body.
#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_end_with_their_head() {
    let it = Scripted::start(bodiless).await;
    for (method, path, length) in [
        ("GET", "/204-length", None),
        ("GET", "/204-chunked", None),
        ("GET", "/304-length", Some("5")),
        ("GET", "/304-chunked", None),
        ("HEAD", "/length", Some("5")),
        ("HEAD", "/chunked", None),
        ("HEAD", "/204-length", None),
    ] {
        let mut client = it.plain().tcp().await;
        let ask =
            |method: &str, path: &str| format!("{method} {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        client
            .write_all(ask(method, path).as_bytes())
            .await
            .expect("send");
        let head = until(&mut client, b"\r\n\r\n").await;
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        assert_eq!(
            values(&head, "content-length").first().copied(),
            length,
            "{method} {path}: {head}"
        );
        if path.starts_with("/204") {
            assert!(
                values(&head, "transfer-encoding").is_empty(),
                "{method} {path}: {head}"
            );
        }
        client
            .write_all(ask("GET", "/next").as_bytes())
            .await
            .expect("send");
        let next = until(&mut client, b"next").await;
        assert!(
            next.starts_with(b"HTTP/1.1 200 "),
            "{method} {path}: {next:?}"
        );
    }
}

/// An answer with a date and one without.
fn dated(head: &str) -> Vec<u8> {
    let date = match head.contains("/dated") {
        true => "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
        false => "",
    };
    format!("HTTP/1.1 200 OK\r\n{date}Content-Length: 2\r\n\r\nok").into_bytes()
}

/// Aim: the edge keeps the node's Date, and adds one to an answer without it, its own answers included.
/// Source: RFC 9110 §6.6.1. Fails if the edge replaces the node's Date, adds a second one, or adds none.
#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_one_date() {
    let it = Scripted::start(dated).await;
    let head = it.head_of("/dated").await;
    assert_eq!(
        values(&head, "date"),
        ["sun, 06 nov 1994 08:49:37 gmt"],
        "{head}"
    );
    // The edge refuses the second request, for its missing Host.
    let refused = it.ask("GET / HTTP/1.1\r\n\r\n", b"400 Bad Request\n").await;
    let refused = String::from_utf8_lossy(&refused).into_owned();
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    let head = it
        .ask(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), b"ok")
        .await;
    for head in [String::from_utf8_lossy(&head).into_owned(), refused] {
        let dates: Vec<&str> = head
            .lines()
            .filter_map(|l| l.strip_prefix("Date: "))
            .collect();
        let date = dates
            .first()
            .and_then(|date| httpdate::parse_http_date(date).ok());
        let date = date.unwrap_or_else(|| panic!("no date in {head}"));
        let off = pushgate::clock::wall()
            .duration_since(date)
            .unwrap_or_default();
        assert!(dates.len() == 1 && off < Duration::from_secs(60), "{head}");
    }
}

/// Aim: no answer comes from a library. Each refusal over HTTP/1 is written by the edge itself. Fails if one
/// has `Server: Pingora`, or if the node's own Server is lost.
#[tokio::test(flavor = "multi_thread")]
async fn no_answer_comes_from_a_library() {
    let served =
        |_: &str| b"HTTP/1.1 200 OK\r\nServer: node/1\r\nContent-Length: 2\r\n\r\nok".to_vec();
    let it = Scripted::start(served).await;
    let long = "x".repeat(40_000);
    let rows = [
        (200, format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")),
        (400, "GET / HTTP/1.1\r\n\r\n".to_owned()),
        (400, format!("GET /#a HTTP/1.1\r\nHost: {HOST}\r\n\r\n")),
        (
            405,
            format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n"),
        ),
        (414, format!("GET /{long} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")),
        (
            431,
            format!(
                "GET / HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n",
                format!("X: {long}\r\n").repeat(2)
            ),
        ),
        (505, format!("GET / HTTP/2.1\r\nHost: {HOST}\r\n\r\n")),
    ];
    for (status, request) in rows {
        let answer = it.ask(&request, b"\r\n\r\n").await;
        let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        assert!(
            answer.starts_with(&format!("http/1.1 {status} ")),
            "{status}: {answer:?}"
        );
        let server = if status == 200 {
            vec!["node/1"]
        } else {
            Vec::new()
        };
        assert_eq!(values(&answer, "server"), server, "{status}: {answer}");
    }
    it.node.abort();
    // The node's listening socket closes when its task has ended; until then a request is lost, not refused.
    while !it.node.is_finished() {
        tokio::task::yield_now().await;
    }
    let answer = it.head_of("/").await;
    assert!(answer.starts_with("http/1.1 50"), "{answer:?}");
    assert!(!answer.contains("pingora"), "{answer}");
}
