//! What a node is asked in one exchange, and how much of it has been sent.
//!
//! In: the framing of the client's request, the bytes Pingora writes to the node. Out: whether the node
//! has the request whole. Source: RFC 9112 §6.

use crate::stream::framing::Framing;

/// One request on its way to a node.
#[derive(Clone, Debug)]
pub struct Asked {
    /// It is a HEAD: its answer has no body.
    pub head: bool,
    /// What of its body is still to be sent; `None`: that is not known (HTTP/2).
    body: Option<Framing>,
    /// Its head is with the node: what is written now is its body.
    head_sent: bool,
}

impl Asked {
    /// A request of which nothing is sent yet; `body` is `None` where its end is not known here.
    pub fn new(head: bool, body: Option<Framing>) -> Self {
        Asked {
            head,
            body,
            head_sent: false,
        }
    }

    /// Pingora has flushed: once the whole head is written, and again behind the body.
    pub fn flushed(&mut self) {
        self.head_sent = true;
    }

    /// The node's kernel took `data`.
    pub fn sent(&mut self, data: &[u8]) {
        if let Some(body) = &mut self.body
            && self.head_sent
            && !body.is_done()
            && body.advance(data).is_err()
        {
            // Not as it was announced: nobody but Pingora knows where it ends.
            self.body = None;
        }
    }

    /// Whether the node has the whole request.
    pub fn is_whole(&self) -> bool {
        self.body.as_ref().is_some_and(Framing::is_done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fails if a part of a request counts as the whole, or the whole as a part.
    #[test]
    fn a_request_is_whole_at_its_last_byte() {
        let cases: &[(Option<Framing>, &[&str], bool)] = &[
            (None, &["head", "", "body"], false),
            (Some(Framing::Done), &["head", ""], true),
            (Some(Framing::length(4)), &["head", "", "bod"], false),
            (Some(Framing::length(4)), &["head", "", "bo", "dy"], true),
            (
                Some(Framing::chunked()),
                &["head", "", "4\r\nbody\r\n"],
                false,
            ),
            (
                Some(Framing::chunked()),
                &["head", "", "4\r\nbody\r\n", "0\r\n\r\n"],
                true,
            ),
            (Some(Framing::chunked()), &["head", "", "body"], false),
        ];
        for (body, writes, whole) in cases {
            let mut asked = Asked::new(false, body.clone());
            for write in *writes {
                match write.is_empty() {
                    true => asked.flushed(),
                    false => asked.sent(write.as_bytes()),
                }
            }
            assert_eq!(asked.is_whole(), *whole, "{body:?} {writes:?}");
        }
    }
}
