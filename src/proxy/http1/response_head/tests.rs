//! Answer heads: the refused ones, the meaning of the others, and the lines that a client gets.

mod faults;

use super::*;
use ResponseHeadError::{Coding, Length, LineEnd, Malformed, Switch, TooLarge};

const GET: RequestKind = RequestKind {
    head: false,
    websocket: false,
};
const HEAD: RequestKind = RequestKind {
    head: true,
    websocket: false,
};
const WEBSOCKET: RequestKind = RequestKind {
    head: false,
    websocket: true,
};

const NEW: ClientTerms = ClientTerms {
    http_10: false,
    http_2: false,
    keep: true,
};
const NEW_CLOSE: ClientTerms = ClientTerms {
    http_10: false,
    http_2: false,
    keep: false,
};
const OLD: ClientTerms = ClientTerms {
    http_10: true,
    http_2: false,
    keep: false,
};
const OLD_KEEP: ClientTerms = ClientTerms {
    http_10: true,
    http_2: false,
    keep: true,
};

/// RFC 9112 §6.3, §9.3; RFC 9110 §8.6. Aim: each answer has this framing, and keeps the node's connection or
/// not.
#[test]
fn framing_and_keeping() {
    let done = Framing::Done;
    let five = Framing::Length(5);
    let cases: &[(&str, RequestKind, &Framing, bool)] = &[
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", GET, &five, true),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
            WEBSOCKET,
            &five,
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
            HEAD,
            &done,
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n",
            GET,
            &five,
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n",
            GET,
            &five,
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close\r\n",
            GET,
            &done,
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n",
            GET,
            &Framing::chunked(),
            true,
        ),
        ("HTTP/1.1 200 OK\r\n", GET, &Framing::UntilClose, false),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n",
            GET,
            &five,
            false,
        ),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n",
            GET,
            &five,
            true,
        ),
    ];
    for (head, request, framing, keep) in cases {
        let got = judge(format!("{head}\r\n").as_bytes(), *request).expect(head);
        assert_eq!((&got.framing, got.keep), (*framing, *keep), "{head:?}");
    }
}

/// RFC 9112 §6.3: answers without a body, whatever their fields say.
#[test]
fn answers_without_a_body() {
    let done = Framing::Done;
    let cases: &[(&str, RequestKind, &Framing, bool)] = &[
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n",
            GET,
            &done,
            true,
        ),
        ("HTTP/1.1 204 No Content\r\n", GET, &done, true),
        ("HTTP/1.1 103 Early Hints\r\nLink: x\r\n", GET, &done, true),
        (
            "HTTP/1.1 101 X\r\nUpgrade: WebSocket\r\n",
            WEBSOCKET,
            &done,
            true,
        ),
    ];
    for (head, request, framing, keep) in cases {
        let got = judge(format!("{head}\r\n").as_bytes(), *request).expect(head);
        assert_eq!((&got.framing, got.keep), (*framing, *keep), "{head:?}");
    }
}

/// Aim: the end of a head is found, however the bytes arrive. Fails if the edge waits on a head whose lines
/// end with LF, as devices and CGI scripts write it, or if the end depends on the split.
#[test]
fn the_end_is_found_in_every_split() {
    let long = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(MAX_HEAD));
    let cases: &[(&str, Result<Option<usize>, ResponseHeadError>)] = &[
        ("HTTP/1.1 200 OK\r\n\r\n", Ok(Some(19))),
        ("\r\nHTTP/1.1 200 OK\r\nA: b\r\n\r\nbody", Ok(Some(27))),
        ("HTTP/1.1 200 OK\r\nA: b\r\n", Ok(None)),
        ("HTTP/1.1 200 OK\nContent-Length: 2\n\nok", Err(LineEnd)),
        ("HTTP/1.1 200 OK\r\nA: b\n", Err(LineEnd)),
        ("\x15\x03\x03", Err(Malformed)),
    ];
    for (bytes, want) in cases {
        let bytes = bytes.as_bytes();
        assert_eq!(end(bytes, 0), *want, "{bytes:?}");
        for step in 1..bytes.len() {
            let (mut seen, mut got) = (step, end(&bytes[..step], 0));
            while got == Ok(None) && seen < bytes.len() {
                let from = seen.saturating_sub(3);
                seen = (seen + step).min(bytes.len());
                got = end(&bytes[..seen], from);
            }
            assert_eq!(got, *want, "{bytes:?} in steps of {step}");
        }
    }
    assert_eq!(end(&long.as_bytes()[..MAX_HEAD], 0), Ok(None));
    assert_eq!(end(long.as_bytes(), 0), Err(TooLarge));
}

