//! Finds the hop-by-hop lines of a head, which concern one connection and are not passed on.
//!
//! In: the lines of a head, in order. Out: the class of each line, the options of `Connection`, and the set
//! of lines to leave out. Source: RFC 9110 §7.6.1; RFC 9112 §9.3; FAULTS D14.

use std::sync::{Arc, LazyLock};

use memchr::memmem::Finder;
use pushgate_plugins::head::{Edits, Head, MAX_LINES};

/// The class of a header line, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    ContentLength,
    TransferEncoding,
    /// `content_length` or `transfer_encoding`: some servers read an underscore as a hyphen.
    Underscore,
    Host,
    Date,
    Expect,
    Connection,
    Upgrade,
    Trailer,
    /// A hop-by-hop field of requests and answers: Keep-Alive, Proxy-Connection, TE.
    Hop,
    /// A hop-by-hop field of requests only: credentials for a proxy, HTTP2-Settings.
    RequestHop,
    Other,
}

impl Field {
    /// Classifies `name`. It compares the length first, because most names match none.
    pub(super) fn of(name: &[u8]) -> Field {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            2 if is("te") => Field::Hop,
            4 if is("host") => Field::Host,
            4 if is("date") => Field::Date,
            6 if is("expect") => Field::Expect,
            7 if is("upgrade") => Field::Upgrade,
            7 if is("trailer") => Field::Trailer,
            10 if is("connection") => Field::Connection,
            10 if is("keep-alive") => Field::Hop,
            14 if is("content-length") => Field::ContentLength,
            14 if is("content_length") => Field::Underscore,
            14 if is("http2-settings") => Field::RequestHop,
            16 if is("proxy-connection") => Field::Hop,
            17 if is("transfer-encoding") => Field::TransferEncoding,
            17 if is("transfer_encoding") => Field::Underscore,
            18 if is("proxy-authenticate") => Field::RequestHop,
            19 if is("proxy-authorization") => Field::RequestHop,
            _ => Field::Other,
        }
    }
}

/// The options of all `Connection` lines of a head.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// Number of options that nominate a field.
    pub(super) nominated: usize,
}

impl Options {
    /// Adds the options of one line.
    pub(super) fn read(&mut self, value: &[u8]) {
        for token in tokens(value) {
            match Self::known(token) {
                Some(Known::Close) => self.close = true,
                Some(Known::KeepAlive) => self.keep_alive = true,
                Some(Known::Upgrade) => self.upgrade = true,
                None => self.nominated += 1,
            }
        }
    }

    fn known(token: &[u8]) -> Option<Known> {
        match token.len() {
            5 if token.eq_ignore_ascii_case(b"close") => Some(Known::Close),
            7 if token.eq_ignore_ascii_case(b"upgrade") => Some(Known::Upgrade),
            10 if token.eq_ignore_ascii_case(b"keep-alive") => Some(Known::KeepAlive),
            _ => None,
        }
    }
}

enum Known {
    Close,
    KeepAlive,
    Upgrade,
}

/// Most fields that one head may nominate. Each costs a pass over the lines; push clients nominate none.
pub(super) const MAX_NOMINATED: usize = 10;

/// Returns the names that `head` nominates in its `Connection` lines, as they are written.
pub(super) fn nominated(head: &Head) -> impl Iterator<Item = &[u8]> {
    let all = head.values("connection").flat_map(tokens);
    all.filter(|token| Options::known(token).is_none())
}

/// Returns the elements of a comma-separated list, without empty ones (RFC 9110 §5.6.1).
pub(super) fn tokens(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let tokens = list.split(|b| *b == b',').map(<[u8]>::trim_ascii);
    tokens.filter(|token| !token.is_empty())
}

/// A set of a head's lines, by their index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Lines([u64; MAX_LINES / 64]);

impl Lines {
    /// Adds line `i`. An index of [`MAX_LINES`] or above is ignored.
    pub(super) fn insert(&mut self, i: usize) {
        if let Some(word) = self.0.get_mut(i / 64) {
            *word |= 1 << (i % 64);
        }
    }

    /// Adds every line called `name`, in any case.
    pub(super) fn insert_named(&mut self, head: &Head, name: &[u8]) {
        for (i, (line, _)) in head.lines().enumerate() {
            if line.eq_ignore_ascii_case(name) {
                self.insert(i);
            }
        }
    }

    /// Adds all lines of `others`.
    pub(super) fn extend(&mut self, others: Lines) {
        for (word, other) in self.0.iter_mut().zip(others.0) {
            *word |= other;
        }
    }

    /// Returns `head` without these lines.
    pub(super) fn dropped_from(&self, head: &Arc<Head>) -> Edits {
        match *self == Lines::default() {
            true => Edits::new(head.clone()),
            false => Edits::keeping(head.clone(), |i| !self.contains(i)),
        }
    }

    fn contains(&self, i: usize) -> bool {
        self.0
            .get(i / 64)
            .is_some_and(|word| word & 1 << (i % 64) != 0)
    }
}

/// Whether a CRLF stands before `name`, which is a part of `raw`. The parser also accepts a bare LF as a line
/// end, and two parsers may then end the head at different bytes.
pub(super) fn follows_crlf(raw: &[u8], name: &[u8]) -> bool {
    let at = name.as_ptr().addr().checked_sub(raw.as_ptr().addr());
    let before = at.and_then(|at| raw.get(..at));
    before.is_some_and(|before| before.ends_with(b"\r\n"))
}

/// Returns the index of the first empty line of `bytes`, at the end of the line before it.
pub(super) fn empty_line(bytes: &[u8]) -> Option<usize> {
    // Built once: a searcher for each head would cost more than most searches.
    static LINE: LazyLock<Finder<'_>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));
    LINE.find(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: names are recognised in any case. Fails if one is recognised in one case only, or by its length
    /// alone.
    #[test]
    fn names_are_found_in_any_case() {
        for (name, field) in [
            ("Te", Field::Hop),
            ("HOST", Field::Host),
            ("hosts", Field::Other),
            ("cost", Field::Other),
            ("Content-length", Field::ContentLength),
            ("CONTENT_LENGTH", Field::Underscore),
            ("sec-fetch-site", Field::Other),
            ("Transfer-encoding", Field::TransferEncoding),
            ("Proxy-Authorization", Field::RequestHop),
            ("", Field::Other),
        ] {
            assert_eq!(Field::of(name.as_bytes()), field, "{name}");
        }
    }

    #[test]
    fn the_last_lines_are_in_the_set_and_what_is_beyond_is_not() {
        let mut lines = Lines::default();
        for i in [0, 63, 64, MAX_LINES - 1, MAX_LINES] {
            lines.insert(i);
        }
        let found: Vec<_> = (0..2 * MAX_LINES).filter(|i| lines.contains(*i)).collect();
        assert_eq!(found, [0, 63, 64, MAX_LINES - 1]);
    }
}
