//! The part of a legal head that a node gets, and the parts that a client may not have dropped.
//!
//! Source: RFC 9110 §7.6.1; RFC 9112 §3.2, §9.3; FAULTS D14.

use super::tests::judged;
use super::*;

/// Returns what a node gets of `head`, which ends with its last field line.
fn sent(head: &str) -> String {
    let mut out = Vec::new();
    let head = judged(&format!("{head}\r\n")).expect(head);
    head.edits().write(&mut out);
    let text = String::from_utf8(out).expect("text");
    text.strip_suffix("\r\n").expect("an empty line").to_owned()
}

/// Aim: hop-by-hop fields are dropped (RFC 9110 §7.6.1, FAULTS D14). Fails if a field of the client's
/// connection reaches the node, or if another is lost.
#[test]
fn fields_of_the_connection_are_not_passed_on() {
    let client = "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Hop, TE\r\nx-hop: 1\r\n\
                  Keep-Alive: 5\r\nA: 1\r\nX-HOP: 2\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\n\
                  Proxy-Authorization: a\r\nProxy-Authenticate: b\r\nUpgrade: h2c\r\n\
                  HTTP2-Settings: c\r\nTrailer: X\r\nconnection: close,, upgrade\r\nCookie: d\r\n";
    let want = "GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nCookie: d\r\n";
    assert_eq!(sent(client), want);
    let chunked = "POST / HTTP/1.1\r\nHost: a\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n";
    assert_eq!(sent(chunked), chunked);
    let ordinary = "POST /\u{fc}?\"<>|`{} HTTP/1.1\r\nHost:a\r\nA: \u{fc} \r\nExpect: 100-continue\r\n\
                    Content-Length: 5\r\n";
    assert_eq!(sent(ordinary), ordinary);
}

/// FAULTS D14. Aim: a client cannot have protected fields dropped, nor more than [`MAX_NOMINATED`] fields.
#[test]
fn nominations_that_are_refused() {
    let head = |value: &str| format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {value}\r\n\r\n");
    for name in NEVER_NOMINATED {
        let value = format!("close, {}", name.to_ascii_uppercase());
        let error = judged(&head(&value)).expect_err(name);
        assert_eq!(error.status().0, 400, "{name}");
    }
    for value in [":authority", "\"X-Forwarded-For\"", "a b", "\u{e9}"] {
        assert_eq!(judged(&head(value)).expect_err(value).status().0, 400);
    }
    let names = |n: usize| head(&"x, close, ".repeat(n));
    assert!(judged(&names(MAX_NOMINATED)).is_ok());
    let error = judged(&names(MAX_NOMINATED + 1)).expect_err("too many");
    assert_eq!(error.status().0, 400);
}

/// RFC 6455 §4.1. Aim: the node gets one form of upgrade, whatever else the client wrote.
#[test]
fn a_node_is_sent_one_form_of_upgrade() {
    let client = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade, X\r\n\
                  X: 1\r\nSec-WebSocket-Key: b\r\n";
    let want = "GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: b\r\nConnection: Upgrade\r\n\
                Upgrade: websocket\r\n";
    assert_eq!(sent(client), want);
}

/// RFC 9112 §3.2.1, §3.2.2, §3.2.4. Aim: the node gets a path. The bytes of path and query stay the client's
/// (cloudflare/pingora#894).
#[test]
fn targets_are_paths() {
    for (target, want) in [
        ("/", "/"),
        ("/a?b=http://c", "/a?b=http://c"),
        ("/?ids=[\"1\"]&q={\"a\":1}", "/?ids=[\"1\"]&q={\"a\":1}"),
        ("/<a>|`\u{e9}\\^", "/<a>|`\u{e9}\\^"),
        ("http://a", "/"),
        ("http://A/b?c", "/b?c"),
        ("HTTPS://a/b", "/b"),
        ("http://a?c", "/?c"),
        ("http://a?c/d", "/?c/d"),
    ] {
        let got = sent(&format!("GET {target} HTTP/1.1\r\nHost: a\r\n"));
        assert_eq!(
            got,
            format!("GET {want} HTTP/1.1\r\nHost: a\r\n"),
            "{target}"
        );
    }
    let whole = sent("OPTIONS http://a HTTP/1.1\r\nHost: a\r\n");
    assert!(whole.starts_with("OPTIONS * "), "{whole:?}");
    for target in [
        "/\x01", "/\x7f", "/a b", "/a\tb", "a", "ftp://a/", "*", "http:///", "//\0",
    ] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(
            judged(&head).expect_err(target).status().0,
            400,
            "{target:?}"
        );
    }
    let head = b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n";
    assert!(judge(head, &Limits::default()).is_err());
}

/// RFC 9112 §2.3, §3.2, §9.3; RFC 9110 §10.1.1. Aim: each version has its rules for persistence and `Expect`.
#[test]
fn versions_persistence_and_expectations() {
    let host = "Host: a\r\n";
    let expect = "Host: a\r\nExpect: 100-Continue\r\n";
    let cases: &[(&str, &str, bool, bool)] = &[
        ("1.1", host, true, false),
        ("1.1", "Host: a\r\nConnection: x, Close\r\n", false, false),
        ("1.1", expect, true, true),
        ("1.1", "Host: a\r\nExpect: other\r\n", true, false),
        ("1.0", "", false, false),
        ("1.0", "Connection: Keep-Alive\r\n", true, false),
        ("1.0", "Connection: keep-alive, close\r\n", false, false),
        ("1.0", expect, false, false),
    ];
    for (version, fields, keep, expects) in cases {
        let head = format!("POST / HTTP/{version}\r\n{fields}");
        let got = judged(&format!("{head}\r\n")).expect(&head);
        assert_eq!(
            (got.keep, got.expects_continue),
            (*keep, *expects),
            "{head:?}"
        );
        let line = format!("POST / HTTP/{version}\r\n");
        assert!(sent(&head).starts_with(&line), "{head:?}");
    }
}

#[test]
fn the_host_is_normalised() {
    for (target, fields, host) in [
        ("/", "Host: PUSH.Example.:8080\r\n", "push.example"),
        ("http://Push:80/", "Host: push:80\r\n", "push"),
        ("/", "Host: [::A]:80\r\n", "[::a]"),
        ("/", "", ""),
    ] {
        let head = judged(&format!("GET {target} HTTP/1.0\r\n{fields}\r\n")).expect(target);
        assert_eq!(head.host(), host, "{target}");
    }
}
