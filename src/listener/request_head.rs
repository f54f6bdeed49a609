//! Judges a request's head before anyone else reads it: one reading only, or none.
//!
//! In: the raw bytes of one HTTP/1 head. Out: [`RequestHead`] (framing of the body, what the
//! connection is to do), or a [`Fault`] with the status it gets. Pingora sees legal heads only.
//! Source: RFC 9112 §2.2, §3, §5, §6; RFC 9110 §7.2; FAULTS D1–D11, D18.

use crate::config::Limits;
use crate::stream::framing::Framing;
use crate::upstream::response_head::{decimal, has_token};

/// Most header lines the parser has room for; the configured limit is below.
const ROOM: usize = 256;

/// What a legal head says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Framing of the body.
    pub framing: Framing,
    /// A WebSocket upgrade: `GET`, HTTP/1.1, no body, the one protocol `websocket`.
    pub websocket: bool,
}

impl RequestHead {
    /// The protocol's word in the log.
    pub fn protocol(&self) -> &'static str {
        match self.websocket {
            true => "websocket",
            false => "http/1.1",
        }
    }
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not a legal head; the word says what.
    Bad(&'static str),
    /// Head or header count above the limit.
    TooLarge,
    /// Target above the limit.
    TargetTooLong,
    /// `CONNECT` or `TRACE`.
    Method,
    /// Not HTTP/1.0 or HTTP/1.1.
    Version,
}

impl Fault {
    /// Status and reason phrase of the answer.
    pub fn status(self) -> (u16, &'static str) {
        match self {
            Fault::Bad(_) => (400, "Bad Request"),
            Fault::TooLarge => (431, "Request Header Fields Too Large"),
            Fault::TargetTooLong => (414, "URI Too Long"),
            Fault::Method => (405, "Method Not Allowed"),
            Fault::Version => (505, "HTTP Version Not Supported"),
        }
    }
}

/// Where the first head in `bytes` ends (one past its empty line), looking from `from` on.
///
/// Errors: what can be no head however it goes on, so that garbage is answered at once.
pub fn end(bytes: &[u8], from: usize, limits: &Limits) -> Result<Option<usize>, Fault> {
    if let Some(first) = bytes.first()
        && !first.is_ascii_uppercase()
    {
        return Err(Fault::Bad("method"));
    }
    let found = memchr::memmem::find(&bytes[from..], b"\r\n\r\n").map(|i| from + i + 4);
    if found.unwrap_or(bytes.len()) as u64 > limits.head.0 {
        let line = memchr::memchr(b'\r', bytes).unwrap_or(bytes.len());
        let target = line as u64 > limits.target.0;
        return Err(if target {
            Fault::TargetTooLong
        } else {
            Fault::TooLarge
        });
    }
    if found.is_none() && has_bare_line_end(bytes) {
        return Err(Fault::Bad("line end"));
    }
    Ok(found)
}

/// Judges one whole head.
pub fn check(head: &[u8], limits: &Limits) -> Result<RequestHead, Fault> {
    if has_bare_line_end(head) {
        return Err(Fault::Bad("line end"));
    }
    let mut lines = [httparse::EMPTY_HEADER; ROOM];
    let mut parsed = httparse::Request::new(&mut lines);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(n)) if n == head.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Fault::TooLarge),
        // Something else, a PROXY protocol header for one, has no version to be refused (D38).
        Err(httparse::Error::Version) if names_http(head) => return Err(Fault::Version),
        _ => return Err(Fault::Bad("syntax")),
    }
    if parsed.headers.len() > limits.headers {
        return Err(Fault::TooLarge);
    }
    let modern = parsed.version == Some(1);
    let method = parsed.method.unwrap_or_default();
    check_method(method)?;
    let target = parsed.path.unwrap_or_default();
    if target.len() as u64 > limits.target.0 {
        return Err(Fault::TargetTooLong);
    }
    let fields = Fields::read(parsed.headers)?;
    check_host(method, target, fields.host, modern)?;
    let framing = match (fields.chunked, fields.length) {
        (true, Some(_)) => return Err(Fault::Bad("content-length and transfer-encoding")),
        (true, None) if !modern => return Err(Fault::Bad("transfer-encoding in HTTP/1.0")),
        (true, None) => Framing::chunked(),
        (false, n) => Framing::length(n.unwrap_or(0)),
    };
    let asks = modern && fields.upgrade_websocket && fields.connection_upgrade;
    if asks && !framing.is_done() {
        return Err(Fault::Bad("upgrade with a body"));
    }
    Ok(RequestHead {
        framing,
        websocket: asks && method == "GET",
    })
}

