//! Targets as legacy clients send them: JSON in a query, raw UTF-8, and characters that RFC 3986 would
//! encode.
//!
//! Source: RFC 9112 §3.2 (a proxy passes the target as it came); FAULTS D9.

use super::{HOST, Scripted};

const TARGETS: [&str; 12] = [
    r#"/?ids=["1"]&f=["id"]"#,
    r#"/?q={"a":1}"#,
    r#"/"quoted""#,
    "/?q=<b>",
    "/<a>",
    "/a|b?c|d",
    "/`a?`b",
    "/{a}?{b}",
    "/a^b\\c",
    "/[::1]?[x]",
    "/ä/ö?ü=ß&日本=語",
    "/%7Ba%7d/../b//c?%zz",
];

/// Answers with the request line.
fn line(head: &str) -> Vec<u8> {
    let line = head.lines().next().unwrap_or_default();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}",
        line.len()
    )
    .into_bytes()
}

/// Aim: a target with `"`, `<`, `>`, `|`, backtick, braces and raw UTF-8 reaches the node byte for byte. Its
/// path is logged without the query. Fails if a library behind the edge's own judgement refuses or encodes
/// it: a bare 400 with status 0 in the log was the answer once.
#[tokio::test(flavor = "multi_thread")]
async fn targets_pass_byte_for_byte() {
    let it = Scripted::start(line).await;
    for (n, target) in TARGETS.into_iter().enumerate() {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n");
        let answer = it.ask(&request, b"\r\n\r\n").await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{target}: {answer:?}");
        assert!(!answer.contains("Pingora"), "{target}: {answer:?}");
        let heads = it.heads();
        let expected = format!("GET {target} HTTP/1.1\r\n");
        assert!(
            heads[n].starts_with(expected.as_bytes()),
            "{target}: {}",
            String::from_utf8_lossy(&heads[n])
        );
        let path = target.split('?').next().unwrap_or_default();
        let lines = it.edge.wait_access(target, |all| all.len() > n).await;
        assert_eq!(
            (lines[n]["path"].as_str(), lines[n]["status"].as_u64()),
            (Some(path), Some(200)),
            "{target}"
        );
    }
}

/// Aim: targets with bytes that are no text, with blanks or with controls are refused at the edge, logged and
/// counted, and reach no node. Fails if one of them reaches the node, or if a library answers it.
#[tokio::test(flavor = "multi_thread")]
async fn targets_that_are_no_text_are_refused_at_the_edge() {
    let it = Scripted::start(line).await;
    let rows: [&[u8]; 5] = [b"/\xff", b"/a\x7fb", b"/a\x01b", b"/a b", b"/a\tb"];
    for (n, target) in rows.into_iter().enumerate() {
        let host = format!(" HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let answer = it
            .ask([b"GET ", target, host.as_bytes()].concat(), b"\r\n\r\n")
            .await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            answer.starts_with("HTTP/1.1 400 "),
            "{target:?}: {answer:?}"
        );
        assert!(!answer.contains("Pingora"), "{target:?}: {answer:?}");
        let lines = it.edge.wait_access("its line", |all| all.len() > n).await;
        assert_eq!(
            (lines[n]["reason"].as_str(), lines[n]["status"].as_u64()),
            (Some("bad_request"), Some(400))
        );
    }
    assert!(it.heads().is_empty(), "a node heard of them");
}
