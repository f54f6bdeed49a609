//! The WebSocket server of a demo node: handshake, whole messages, control frames.
//!
//! In: an upgrade request, then the client's frames. Out: a socket that receives and sends messages.
//! The demo needs neither extensions nor a client, so these 200 lines replace axum's `ws` feature and the seven
//! crates that it adds to the program. Source: RFC 6455 §4.2, §5.

use std::io;

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Buf, BytesMut};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use openssl::{base64, sha};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Longest message a client may send, in bytes.
const MESSAGE_BYTES: usize = 64 * 1024;
/// Longest payload of a control frame, in bytes (RFC 6455 §5.5).
const CONTROL_BYTES: u64 = 125;
/// Appended to the client's key (RFC 6455 §1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Bits of a frame's first byte: last frame of its message, and reserved for extensions.
const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
/// Bit of the second byte: the payload is masked, which is required of clients (RFC 6455 §5.1).
const MASKED: u8 = 0x80;

/// What a frame is (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Kind {
    fn of(opcode: u8) -> Option<Self> {
        use Kind::{Binary, Close, Continuation, Ping, Pong, Text};
        let all = [Continuation, Text, Binary, Close, Ping, Pong];
        all.into_iter().find(|kind| *kind as u8 == opcode)
    }

    fn is_control(self) -> bool {
        self as u8 >= Kind::Close as u8
    }
}

/// A whole message or a control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) payload: Vec<u8>,
}

/// An upgraded connection.
pub(super) struct Socket {
    io: TokioIo<Upgraded>,
    /// Bytes of frames that are not complete yet.
    unread: BytesMut,
    /// A fragmented message without its last frame.
    begun: Option<Message>,
}

