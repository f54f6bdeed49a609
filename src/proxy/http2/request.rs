//! Judges the head of a stream by the rules of HTTP/1: one door for both versions.
//!
//! In: a HEADERS frame. Out: the same [`RequestHead`] that a client of HTTP/1 would have sent, or why there is
//! none. Source: RFC 9113 §8.2.3 (crumbs of a cookie), §8.3; RFC 8441 §4; RFC 9110 §7.2.

use h2::frame::{Headers, Pseudo};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::websocket::Key;
use crate::config::Limits;
use crate::proxy::http1::request_head::{self, RequestHead, RequestHeadError};
use crate::stream::framing::{self, Framing};

/// A request of a stream.
pub struct Request {
    /// Its head, as HTTP/1 would have it.
    pub head: RequestHead,
    /// The client sends no body and no trailers.
    pub ended: bool,
}

impl Request {
    /// Bytes of its body, where their number is known.
    pub fn expected(&self) -> Option<u64> {
        match (&self.head.framing, self.head.websocket) {
            (Framing::Length(n), _) => Some(*n),
            // What follows the head of a WebSocket is none of a request's.
            (Framing::Done, false) => Some(0),
            _ => None,
        }
    }
}

/// Why a stream has no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// It is answered.
    Answered(u16, &'static str),
    /// It is malformed: the stream is reset (RFC 9113 §8.1.1).
    Malformed,
}

use RequestError::{Answered, Malformed};

impl From<RequestHeadError> for RequestError {
    fn from(e: RequestHeadError) -> Self {
        let (status, phrase) = e.status();
        Answered(status, phrase)
    }
}

const BAD: RequestError = Answered(400, "Bad Request");

/// Judges `frame`. `websocket`: the listener takes WebSockets over HTTP/2.
///
/// Errors: [`RequestError`].
pub fn judge(frame: Headers, limits: &Limits, websocket: bool) -> Result<Request, RequestError> {
    let (ended, too_large) = (frame.is_end_stream(), frame.is_over_size());
    let (pseudo, fields) = frame.into_parts();
    if too_large {
        return Err(too_large_by(pseudo.path.as_deref(), limits));
    }
    let start = Start::of(&pseudo, websocket)?;
    let authority = authority(&pseudo, &fields)?;
    let key = start.upgrade.then(Key::new);
    let mut raw = Vec::with_capacity(512);
    for part in [start.method, " ", start.path, " HTTP/1.1\r\nHost: "] {
        raw.extend_from_slice(part.as_bytes());
    }
    raw.extend_from_slice(authority);
    raw.extend_from_slice(b"\r\n");
    append_fields(&fields, start.upgrade, &mut raw);
    match &key {
        Some(key) if !ended => key.append_upgrade(&mut raw),
        Some(_) => return Err(Malformed),
        None if ended || fields.contains_key(header::CONTENT_LENGTH) => {}
        None => raw.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
    }
    raw.extend_from_slice(b"\r\n");
    if raw.len() as u64 > limits.head.0 {
        return Err(too_large_by(Some(start.path), limits));
    }
    let mut head = request_head::judge(&raw, limits)?;
    if ended && !head.framing.is_done() {
        return Err(Malformed);
    }
    head.over_http2 = true;
    head.accept = key.map(|key| key.accept());
    Ok(Request { head, ended })
}

/// Which limit a head exceeds. The codec leaves a path out that alone is too large.
fn too_large_by(path: Option<&str>, limits: &Limits) -> RequestError {
    match path.is_none_or(|path| path.len() as u64 > limits.target.0) {
        true => RequestHeadError::TargetTooLong.into(),
        false => RequestHeadError::TooLarge.into(),
    }
}

/// The first line.
struct Start<'a> {
    method: &'a str,
    path: &'a str,
    upgrade: bool,
}