/// Returns what a client gets of `head` without today's date, and how the body reaches it.
fn sent(head: &str, request: RequestKind, client: ClientTerms) -> (String, Wrap, bool) {
    let raw = format!("HTTP/1.1 {head}\r\n");
    let (edits, wrap, keep) = judge(raw.as_bytes(), request).expect(head).edits(client);
    let mut out = Vec::new();
    edits.write(&mut out);
    let text = String::from_utf8(out).expect("text");
    let text = text.strip_prefix("HTTP/1.1 ").expect("our version");
    let lines = text.strip_suffix("\r\n").expect("an empty line");
    let lines = lines.split_inclusive("\r\n");
    let lines = lines.filter(|l| !l.starts_with("Date: ") || l.contains("1994"));
    (lines.collect(), wrap, keep)
}

/// Aim: hop-by-hop fields are dropped (RFC 9110 §7.6.1). Fails if a field of the node's connection reaches
/// the client, or if another is lost.
#[test]
fn fields_of_the_connection_are_not_passed_on() {
    let node = "200 OK\r\nConnection: keep-alive, X-Internal, Upgrade\r\nX-Internal: secret\r\n\
                Keep-Alive: timeout=1, max=5\r\nA: 1\r\nx-internal: 2\r\nProxy-Connection: keep-alive\r\n\
                TE: trailers\r\nUpgrade: h2c\r\nContent-Length: 2\r\nProxy-Authenticate: Basic\r\n";
    let want = "200 OK\r\nA: 1\r\nContent-Length: 2\r\nProxy-Authenticate: Basic\r\n";
    assert_eq!(sent(node, GET, NEW), (want.into(), Wrap::AsIs, true));
    let framing = "200 OK\r\nConnection: Content-Length, date, \"a\"\r\nContent-Length: 2\r\n";
    let want = "200 OK\r\nContent-Length: 2\r\n";
    assert_eq!(sent(framing, GET, NEW).0, want);
    let names = |n: usize| format!("HTTP/1.1 200 OK\r\nConnection: {}\r\n\r\n", "x,".repeat(n));
    assert!(judge(names(MAX_NOMINATED).as_bytes(), GET).is_ok());
    let too_many = judge(names(MAX_NOMINATED + 1).as_bytes(), GET);
    assert_eq!(too_many.err(), Some(TooLarge));
}

/// RFC 9110 §7.8. Aim: Upgrade passes in a 101 and a 426, and in no other answer.
#[test]
fn upgrades() {
    let switch = "101 Switching Protocols\r\nConnection: upgrade, x\r\nUPGRADE: WebSocket\r\nX: 1\r\n\
                  Sec-WebSocket-Accept: a\r\n";
    let want = "101 Switching Protocols\r\nSec-WebSocket-Accept: a\r\nConnection: Upgrade\r\n\
                Upgrade: websocket\r\n";
    assert_eq!(sent(switch, WEBSOCKET, NEW).0, want);
    assert_eq!(sent(switch, WEBSOCKET, NEW_CLOSE).0, want);
    let required = "426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n";
    let want = "426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\nConnection: Upgrade\r\n";
    assert_eq!(sent(required, GET, NEW).0, want);
    let refused = "400 Bad\r\nUpgrade: websocket\r\nContent-Length: 0\r\n";
    assert_eq!(
        sent(refused, WEBSOCKET, NEW).0,
        "400 Bad\r\nContent-Length: 0\r\n"
    );
}

/// RFC 9112 §6.1, §6.3, §9.6. Aim: each client gets a framing that it can read.
#[test]
fn framing_for_the_client() {
    const CHUNKED: &str = "200 OK\r\nTransfer-Encoding: Chunked\r\nTrailer: X\r\n";
    const CLOSE: &str = "200 OK\r\nTrailer: X\r\n";
    const LENGTH: &str = "200 OK\r\nTrailer: X\r\nContent-Length: 5\r\n";
    let ours = "Transfer-Encoding: chunked\r\n";
    let (kept, closed) = ("Connection: keep-alive\r\n", "Connection: close\r\n");
    let length = "Content-Length: 5\r\n";
    let coding = &CHUNKED["200 OK\r\n".len()..];
    let cases: &[(&str, ClientTerms, &[&str], Wrap, bool)] = &[
        (CHUNKED, OLD_KEEP, &[closed], Wrap::Bare, false),
        (CHUNKED, NEW, &[coding], Wrap::AsIs, true),
        (CHUNKED, NEW_CLOSE, &[coding, closed], Wrap::AsIs, false),
        (CLOSE, OLD_KEEP, &[closed], Wrap::AsIs, false),
        (CLOSE, NEW, &[ours], Wrap::Chunks, true),
        (CLOSE, NEW_CLOSE, &[ours, closed], Wrap::Chunks, false),
        (LENGTH, OLD, &[length, closed], Wrap::AsIs, false),
        (LENGTH, OLD_KEEP, &[length, kept], Wrap::AsIs, true),
        (LENGTH, NEW, &[length], Wrap::AsIs, true),
        (LENGTH, NEW_CLOSE, &[length, closed], Wrap::AsIs, false),
    ];
    for (node, client, lines, wrap, keep) in cases {
        let want = format!("200 OK\r\n{}", lines.concat());
        assert_eq!(
            sent(node, GET, *client),
            (want, *wrap, *keep),
            "{node:?} {client:?}"
        );
    }
}

