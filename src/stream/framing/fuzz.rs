//! Fuzz target `chunked`: a chunked body and what comes behind it.
//!
//! Fails where the split of the bytes changes the outcome, where the data without its framing is another, or
//! where a plain reader ends the message at another byte. Source: RFC 9112 §7.1.

use super::plain::plain;
use super::*;
use crate::fuzzing::pieces;

/// A body so far: how many bytes are the message's, its data, its trailers, whether it is over.
#[derive(Debug, Default, PartialEq, Eq)]
struct Body {
    used: usize,
    data: Vec<u8>,
    trailers: Option<Vec<u8>>,
    over: bool,
}

/// Reads `data` as a body.
pub fn run(data: &[u8]) {
    let bare = read_bare(std::iter::once(data));
    let passed = pass(std::iter::once(data));
    for bytewise in [true, false] {
        assert_eq!(read_bare(pieces(data, bytewise)), bare, "a split body");
        assert_eq!(pass(pieces(data, bytewise)), passed, "a split body");
    }
    match (&bare, passed) {
        (Ok(body), Ok(passed)) => {
            assert_eq!((body.used, body.over), passed);
            assert!(body.over || body.used == data.len());
            assert!(body.data.len() <= body.used);
            let end = body.over.then_some(body.used);
            assert_eq!(plain(data), end, "the plain reader ends elsewhere");
        }
        (Err(a), Err(b)) => assert_eq!(*a, b),
        (a, b) => panic!("{a:?} and {b:?}"),
    }
}

/// Passes a body on as it is.
fn pass<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<(usize, bool), FramingError> {
    let (mut framing, mut used) = (Framing::chunked(), 0);
    for piece in pieces {
        let n = framing.advance(piece)?;
        assert!(n == piece.len() || framing.is_done());
        used += n;
    }
    Ok((used, framing.is_done()))
}

/// Takes the data out of a body.
fn read_bare<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Result<Body, FramingError> {
    let (mut framing, mut body) = (Framing::chunked(), Body::default());
    for piece in pieces {
        let mut piece = piece.to_vec();
        let (used, kept) = framing.advance_bare(&mut piece)?;
        assert!(used == piece.len() || framing.is_done());
        body.used += used;
        body.data.extend_from_slice(&piece[..kept]);
    }
    body.over = framing.is_done();
    body.trailers = framing.take_trailers();
    Ok(body)
}
