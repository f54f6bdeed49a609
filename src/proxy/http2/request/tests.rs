//! Heads and trailers as a client sends them: their form in HTTP/1, and each error.

mod literals;

use self::literals::frame;
use super::*;

type Fields<'a> = &'a [(&'a str, &'a str)];

const METHOD: (&str, &str) = (":method", "GET");
const POST: (&str, &str) = (":method", "POST");
const CONNECT: (&str, &str) = (":method", "CONNECT");
const WEBSOCKET: (&str, &str) = (":protocol", "websocket");
const SCHEME: (&str, &str) = (":scheme", "https");
const HOST: (&str, &str) = (":authority", "a.com");
const PATH: (&str, &str) = (":path", "/p?q");

fn judged(fields: Fields<'_>, ended: bool, websocket: bool) -> Result<Request, RequestError> {
    let frame = frame(fields, ended).ok_or(Malformed)?;
    judge(&frame, &Limits::default(), websocket)
}

/// Returns the head in its form of HTTP/1.
fn raw(request: &Request) -> String {
    String::from_utf8_lossy(request.head.head.raw()).into_owned()
}

/// Name, fields, status; `None`: the stream is reset.
type Error<'a> = (&'a str, Fields<'a>, Option<u16>);

const ERRORS: &[Error<'_>] = &[
    ("no method", &[SCHEME, HOST, PATH], None),
    ("no scheme", &[METHOD, HOST, PATH], None),
    ("no path", &[METHOD, SCHEME, HOST], None),
    (
        "an empty path",
        &[METHOD, SCHEME, HOST, (":path", "")],
        None,
    ),
    (
        "a status",
        &[METHOD, SCHEME, HOST, PATH, (":status", "200")],
        None,
    ),
    (
        "a protocol of GET",
        &[METHOD, WEBSOCKET, SCHEME, HOST, PATH],
        None,
    ),
    (
        "a length, and the end",
        &[POST, SCHEME, HOST, PATH, ("content-length", "5")],
        None,
    ),
    (
        "a field of a connection",
        &[METHOD, SCHEME, HOST, PATH, ("connection", "close")],
        None,
    ),
    (
        "te: gzip",
        &[METHOD, SCHEME, HOST, PATH, ("te", "gzip")],
        None,
    ),
    (
        "another scheme",
        &[METHOD, (":scheme", "ftp"), HOST, PATH],
        Some(400),
    ),
    ("no host", &[METHOD, SCHEME, PATH], Some(400)),
    (
        "an empty host",
        &[METHOD, SCHEME, (":authority", ""), PATH],
        Some(400),
    ),
    (
        "two hosts",
        &[METHOD, SCHEME, PATH, ("host", "a.com"), ("host", "a.com")],
        Some(400),
    ),
    (
        "hosts that differ",
        &[METHOD, SCHEME, HOST, PATH, ("host", "b.com")],
        Some(400),
    ),
    (
        "a line end in the host",
        &[METHOD, SCHEME, (":authority", "a\r\nx: y"), PATH],
        Some(400),
    ),
    (
        "* of GET",
        &[METHOD, SCHEME, HOST, (":path", "*")],
        Some(400),
    ),
    (
        "no slash",
        &[METHOD, SCHEME, HOST, (":path", "p")],
        Some(400),
    ),
    (
        "a URL",
        &[METHOD, SCHEME, HOST, (":path", "http://a.com/")],
        Some(400),
    ),
    (
        "a blank",
        &[METHOD, SCHEME, HOST, (":path", "/ HTTP/1.1")],
        Some(400),
    ),
    (
        "lower case",
        &[(":method", "get"), SCHEME, HOST, PATH],
        Some(400),
    ),
    (
        "two lengths",
        &[
            POST,
            SCHEME,
            HOST,
            PATH,
            ("content-length", "0"),
            ("content-length", "0"),
        ],
        Some(400),
    ),
    (
        "TRACE",
        &[(":method", "TRACE"), SCHEME, HOST, PATH],
        Some(405),
    ),
    ("CONNECT", &[CONNECT, HOST], Some(405)),
    (
        "CONNECT for a WebSocket",
        &[CONNECT, WEBSOCKET, SCHEME, HOST, PATH],
        Some(501),
    ),
    (
        "CONNECT for another",
        &[CONNECT, (":protocol", "x"), SCHEME, HOST, PATH],
        Some(501),
    ),
];

