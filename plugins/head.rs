//! Holds one HTTP/1 head: its received bytes, an index of its lines, and edits that are applied while the
//! head is written.
//!
//! In: the bytes of a request's or a response's head. Out: its parts, each a slice of those bytes, and the
//! bytes of the edited head. A head is parsed once; no header map is built.
//! Source: RFC 9112 §2, §3, §4, §5; RFC 9110 §5.

mod edits;

use std::mem::MaybeUninit;

pub use edits::{Edit, Edits, FieldError};

/// Most header lines that the parser accepts. A listener's `limits.headers` is below that.
pub const MAX_LINES: usize = 256;

/// Why bytes are not a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// The start line or a header line violates RFC 9112, or the bytes are not exactly one head.
    Syntax,
    /// The start line has a version that is neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// More than [`MAX_LINES`] header lines.
    TooManyLines,
}

/// A parsed head. Cloning copies its bytes.
#[derive(Clone, Debug)]
pub struct Head {
    raw: Box<[u8]>,
    lines: Box<[Line]>,
    start: Start,
    minor: u8,
}

/// Positions of the parts of the start line.
#[derive(Clone, Copy, Debug)]
enum Start {
    Request { method: u32, target: Span },
    Response { status: u16, reason: Span },
}

/// Start and end, in bytes.
type Span = (u32, u32);

/// Positions of one header line. A position at or beyond the length of `raw` refers to the own bytes of an
/// [`Edits`].
#[derive(Clone, Copy, Debug)]
struct Line {
    at: u32,
    name_end: u32,
    value: Span,
    /// Just after the line's CRLF.
    end: u32,
}

impl Head {
    /// Parses one whole request head, its empty line included.
    pub fn request(raw: &[u8]) -> Result<Head, HeadError> {
        let mut lines = [const { MaybeUninit::uninit() }; MAX_LINES];
        let mut parsed = httparse::Request::new(&mut []);
        let done = parsed.parse_with_uninit_headers(raw, &mut lines);
        whole(done, raw.len())?;
        let (method, target) = match (parsed.method, parsed.path) {
            (Some(method), Some(target)) => (method, target),
            _ => return Err(HeadError::Syntax),
        };
        let start = Start::Request {
            method: method.len() as u32,
            target: span(raw, target.as_bytes()),
        };
        Ok(Head::of(raw, parsed.headers, start, parsed.version))
    }

    /// Parses one whole response head, its empty line included.
    pub fn response(raw: &[u8]) -> Result<Head, HeadError> {
        let mut lines = [const { MaybeUninit::uninit() }; MAX_LINES];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let done = config.parse_response_with_uninit_headers(&mut parsed, raw, &mut lines);
        whole(done, raw.len())?;
        // The parser returns an empty reason if it is not ASCII: take the bytes from the line.
        let line = raw.split(|b| *b == b'\r').next().unwrap_or_default();
        let reason = (line.len().min(13) as u32, line.len() as u32);
        let start = Start::Response {
            status: parsed.code.ok_or(HeadError::Syntax)?,
            reason,
        };
        Ok(Head::of(raw, parsed.headers, start, parsed.version))
    }

