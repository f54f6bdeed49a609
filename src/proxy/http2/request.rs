//! Judges the head of a stream by the rules of HTTP/1, so both versions pass the same checks.
//!
//! In: a decoded head. Out: the [`RequestHead`] that a client of HTTP/1 would have sent, or a
//! [`RequestError`].
//! Source: RFC 9113 §8.2.3 (crumbs of a cookie), §8.3; RFC 8441 §4; RFC 9110 §7.2.

use super::head::Head;
use super::websocket::Key;
use crate::config::Limits;
use crate::proxy::http1::request_head::{self, RequestHead, RequestHeadError};
use crate::stream::framing::{self, Framing};

/// A request of a stream.
pub struct Request {
    /// Its head, in the form of HTTP/1.
    pub head: RequestHead,
    /// The client sends no body and no trailers.
    pub ended: bool,
}

impl Request {
    /// Returns the length of its body in bytes, if it is known.
    pub fn expected(&self) -> Option<u64> {
        match (&self.head.framing, self.head.websocket) {
            (Framing::Length(n), _) => Some(*n),
            // The bytes behind the head of a WebSocket are no body of the request.
            (Framing::Done, false) => Some(0),
            _ => None,
        }
    }
}

/// Why the head of a stream is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The client gets an answer with this status and phrase.
    Answered(u16, &'static str),
    /// The head is malformed, so the stream is reset (RFC 9113 §8.1.1).
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

/// Judges `head`. `websocket`: the listener accepts WebSockets over HTTP/2.
///
/// Errors: [`RequestError`].
pub fn judge(head: &Head, limits: &Limits, websocket: bool) -> Result<Request, RequestError> {
    if head.is_too_large {
        return Err(too_large_by(head.path(), limits));
    }
    let (start, ended) = (Start::of(head, websocket)?, head.ended);
    let authority = authority(head)?;
    let key = start.upgrade.then(Key::new);
    let mut raw = Vec::with_capacity(512);
    let line = [
        start.method,
        b" ",
        start.path,
        b" HTTP/1.1\r\nHost: ",
        authority,
        b"\r\n",
    ];
    line.iter().for_each(|part| raw.extend_from_slice(part));
    append_fields(head, start.upgrade, &mut raw);
    match &key {
        Some(key) if !ended => key.append_upgrade(&mut raw),
        Some(_) => return Err(Malformed),
        None if ended || head.values(b"content-length").next().is_some() => {}
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

/// Returns the error of the limit that a head exceeds. `None`: the path alone is too large, so it was left
/// out.
fn too_large_by(path: Option<&[u8]>, limits: &Limits) -> RequestError {
    match path.is_none_or(|path| path.len() as u64 > limits.target.0) {
        true => RequestHeadError::TargetTooLong.into(),
        false => RequestHeadError::TooLarge.into(),
    }
}

/// The parts of the first line.
struct Start<'a> {
    method: &'a [u8],
    path: &'a [u8],
    upgrade: bool,
}

impl<'a> Start<'a> {
    fn of(head: &'a Head, websocket: bool) -> Result<Self, RequestError> {
        let method = head.method().ok_or(Malformed)?;
        let upgrade = match (head.protocol(), method) {
            (Some(b"websocket"), b"CONNECT") if websocket => true,
            (Some(_), b"CONNECT") => return Err(Answered(501, "Not Implemented")),
            (Some(_), _) => return Err(Malformed),
            (None, b"CONNECT") => return Err(RequestHeadError::Method.into()),
            (None, _) => false,
        };
        let (scheme, path) = (
            head.scheme().ok_or(Malformed)?,
            head.path().ok_or(Malformed)?,
        );
        if path.is_empty() {
            return Err(Malformed);
        }
        let is_known = ["http", "https"]
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known.as_bytes()));
        // HTTP/2 has no absolute URL in `:path`.
        let is_path = path.starts_with(b"/") || (path == b"*" && method == b"OPTIONS");
        if !is_known || !is_word(method) || !is_word(path) || !is_path {
            return Err(BAD);
        }
        Ok(Start {
            method: if upgrade { b"GET" } else { method },
            path,
            upgrade,
        })
    }
}

/// Whether the text stays one word in a first line of HTTP/1.
fn is_word(text: &[u8]) -> bool {
    text.iter().all(|b| *b > b' ' && *b != 0x7f)
}

/// Returns the requested host: `:authority`, else the field `host`. If the head has both, they must be equal.
fn authority(head: &Head) -> Result<&[u8], RequestError> {
    let mut hosts = head.values(b"host");
    let both = match (head.authority(), hosts.next()) {
        _ if hosts.next().is_some() => return Err(BAD),
        (Some(a), Some(f)) if !a.eq_ignore_ascii_case(f) => return Err(BAD),
        (Some(one), _) | (None, Some(one)) => one,
        (None, None) => b"",
    };
    match is_word(both) {
        true => Ok(both),
        false => Err(BAD),
    }
}

/// Appends all fields except the host. An upgrade also leaves out a key, which its client need not send (RFC
/// 8441 §5). The crumbs of a cookie become one line, at the place of the first one.
fn append_fields(head: &Head, upgrade: bool, raw: &mut Vec<u8>) {
    let mut has_cookie = false;
    for (name, value) in head.fields() {
        let is_cookie = name == b"cookie";
        let left_out = name == b"host"
            || (upgrade && name == b"sec-websocket-key")
            || (is_cookie && has_cookie);
        if left_out {
            continue;
        }
        raw.extend_from_slice(name);
        raw.extend_from_slice(b": ");
        raw.extend_from_slice(value);
        if is_cookie {
            has_cookie = true;
            for crumb in head.values(b"cookie").skip(1) {
                raw.extend_from_slice(b"; ");
                raw.extend_from_slice(crumb);
            }
        }
        raw.extend_from_slice(b"\r\n");
    }
}

/// Returns the trailers of a stream as lines of HTTP/1; `None`: they have a pseudo-header, a control character or
/// a field that is not allowed in trailers, or are too large, or do not end the stream.
pub fn trailers(head: &Head) -> Option<Vec<u8>> {
    if head.is_too_large || !head.ended || head.has_pseudo() {
        return None;
    }
    let mut lines = Vec::new();
    for (name, value) in head.fields() {
        if !framing::is_trailer(name) || !value.iter().copied().all(framing::is_trailer_byte) {
            return None;
        }
        for part in [name, b": ", value, b"\r\n"] {
            lines.extend_from_slice(part);
        }
    }
    (lines.len() <= framing::MAX_TRAILERS).then_some(lines)
}

#[cfg(test)]
mod tests;
