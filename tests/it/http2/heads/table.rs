//! Requests without a body, legal and not, in the terms of both versions.

use h2::Reason;

use super::super::rig::HOST;
use super::MALFORMED;

/// Outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// The node gets it.
    Passed,
    /// The edge refuses it.
    Answered(u16),
    /// The edge resets its stream.
    Reset(Reason),
}

use Is::{Answered, Passed};

/// A request.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub method: &'static str,
    pub target: &'static [u8],
    /// The requested host.
    pub authority: Option<&'static str>,
    /// A `Host` field in addition.
    pub host: Option<&'static str>,
    fields: &'static [(&'static str, &'static str)],
    /// Bytes of a filler field, and how often it is repeated.
    filler: (usize, usize),
    /// Outcome over HTTP/1, and over HTTP/2 too unless `over_http_2` is set.
    pub h1: Is,
    over_http_2: Option<Is>,
}

impl Case {
    /// Outcome over HTTP/2.
    pub fn h2(&self) -> Is {
        self.over_http_2.unwrap_or(self.h1)
    }

    /// Its fields.
    pub fn all_fields(&self) -> Vec<(&'static str, String)> {
        let (size, times) = self.filler;
        let fields = self.fields.iter().map(|(n, v)| (*n, (*v).to_owned()));
        let filler = std::iter::repeat_n(("X-Filler", "x".repeat(size)), times);
        fields.chain(filler).collect()
    }

    const fn method(self, method: &'static str) -> Case {
        Case { method, ..self }
    }

    const fn at(self, authority: Option<&'static str>) -> Case {
        Case { authority, ..self }
    }

    const fn beside(self, host: &'static str) -> Case {
        let host = Some(host);
        Case { host, ..self }
    }

    const fn with(self, fields: &'static [(&'static str, &'static str)]) -> Case {
        Case { fields, ..self }
    }

    const fn filled(self, size: usize, times: usize) -> Case {
        let filler = (size, times);
        Case { filler, ..self }
    }

    const fn over_http_2(self, is: Is) -> Case {
        let over_http_2 = Some(is);
        Case {
            over_http_2,
            ..self
        }
    }
}

const fn is(h1: Is, name: &'static str, target: &'static [u8]) -> Case {
    Case {
        name,
        method: "GET",
        target,
        authority: Some(HOST),
        host: None,
        fields: &[],
        filler: (0, 0),
        h1,
        over_http_2: None,
    }
}

const fn passed(name: &'static str, target: &'static [u8]) -> Case {
    is(Passed, name, target)
}

const fn bad(name: &'static str, target: &'static [u8]) -> Case {
    is(Answered(400), name, target)
}

/// A path of `N` bytes.
const fn long<const N: usize>() -> [u8; N] {
    let mut path = [b'a'; N];
    path[0] = b'/';
    path
}

static LONGEST: [u8; 16 * 1024] = long();
static TOO_LONG: [u8; 16 * 1024 + 1] = long();
static FAR_TOO_LONG: [u8; 40_000] = long();