/// Answers an upgrade request and runs `talk` with its socket. Any other request gets a 400.
pub(super) fn upgrade<F: Future<Output = ()> + Send>(
    request: Request,
    talk: impl FnOnce(Socket) -> F + Send + 'static,
) -> Response {
    let Some(accept) = accept(request.headers()) else {
        return (StatusCode::BAD_REQUEST, "expected a WebSocket upgrade\n").into_response();
    };
    tokio::spawn(async move {
        // Fails if the client leaves before it gets the answer.
        if let Ok(upgraded) = hyper::upgrade::on(request).await {
            talk(Socket {
                io: TokioIo::new(upgraded),
                unread: BytesMut::new(),
                begun: None,
            })
            .await;
        }
    });
    let headers = [
        (header::CONNECTION, "upgrade"),
        (header::UPGRADE, "websocket"),
        (header::SEC_WEBSOCKET_ACCEPT, &accept),
    ];
    (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
}

/// The value of `Sec-WebSocket-Accept`; `None` if this is no request for WebSocket 13.
fn accept(headers: &HeaderMap) -> Option<String> {
    let value = |name| headers.get(name)?.to_str().ok();
    let asks = value(header::UPGRADE)?.eq_ignore_ascii_case("websocket")
        && value(header::SEC_WEBSOCKET_VERSION)? == "13";
    let key = value(header::SEC_WEBSOCKET_KEY)?;
    let digest = sha::sha1(format!("{key}{GUID}").as_bytes());
    asks.then(|| base64::encode_block(&digest))
}

impl Socket {
    /// Returns the next message or control frame. A caller that drops the future loses nothing.
    ///
    /// Errors: the connection ended, or the client breaks the protocol or sends more than 64 KiB.
    pub(super) async fn receive(&mut self) -> io::Result<Message> {
        loop {
            while let Some((last, frame)) = take_frame(&mut self.unread)? {
                if let Some(message) = self.complete(last, frame)? {
                    return Ok(message);
                }
            }
            if self.io.read_buf(&mut self.unread).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Sends a message or control frame in one frame.
    pub(super) async fn send(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        self.io.write_all(&frame(kind, payload)).await
    }

    /// Adds a frame to its message and returns the message if it is complete. Control frames may come between
    /// the frames of a message.
    fn complete(&mut self, last: bool, frame: Message) -> io::Result<Option<Message>> {
        if frame.kind.is_control() {
            return Ok(Some(frame));
        }
        let message = match (self.begun.take(), frame.kind) {
            (Some(mut begun), Kind::Continuation) => {
                begun.payload.extend(frame.payload);
                begun
            }
            (None, Kind::Text | Kind::Binary) => frame,
            _ => return Err(violation("a frame out of order")),
        };
        if message.payload.len() > MESSAGE_BYTES {
            return Err(violation("a message that is too long"));
        }
        if last {
            let broken = message.kind == Kind::Text && str::from_utf8(&message.payload).is_err();
            return match broken {
                true => Err(violation("text that is not UTF-8")),
                false => Ok(Some(message)),
            };
        }
        self.begun = Some(message);
        Ok(None)
    }
}

/// Takes a client's first frame off `bytes` and unmasks it; `true` if it is the last of its message. Returns
/// `None` while the frame is incomplete.
fn take_frame(bytes: &mut BytesMut) -> io::Result<Option<(bool, Message)>> {
    let mut rest: &[u8] = bytes;
    let (Ok(first), Ok(second)) = (rest.try_get_u8(), rest.try_get_u8()) else {
        return Ok(None);
    };
    let (last, kind) = (first & FIN != 0, Kind::of(first & 0xf));
    let (Some(kind), 0, MASKED) = (kind, first & RESERVED, second & MASKED) else {
        return Err(violation("an unknown or unmasked frame"));
    };
    let length = match second & !MASKED {
        126 => rest.try_get_u16().map(u64::from),
        127 => rest.try_get_u64(),
        short => Ok(short.into()),
    };
    let (Ok(length), Ok(mask)) = (length, rest.try_get_u32()) else {
        return Ok(None);
    };
    if kind.is_control() && (length > CONTROL_BYTES || !last) {
        return Err(violation("a control frame that is too long or in parts"));
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > MESSAGE_BYTES {
        return Err(violation("a frame that is too long"));
    }
    let Some(payload) = rest.get(..length) else {
        return Ok(None);
    };
    let mask = mask.to_be_bytes();
    let unmasked = payload.iter().zip(mask.iter().cycle());
    let payload = unmasked.map(|(byte, mask)| byte ^ mask).collect();
    let header = bytes.len() - rest.len();
    bytes.advance(header + length);
    Ok(Some((last, Message { kind, payload })))
}

/// Returns an unmasked frame that is a whole message.
fn frame(kind: Kind, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![FIN | kind as u8];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..=125), _) => frame.push(short),
        (_, Ok(middle)) => {
            frame.push(126);
            frame.extend(middle.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend(payload);
    frame
}

fn violation(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the client sent {what}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's frame: `first` byte, payload masked.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = frame(Kind::Binary, payload);
        let head = bytes.len() - payload.len();
        (bytes[0], bytes[1]) = (first, bytes[1] | MASKED);
        let mask = [1, 2, 3, 4];
        for (byte, mask) in bytes[head..].iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        bytes.splice(head..head, mask);
        bytes
    }

    /// Aim: a frame of any length is taken once it is complete, at any split; the next bytes stay.
    #[test]
    fn frames_are_taken_whole() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let bytes = masked(0x82, &payload);
            for cut in [0, 1, 2, 5, bytes.len() - 1] {
                let mut part = BytesMut::from(&bytes[..cut]);
                assert!(take_frame(&mut part).unwrap().is_none(), "{length}/{cut}");
                assert_eq!(part.len(), cut, "an incomplete frame stays");
            }
            let mut two = BytesMut::from(&[&bytes[..], b"x"].concat()[..]);
            let kind = Kind::Binary;
            let expected = Some((true, Message { kind, payload }));
            assert_eq!(take_frame(&mut two).unwrap(), expected, "{length}");
            assert_eq!(&two[..], b"x");
        }
    }

    /// Aim: a frame that a client must not send is an error. Source: RFC 6455 §5.1, §5.2, §5.5.
    #[test]
    fn violations_are_refused() {
        let long = vec![0; 65_537];
        let cases: &[(&str, Vec<u8>)] = &[
            ("not masked", frame(Kind::Text, b"hi")),
            ("extension", masked(0xc1, b"")),
            ("opcode 3", masked(0x83, b"")),
            ("ping in parts", masked(0x09, b"")),
            ("ping of 126", masked(0x89, &long[..126])),
            ("64 KiB and 1", masked(0x82, &long)),
            ("2^64 - 1", [&[0x82, 0xff][..], &[0xff; 12]].concat()),
        ];
        for (case, bytes) in cases {
            let taken = take_frame(&mut BytesMut::from(&bytes[..]));
            assert!(taken.is_err(), "{case}: {taken:?}");
        }
    }

    /// Aim: only WebSocket 13 is answered, with the value of the example of RFC 6455 §1.3.
    #[test]
    fn the_key_is_answered() {
        let headers = |version: &'static str| {
            let pairs = [
                (header::UPGRADE, "WebSocket"),
                (header::SEC_WEBSOCKET_VERSION, version),
                (header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ=="),
            ];
            let pairs = pairs.map(|(name, value)| (name, value.parse().unwrap()));
            HeaderMap::from_iter(pairs)
        };
        let expected = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
        assert_eq!(accept(&headers("13")).as_deref(), Some(expected));
        assert_eq!(accept(&headers("12")), None);
        assert_eq!(accept(&HeaderMap::new()), None);
    }
}
