//! Edits a head: drops, sets and appends lines on a copy of its index, and applies the edits while the head
//! is written. The head itself stays unchanged, for a retry.

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use super::{Head, Line, Span, Start};

/// Space for the lines of `forwarded` and a cookie, so that the first edit makes the only allocation.
const OWN_BYTES: usize = 256;

/// A head with its edits so far. Later edits see earlier ones.
#[derive(Clone, Debug)]
pub struct Edits {
    head: Arc<Head>,
    lines: Vec<Line>,
    own: Vec<u8>,
    target: Option<Span>,
}

/// The edit of one header line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// The line stays as it is.
    Keep,
    /// The line is dropped.
    Drop,
    /// The line keeps its place and gets this value.
    Set(Vec<u8>),
}

/// A name or value that is not legal in a header line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("illegal header field `{0}`")]
pub struct FieldError(String);

impl Edits {
    /// Starts without edits of `head`.
    pub fn new(head: Arc<Head>) -> Self {
        Edits::keeping(head, |_| true)
    }

    /// Starts with the lines of `head` whose position, from 0 on, `keep` selects.
    pub fn keeping(head: Arc<Head>, mut keep: impl FnMut(usize) -> bool) -> Self {
        let mut lines = Vec::with_capacity(head.lines.len() + 6);
        let kept = head.lines.iter().enumerate().filter(|(i, _)| keep(*i));
        lines.extend(kept.map(|(_, line)| *line));
        Edits {
            head,
            lines,
            own: Vec::new(),
            target: None,
        }
    }

    /// Returns the head without the edits.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Returns name and value of each header line, edits applied.
    pub fn fields(&self) -> impl DoubleEndedIterator<Item = (&str, &[u8])> {
        self.lines
            .iter()
            .map(|l| (self.name(l), self.bytes(l.value)))
    }