/// Aim: each error has its status. Fails if a malformed head is answered, or another head reset, or if a
/// status differs from HTTP/1's.
#[test]
fn each_error_has_its_status() {
    let long = "x".repeat(33_000);
    let path = format!("/{}", "x".repeat(16 * 1024));
    let far = format!("/{long}{long}");
    let many: Vec<_> = [METHOD, SCHEME, HOST, PATH]
        .into_iter()
        .chain([("x", "y"); 101])
        .collect();
    let large: &[Error<'_>] = &[
        (
            "a long target",
            &[METHOD, SCHEME, HOST, (":path", &path)],
            Some(414),
        ),
        (
            "a target the codec leaves out",
            &[METHOD, SCHEME, HOST, (":path", &far)],
            Some(414),
        ),
        (
            "a long field",
            &[METHOD, SCHEME, HOST, PATH, ("x", &long)],
            Some(431),
        ),
        (
            "a field the codec leaves out",
            &[METHOD, SCHEME, HOST, PATH, ("x", &far)],
            Some(431),
        ),
        ("many fields", &many, Some(431)),
    ];
    for (name, fields, status) in ERRORS.iter().chain(large) {
        let got = judged(fields, true, false);
        let got = match got.map(|request| raw(&request)) {
            Err(Answered(status, _)) => Some(status),
            Err(Malformed) => None,
            Ok(head) => panic!("{name}: {head}"),
        };
        assert_eq!(got, *status, "{name}");
    }
}