pub static TABLE: &[Case] = &[
    // Methods. RFC 9110 §9; FAULTS D11.
    is(Answered(405), "CONNECT", b"/").method("CONNECT"),
    is(Answered(405), "TRACE", b"/").method("TRACE"),
    bad("lower case", b"/").method("get"),
    bad("33 letters", b"/").method("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG"),
    bad("no letters", b"/").method("G+T"),
    passed("32 letters", b"/").method("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEF"),
    passed("a method of one's own", b"/").method("X-PURGE"),
    passed("OPTIONS *", b"*").method("OPTIONS"),
    // Hosts. RFC 9110 §7.2; FAULTS D10.
    bad("userinfo", b"/").at(Some("user@push.mycompany.com")),
    bad("user and password", b"/").at(Some("a:b@push.mycompany.com")),
    bad("port 0", b"/").at(Some("push.mycompany.com:0")),
    bad("port 65536", b"/").at(Some("push.mycompany.com:65536")),
    bad("no number for a port", b"/").at(Some("push.mycompany.com:a")),
    bad("a list", b"/").at(Some("push.mycompany.com,evil")),
    bad("a list with a blank", b"/").at(Some("push.mycompany.com, evil")),
    bad("a path in the host", b"/").at(Some("push.mycompany.com/a")),
    bad("a fragment in the host", b"/").at(Some("push.mycompany.com#a")),
    bad("half an IPv6 address", b"/").at(Some("[::1")),
    bad("an empty host", b"/").at(Some("")),
    bad("no host", b"/").at(None),
    bad("another Host", b"/").beside("evil"),
    bad("another port in Host", b"/").beside("push.mycompany.com:8443"),
    bad("an empty Host", b"/").beside(""),
    bad("Host with a user", b"/").beside("a@push.mycompany.com"),
    passed("the same Host", b"/").beside(HOST),
    passed("the same Host in capitals", b"/").beside("PUSH.MYCOMPANY.COM"),
    passed("only Host", b"/").at(None).beside(HOST),
    passed("a port", b"/").at(Some("push.mycompany.com:8443")),
    // Targets. RFC 9112 §3.2; RFC 9113 §8.3.1: an empty path is malformed in HTTP/2.
    bad("an empty path", b"").over_http_2(MALFORMED),
    bad("a query alone", b"?x"),
    bad("* with GET", b"*"),
    bad("** with OPTIONS", b"**").method("OPTIONS"),
    bad("an absolute URL of somebody else", b"http://evil/"),
    bad("another scheme", b"ftp://push.mycompany.com/"),
    bad("no slash", b"a/b"),
    bad("a fragment", b"/a#b"),
    bad("a fragment in the query", b"/a?b#c"),
    bad("a blank in the path", b"/a b"),
    bad("a blank in the query", b"/a?b c"),
    bad("a blank before the path", b" /a"),
    bad("a tab", b"/a\tb"),
    bad("DEL", b"/a\x7fb"),
    bad("a control", b"/a\x01b"),
    bad("a NUL", b"/a\0b"),
    bad("a line end", b"/a\r\nX-Smuggled: 1"),
    passed("quotes", br#"/"a"?ids=["1"]&f={"a":1}"#),
    passed("< and >", b"/<a>?q=<b>"),
    passed("|", b"/a|b?c|d"),
    passed("backtick", b"/`a?`b"),
    passed("braces", b"/{a}?{b}"),
    passed("^ and backslash", b"/a^b\\c?^"),
    passed("brackets", b"/[::1]?[x]"),
    passed("UTF-8", "/ä/日本?ü=ß&日本=語".as_bytes()),
    passed("encoded, dots and slashes", b"/%7Ba%7d/../b//c?%zz?"),
    passed("a path that looks like a URL", b"//evil/a"),
    passed("the longest target", &LONGEST),
    is(Answered(414), "a target one byte too long", &TOO_LONG),
    is(
        Answered(414),
        "a target above the head's limit",
        &FAR_TOO_LONG,
    ),
    // Lengths. RFC 9110 §8.6; FAULTS D2, D3. Over HTTP/2 the stream ends with the head.
    bad("two lengths", b"/").with(&[("Content-Length", "0"), ("Content-Length", "0")]),
    bad("lengths that differ", b"/").with(&[("Content-Length", "5"), ("Content-Length", "6")]),
    bad("a list of lengths", b"/").with(&[("Content-Length", "5, 5")]),
    bad("+5", b"/").with(&[("Content-Length", "+5")]),
    bad("-1", b"/").with(&[("Content-Length", "-1")]),
    bad("0x5", b"/").with(&[("Content-Length", "0x5")]),
    bad("an empty length", b"/").with(&[("Content-Length", "")]),
    bad("2^64", b"/").with(&[("Content-Length", "18446744073709551616")]),
    bad("content_length", b"/").with(&[("Content_Length", "5")]),
    bad("transfer_encoding", b"/").with(&[("Transfer_Encoding", "chunked")]),
    passed("a length of 0", b"/").with(&[("Content-Length", "0")]),
    // Sizes. RFC 6585 §5; FAULTS D9.
    is(Answered(431), "101 fields", b"/").filled(1, 100),
    passed("100 fields", b"/").filled(1, 99),
    is(Answered(431), "a field above the head's limit", b"/").filled(32 * 1024, 1),
    is(Answered(431), "fields above it together", b"/").filled(9_000, 4),
    is(Answered(431), "far too many fields", b"/").filled(1, 1_000),
    passed("a large field", b"/").filled(31 * 1024, 1),
    // Hop-by-hop fields: HTTP/1 keeps them on the connection, HTTP/2 has none (RFC 9113 §8.2.2).
    passed("Connection", b"/")
        .with(&[("Connection", "keep-alive")])
        .over_http_2(MALFORMED),
    passed("Keep-Alive", b"/")
        .with(&[("Keep-Alive", "timeout=1")])
        .over_http_2(MALFORMED),
    passed("Proxy-Connection", b"/")
        .with(&[("Proxy-Connection", "close")])
        .over_http_2(MALFORMED),
    passed("Upgrade", b"/")
        .with(&[("Upgrade", "h2c")])
        .over_http_2(MALFORMED),
    bad("Transfer-Encoding", b"/")
        .with(&[("Transfer-Encoding", "gzip")])
        .over_http_2(MALFORMED),
    passed("TE: gzip", b"/")
        .with(&[("TE", "gzip")])
        .over_http_2(MALFORMED),
    passed("TE: trailers", b"/").with(&[("TE", "trailers")]),
    // Expect, without a body.
    passed("Expect", b"/").with(&[("Expect", "100-continue")]),
    passed("another Expect", b"/").with(&[("Expect", "a-miracle")]),
];
