//! Judges a node's response head: its status, its framing, its persistence, and the lines the client gets.
//!
//! In: the bytes of one head, facts of the request and of the client. Out: [`ResponseHead`] and its edits, or
//! a [`ResponseHeadError`], which becomes a 502.
//! Source: RFC 9112 §4, §6.3, §9.3, §9.6; RFC 9110 §6.6.1, §7.6.1, §7.8, §8.6; FAULTS D17, D62.

use std::sync::Arc;

use pushgate_plugins::head::{Edits, Head, HeadError};

use super::hop_by_hop::{self, Field, Lines, MAX_NOMINATED, Options};
use super::{append, date};
use crate::stream::framing::{Framing, Wrap};

/// Most bytes of a node's head: ten times what push servers send.
pub const MAX_HEAD: usize = 64 * 1024;
/// Most header lines of a node's head.
const MAX_HEADERS: usize = 128;

/// A legal response head.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The head as the node sent it.
    pub head: Arc<Head>,
    /// Status code, 100 or above.
    pub status: u16,
    /// Framing of the body.
    pub framing: Framing,
    /// Whether the node's connection can serve another request after this answer.
    pub keep: bool,
    /// Lines that no client gets.
    hop: Lines,
    /// Lines that only clients that read chunks get: Transfer-Encoding and Trailer.
    coding: Lines,
    /// Whether the head announces chunks, even if the answer has no body.
    chunked: bool,
    /// The one Content-Length to write if the head repeats it.
    length: Option<u64>,
    has_date: bool,
    has_upgrade: bool,
}

/// Facts of a request that decide what its answer means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestKind {
    /// `HEAD`: the answer has no body, whatever its fields announce.
    pub head: bool,
    /// A WebSocket upgrade, the only request that a 101 may answer.
    pub websocket: bool,
}

/// Facts of the client that decide how its answer is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientTerms {
    /// It speaks HTTP/1.0. It gets no chunks, and its connection persists only if the answer says so.
    pub http_10: bool,
    /// It speaks HTTP/2, and its stream frames the body.
    pub http_2: bool,
    /// Its connection may carry another request.
    pub keep: bool,
}

/// Why a head is not a legal answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseHeadError {
    /// Status line or header lines are malformed.
    Malformed,
    /// A line ends with a bare LF.
    LineEnd,
    /// More than [`MAX_HEAD`] bytes, too many lines, or too many fields nominated by `Connection`.
    TooLarge,
    /// Content-Length is not one decimal number, or contradicts another framing.
    Length,
    /// A transfer coding other than `chunked`.
    Coding,
    /// A 101 that the client did not ask for, that is for another protocol than WebSocket, or that announces
    /// a body.
    Switch,
}

/// Finds the end of the first head in `bytes`, one past its empty line; `None`: more bytes are needed.
///
/// `from`: at most three bytes before the end of what an earlier call has seen; 0 for the first call.
/// Errors: bytes that no head can begin with, a line that ends with a bare LF, a head above [`MAX_HEAD`].
pub fn end(bytes: &[u8], from: usize) -> Result<Option<usize>, ResponseHeadError> {
    // Some nodes send one CRLF too many behind an answer.
    if !matches!(bytes.first(), None | Some(b'H' | b'\r')) {
        return Err(ResponseHeadError::Malformed);
    }
    let unseen = bytes.get(from..).unwrap_or_default();
    let found = hop_by_hop::empty_line(unseen).map(|i| from + i + 4);
    let bare = |i: usize| !bytes[..from + i].ends_with(b"\r");
    if found.is_none() && memchr::memchr_iter(b'\n', unseen).any(bare) {
        return Err(ResponseHeadError::LineEnd);
    }
    match found.unwrap_or(bytes.len()) > MAX_HEAD {
        true => Err(ResponseHeadError::TooLarge),
        false => Ok(found),
    }
}

/// Judges one complete head, up to and including its empty line.
pub fn judge(raw: &[u8], request: RequestKind) -> Result<ResponseHead, ResponseHeadError> {
    let head = Head::response(raw).map_err(|e| match e {
        HeadError::TooManyLines => ResponseHeadError::TooLarge,
        _ => ResponseHeadError::Malformed,
    })?;
    if head.len() > MAX_HEADERS {
        return Err(ResponseHeadError::TooLarge);
    }
    let status = head.status();
    if status < 100 {
        return Err(ResponseHeadError::Malformed);
    }
    let fields = Fields::read(&head)?;
    let modern = !head.is_http_10();
    if fields.chunked && (fields.length.is_some() || !modern) {
        return Err(ResponseHeadError::Length);
    }
    // One reader would take framing on a 101 for a body, another for WebSocket frames.
    let is_framed = fields.chunked || fields.length.is_some();
    if status == 101 && (!request.websocket || !fields.websocket || is_framed) {
        return Err(ResponseHeadError::Switch);
    }
    let bodiless = request.head || status < 200 || status == 204 || status == 304;
    let framing = match (bodiless, fields.chunked, fields.length) {
        (true, _, _) => Framing::Done,
        (_, true, _) => Framing::chunked(),
        (_, _, Some(n)) => Framing::length(n),
        _ => Framing::UntilClose,
    };
    let kept_alive = !fields.options.close && (modern || fields.options.keep_alive);
    let (hop, coding) = fields.hop(&head, status)?;
    Ok(ResponseHead {
        status,
        keep: kept_alive && framing != Framing::UntilClose,
        framing,
        hop,
        coding,
        chunked: fields.chunked,
        length: fields
            .length
            .filter(|_| fields.lengths > 1 && may_have_length(status)),
        has_date: fields.has_date,
        has_upgrade: fields.has_upgrade,
        head: Arc::new(head),
    })
}