impl<'a> Start<'a> {
    fn of(pseudo: &'a Pseudo, websocket: bool) -> Result<Self, RequestError> {
        let method = pseudo.method.as_ref().ok_or(Malformed)?.as_str();
        if pseudo.status.is_some() || (pseudo.protocol.is_some() && method != "CONNECT") {
            return Err(Malformed);
        }
        let upgrade = match (&pseudo.protocol, method) {
            (Some(protocol), _) if websocket && protocol.as_str() == "websocket" => true,
            (Some(_), _) => return Err(Answered(501, "Not Implemented")),
            (None, "CONNECT") => return Err(RequestHeadError::Method.into()),
            (None, _) => false,
        };
        let scheme: &str = pseudo.scheme.as_ref().ok_or(Malformed)?;
        let path: &str = pseudo.path.as_ref().ok_or(Malformed)?;
        if path.is_empty() {
            return Err(Malformed);
        }
        let known = ["http", "https"]
            .iter()
            .any(|s| scheme.eq_ignore_ascii_case(s));
        // A path is one word of HTTP/1's first line; an absolute URL is none here.
        let is_word = path.bytes().all(|b| b > b' ' && b != 0x7f);
        let is_path = path.starts_with('/') || (path == "*" && method == "OPTIONS");
        if !known || !is_word || !is_path {
            return Err(BAD);
        }
        let method = if upgrade { "GET" } else { method };
        Ok(Start {
            method,
            path,
            upgrade,
        })
    }
}

/// The host that is asked: `:authority`, else the field, which must be the same.
fn authority<'a>(pseudo: &'a Pseudo, fields: &'a HeaderMap) -> Result<&'a [u8], RequestError> {
    let mut hosts = fields.get_all(header::HOST).iter();
    let field = hosts.next().map(HeaderValue::as_bytes);
    let authority = pseudo.authority.as_ref().map(|a| a.as_bytes());
    let both = match (authority, field) {
        _ if hosts.next().is_some() => return Err(BAD),
        (Some(a), Some(f)) if !a.eq_ignore_ascii_case(f) => return Err(BAD),
        (Some(one), _) | (None, Some(one)) => one,
        (None, None) => b"",
    };
    match both.iter().all(|b| *b > b' ' && *b != 0x7f) {
        true => Ok(both),
        false => Err(BAD),
    }
}

/// Appends all fields but the host and, of an upgrade, a key that its client need not send (RFC 8441 §5); the
/// crumbs of a cookie are one line.
fn append_fields(fields: &HeaderMap, upgrade: bool, raw: &mut Vec<u8>) {
    let left_out = |name: &HeaderName| {
        *name == header::HOST || (upgrade && *name == header::SEC_WEBSOCKET_KEY)
    };
    for name in fields.keys().filter(|name| !left_out(name)) {
        let mut values = fields.get_all(name).iter().peekable();
        let crumbs = *name == header::COOKIE;
        while let Some(value) = values.next() {
            raw.extend_from_slice(name.as_str().as_bytes());
            raw.extend_from_slice(b": ");
            raw.extend_from_slice(value.as_bytes());
            while let (true, Some(crumb)) = (crumbs, values.peek()) {
                raw.extend_from_slice(b"; ");
                raw.extend_from_slice(crumb.as_bytes());
                values.next();
            }
            raw.extend_from_slice(b"\r\n");
        }
    }
}

/// The trailers of a stream as lines of HTTP/1; `None`: a field may not come behind a body, or is a
/// pseudo-header.
pub fn trailers(frame: Headers) -> Option<Vec<u8>> {
    let over = frame.is_over_size() || !frame.is_end_stream();
    let (pseudo, fields) = frame.into_parts();
    if over || pseudo != Pseudo::default() {
        return None;
    }
    let mut lines = Vec::new();
    for (name, value) in &fields {
        if !framing::is_trailer(name.as_str().as_bytes()) {
            return None;
        }
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    (lines.len() <= framing::MAX_TRAILERS).then_some(lines)
}

#[cfg(test)]
mod tests;