/// RFC 9110 §8.6. Aim: an answer to HEAD and a 304 keep the length of the body they omit. An answer that
/// cannot have a body has none.
#[test]
fn lengths_of_bodiless_and_repeated_answers() {
    let five = "Content-Length: 5\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    let cases: &[(&str, &str, RequestKind, &str)] = &[
        ("103 Early Hints", five, GET, ""),
        ("103 Early Hints", chunked, GET, ""),
        ("204 No Content", five, GET, ""),
        ("204 No Content", "Content-Length: 5, 5\r\n", GET, ""),
        (
            "204 No Content",
            "Transfer-Encoding: chunked\r\nTrailer: X\r\n",
            GET,
            "",
        ),
        ("304 Not Modified", five, GET, five),
        ("304 Not Modified", chunked, GET, chunked),
        ("200 OK", five, HEAD, five),
        ("200 OK", chunked, HEAD, chunked),
        ("200 OK", "", HEAD, ""),
        ("200 OK", "Content-Length: 5, 5\r\n", HEAD, five),
        ("200 OK", "Content-Length: 5 ,5\r\n", GET, five),
        (
            "200 OK",
            "Content-Length: 05\r\nA: b\r\ncontent-length: 5\r\n",
            GET,
            "A: b\r\nContent-Length: 5\r\n",
        ),
    ];
    for (status, lines, request, want) in cases {
        let (text, wrap, keep) = sent(&format!("{status}\r\n{lines}"), *request, NEW);
        assert_eq!(text, format!("{status}\r\n{want}"), "{lines:?}");
        assert_eq!((wrap, keep), (Wrap::AsIs, true), "{status} {lines:?}");
    }
    assert_eq!(
        sent("200 OK\r\nTransfer-Encoding: chunked\r\n", HEAD, OLD).0,
        "200 OK\r\nConnection: close\r\n"
    );
}

/// RFC 9110 §6.6.1. Aim: a final answer has a date, and the node's own is kept.
#[test]
fn dates() {
    let old = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let cases: &[(&str, &str, RequestKind, bool)] = &[
        ("HTTP/1.1 200 OK", "", GET, true),
        ("HTTP/1.1 304 Not Modified", "", GET, true),
        ("HTTP/1.1 200 OK", old, GET, false),
        ("HTTP/1.1 103 Early Hints", "", GET, false),
        ("HTTP/1.1 101 X", "Upgrade: websocket\r\n", WEBSOCKET, false),
    ];
    for (line, fields, request, ours) in cases {
        let raw = format!("{line}\r\n{fields}\r\n");
        let (edits, ..) = judge(raw.as_bytes(), *request).expect(line).edits(NEW);
        let dates: Vec<_> = edits.values("date").map(<[u8]>::to_vec).collect();
        let kept = usize::from(*ours || *fields == old);
        assert_eq!(dates.len(), kept, "{line} {fields:?}");
        assert_eq!(
            dates.iter().any(|d| !d.ends_with(b" 1994 08:49:37 GMT")),
            *ours,
            "{line}"
        );
        assert!(!edits.contains("server"), "{line}");
    }
}

/// A reason phrase and values beyond ASCII pass byte for byte (RFC 9110 §5.5).
#[test]
fn bytes_of_an_ordinary_head_are_not_changed() {
    let raw = b"HTTP/1.1 200 \xc4\xe9\r\nDate: x\r\nA:\xfc  \r\nB:\r\nContent-Length: 2\r\n\r\n";
    let (edits, ..) = judge(raw, GET).expect("legal").edits(NEW);
    let mut out = Vec::new();
    edits.write(&mut out);
    assert_eq!(out, raw);
}
