//! Requests that only HTTP/2 can express: pseudo-headers, DATA that contradicts its head, trailers.
//!
//! Source: RFC 9113 §8.1, §8.1.1, §8.2, §8.3; RFC 8441 §4.

use h2::Reason;

use super::super::rig::{HOST, Rig};
use super::table::Is;
use super::{MALFORMED, NOTHING, assert_alive};
use crate::client::raw_h2::{Answer, Field, head};

type Fields = &'static [Field<'static>];

const METHOD: Field<'_> = (b":method", b"GET");
const SCHEME: Field<'_> = (b":scheme", b"https");
const HOSTED: Field<'_> = (b":authority", b"push.mycompany.com");
const PATH: Field<'_> = (b":path", b"/");

/// Heads of HTTP/2 only.
const HEADS: &[(&str, Fields, Is)] = &[
    ("no method", &[SCHEME, HOSTED, PATH], MALFORMED),
    ("no scheme", &[METHOD, HOSTED, PATH], MALFORMED),
    ("no path", &[METHOD, SCHEME, HOSTED], MALFORMED),
    (
        "two paths",
        &[METHOD, SCHEME, HOSTED, PATH, PATH],
        MALFORMED,
    ),
    (
        "two methods",
        &[METHOD, METHOD, SCHEME, HOSTED, PATH],
        MALFORMED,
    ),
    (
        "two authorities",
        &[METHOD, SCHEME, HOSTED, HOSTED, PATH],
        MALFORMED,
    ),
    (
        "a pseudo-header behind a field",
        &[METHOD, SCHEME, HOSTED, (b"a", b"b"), PATH],
        MALFORMED,
    ),
    (
        "a status",
        &[METHOD, SCHEME, HOSTED, PATH, (b":status", b"200")],
        MALFORMED,
    ),
    (
        "another scheme",
        &[METHOD, (b":scheme", b"ftp"), HOSTED, PATH],
        Is::Answered(400),
    ),
    (
        "an empty scheme",
        &[METHOD, (b":scheme", b""), HOSTED, PATH],
        Is::Answered(400),
    ),
    (
        "an absolute URL of its own host",
        &[
            METHOD,
            SCHEME,
            HOSTED,
            (b":path", b"https://push.mycompany.com/"),
        ],
        Is::Answered(400),
    ),
    (
        "a whole request in the path",
        &[
            METHOD,
            SCHEME,
            HOSTED,
            (b":path", b"/ HTTP/1.1\r\nHost: a\r\n\r\nGET /smuggled"),
        ],
        Is::Answered(400),
    ),
    (
        "a line end in the host",
        &[METHOD, SCHEME, (b":authority", b"a\r\nX-Smuggled: 1"), PATH],
        Is::Answered(400),
    ),
    (
        "two hosts",
        &[
            METHOD,
            SCHEME,
            PATH,
            (b"host", b"push.mycompany.com"),
            (b"host", b"push.mycompany.com"),
        ],
        Is::Answered(400),
    ),
    (
        "CONNECT",
        &[(b":method", b"CONNECT"), HOSTED],
        Is::Answered(405),
    ),
    (
        "CONNECT for a WebSocket that was not announced",
        &[
            (b":method", b"CONNECT"),
            (b":protocol", b"websocket"),
            SCHEME,
            HOSTED,
            PATH,
        ],
        Is::Answered(501),
    ),
    (
        "CONNECT for another protocol",
        &[
            (b":method", b"CONNECT"),
            (b":protocol", b"connect-udp"),
            SCHEME,
            HOSTED,
            PATH,
        ],
        Is::Answered(501),
    ),
    (
        "a protocol without CONNECT",
        &[METHOD, (b":protocol", b"websocket"), SCHEME, HOSTED, PATH],
        MALFORMED,
    ),
    (
        "a length, and no body",
        &[METHOD, SCHEME, HOSTED, PATH, (b"content-length", b"5")],
        MALFORMED,
    ),
];

/// Aim: an illegal head that only HTTP/2 can express is refused on its stream. The connection lives, and no
/// node gets the request. Fails if it passes, or if the connection ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_head_of_http_2_is_refused_on_its_stream() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    for (name, fields, is) in HEADS {
        let id = client.open(fields, true).await;
        let answer = client.answer(id).await;
        assert_eq!(what(&answer), *is, "{name}: {answer:?}");
        assert!(client.goaways.is_empty(), "{name}: {:?}", client.goaways);
        let asked = tokio::time::timeout(NOTHING, rig.accept()).await;
        assert!(asked.is_err(), "{name}: a node was asked");
    }
    assert_alive(&rig, &mut client).await;
}

/// What follows a head: the bytes of each DATA frame, then trailers.
struct Behind {
    name: &'static str,
    length: Option<&'static str>,
    data: &'static [&'static [u8]],
    trailers: Option<Fields>,
}

const fn row(
    name: &'static str,
    length: Option<&'static str>,
    data: &'static [&'static [u8]],
) -> Behind {
    let trailers = None;
    Behind {
        name,
        length,
        data,
        trailers,
    }
}

const fn trailing(name: &'static str, trailers: Fields) -> Behind {
    Behind {
        name,
        length: None,
        data: &[b"abc"],
        trailers: Some(trailers),
    }
}

