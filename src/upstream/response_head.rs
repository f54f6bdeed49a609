//! Reads the head of a node's answer: status, framing, and whether the connection can be kept.
//!
//! In: the bytes of one head. Out: [`ResponseHead`], or a fault, which becomes a 502.
//! Source: RFC 9112 §4, §6.3; FAULTS D17, D62.

use crate::stream::framing::Framing;

/// Most bytes of a node's head: ten times what push servers send.
pub const MAX_HEAD: usize = 64 * 1024;
/// Most header lines of a node's head.
const MAX_HEADERS: usize = 128;

/// What a node's head says about its connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// Status code.
    pub status: u16,
    /// Framing of the body.
    pub framing: Framing,
    /// Whether the connection can serve another request after this answer.
    pub keep: bool,
}

/// Why a head is not a legal answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Status line or header lines are malformed.
    Malformed,
    /// Content-Length is not one decimal number, or contradicts another framing.
    Length,
    /// A transfer coding other than `chunked`.
    Coding,
    /// A 101 to another protocol than WebSocket, or with a body.
    Switch,
}

/// Reads one whole head, up to and including its empty line. `to_head`: it answers a HEAD request.
pub fn parse(head: &[u8], to_head: bool) -> Result<ResponseHead, Fault> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut lines);
    match parsed.parse(head) {
        Ok(httparse::Status::Complete(n)) if n == head.len() => {}
        _ => return Err(Fault::Malformed),
    }
    let status = parsed.code.ok_or(Fault::Malformed)?;
    let (mut length, mut chunked, mut websocket) = (None, false, false);
    let modern = parsed.version == Some(1);
    let (mut close, mut kept_alive) = (false, false);
    for line in parsed.headers.iter() {
        if line.name.eq_ignore_ascii_case("content-length") {
            let n = decimal(line.value).ok_or(Fault::Length)?;
            if length.replace(n).is_some_and(|before| before != n) {
                return Err(Fault::Length);
            }
        } else if line.name.eq_ignore_ascii_case("transfer-encoding") {
            if chunked || !line.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err(Fault::Coding);
            }
            chunked = true;
        } else if line.name.eq_ignore_ascii_case("upgrade") {
            websocket = line.value.trim_ascii().eq_ignore_ascii_case(b"websocket");
        } else if line.name.eq_ignore_ascii_case("connection") {
            close |= has_token(line.value, "close");
            kept_alive |= has_token(line.value, "keep-alive");
        }
    }
    if chunked && (length.is_some() || !modern) {
        return Err(Fault::Length);
    }
    // Only WebSocket is asked for; framing on a 101 would be a body to one reader and frames to another.
    if status == 101 && (!websocket || chunked || length.is_some()) {
        return Err(Fault::Switch);
    }
    let bodiless = to_head || status < 200 || status == 204 || status == 304;
    let framing = match (bodiless, chunked, length) {
        (true, _, _) => Framing::Done,
        (_, true, _) => Framing::chunked(),
        (_, _, Some(n)) => Framing::length(n),
        _ => Framing::UntilClose,
    };
    let keep = !close && (modern || kept_alive) && framing != Framing::UntilClose;
    Ok(ResponseHead {
        status,
        framing,
        keep,
    })
}

/// A Content-Length: digits only, with optional white space around.
pub fn decimal(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Whether a comma-separated list holds `token`, in any case.
pub fn has_token(list: &[u8], token: &str) -> bool {
    list.split(|b| *b == b',')
        .any(|t| t.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faulty_heads() {
        let cases: &[(&str, Fault)] = &[
            ("HTTP/1.1 2x0 OK\r\n\r\n", Fault::Malformed),
            ("HTP/1.1 200 OK\r\n\r\n", Fault::Malformed),
            ("HTTP/1.1 200 OK\r\nA B: c\r\n\r\n", Fault::Malformed),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n",
                Fault::Length,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
                Fault::Length,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
                Fault::Length,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                Fault::Length,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                Fault::Coding,
            ),
            (
                "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                Fault::Length,
            ),
            (
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\n\r\n",
                Fault::Switch,
            ),
            ("HTTP/1.1 101 Switching Protocols\r\n\r\n", Fault::Switch),
            (
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\n",
                Fault::Switch,
            ),
        ];
        for (head, fault) in cases {
            assert_eq!(parse(head.as_bytes(), false), Err(*fault), "{head:?}");
        }
    }

    #[test]
    fn framing_and_keeping() {
        let cases: &[(&str, bool, Framing, bool)] = &[
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                false,
                Framing::Length(5),
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                true,
                Framing::Done,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: x, Close\r\n\r\n",
                false,
                Framing::Done,
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n",
                false,
                Framing::chunked(),
                true,
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", false, Framing::UntilClose, false),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
                false,
                Framing::Length(5),
                false,
            ),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\n",
                false,
                Framing::Length(5),
                true,
            ),
            (
                "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
                false,
                Framing::Done,
                true,
            ),
            (
                "HTTP/1.1 204 No Content\r\n\r\n",
                false,
                Framing::Done,
                true,
            ),
            (
                "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n",
                false,
                Framing::Done,
                true,
            ),
        ];
        for (head, to_head, framing, keep) in cases {
            let got = parse(head.as_bytes(), *to_head).expect(head);
            assert_eq!((&got.framing, got.keep), (framing, *keep), "{head:?}");
        }
    }
}
