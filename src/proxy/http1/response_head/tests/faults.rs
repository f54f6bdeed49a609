//! Answer heads that are refused.

use super::*;

/// A kind of request, the head's text behind `HTTP/1.1 `, and the error.
type Case<'c> = (RequestKind, &'c str, ResponseHeadError);

fn refused(cases: &[Case<'_>]) {
    for (request, head, error) in cases {
        let head = format!("HTTP/1.1 {head}\r\n");
        assert_eq!(
            judge(head.as_bytes(), *request).err(),
            Some(*error),
            "{head:?}"
        );
    }
}

/// RFC 9112 §4, §6.3; FAULTS D17, D62.
#[test]
fn faulty_heads() {
    let many = |n: usize| format!("200 OK\r\n{}", "A: b\r\n".repeat(n));
    let cases: &[Case<'_>] = &[
        (GET, "2x0 OK\r\n", Malformed),
        (GET, "099 Low\r\n", Malformed),
        (GET, "200 OK\r\nA B: c\r\n", Malformed),
        (GET, "200 OK\r\n: c\r\n", Malformed),
        (GET, "200 OK\r\nA : c\r\n", Malformed),
        (GET, "200 OK\r\nA: b\r\n c\r\n", Malformed),
        (GET, "200 OK\r\n A: b\r\n", Malformed),
        (GET, "200 OK\r\nA: b\0c\r\n", Malformed),
        (GET, "200 OK\r\nA: b\rc\r\n", Malformed),
        (GET, "200 OK\r\nA: b\x7fc\r\n", Malformed),
        (GET, "200 OK\r\nA: b\nB: c\r\n", LineEnd),
        (GET, "200 OK\nA: b\r\n", LineEnd),
        (GET, &many(129), TooLarge),
        (GET, &many(257), TooLarge),
        (GET, "200 OK\r\nContent-Length: +5\r\n", Length),
        (GET, "200 OK\r\nContent-Length: 5, 6\r\n", Length),
        (GET, "200 OK\r\nContent-Length: 5,\r\n", Length),
        (GET, "200 OK\r\nContent-Length: 5, +5\r\n", Length),
        (GET, "200 OK\r\nContent-Length:\r\n", Length),
        (
            GET,
            "200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
            Length,
        ),
        (
            GET,
            "200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            Length,
        ),
        (
            GET,
            "200 OK\r\nTransfer-Encoding: gzip, chunked\r\n",
            Coding,
        ),
        (
            GET,
            "200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            Coding,
        ),
    ];
    refused(cases);
    for (head, error) in [
        ("HTP/1.1 200 OK\r\n\r\n", Malformed),
        ("HTTP/2.0 200 OK\r\n\r\n", Malformed),
        ("HTTP/1.1 200 OK\r\n\r\nbody", Malformed),
        ("HTTP/1.1 200 OK\r\n", Malformed),
        (
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Length,
        ),
    ] {
        assert_eq!(judge(head.as_bytes(), GET).err(), Some(error), "{head:?}");
    }
}

/// RFC 9110 §15.2.2; FAULTS D18. Aim: a 101 is refused if the client asked for no WebSocket, or if it is not
/// one.
#[test]
fn illegal_switches_are_refused() {
    let cases: &[Case<'_>] = &[
        (
            WEBSOCKET,
            "101 Switching Protocols\r\nUpgrade: other\r\n",
            Switch,
        ),
        (WEBSOCKET, "101 Switching Protocols\r\n", Switch),
        (
            WEBSOCKET,
            "101 Switching Protocols\r\nUpgrade: websocket\r\nContent-Length: 3\r\n",
            Switch,
        ),
        (
            WEBSOCKET,
            "101 X\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n",
            Switch,
        ),
        (
            GET,
            "101 Switching Protocols\r\nUpgrade: websocket\r\n",
            Switch,
        ),
        (
            HEAD,
            "101 Switching Protocols\r\nUpgrade: websocket\r\n",
            Switch,
        ),
    ];
    refused(cases);
}