    /// Returns the values of all lines called `name`, in any case, edits applied.
    pub fn values<'a>(&'a self, name: &'a str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        let named = |l: &&Line| self.is_named(l, name);
        self.lines.iter().filter(named).map(|l| self.bytes(l.value))
    }

    /// Returns whether a line called `name` exists.
    pub fn contains(&self, name: &str) -> bool {
        self.lines.iter().any(|l| self.is_named(l, name))
    }

    /// Drops every line called `name`.
    pub fn remove(&mut self, name: &str) {
        if self.contains(name) {
            let (head, own) = (&self.head, &self.own);
            self.lines.retain(|l| !is_named(head, own, l, name));
        }
    }

    /// Keeps the lines that `keep` selects by name and value.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &[u8]) -> bool) {
        let (head, own) = (&self.head, &self.own);
        self.lines.retain(|l| {
            let name = std::str::from_utf8(bytes(head, own, (l.at, l.name_end)));
            keep(name.unwrap_or_default(), bytes(head, own, l.value))
        });
    }

    /// Edits each line called `name` by itself. A line keeps its place and the case of its name.
    ///
    /// Errors: a new value is not legal; earlier lines have already been edited.
    pub fn rewrite(
        &mut self,
        name: &str,
        mut edit: impl FnMut(&[u8]) -> Edit,
    ) -> Result<(), FieldError> {
        let mut i = 0;
        while let Some(line) = self.lines.get(i).copied() {
            if self.is_named(&line, name) {
                match edit(self.bytes(line.value)) {
                    Edit::Keep => {}
                    Edit::Drop => {
                        self.lines.remove(i);
                        continue;
                    }
                    Edit::Set(value) => {
                        let start = self.start_line();
                        self.copy((line.at, line.name_end));
                        let value = |own: &mut Vec<u8>| own.extend_from_slice(&value);
                        self.lines[i] = self.end_line(start, value)?;
                    }
                }
            }
            i += 1;
        }
        Ok(())
    }

    /// Drops all lines called `name` and appends one with `value`.
    ///
    /// Errors: name or value is not legal; nothing has changed.
    pub fn set(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), FieldError> {
        let line = self.line(name, |own| own.extend_from_slice(value.as_ref()))?;
        self.replace(name, line);
        Ok(())
    }

    /// Like [`Edits::set`], with a value that is formatted in place: `format_args!("{address}")`.
    pub fn set_fmt(&mut self, name: &str, value: fmt::Arguments<'_>) -> Result<(), FieldError> {
        let line = self.line(name, |own| {
            // Writing to a `Vec` cannot fail; a `Display` that fails leaves a shorter value.
            let _ = own.write_fmt(value);
        })?;
        self.replace(name, line);
        Ok(())
    }

    /// Appends a line. Errors as for [`Edits::set`].
    pub fn append(&mut self, name: &str, value: impl AsRef<[u8]>) -> Result<(), FieldError> {
        let line = self.line(name, |own| own.extend_from_slice(value.as_ref()))?;
        self.lines.push(line);
        Ok(())
    }

    /// Replaces a request's target.
    ///
    /// Errors: the target is empty or has blanks or control characters.
    pub fn set_target(&mut self, target: &str) -> Result<(), FieldError> {
        if target.is_empty() || target.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err(FieldError("target".to_owned()));
        }
        let at = self.own.len() as u32;
        self.own.extend_from_slice(target.as_bytes());
        let base = self.head.raw.len() as u32;
        self.target = Some((base + at, base + self.own.len() as u32));
        Ok(())
    }

    /// Writes the edited head with its empty line. A response is written as HTTP/1.1, the version that a
    /// proxy speaks (RFC 9110 §2.5). A request keeps its version, so that the node answers an HTTP/1.0 client
    /// without features of HTTP/1.1.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self.head.start {
            Start::Request { method, target } => {
                out.extend_from_slice(self.head.bytes((0, method)));
                out.push(b' ');
                out.extend_from_slice(self.bytes(self.target.unwrap_or(target)));
                let version = if self.head.is_http_10() { "0" } else { "1" };
                out.extend_from_slice(b" HTTP/1.");
                out.extend_from_slice(version.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Start::Response { status, reason } => {
                let digits = [status / 100, status / 10 % 10, status % 10].map(|d| b'0' + d as u8);
                out.extend_from_slice(b"HTTP/1.1 ");
                out.extend_from_slice(&digits);
                out.push(b' ');
                out.extend_from_slice(self.head.bytes(reason));
                out.extend_from_slice(b"\r\n");
            }
        }
        // Lines that are adjacent in `raw` or in `own` are written in one copy.
        let mut run: Option<Span> = None;
        for line in &self.lines {
            run = match run {
                Some((from, to)) if to == line.at => Some((from, line.end)),
                Some(whole) => {
                    out.extend_from_slice(self.bytes(whole));
                    Some((line.at, line.end))
                }
                None => Some((line.at, line.end)),
            };
        }
        if let Some(whole) = run {
            out.extend_from_slice(self.bytes(whole));
        }
        out.extend_from_slice(b"\r\n");
    }

    fn line(&mut self, name: &str, value: impl FnOnce(&mut Vec<u8>)) -> Result<Line, FieldError> {
        let start = self.start_line();
        self.own.extend_from_slice(name.as_bytes());
        self.end_line(start, value)
    }

    /// Returns the position in `own` where the next line starts.
    fn start_line(&mut self) -> usize {
        if self.own.is_empty() {
            self.own.reserve(OWN_BYTES);
        }
        self.own.len()
    }

    /// Completes the line in `own` whose name starts at `start`: adds what `value` writes.
    fn end_line(
        &mut self,
        start: usize,
        value: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Line, FieldError> {
        let name_end = self.own.len();
        self.own.extend_from_slice(b": ");
        value(&mut self.own);
        let value_end = self.own.len();
        let (name, rest) = self.own[start..].split_at(name_end - start);
        if !is_token(name) || !rest.iter().all(is_legal) {
            let name = String::from_utf8_lossy(name).chars().take(64).collect();
            self.own.truncate(start);
            return Err(FieldError(name));
        }
        self.own.extend_from_slice(b"\r\n");
        let at = |i: usize| (self.head.raw.len() + i) as u32;
        Ok(Line {
            at: at(start),
            name_end: at(name_end),
            value: (at(name_end + 2), at(value_end)),
            end: at(self.own.len()),
        })
    }

    /// Appends bytes of the head, or of `own`, to `own`.
    fn copy(&mut self, span: Span) {
        let base = self.head.raw.len();
        let (from, to) = (span.0 as usize, span.1 as usize);
        match from.checked_sub(base) {
            None => self.own.extend_from_slice(self.head.bytes(span)),
            Some(from) => self.own.extend_from_within(from..to - base),
        }
    }

    fn replace(&mut self, name: &str, line: Line) {
        self.remove(name);
        self.lines.push(line);
    }

    fn name(&self, line: &Line) -> &str {
        std::str::from_utf8(self.bytes((line.at, line.name_end))).unwrap_or_default()
    }

    fn is_named(&self, line: &Line, name: &str) -> bool {
        is_named(&self.head, &self.own, line, name)
    }

    fn bytes(&self, span: Span) -> &[u8] {
        bytes(&self.head, &self.own, span)
    }
}

/// Returns whether `name` is a token (RFC 9110 §5.6.2).
fn is_token(name: &[u8]) -> bool {
    let fits = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !name.is_empty() && name.iter().all(fits)
}

/// Returns whether a value may contain `b` (RFC 9110 §5.5).
fn is_legal(b: &u8) -> bool {
    *b == b'\t' || (*b >= b' ' && *b != 0x7f)
}

fn bytes<'a>(head: &'a Head, own: &'a [u8], (from, to): Span) -> &'a [u8] {
    let base = head.raw.len();
    let (from, to) = (from as usize, to as usize);
    let found = match from < base {
        true => head.raw.get(from..to),
        false => own.get(from - base..to - base),
    };
    found.unwrap_or_default()
}

fn is_named(head: &Head, own: &[u8], line: &Line, name: &str) -> bool {
    (line.name_end - line.at) as usize == name.len()
        && bytes(head, own, (line.at, line.name_end)).eq_ignore_ascii_case(name.as_bytes())
}