/// Whether the request line names HTTP at all, in whatever version.
fn names_http(head: &[u8]) -> bool {
    let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
    memchr::memmem::find(line, b" HTTP/").is_some()
}

/// A CR or LF that is not part of CRLF, a folded line, or a NUL: two parsers would read it in two
/// ways.
fn has_bare_line_end(head: &[u8]) -> bool {
    memchr::memchr3_iter(b'\r', b'\n', 0, head).any(|i| match head[i] {
        b'\r' => head.get(i + 1).is_some_and(|b| *b != b'\n'),
        b'\n' => i == 0 || head[i - 1] != b'\r' || matches!(head.get(i + 1), Some(b' ' | b'\t')),
        _ => true,
    })
}

fn check_method(method: &str) -> Result<(), Fault> {
    match method {
        "CONNECT" | "TRACE" => Err(Fault::Method),
        _ if method.len() > 32 => Err(Fault::Bad("method")),
        _ if !method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') => {
            Err(Fault::Bad("method"))
        }
        _ => Ok(()),
    }
}

/// The fields that decide framing and routing.
#[derive(Default)]
struct Fields<'a> {
    length: Option<u64>,
    chunked: bool,
    host: Option<&'a str>,
    upgrade_websocket: bool,
    connection_upgrade: bool,
}

impl<'a> Fields<'a> {
    fn read(lines: &[httparse::Header<'a>]) -> Result<Self, Fault> {
        let mut f = Fields::default();
        for line in lines {
            let is = |name: &str| line.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                let n = decimal(line.value).ok_or(Fault::Bad("content-length"))?;
                if f.length.replace(n).is_some() {
                    return Err(Fault::Bad("content-length twice"));
                }
            } else if is("transfer-encoding") {
                if f.chunked || !line.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Fault::Bad("transfer-encoding"));
                }
                f.chunked = true;
            } else if is("transfer_encoding") || is("content_length") {
                // Some servers read an underscore as a hyphen.
                return Err(Fault::Bad("underscore in a framing field"));
            } else if is("host") {
                let host = std::str::from_utf8(line.value).map_err(|_| Fault::Bad("host"))?;
                if f.host.replace(host).is_some() {
                    return Err(Fault::Bad("host twice"));
                }
            } else if is("connection") {
                f.connection_upgrade |= has_token(line.value, "upgrade");
            } else if is("upgrade") {
                f.upgrade_websocket = line.value.trim_ascii().eq_ignore_ascii_case(b"websocket");
            }
        }
        Ok(f)
    }
}

fn check_host(method: &str, target: &str, host: Option<&str>, modern: bool) -> Result<(), Fault> {
    if let Some(host) = host
        && !legal_authority(host)
    {
        return Err(Fault::Bad("host"));
    }
    if host.is_none() && modern {
        return Err(Fault::Bad("no host"));
    }
    if target.contains('#') {
        return Err(Fault::Bad("fragment in the target"));
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok(());
    }
    let scheme = |s: &str| {
        target
            .get(..s.len())
            .is_some_and(|t| t.eq_ignore_ascii_case(s))
    };
    let rest = match (scheme("http://"), scheme("https://")) {
        (true, _) => &target[7..],
        (_, true) => &target[8..],
        _ => return Err(Fault::Bad("target")),
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    match host {
        Some(h) if h.eq_ignore_ascii_case(authority) && !authority.is_empty() => Ok(()),
        _ => Err(Fault::Bad("target and host differ")),
    }
}

/// `host[:port]`: a name or address, a port from 1 on, no user, no list.
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

#[cfg(test)]
mod mutations;
#[cfg(test)]
mod tests;
