//! Which answers leave Pingora: one rule, asked in two steps as its facts become known.
//!
//! [`may_leave`] when the node's head is there: all that are not known to be complete leave, and so
//! do those with trailers, which Pingora would drop (W14). `as_told` when the client has the head:
//! its own bytes say how the body must be framed, so no hook can make the two disagree.
//! What must be true besides: HTTP/1 on both sides, and the request is with the node whole.
//! Source: RFC 9112 §6, §7.1, §9.3; Lightstreamer clustering §1.

use super::response_head::{self, ResponseHead};
use crate::stream::framing::Framing;
use crate::stream::handoff::{Answer, Handoff, Phase, Wrap};

/// Whether the body of `head` is relayed; `behind`: what was read behind the head so far.
///
/// A fault in `behind` is no reason: Pingora's path tells it as it always did.
pub fn may_leave(head: &ResponseHead, behind: &[u8]) -> bool {
    let mut framing = head.framing.clone();
    if framing.is_done() || framing.advance(behind).is_err() {
        return false;
    }
    let chunked = matches!(head.framing, Framing::Chunked(_));
    !framing.is_done() || (chunked && has_trailers(behind))
}

/// Whether a complete chunked body ends with more than its bare last chunk. One with an extension
/// counts as such, too.
fn has_trailers(body: &[u8]) -> bool {
    body != LAST && !body.ends_with(&[b"\r\n", LAST].concat())
}

const LAST: &[u8] = b"0\r\n\r\n";

/// Looks at `written`, what the client's kernel took of heads, while one is to leave with: once it is
/// the final one and whole, the sockets leave, or the answer stays with Pingora.
pub fn settle(handoff: &Handoff, written: &mut Vec<u8>) {
    // Interim answers (103) may be written after the node's final head was seen: look at each head.
    while let Some(end) = memchr::memmem::find(written, b"\r\n\r\n") {
        let rest = written.split_off(end + 4);
        let head = std::mem::replace(written, rest);
        let status = head.get(9..12).unwrap_or_default();
        if status.starts_with(b"1") && status != b"101" {
            continue;
        }
        match handoff.offered().map(|answer| as_told(answer, &head)) {
            None if status == b"101" => handoff.set_phase(Phase::Switched),
            Some(Some(answer)) if written.is_empty() => handoff.settle(answer),
            _ => handoff.stay(),
        }
        *written = Vec::new();
        return;
    }
}

/// What becomes of `offered` now that the client was told `head`, final and whole.
///
/// `None`: the two framings are not the same and cannot be made so here; Pingora goes on.
fn as_told(offered: Answer, head: &[u8]) -> Option<Answer> {
    let told = response_head::parse(head, false).ok()?;
    let wrap = match (&offered.framing, &told.framing) {
        (Framing::Length(node), Framing::Length(client)) if node == client => Wrap::AsIs,
        (Framing::Chunked(_), Framing::Chunked(_)) => Wrap::AsIs,
        (Framing::UntilClose, Framing::UntilClose) => Wrap::AsIs,
        (Framing::UntilClose, Framing::Chunked(_)) => Wrap::Chunks,
        _ => return None,
    };
    Some(Answer {
        wrap,
        keep_client: told.keep,
        ..offered
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    const CLOSE: &str = "HTTP/1.1 200 OK\r\n\r\n";
    const EMPTY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

    /// Fails if what Pingora answers best, whole and small, leaves, or if a stream stays.
    #[test]
    fn what_is_not_complete_leaves() {
        let cases: &[(&str, &str, bool)] = &[
            (EMPTY, "", false),
            (LENGTH, "hello", false),
            (LENGTH, "hello, and more", false),
            (CHUNKED, "0\r\n\r\n", false),
            (CHUNKED, "5\r\nhello\r\n0\r\n\r\n", false),
            (CHUNKED, "x", false),
            (CHUNKED, "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", true),
            (CHUNKED, "", true),
            (CHUNKED, "5\r\nhello\r\n", true),
            (LENGTH, "hell", true),
            (CLOSE, "", true),
            (CLOSE, "hello", true),
        ];
        for (head, behind, leaves) in cases {
            let parsed = response_head::parse(head.as_bytes(), false).expect(head);
            let got = may_leave(&parsed, behind.as_bytes());
            assert_eq!(got, *leaves, "{head:?} {behind:?}");
        }
        let to_head = response_head::parse(LENGTH.as_bytes(), true).expect(LENGTH);
        assert!(!may_leave(&to_head, b""), "an answer to HEAD has no body");
    }

    /// Fails if a client gets a body framed otherwise than its head says.
    #[test]
    fn the_body_is_framed_as_told() {
        let other = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n";
        let closed = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        let old = "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n";
        type Told = Option<(Wrap, bool)>;
        let cases: &[(&str, &str, Told)] = &[
            (CHUNKED, CHUNKED, Some((Wrap::AsIs, true))),
            (CHUNKED, closed, Some((Wrap::AsIs, false))),
            (LENGTH, LENGTH, Some((Wrap::AsIs, true))),
            (LENGTH, old, Some((Wrap::AsIs, true))),
            (CLOSE, CLOSE, Some((Wrap::AsIs, false))),
            (CLOSE, CHUNKED, Some((Wrap::Chunks, true))),
            (LENGTH, other, None),
            (LENGTH, CHUNKED, None),
            (CHUNKED, CLOSE, None),
            (CHUNKED, LENGTH, None),
            (CHUNKED, "HTTP/1.1 200", None),
        ];
        for (node, client, expected) in cases {
            let node = response_head::parse(node.as_bytes(), false).expect(node);
            let offered = Answer {
                framing: node.framing,
                keep_node: node.keep,
                wrap: Wrap::AsIs,
                keep_client: false,
            };
            let got = as_told(offered, client.as_bytes()).map(|a| (a.wrap, a.keep_client));
            assert_eq!(got, *expected, "{client:?}");
        }
    }
}