/// Name, fields, whether the stream ends with them, the head in HTTP/1.
const HEADS: &[(&str, Fields<'_>, bool, &str)] = &[
    (
        "a GET",
        &[METHOD, SCHEME, HOST, PATH],
        true,
        "GET /p?q HTTP/1.1\r\nHost: a.com\r\n\r\n",
    ),
    (
        "a host in a field",
        &[METHOD, SCHEME, PATH, ("host", "a.com")],
        true,
        "GET /p?q HTTP/1.1\r\nHost: a.com\r\n\r\n",
    ),
    (
        "the host twice, in another case",
        &[METHOD, SCHEME, HOST, PATH, ("host", "A.com")],
        true,
        "GET /p?q HTTP/1.1\r\nHost: a.com\r\n\r\n",
    ),
    (
        "crumbs",
        &[
            METHOD,
            SCHEME,
            HOST,
            PATH,
            ("cookie", "a=1"),
            ("cookie", "b=2; c=3"),
            ("cookie", "d=4"),
        ],
        true,
        "GET /p?q HTTP/1.1\r\nHost: a.com\r\ncookie: a=1; b=2; c=3; d=4\r\n\r\n",
    ),
    (
        "fields of one name",
        &[
            METHOD,
            SCHEME,
            HOST,
            PATH,
            ("x", "1"),
            ("x", ""),
            ("x", "2"),
        ],
        true,
        "GET /p?q HTTP/1.1\r\nHost: a.com\r\nx: 1\r\nx: \r\nx: 2\r\n\r\n",
    ),
    (
        "a body without a length",
        &[POST, SCHEME, HOST, PATH],
        false,
        "POST /p?q HTTP/1.1\r\nHost: a.com\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    (
        "a body with one",
        &[POST, SCHEME, HOST, PATH, ("content-length", "5")],
        false,
        "POST /p?q HTTP/1.1\r\nHost: a.com\r\ncontent-length: 5\r\n\r\n",
    ),
    (
        "the whole server",
        &[(":method", "OPTIONS"), SCHEME, HOST, (":path", "*")],
        true,
        "OPTIONS * HTTP/1.1\r\nHost: a.com\r\n\r\n",
    ),
    (
        "UTF-8 and more",
        &[
            METHOD,
            (":scheme", "HTTPS"),
            HOST,
            (":path", "/ä\"<>|`{}^\\?日"),
        ],
        true,
        "GET /ä\"<>|`{}^\\?日 HTTP/1.1\r\nHost: a.com\r\n\r\n",
    ),
];

/// Aim: a head has its form of HTTP/1. Fails if a field is lost or repeated, if crumbs are not one line, or
/// if the framing does not follow from the stream's end.
#[test]
fn a_head_is_that_of_http_1() {
    for (name, fields, ended, head) in HEADS {
        let request = judged(fields, *ended, false);
        let request = request.unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert_eq!(raw(&request), *head, "{name}");
        assert!(
            request.head.over_http2 && request.head.accept.is_none(),
            "{name}"
        );
        assert_eq!(request.ended, *ended, "{name}");
        let length = head.contains("content-length").then_some(5);
        let expected = if *ended { Some(0) } else { length };
        assert_eq!(request.expected(), expected, "{name}");
    }
}

/// Aim: an extended CONNECT becomes an upgrade with a key of the edge. Fails if it does not, or if one that
/// has ended does.
#[test]
fn an_extended_connect_is_an_upgrade() {
    let fields = [
        CONNECT,
        WEBSOCKET,
        SCHEME,
        HOST,
        PATH,
        ("sec-websocket-version", "13"),
    ];
    let request = judged(&fields, false, true).unwrap_or_else(|e| panic!("{e:?}"));
    let head = raw(&request);
    assert!(
        head.starts_with("GET /p?q HTTP/1.1\r\nHost: a.com\r\n"),
        "{head}"
    );
    assert!(
        head.contains("\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"),
        "{head}"
    );
    assert!(!head.contains("chunked"), "{head}");
    assert!(request.head.websocket && request.head.accept.is_some());
    assert_eq!(request.expected(), None);
    assert_eq!(judged(&fields, true, true).err(), Some(Malformed));
    let other = [CONNECT, (":protocol", "connect-udp"), SCHEME, HOST, PATH];
    let answered = Answered(501, "Not Implemented");
    assert_eq!(judged(&other, false, true).err(), Some(answered));
}

/// Aim: trailers become lines of HTTP/1. Fails if a field is lost, if a pseudo-header or a framing field
/// passes, if trailers do not end their stream, or if the limit differs from HTTP/1's.
#[test]
fn trailers_are_lines_of_http_1() {
    let told = |fields: Fields<'_>, ended| trailers(&frame(fields, ended)?);
    let two = told(&[("x-sum", "1"), ("x-sum", "2"), ("grpc-status", "")], true);
    assert_eq!(
        two.as_deref(),
        Some(&b"x-sum: 1\r\nx-sum: 2\r\ngrpc-status: \r\n"[..])
    );
    assert_eq!(told(&[], true).as_deref(), Some(&b""[..]));
    assert_eq!(told(&[("x-sum", "1")], false), None);
    let long = "x".repeat(framing::MAX_TRAILERS - 5);
    assert!(told(&[("x", &long)], true).is_some());
    let longer = format!("{long}x");
    for (name, value) in [
        ("x", &longer[..]),
        (":path", "/"),
        (":status", "200"),
        (":method", "GET"),
        ("content-length", "1"),
        ("host", "a"),
        ("cookie", "a"),
        ("te", "trailers"),
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("x", "a\u{1}"),
        ("x", "a\u{7f}"),
    ] {
        assert_eq!(told(&[(name, value)], true), None, "{name}");
    }
}