const BODIES: &[Behind] = &[
    row("a frame longer than the length", Some("5"), &[b"123456"]),
    row(
        "frames longer than the length",
        Some("5"),
        &[b"123", b"456"],
    ),
    row("shorter than the length", Some("5"), &[b"123"]),
    row("nothing for a length", Some("5"), &[b""]),
    row("a byte for a length of 0", Some("0"), &[b"1"]),
    trailing("a pseudo-header", &[(b":path", b"/")]),
    trailing("a status", &[(b":status", b"200")]),
    trailing("content-length", &[(b"content-length", b"3")]),
    trailing("host", &[(b"host", b"evil")]),
    trailing("cookie", &[(b"cookie", b"a=b")]),
    trailing("authorization", &[(b"authorization", b"x")]),
    trailing("te", &[(b"te", b"trailers")]),
    trailing("connection", &[(b"connection", b"close")]),
    trailing("transfer-encoding", &[(b"transfer-encoding", b"chunked")]),
    Behind {
        name: "trailers and a body that is too short",
        length: Some("5"),
        data: &[b"abc"],
        trailers: Some(&[(b"x-sum", b"1")]),
    },
];

/// Aim: a body that contradicts its head, and illegal trailers, reset the stream with PROTOCOL_ERROR. The
/// node's connection ends before the request is whole; the client's connection lives. Fails if the node gets
/// a whole request.
#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_body_is_never_whole_at_the_node() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    for (n, case) in BODIES.iter().enumerate() {
        let name = case.name;
        let length = case.length.map(|l| (&b"content-length"[..], l.as_bytes()));
        let more: Vec<Field<'_>> = length.into_iter().collect();
        let id = client.open(&head("POST", HOST, "/", &more), false).await;
        // An empty body has reached the node at once.
        let whole = case.length == Some("0");
        let (mut node, _) = rig.asked().await;
        for (i, data) in case.data.iter().enumerate() {
            let last = i + 1 == case.data.len() && case.trailers.is_none();
            client.data(id, data, last).await;
        }
        if let Some(trailers) = case.trailers {
            client.fields(id, trailers, true).await;
        }
        let answer = client.answer(id).await;
        assert_eq!(what(&answer), MALFORMED, "{name}: {answer:?}");
        assert!(client.goaways.is_empty(), "{name}: {:?}", client.goaways);
        node.ended().await;
        assert!(whole || !node.unread().ends_with(b"0\r\n\r\n"), "{name}");
        let lines = rig.lines(n + 1).await;
        assert_eq!(lines[n]["reason"], "bad_request", "{name}: {}", lines[n]);
    }
    assert_alive(&rig, &mut client).await;
}

/// Aim: an illegal body length is a 400, whether the head ends the stream or not. Fails if the judgement
/// depends on the stream's end.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_length_is_a_400_before_its_body() {
    let rig = Rig::start().await;
    let mut client = rig.client().await;
    for length in [&["5", "5"][..], &["5, 5"], &["x"], &["-1"], &[""]] {
        let more: Vec<Field<'_>> = length
            .iter()
            .map(|l| (&b"content-length"[..], l.as_bytes()))
            .collect();
        let id = client.open(&head("POST", HOST, "/", &more), false).await;
        let answer = client.answer(id).await;
        assert_eq!(answer.status, 400, "{length:?}: {answer:?}");
        // RFC 9113 §8.1: the edge does not want the rest of the request.
        let rest = client.until(id, |a| a.reset.is_some()).await;
        assert_eq!(rest.reset, Some(Reason::NO_ERROR), "{length:?}");
    }
    assert_alive(&rig, &mut client).await;
}

fn what(answer: &Answer) -> Is {
    match (answer.status, answer.reset) {
        (0, Some(reason)) => Is::Reset(reason),
        (200, _) => Is::Passed,
        (status, _) => Is::Answered(status),
    }
}

/// Aim: a head with bytes that are not legal HTTP text is answered or reset; its siblings go on, and no node
/// gets it. Fails if one of them passes, or ends the connection. Source: RFC 9113 §8.1.1.
#[tokio::test(flavor = "multi_thread")]
async fn illegal_fields_reach_no_node() {
    let rig = Rig::start().await;
    let bad = Is::Answered(400);
    let rows: [(usize, Field<'_>, Is); 12] = [
        (0, (b":method", b"G T"), bad),
        (
            0,
            (b":method", b"GET / HTTP/1.1\r\nx-smuggled: 1\r\n\r\nGET"),
            bad,
        ),
        (3, (b":path", b"/\xff"), bad),
        (3, (b":path", b"/ HTTP/1.1\r\nx-smuggled: 1"), bad),
        (4, (b":other", b"1"), MALFORMED),
        (4, (b"X-Upper", b"1"), MALFORMED),
        (4, (b"a b", b"1"), MALFORMED),
        (4, (b"", b"1"), MALFORMED),
        (4, (b"a", b"\0"), MALFORMED),
        (4, (b"a", b"b\nc"), MALFORMED),
        (4, (b"a", b"b\r\nx-smuggled: 1"), MALFORMED),
        (4, (b"a\r\nx-smuggled", b"1"), MALFORMED),
    ];
    let mut client = rig.client().await;
    for (at, field, expected) in rows {
        let mut fields = vec![METHOD, SCHEME, HOSTED, PATH];
        fields.splice(at..(at + 1).min(4), [field]);
        let name = String::from_utf8_lossy(&[field.0, b": ", field.1].concat()).into_owned();
        let id = client.open(&fields, true).await;
        let answer = client.answer(id).await;
        assert_eq!(what(&answer), expected, "{name:?}");
        let asked = tokio::time::timeout(NOTHING, rig.accept()).await;
        assert!(asked.is_err(), "{name:?}: a node was asked");
        assert_alive(&rig, &mut client).await;
    }
    assert!(client.goaways.is_empty(), "{:?}", client.goaways);
}
