//! Fuzz targets `hpack`, `http2_frames` and `http2_connection`: what a client sends behind the preface.
//!
//! The first decodes heads; the second cuts frames and judges heads, without a socket; the third serves a whole
//! connection.
//! Source: RFC 9113 §4, §5, §8; §8.2.1 (no field may become a second line of HTTP/1).

mod connection;
mod node;

pub use connection::run as connection;

use super::head::Head;
use super::hpack::Decoder;
pub use super::hpack::fuzz::run as hpack;
use super::input::{Frame, FrameError, Input};
use super::request;
use crate::config::Limits;
use crate::fuzzing::pieces;

/// What a reader sees of a frame.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Data(u32, Vec<u8>, u32, bool),
    Request(u32, Result<Vec<u8>, request::RequestError>),
    Trailers(u32, Option<Vec<u8>>),
    Other(&'static str),
    Error(FrameError),
}

/// Cuts `data` into frames. Fails where the split of the bytes changes them, or where a field of HTTP/2 becomes
/// more than one line of HTTP/1.
pub fn frames(data: &[u8]) {
    let whole = read(std::iter::once(data));
    for bytewise in [true, false] {
        assert_eq!(read(pieces(data, bytewise)), whole, "split frames");
    }
}

fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Seen> {
    // The key of an upgrade is random: the same in each reading.
    fastrand::seed(0);
    let mut input = Input::new(Decoder::new(4096), 4096);
    let mut seen: Vec<Seen> = Vec::new();
    for mut piece in pieces {
        loop {
            let frame = match input.next(&mut piece) {
                Ok(None) => break,
                Ok(Some(frame)) => frame,
                Err(e) => {
                    seen.push(Seen::Error(e));
                    match e {
                        FrameError::Stream(..) => continue,
                        FrameError::Connection(_) => return seen,
                    }
                }
            };
            note(frame, &mut seen);
        }
    }
    seen
}

fn note(frame: Frame<'_>, seen: &mut Vec<Seen>) {
    let new = match frame {
        Frame::Data {
            id,
            payload,
            length,
            last,
            ..
        } => {
            // Pieces of one frame are put together; so are frames that follow each other.
            if let Some(Seen::Data(before, bytes, total, ended)) = seen.last_mut()
                && *before == id
            {
                bytes.extend_from_slice(payload);
                *total += length;
                *ended |= last;
                return;
            }
            Seen::Data(id, payload.to_vec(), length, last)
        }
        Frame::Headers(head) => judged(&head, seen),
        Frame::Settings(_) => Seen::Other("settings"),
        Frame::Ping(_) => Seen::Other("ping"),
        Frame::Reset(_) => Seen::Other("reset"),
        Frame::GoAway => Seen::Other("goaway"),
        Frame::WindowUpdate(_) => Seen::Other("window"),
        Frame::Ignored => Seen::Other("ignored"),
    };
    seen.push(new);
}

/// Judges a head as the connection does: the second of a stream has trailers.
fn judged(head: &Head, seen: &[Seen]) -> Seen {
    let id = head.id;
    let is_second = |s: &Seen| matches!(s, Seen::Request(i, _) if *i == id);
    if seen.iter().any(is_second) {
        let lines = request::trailers(head);
        if let Some(lines) = &lines {
            let expected = head.fields().count();
            assert_eq!(count_lines(lines), expected, "a trailer is one line");
        }
        return Seen::Trailers(id, lines);
    }
    let own = |name: &'static [u8]| head.values(name).count();
    let cookies = own(b"cookie");
    let plain = head.fields().count() - own(b"host") - cookies + cookies.min(1);
    let judged = request::judge(head, &Limits::default(), true);
    let raw = judged.map(|request| {
        let has_framing = request.ended || own(b"content-length") > 0;
        let added = match (request.head.accept.is_some(), has_framing) {
            // Connection, Upgrade and a key in place of the client's.
            (true, _) => 3,
            (false, true) => 0,
            (false, false) => 1,
        };
        let keys = if added == 3 {
            own(b"sec-websocket-key")
        } else {
            0
        };
        let raw = request.head.head.raw();
        let start_and_host = 2;
        let lines = count_lines(raw.strip_suffix(b"\r\n").expect("an empty line"));
        assert_eq!(lines, start_and_host + plain + added - keys);
        assert_eq!(request.head.head.len() + 1, lines);
        raw.to_vec()
    });
    Seen::Request(id, raw)
}

/// The lines of `text`, each of which must end with CRLF and hold no other control character but a tab.
fn count_lines(text: &[u8]) -> usize {
    let mut lines = 0;
    for line in text.split_inclusive(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\r\n").expect("a line ends with CRLF");
        let is_legal = |b: &u8| (*b >= b' ' && *b != 0x7f) || *b == b'\t';
        assert!(line.iter().all(is_legal), "{line:?}");
        assert!(!line.is_empty(), "an empty line ends the head");
        lines += 1;
    }
    lines
}
