//! Judges a client's request head, and refuses a head that two parsers could read differently.
//!
//! In: the raw bytes of one HTTP/1 head. Out: [`RequestHead`] (framing of the body, persistence, and the
//! edits for the node), or a [`RequestHeadError`] with the status the client gets.
//! Source: RFC 9112 §2.2, §3, §5, §6, §9.3; RFC 9110 §7.2, §7.6.1, §10.1.1; FAULTS D1–D11, D14, D18.

use std::borrow::Cow;
use std::sync::Arc;

use pushgate_plugins::head::{Edits, Head, HeadError};
use pushgate_plugins::host;

use super::hop_by_hop::{self, Field, Lines, MAX_NOMINATED, Options};
use super::response_head::decimal;
use crate::config::Limits;
use crate::stream::framing::Framing;

/// The value of `Sec-WebSocket-Accept` that answers a key of the edge: a SHA-1 in base64.
pub type Accept = [u8; 28];

/// A legal request head.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The head as the client sent it.
    pub head: Arc<Head>,
    /// Framing of the body.
    pub framing: Framing,
    /// A WebSocket upgrade: `GET`, HTTP/1.1, no body, the one protocol `websocket`.
    pub websocket: bool,
    /// The client's connection may carry another request (RFC 9112 §9.3).
    pub keep: bool,
    /// The client may hold its body back until it gets a 100 (RFC 9110 §10.1.1).
    pub expects_continue: bool,
    /// The client asked over HTTP/2.
    pub over_http2: bool,
    /// The `Sec-WebSocket-Accept` that the node must send if the edge made this upgrade of a stream (RFC 8441
    /// §5).
    pub accept: Option<Box<Accept>>,
    /// Lines that the node does not get.
    hop: Lines,
}

