//! Fuzz target `response_head`: a node's bytes up to the end of its first head.
//!
//! Fails where the split of the bytes changes the verdict, or where the head that a client is sent frames
//! another body than the node's. Source: RFC 9112 §4, §6.3, §9.3.

use super::*;
use crate::fuzzing::pieces;

/// Reads the first head of `data`, for every kind of request and client.
pub fn run(data: &[u8]) {
    let whole = end(data, 0);
    for bytewise in [true, false] {
        let split = end_in_pieces(data, bytewise);
        match (whole, split) {
            (Ok(a), Ok(b)) => assert_eq!(a, b, "the end of a split head"),
            (Err(_), Err(_)) => {}
            // Bare line ends before the end are found by whoever sees them first.
            (Ok(Some(n)), Err(_)) => assert!(judge(&data[..n], RequestKind::default()).is_err()),
            _ => panic!("whole: {whole:?}, split: {split:?}"),
        }
    }
    let Ok(Some(n)) = whole else { return };
    for asked in [0, 1, 2, 3].map(|bits| RequestKind {
        head: bits & 1 != 0,
        websocket: bits & 2 != 0,
    }) {
        if let Ok(head) = judge(&data[..n], asked) {
            check_head(&head, asked);
        }
    }
}

fn end_in_pieces(data: &[u8], bytewise: bool) -> Result<Option<usize>, ResponseHeadError> {
    let (mut got, mut looked) = (0, 0);
    for piece in pieces(data, bytewise) {
        got += piece.len();
        if let Some(n) = end(&data[..got], looked)? {
            return Ok(Some(n));
        }
        looked = got.saturating_sub(3);
    }
    Ok(None)
}

/// Each client reads the same body, and is told what it is told to keep.
fn check_head(head: &ResponseHead, asked: RequestKind) {
    assert!(head.status >= 100);
    for client in (0..8).map(|bits| ClientTerms {
        http_10: bits & 1 != 0,
        http_2: bits & 2 != 0,
        keep: bits & 4 != 0,
    }) {
        // A client speaks one version.
        if client.http_10 && client.http_2 {
            continue;
        }
        let (edits, wrap, keep) = head.edits(client);
        let mut sent = Vec::new();
        edits.write(&mut sent);
        assert_eq!(end(&sent, 0), Ok(Some(sent.len())));
        let again = judge(&sent, asked).expect("what we send is legal");
        assert_eq!(again.status, head.status);
        let framing = match wrap {
            _ if head.framing == Framing::Done => Framing::Done,
            // A stream of HTTP/2 frames its data by itself.
            _ if client.http_2 => continue,
            Wrap::AsIs => head.framing.clone(),
            Wrap::Chunks => Framing::chunked(),
            Wrap::Bare => Framing::UntilClose,
        };
        assert_eq!(again.framing, framing, "{client:?}");
        if head.status >= 200 {
            assert_eq!(again.keep, keep, "{client:?}");
        }
        assert!(client.keep || !keep);
    }
}