    /// Makes a request head from its parts, for HTTP/2, `explain`, `simulate` and tests.
    ///
    /// Errors: the parts do not make a legal head.
    pub fn make_request<'f>(
        method: &str,
        target: &str,
        fields: impl IntoIterator<Item = (&'f str, &'f [u8])>,
    ) -> Result<Head, HeadError> {
        Head::request(&joined(&format!("{method} {target} HTTP/1.1"), fields))
    }

    /// Makes a response head from its parts. Errors as for [`Head::make_request`].
    pub fn make_response<'f>(
        status: u16,
        reason: &str,
        fields: impl IntoIterator<Item = (&'f str, &'f [u8])>,
    ) -> Result<Head, HeadError> {
        Head::response(&joined(&format!("HTTP/1.1 {status} {reason}"), fields))
    }

    fn of(raw: &[u8], parsed: &[httparse::Header<'_>], start: Start, minor: Option<u8>) -> Head {
        let mut lines = Vec::with_capacity(parsed.len());
        for line in parsed {
            let (at, name_end) = span(raw, line.name.as_bytes());
            let value = match line.value {
                // The parser's empty value is not a slice of `raw`.
                [] => (name_end + 1, name_end + 1),
                value => span(raw, value),
            };
            let line_end = memchr::memchr(b'\n', &raw[value.1 as usize..]);
            let end = value.1 + line_end.map_or(0, |i| i as u32 + 1);
            lines.push(Line {
                at,
                name_end,
                value,
                end,
            });
        }
        Head {
            raw: raw.into(),
            lines: lines.into(),
            start,
            minor: minor.unwrap_or(1),
        }
    }

    /// Returns the bytes as received.
    pub fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Returns the method; empty for a response.
    pub fn method(&self) -> &str {
        match self.start {
            Start::Request { method, .. } => self.text((0, method)),
            Start::Response { .. } => "",
        }
    }

    /// Returns the target as received: a path with its query, an absolute URL, or `*`. Empty for a response.
    pub fn target(&self) -> &str {
        match self.start {
            Start::Request { target, .. } => self.text(target),
            Start::Response { .. } => "",
        }
    }

    /// Returns the target in origin-form (RFC 9112 §3.2.1): path and query, without scheme, authority and
    /// fragment. `None`: the target has no path, so its origin-form is `/` and the query.
    pub fn origin_form(&self) -> Option<&str> {
        let form = self.path_and_query();
        (form.starts_with('/') || form == "*").then_some(form)
    }

    /// Returns the path without its query; `/` if the target has no path.
    pub fn path(&self) -> &str {
        let path = self.origin_form().unwrap_or("/");
        path.split_once('?').map_or(path, |(path, _)| path)
    }

    /// Returns the query without its question mark.
    pub fn query(&self) -> Option<&str> {
        self.path_and_query()
            .split_once('?')
            .map(|(_, query)| query)
    }

    /// Returns the authority of a target that is an absolute URL.
    pub fn authority(&self) -> Option<&str> {
        self.absolute()?.split(['/', '?']).next()
    }

    /// Returns the status; 0 for a request.
    pub fn status(&self) -> u16 {
        match self.start {
            Start::Response { status, .. } => status,
            Start::Request { .. } => 0,
        }
    }

    /// Returns whether the head is HTTP/1.0; otherwise it is HTTP/1.1.
    pub fn is_http_10(&self) -> bool {
        self.minor == 0
    }

    /// Returns the number of header lines.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Returns whether the head has no header line.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Returns name and value of each header line, in order.
    pub fn fields(&self) -> impl DoubleEndedIterator<Item = (&str, &[u8])> {
        self.lines
            .iter()
            .map(|l| (self.text((l.at, l.name_end)), self.bytes(l.value)))
    }

    /// Like [`Head::fields`], with names as bytes. A pass over all lines then skips the check that names are
    /// text.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> {
        self.lines
            .iter()
            .map(|l| (self.bytes((l.at, l.name_end)), self.bytes(l.value)))
    }

    /// Returns the values of all lines called `name`, in any case, in order.
    pub fn values<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        let named = |l: &&Line| self.is_named(l, name);
        self.lines.iter().filter(named).map(|l| self.bytes(l.value))
    }

    /// Returns the value of the first line called `name`.
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        let found = self.lines.iter().find(|l| self.is_named(l, name))?;
        Some(self.bytes(found.value))
    }

    /// Returns path and query as received; empty if the target has neither.
    fn path_and_query(&self) -> &str {
        let target = self.bare_target();
        if target.starts_with(['/', '?']) || target == "*" {
            return target;
        }
        let from_authority = self.absolute().unwrap_or_default();
        let path = from_authority
            .find(['/', '?'])
            .map(|i| &from_authority[i..]);
        path.unwrap_or_default()
    }

    /// Returns an absolute URL from its authority on. The scheme must be legal: no part of `a:b://c/d` is
    /// taken for a path, because another parser may take `//c/d` for it.
    fn absolute(&self) -> Option<&str> {
        let (scheme, rest) = self.bare_target().split_once("://")?;
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"+-.".contains(&b);
        let legal =
            scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.bytes().all(fits);
        legal.then_some(rest)
    }

    /// Returns the target without its fragment, which is not part of it (RFC 9112 §3.2).
    fn bare_target(&self) -> &str {
        let target = self.target();
        target.split_once('#').map_or(target, |(bare, _)| bare)
    }

    fn is_named(&self, line: &Line, name: &str) -> bool {
        (line.name_end - line.at) as usize == name.len()
            && self
                .bytes((line.at, line.name_end))
                .eq_ignore_ascii_case(name.as_bytes())
    }

    fn bytes(&self, (from, to): Span) -> &[u8] {
        self.raw.get(from as usize..to as usize).unwrap_or_default()
    }

    fn text(&self, span: Span) -> &str {
        std::str::from_utf8(self.bytes(span)).unwrap_or_default()
    }
}

fn whole(done: httparse::Result<usize>, length: usize) -> Result<(), HeadError> {
    match done {
        Ok(httparse::Status::Complete(n)) if n == length => Ok(()),
        Err(httparse::Error::TooManyHeaders) => Err(HeadError::TooManyLines),
        Err(httparse::Error::Version) => Err(HeadError::Version),
        _ => Err(HeadError::Syntax),
    }
}

/// Returns the position of `part`, a slice of `raw`.
fn span(raw: &[u8], part: &[u8]) -> Span {
    let at = part.as_ptr().addr() - raw.as_ptr().addr();
    (at as u32, (at + part.len()) as u32)
}

fn joined<'f>(start: &str, fields: impl IntoIterator<Item = (&'f str, &'f [u8])>) -> Vec<u8> {
    let mut raw = Vec::with_capacity(512);
    raw.extend_from_slice(start.as_bytes());
    raw.extend_from_slice(b"\r\n");
    for (name, value) in fields {
        raw.extend_from_slice(name.as_bytes());
        raw.extend_from_slice(b": ");
        raw.extend_from_slice(value);
        raw.extend_from_slice(b"\r\n");
    }
    raw.extend_from_slice(b"\r\n");
    raw
}

#[cfg(test)]
mod tests;
