//! Fuzz target `request_head`: a client's bytes up to the end of its first head.
//!
//! Fails where the split of the bytes changes the verdict, where a second reader disagrees, or where the head
//! that a node is sent is not the same request. Source: RFC 9112 §2.2, §3, §5, §6.3.

use super::second_reader::strict;
use super::*;
use crate::config::units::Bytes;
use crate::fuzzing::pieces;

/// Limits that inputs of a few hundred bytes reach.
fn limits() -> Limits {
    Limits {
        head: Bytes(2048),
        target: Bytes(256),
        headers: 24,
        ..Limits::default()
    }
}

/// Reads the first head of `data`.
pub fn run(data: &[u8]) {
    let limits = limits();
    let whole = end(data, 0, &limits);
    let head = whole.and_then(|end| end.map(|n| judge(&data[..n], &limits)).transpose());
    for bytewise in [true, false] {
        let split = in_pieces(data, &limits, bytewise);
        match (&head, &split) {
            (Ok(Some(a)), Ok(Some(b))) => assert_eq!(facts(a), facts(b), "a split head"),
            (Ok(None), Ok(None)) | (Err(_), Err(_)) => {}
            _ => panic!("whole: {head:?}, split: {split:?}"),
        }
    }
    match (whole, &head) {
        (Ok(Some(n)), Ok(Some(head))) => {
            assert_eq!(strict(&data[..n]), Some(head.framing.clone()));
            check_sent(head);
        }
        (Ok(Some(n)), Err(Bad("syntax" | "line end" | "content-length" | "host twice"))) => {
            assert_eq!(strict(&data[..n]), None, "the second reader takes it");
        }
        _ => {}
    }
}

/// Reads as the client's loop does.
fn in_pieces(
    data: &[u8],
    limits: &Limits,
    bytewise: bool,
) -> Result<Option<RequestHead>, RequestHeadError> {
    let (mut got, mut search) = (0, HeadSearch::default());
    for piece in pieces(data, bytewise) {
        got += piece.len();
        if let Some(n) = search.end(&data[..got], limits)? {
            return judge(&data[..n], limits).map(Some);
        }
    }
    Ok(None)
}

fn facts(head: &RequestHead) -> (&[u8], &Framing, [bool; 3], Lines) {
    let flags = [head.websocket, head.keep, head.expects_continue];
    (head.head.raw(), &head.framing, flags, head.hop)
}

/// What a node is sent is one head, means the same, and has nothing left that is not passed on.
fn check_sent(head: &RequestHead) {
    let mut sent = Vec::new();
    head.edits().write(&mut sent);
    let limits = Limits::default();
    assert_eq!(end(&sent, 0, &limits), Ok(Some(sent.len())));
    let again = judge(&sent, &limits).expect("what we send is legal");
    let target = again.head.target();
    assert!(target.starts_with('/') || target == "*", "{target:?}");
    let meaning = |h: &RequestHead| {
        let method = h.head.method().to_owned();
        let flags = [h.websocket, h.expects_continue, h.head.is_http_10()];
        (method, h.host().into_owned(), h.framing.clone(), flags)
    };
    assert_eq!(meaning(head), meaning(&again));
    let mut twice = Vec::new();
    again.edits().write(&mut twice);
    assert_eq!(sent, twice, "a second proxy changes more");
}