impl RequestHead {
    /// Returns the protocol as the log names it.
    pub fn protocol(&self) -> &'static str {
        match (self.websocket, self.over_http2) {
            (true, _) => "websocket",
            (false, true) => "h2",
            (false, false) => "http/1.1",
        }
    }

    /// Returns the requested host, normalised: the target's authority, else `Host`, else empty.
    pub fn host(&self) -> Cow<'_, str> {
        let field = || std::str::from_utf8(self.head.value("host")?).ok();
        let host = self.head.authority().or_else(field);
        host::normalise(host.unwrap_or_default())
    }

    /// Returns the head with its edits for the node. Hop-by-hop fields are left out, the target is a path
    /// (RFC 9112 §3.2.1), and an upgrade to WebSocket has one fixed form.
    pub fn edits(&self) -> Edits {
        let mut edits = self.hop.dropped_from(&self.head);
        if let Some(target) = self.other_target() {
            let set = edits.set_target(&target);
            debug_assert!(set.is_ok(), "a part of a legal target is a legal target");
        }
        if self.websocket {
            super::append(&mut edits, "Connection", b"Upgrade");
            super::append(&mut edits, "Upgrade", b"websocket");
        }
        edits
    }

    /// Returns the target for the node if it differs from the client's: the path of an absolute URL.
    fn other_target(&self) -> Option<Cow<'_, str>> {
        self.head.authority()?;
        let query = self.head.query();
        Some(match self.head.origin_form() {
            Some(path) => Cow::Borrowed(path),
            // RFC 9112 §3.2.4: the request is about the whole server, not its root.
            None if query.is_none() && self.head.method() == "OPTIONS" => Cow::Borrowed("*"),
            None => Cow::Owned(query.map_or("/".to_owned(), |query| format!("/?{query}"))),
        })
    }
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestHeadError {
    /// The head is illegal. The text says why.
    Bad(&'static str),
    /// The head or its number of headers is above the limit.
    TooLarge,
    /// The target is above the limit.
    TargetTooLong,
    /// `CONNECT` or `TRACE`.
    Method,
    /// Not HTTP/1.0 or HTTP/1.1.
    Version,
}

use RequestHeadError::Bad;

impl RequestHeadError {
    /// Returns status and reason phrase of the answer.
    pub fn status(self) -> (u16, &'static str) {
        match self {
            Bad(_) => (400, "Bad Request"),
            Self::TooLarge => (431, "Request Header Fields Too Large"),
            Self::TargetTooLong => (414, "URI Too Long"),
            Self::Method => (405, "Method Not Allowed"),
            Self::Version => (505, "HTTP Version Not Supported"),
        }
    }
}

/// Searches the end of a head that arrives in pieces, and looks at each byte once: a client that sends single
/// bytes pays for each of them alone.
#[derive(Debug, Default)]
pub struct HeadSearch {
    /// The empty line may begin within the last three bytes that were seen.
    from: usize,
}

impl HeadSearch {
    /// Finds the end of the first head in `bytes`, one past its empty line; `None`: more bytes are needed, and
    /// the next call gets these again with those behind them.
    ///
    /// Errors: bytes that no head can begin with, so garbage is answered at once; a head above the limit.
    pub fn end(
        &mut self,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, RequestHeadError> {
        let found = end(bytes, self.from, limits)?;
        self.from = bytes.len().saturating_sub(3);
        Ok(found)
    }
}

/// As [`HeadSearch::end`]; bytes before `from` were seen.
fn end(bytes: &[u8], from: usize, limits: &Limits) -> Result<Option<usize>, RequestHeadError> {
    if bytes
        .first()
        .is_some_and(|first| !first.is_ascii_uppercase())
    {
        return Err(Bad("method"));
    }
    let unseen = bytes.get(from..).unwrap_or_default();
    let found = hop_by_hop::empty_line(unseen).map(|i| from + i + 4);
    if found.unwrap_or(bytes.len()) as u64 > limits.head.0 {
        let line = memchr::memchr(b'\r', bytes).unwrap_or(bytes.len());
        return Err(match line as u64 > limits.target.0 {
            true => RequestHeadError::TargetTooLong,
            false => RequestHeadError::TooLarge,
        });
    }
    if found.is_none() && has_bare_line_end(bytes, from) {
        return Err(Bad("line end"));
    }
    Ok(found)
}

/// Judges one complete head.
pub fn judge(head: &[u8], limits: &Limits) -> Result<RequestHead, RequestHeadError> {
    // A head with two readings is reported as that, whatever else is wrong with it.
    judge_lines(head, limits).map_err(|e| match has_bare_line_end(head, 0) {
        true => Bad("line end"),
        false => e,
    })
}

fn judge_lines(head: &[u8], limits: &Limits) -> Result<RequestHead, RequestHeadError> {
    let head = Head::request(head).map_err(|e| match e {
        HeadError::TooManyLines => RequestHeadError::TooLarge,
        // Other protocols, such as a PROXY protocol header, have no HTTP version to refuse (D38).
        HeadError::Version if names_http(head) => RequestHeadError::Version,
        _ => Bad("syntax"),
    })?;
    if head.len() > limits.headers {
        return Err(RequestHeadError::TooLarge);
    }
    check_method(head.method())?;
    if head.target().len() as u64 > limits.target.0 {
        return Err(RequestHeadError::TargetTooLong);
    }
    let fields = Fields::read(&head)?;
    check_host(&head, fields.host)?;
    let modern = !head.is_http_10();
    let framing = match (fields.chunked, fields.length) {
        (true, Some(_)) => return Err(Bad("content-length and transfer-encoding")),
        (true, None) if !modern => return Err(Bad("transfer-encoding in HTTP/1.0")),
        (true, None) => Framing::chunked(),
        (false, n) => Framing::length(n.unwrap_or(0)),
    };
    let asks = modern && fields.upgrade_websocket && fields.options.upgrade;
    if asks && !framing.is_done() {
        return Err(Bad("upgrade with a body"));
    }
    Ok(RequestHead {
        framing,
        websocket: asks && head.method() == "GET",
        keep: !fields.options.close && (modern || fields.options.keep_alive),
        expects_continue: modern && fields.expects_continue,
        over_http2: false,
        accept: None,
        hop: fields.hop(&head)?,
        head: Arc::new(head),
    })
}

/// Whether the request line's third word names HTTP, in any version.
fn names_http(head: &[u8]) -> bool {
    let third = head.splitn(3, |b| *b == b' ').nth(2);
    third.is_some_and(|word| word.starts_with(b"HTTP/"))
}

/// Whether the head has a CR or LF outside a CRLF, a folded line, or a NUL, from the byte before `from` on.
/// Two parsers would read these in two ways.
fn has_bare_line_end(head: &[u8], from: usize) -> bool {
    let from = from.saturating_sub(1);
    let unseen = head.get(from..).unwrap_or_default();
    let mut found = memchr::memchr3_iter(b'\r', b'\n', 0, unseen).map(|i| from + i);
    found.any(|i| match head[i] {
        b'\r' => head.get(i + 1).is_some_and(|b| *b != b'\n'),
        b'\n' => i == 0 || head[i - 1] != b'\r' || matches!(head.get(i + 1), Some(b' ' | b'\t')),
        _ => true,
    })
}

fn check_method(method: &str) -> Result<(), RequestHeadError> {
    match method {
        "CONNECT" | "TRACE" => Err(RequestHeadError::Method),
        _ if method.len() > 32 => Err(Bad("method")),
        _ if !method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') => Err(Bad("method")),
        _ => Ok(()),
    }
}

/// What the fields say about framing, routing and connection.
#[derive(Default)]
struct Fields<'a> {
    length: Option<u64>,
    chunked: bool,
    host: Option<&'a str>,
    upgrade_websocket: bool,
    expects_continue: bool,
    has_trailer: bool,
    options: Options,
    hop: Lines,
}

impl<'a> Fields<'a> {
    fn read(head: &'a Head) -> Result<Self, RequestHeadError> {
        let mut f = Fields::default();
        // The parser refuses a bare CR, a NUL and a folded line. It accepts a bare LF.
        let mut whole = head.raw().ends_with(b"\r\n\r\n");
        for (i, (name, value)) in head.lines().enumerate() {
            whole &= hop_by_hop::follows_crlf(head.raw(), name);
            match Field::of(name) {
                Field::Other | Field::Date => {}
                Field::ContentLength => {
                    let n = decimal(value).ok_or(Bad("content-length"))?;
                    if f.length.replace(n).is_some() {
                        return Err(Bad("content-length twice"));
                    }
                }
                Field::TransferEncoding => {
                    if f.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Bad("transfer-encoding"));
                    }
                    f.chunked = true;
                }
                Field::Underscore => return Err(Bad("underscore in a framing field")),
                Field::Host => {
                    let host = std::str::from_utf8(value).map_err(|_| Bad("host"))?;
                    if f.host.replace(host).is_some() {
                        return Err(Bad("host twice"));
                    }
                }
                Field::Connection => {
                    f.options.read(value);
                    f.hop.insert(i);
                }
                Field::Upgrade => {
                    f.upgrade_websocket = value.eq_ignore_ascii_case(b"websocket");
                    f.hop.insert(i);
                }
                Field::Hop | Field::RequestHop => f.hop.insert(i),
                Field::Expect => f.expects_continue |= value.eq_ignore_ascii_case(b"100-continue"),
                Field::Trailer => f.has_trailer = true,
            }
        }
        whole.then_some(f).ok_or(Bad("line end"))
    }

    /// Returns all lines that the node does not get.
    fn hop(&self, head: &Head) -> Result<Lines, RequestHeadError> {
        let mut hop = self.hop;
        if self.has_trailer && !self.chunked {
            hop.insert_named(head, b"trailer");
        }
        if self.options.nominated > MAX_NOMINATED {
            return Err(Bad("connection names too many fields"));
        }
        if self.options.nominated > 0 {
            for name in hop_by_hop::nominated(head) {
                check_nominated(name)?;
                hop.insert_named(head, name);
            }
        }
        Ok(hop)
    }
}

