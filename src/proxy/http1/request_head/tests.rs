//! Request heads that are refused, each with its status, and heads that are accepted.

use super::*;

pub(super) fn judged(head: &str) -> Result<RequestHead, RequestHeadError> {
    let limits = Limits::default();
    match end(head.as_bytes(), 0, &limits)? {
        Some(n) if n == head.len() => judge(head.as_bytes(), &limits),
        Some(_) => panic!("more than a head: {head:?}"),
        None => Err(Bad("unfinished")),
    }
}

/// FAULTS D1–D11, D18. RFC 9112 §2.2, §3.2, §5.1, §6.3. Two parsers could read each of these heads
/// differently.
const REFUSED: &[(&str, &str, u16)] = &[
    (
        "D1 CL and TE",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    (
        "D2 CL twice, equal",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        400,
    ),
    (
        "D2 CL twice",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        400,
    ),
    (
        "D2 CL list",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
        400,
    ),
    (
        "D3 CL +5",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
        400,
    ),
    (
        "D3 CL -1",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        400,
    ),
    (
        "D3 CL 0x5",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n",
        400,
    ),
    (
        "D3 CL 5 5",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\n",
        400,
    ),
    (
        "D3 CL empty",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
        400,
    ),
    (
        "D3 CL 2^64",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n",
        400,
    ),
    (
        "D4 xchunked",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        400,
    ),
    (
        "D4 chunked, identity",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        400,
    ),
    (
        "D4 identity",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
        400,
    ),
    (
        "D4 chunked;q=1",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n",
        400,
    ),
    (
        "D4 fold",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n",
        400,
    ),
    (
        "D4 vtab",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
        400,
    ),
    (
        "D4 two lines",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    (
        "D4 underscore",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer_Encoding: chunked\r\n\r\n",
        400,
    ),
    (
        "D5 TE in 1.0",
        "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    ("D7 bare LF", "GET / HTTP/1.1\nHost: a\n\n", 400),
    (
        "D7 one bare LF",
        "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        400,
    ),
    (
        "D7 CR in value",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        400,
    ),
    (
        "D7 fold",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
        400,
    ),
    (
        "D7 space before colon",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        400,
    ),
    (
        "D7 NUL",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        400,
    ),
    (
        "D7 DEL",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n",
        400,
    ),
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
    (
        "D8 empty name",
        "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
        400,
    ),
    (
        "D8 space in name",
        "GET / HTTP/1.1\r\nHost: a\r\nA b: x\r\n\r\n",
        400,
    ),
    ("D10 no host", "GET / HTTP/1.1\r\n\r\n", 400),
    (
        "D10 two hosts",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        400,
    ),
    ("D10 userinfo", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    ("D10 fragment", "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n", 400),
    ("D10 port 0", "GET / HTTP/1.1\r\nHost: a:0\r\n\r\n", 400),
    ("D10 comma", "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
    ("D10 empty host", "GET / HTTP/1.1\r\nHost: \r\n\r\n", 400),
    (
        "D10 absolute differs",
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    ),
    (
        "fragment in target",
        "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    ),
    ("no target", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("D11 lower case", "get / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (
        "D11 CONNECT",
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
        405,
    ),
    ("D11 TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    ("D11 PRI", "PRI * HTTP/2.0\r\n\r\n", 505),
    (
        "D38 PROXY",
        "PROXY TCP4 192.0.2.1 192.0.2.2 5 80\r\n\r\n",
        400,
    ),
    (
        "D18 upgrade with a body",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\n",
        400,
    ),
    (
        "bare CR and a version that is none",
        "GET / HTTP/2.0\r\nHost: a\r\nX: a\rb\r\n\r\n",
        400,
    ),
    (
        "blank in the target",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    ),
    ("TLS on a plain port", "\x16\x03\x01\x02\r\n\r\n", 400),
];

#[test]
fn refused_heads() {
    for (name, head, status) in REFUSED {
        let fault = judged(head).expect_err(name);
        assert_eq!(fault.status().0, *status, "{name}: {fault:?}");
    }
}

/// FAULTS D8, D9, D11. Aim: each limit has its status.
#[test]
fn limits() {
    let line = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(n));
    let cases: &[(&str, String, u16)] = &[
        ("257 headers", line(257), 431),
        ("101 headers", line(100), 431),
        (
            "long name",
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\n{}: x\r\n\r\n",
                "a".repeat(65536)
            ),
            431,
        ),
        (
            "long head, unfinished",
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(40_000)),
            431,
        ),
        (
            "long target",
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(20_000)),
            414,
        ),
        (
            "64 KiB target, unfinished",
            format!("GET /{}", "a".repeat(65536)),
            414,
        ),
        (
            "long method",
            format!("{} / HTTP/1.1\r\nHost: a\r\n\r\n", "A".repeat(33)),
            400,
        ),
    ];
    for (name, head, status) in cases {
        assert_eq!(judged(head).expect_err(name).status().0, *status, "{name}");
    }
    assert!(judged(&line(99)).is_ok());
}

/// Aim: each head announces this body.
#[test]
fn legal_heads() {
    let (none, chunked) = (Framing::Done, Framing::chunked());
    let five = "Host: a\r\nContent-Length:  5 \r\n";
    let te = "Host: a\r\nTransfer-Encoding: Chunked\r\n";
    let cases: &[(&str, &str, &Framing)] = &[
        ("GET /a?b=c HTTP/1.1", "Host: a.b:8080\r\n", &none),
        ("GET / HTTP/1.1", "Host: [::1]:80\r\n", &none),
        ("GET / HTTP/1.0", "", &none),
        ("GET http://A/x HTTP/1.1", "Host: a\r\n", &none),
        ("OPTIONS * HTTP/1.1", "Host: a\r\n", &none),
        ("GET / HTTP/1.1", "Host: a\r\nX: \u{e9}\r\n", &none),
        ("POST / HTTP/1.1", five, &Framing::Length(5)),
        ("POST / HTTP/1.1", te, &chunked),
    ];
    for (line, fields, framing) in cases {
        let head = judged(&format!("{line}\r\n{fields}\r\n")).expect(line);
        assert_eq!(&head.framing, *framing, "{line} {fields:?}");
    }
}

/// Aim: only `GET` over HTTP/1.1 with the one protocol `websocket` asks for a WebSocket.
#[test]
fn upgrades() {
    let cases: &[(&str, &str, bool)] = &[
        ("GET / HTTP/1.1", "WebSocket", true),
        ("GET / HTTP/1.0", "websocket", false),
        ("POST / HTTP/1.1", "websocket", false),
        ("GET / HTTP/1.1", "h2c", false),
        ("GET / HTTP/1.1", "websocket, h2c", false),
    ];
    for (line, protocol, asks) in cases {
        let fields = format!("Connection: keep-alive, Upgrade\r\nUpgrade: {protocol}\r\n");
        let head = judged(&format!("{line}\r\nHost: a\r\n{fields}\r\n")).expect(line);
        assert_eq!(head.websocket, *asks, "{line} {protocol}");
    }
}