impl ResponseHead {
    /// Returns the head with its edits for the client, how the body reaches it, and whether its connection is
    /// kept.
    ///
    /// The caller sends no interim answer to a client of HTTP/1.0 (RFC 9110 §15.2).
    pub fn edits(&self, client: ClientTerms) -> (Edits, Wrap, bool) {
        let (wrap, keep) = self.terms(client);
        let mut hop = self.hop;
        if client.http_10 || !self.chunked || !may_have_length(self.status) {
            hop.extend(self.coding);
        }
        let mut edits = hop.dropped_from(&self.head);
        if let Some(n) = self.length {
            append(&mut edits, "Content-Length", n.to_string().as_bytes());
        }
        if wrap == Wrap::Chunks {
            append(&mut edits, "Transfer-Encoding", b"chunked");
        }
        match self.status {
            101 => {
                append(&mut edits, "Connection", b"Upgrade");
                append(&mut edits, "Upgrade", b"websocket");
            }
            100..200 => {}
            _ => self.append_final(&mut edits, client, keep),
        }
        (edits, wrap, keep)
    }

    fn terms(&self, client: ClientTerms) -> (Wrap, bool) {
        if client.http_2 {
            return (Wrap::Bare, client.keep);
        }
        match (&self.framing, client.http_10) {
            (Framing::UntilClose, false) => (Wrap::Chunks, client.keep),
            (Framing::UntilClose, true) => (Wrap::AsIs, false),
            (Framing::Chunked(_), true) => (Wrap::Bare, false),
            _ => (Wrap::AsIs, client.keep),
        }
    }

    /// Appends the fields that only a final answer has.
    fn append_final(&self, edits: &mut Edits, client: ClientTerms, keep: bool) {
        match (keep, client.http_10) {
            (false, _) => append(edits, "Connection", b"close"),
            (true, true) => append(edits, "Connection", b"keep-alive"),
            (true, false) => {}
        }
        if self.status == 426 && self.has_upgrade {
            // RFC 9110 §7.8: a sender of Upgrade names it in Connection.
            append(edits, "Connection", b"Upgrade");
        }
        if !self.has_date {
            append(edits, "Date", &date::now());
        }
    }
}

/// What the fields say about framing and connection.
#[derive(Default)]
struct Fields {
    length: Option<u64>,
    /// How often a length is given, in lines and lists.
    lengths: usize,
    chunked: bool,
    websocket: bool,
    has_date: bool,
    has_upgrade: bool,
    options: Options,
    hop: Lines,
    length_lines: Lines,
    upgrade: Lines,
    coding: Lines,
}

impl Fields {
    fn read(head: &Head) -> Result<Self, ResponseHeadError> {
        let mut f = Fields::default();
        let mut whole = head.raw().ends_with(b"\r\n\r\n");
        for (i, (name, value)) in head.lines().enumerate() {
            whole &= hop_by_hop::follows_crlf(head.raw(), name);
            match Field::of(name) {
                Field::ContentLength => {
                    f.read_length(value)?;
                    f.length_lines.insert(i);
                }
                Field::TransferEncoding => {
                    if f.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(ResponseHeadError::Coding);
                    }
                    f.chunked = true;
                    f.coding.insert(i);
                }
                Field::Connection => {
                    f.options.read(value);
                    f.hop.insert(i);
                }
                Field::Upgrade => {
                    f.websocket = value.eq_ignore_ascii_case(b"websocket");
                    f.has_upgrade = true;
                    f.upgrade.insert(i);
                }
                Field::Date => f.has_date = true,
                Field::Trailer => f.coding.insert(i),
                Field::Hop => f.hop.insert(i),
                _ => {}
            }
        }
        whole.then_some(f).ok_or(ResponseHeadError::LineEnd)
    }

    /// Reads a Content-Length. A list that repeats one number means that number (RFC 9110 §8.6).
    fn read_length(&mut self, value: &[u8]) -> Result<(), ResponseHeadError> {
        for n in value.split(|b| *b == b',') {
            let n = decimal(n).ok_or(ResponseHeadError::Length)?;
            if self.length.replace(n).is_some_and(|before| before != n) {
                return Err(ResponseHeadError::Length);
            }
            self.lengths += 1;
        }
        Ok(())
    }

    /// Returns the lines that no client gets, and those that only clients that read chunks get.
    fn hop(&self, head: &Head, status: u16) -> Result<(Lines, Lines), ResponseHeadError> {
        let mut hop = self.hop;
        if self.options.nominated > MAX_NOMINATED {
            return Err(ResponseHeadError::TooLarge);
        }
        if self.options.nominated > 0 {
            let names = hop_by_hop::nominated(head);
            for name in names.filter(|name| !is_kept(name)) {
                hop.insert_named(head, name);
            }
        }
        if status != 426 {
            hop.extend(self.upgrade);
        }
        if self.lengths > 1 || !may_have_length(status) {
            hop.extend(self.length_lines);
        }
        Ok((hop, self.coding))
    }
}

/// Whether a field stays although a node nominates it: without it the client would read another body or date.
fn is_kept(name: &[u8]) -> bool {
    matches!(
        Field::of(name),
        Field::ContentLength | Field::TransferEncoding | Field::Date
    )
}

/// Whether an answer may announce the length or coding of a body (RFC 9110 §8.6, RFC 9112 §6.1).
fn may_have_length(status: u16) -> bool {
    status >= 200 && status != 204
}

/// Parses a Content-Length: digits only, with optional white space around them.
pub(super) fn decimal(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(test)]
mod tests;