/// Fields that a node trusts, or that frame the body. No client may have them dropped (D14).
const NEVER_NOMINATED: &[&str] = &[
    "host",
    "content-length",
    "transfer-encoding",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
];

fn check_nominated(name: &[u8]) -> Result<(), RequestHeadError> {
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let is = |known: &&str| known.as_bytes().eq_ignore_ascii_case(name);
    match name.iter().all(token) && !NEVER_NOMINATED.iter().any(is) {
        true => Ok(()),
        false => Err(Bad("connection names a field it may not")),
    }
}

fn check_host(head: &Head, host: Option<&str>) -> Result<(), RequestHeadError> {
    let target = head.target();
    if host.is_some_and(|host| !legal_authority(host)) {
        return Err(Bad("host"));
    }
    if host.is_none() && !head.is_http_10() {
        return Err(Bad("no host"));
    }
    if memchr::memchr(b'#', target.as_bytes()).is_some() {
        return Err(Bad("fragment in the target"));
    }
    if target.starts_with('/') || (target == "*" && head.method() == "OPTIONS") {
        return Ok(());
    }
    let scheme = target.split_once("://").map_or("", |(scheme, _)| scheme);
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Bad("target"));
    }
    let authority = head.authority().unwrap_or_default();
    match host {
        Some(h) if h.eq_ignore_ascii_case(authority) && !authority.is_empty() => Ok(()),
        _ => Err(Bad("target and host differ")),
    }
}

/// Whether `authority` is `host[:port]`: a name or address, a port from 1 on, no user, no list.
pub fn legal_authority(authority: &str) -> bool {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((v6, port)) if v6.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", port),
            _ => return false,
        },
        None => match authority.find(':') {
            Some(i) => authority.split_at(i),
            None => (authority, ""),
        },
    };
    let port_ok = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(p) => p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok_and(|p| p > 0),
    };
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    port_ok && !host.is_empty() && host.len() <= 253 && host.bytes().all(legal)
}

#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(test)]
mod mutations;
#[cfg(any(test, fuzzing))]
mod second_reader;
#[cfg(test)]
mod sent;
#[cfg(test)]
mod tests;
