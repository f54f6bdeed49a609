//! An HTTP/2 client that sends any frames, legal or not, and reads the edge's frames.
//!
//! In: frames as bytes. Out: the edge's frames, and how the connection ended. Source: RFC 9113 §4.1, §6; RFC
//! 7541 §6.2.2 (fields that no table keeps).

use std::collections::BTreeMap;
use std::time::Duration;

use h2::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::timeout;

use super::{Dial, Io};
use crate::{DEADLINE, deadline};

/// First bytes of a client's connection.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames (RFC 9113 §6).
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GO_AWAY: u8 = 7;
pub const UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

/// Flags.
pub const ACK: u8 = 1;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

/// `SETTINGS_INITIAL_WINDOW_SIZE`.
pub const FIRST_WINDOW: u16 = 4;

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// SETTINGS.
pub fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let pair = |(key, value): &(u16, u32)| [&key.to_be_bytes()[..], &value.to_be_bytes()].concat();
    let payload: Vec<u8> = values.iter().flat_map(pair).collect();
    frame(SETTINGS, 0, 0, &payload)
}

/// WINDOW_UPDATE.
pub fn update(stream: u32, more: u32) -> Vec<u8> {
    frame(UPDATE, 0, stream, &more.to_be_bytes())
}

/// RST_STREAM with CANCEL.
pub fn reset(stream: u32) -> Vec<u8> {
    frame(RESET, 0, stream, &8u32.to_be_bytes())
}

/// One field of a head, as a literal that enters no table.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut field = vec![0];
    for text in [name, value] {
        integer(&mut field, 0x7f, 0, text.len());
        field.extend(text.as_bytes());
    }
    field
}

/// Appends an integer with a prefix of `mask` bits (RFC 7541 §5.1).
pub fn integer(to: &mut Vec<u8>, mask: u8, first: u8, mut n: usize) {
    if n < usize::from(mask) {
        to.push(first | n as u8);
        return;
    }
    to.push(first | mask);
    n -= usize::from(mask);
    while n >= 128 {
        to.push(n as u8 | 128);
        n /= 128;
    }
    to.push(n as u8);
}

/// The fields of a request.
pub fn head(method: &str, path: &str) -> Vec<u8> {
    let fields = [
        (":method", method),
        (":scheme", "https"),
        (":authority", crate::setup::HOST),
        (":path", path),
    ];
    fields.iter().flat_map(|(k, v)| field(k, v)).collect()
}

/// HEADERS with a whole head and END_STREAM.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(
        HEADERS,
        END_STREAM | END_HEADERS,
        stream,
        &head("GET", path),
    )
}

/// HEADERS with a whole head; a body follows.
pub fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &head("POST", path))
}

/// The ids of a client's first `n` streams.
pub fn ids(n: u32) -> impl Iterator<Item = u32> {
    (0..n).map(|i| 2 * i + 1)
}

/// A connection, and what the edge has sent on it.
pub struct Frames {
    to: WriteHalf<Box<dyn Io>>,
    from: ReadHalf<Box<dyn Io>>,
    unread: Vec<u8>,
    /// The codes of the GOAWAY frames.
    pub goodbyes: Vec<u32>,
    /// Frames by type.
    pub seen: BTreeMap<u8, usize>,
    /// Bytes of DATA by stream.
    pub data: BTreeMap<u32, usize>,
    /// Bytes of WINDOW_UPDATE by stream.
    pub given: BTreeMap<u32, usize>,
    /// Streams that the edge has reset, with the error codes.
    pub resets: Vec<(u32, u32)>,
    /// The edge has closed or reset the connection.
    pub ended: bool,
}

impl Frames {
    /// Connects over TLS with ALPN `h2` and sends nothing.
    pub async fn silent(dial: &Dial) -> Frames {
        let mut dial = dial.clone();
        dial.tls.as_mut().expect("HTTP/2 is spoken over TLS").alpn = b"\x02h2";
        let (from, to) = tokio::io::split(dial.io().await);
        Frames {
            to,
            from,
            unread: Vec::new(),
            goodbyes: Vec::new(),
            seen: BTreeMap::new(),
            data: BTreeMap::new(),
            given: BTreeMap::new(),
            resets: Vec::new(),
            ended: false,
        }
    }

    /// Connects and sends a preface with `values` in its SETTINGS.
    pub async fn connect(dial: &Dial, values: &[(u16, u32)]) -> Frames {
        let mut client = Self::silent(dial).await;
        client.send(&[PREFACE, &settings(values)].concat()).await;
        client
    }

    /// Sends `bytes` and reads meanwhile. False: the connection ended before everything was sent.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        let mut sent = 0;
        let mut scrap = vec![0; 16 * 1024];
        let all = async {
            while sent < bytes.len() && !self.ended {
                tokio::select! {
                    n = self.from.read(&mut scrap) => {
                        self.unread.extend(&scrap[..n.as_ref().map_or(0, |n| *n)]);
                        self.ended = !matches!(n, Ok(1..));
                        self.parse();
                    }
                    n = self.to.write(&bytes[sent..]) => match n {
                        Ok(n) => sent += n,
                        // The edge's last frames may still wait in the socket.
                        Err(_) => break,
                    },
                }
            }
            let _ = self.to.flush().await;
        };
        deadline("a client's bytes to be taken", all).await;
        sent == bytes.len() && !self.ended
    }

    /// Sends `bytes` and reads nothing. False: the edge took no byte for `patience`.
    pub async fn push(&mut self, bytes: &[u8], patience: Duration) -> bool {
        let pushed = async {
            self.to.write_all(bytes).await?;
            self.to.flush().await
        };
        matches!(timeout(patience, pushed).await, Ok(Ok(())))
    }

    /// Reads until `good`, or until the connection ends. Panics after [`DEADLINE`].
    pub async fn wait(&mut self, what: &str, good: impl Fn(&Frames) -> bool) {
        assert!(
            self.read_for(DEADLINE, good).await,
            "waited {DEADLINE:?} for {what}"
        );
    }

    /// Reads for `time` at most. True: the frames so far are `good`, or the connection ended.
    pub async fn read_for(&mut self, time: Duration, good: impl Fn(&Frames) -> bool) -> bool {
        let mut scrap = vec![0; 16 * 1024];
        let read = async {
            while !self.ended && !good(self) {
                let n = self.from.read(&mut scrap).await.unwrap_or(0);
                self.ended = n == 0;
                self.unread.extend(&scrap[..n]);
                self.parse();
            }
        };
        timeout(time, read).await.is_ok()
    }

    /// Waits until the connection ends; returns the code of its GOAWAY.
    pub async fn end(&mut self) -> Option<Reason> {
        self.wait("the end of a connection", |_| false).await;
        self.goodbyes.last().map(|code| Reason::from(*code))
    }

    /// Sends PING and waits for its answer: the edge has then read everything sent before.
    pub async fn ping(&mut self) {
        let before = self.frames(PING);
        self.send(&frame(PING, 0, 0, b"are you?")).await;
        self.wait("a pong", |f| f.frames(PING) > before).await;
        assert!(!self.ended, "the connection ended: {:?}", self.goodbyes);
    }

    /// How many frames of a type have arrived.
    pub fn frames(&self, kind: u8) -> usize {
        self.seen.get(&kind).copied().unwrap_or_default()
    }

    /// Bytes of DATA of a stream.
    pub fn data_of(&self, stream: u32) -> usize {
        self.data.get(&stream).copied().unwrap_or_default()
    }

    fn parse(&mut self) {
        let mut rest = &self.unread[..];
        while let [a, b, c, kind, _, id @ ..] = rest {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let Some((id, payload)) = id.split_at_checked(4) else {
                break;
            };
            let Some((payload, next)) = payload.split_at_checked(length) else {
                break;
            };
            rest = next;
            let id = number(id);
            *self.seen.entry(*kind).or_default() += 1;
            match *kind {
                DATA => *self.data.entry(id).or_default() += length,
                UPDATE => *self.given.entry(id).or_default() += number(payload) as usize,
                RESET => self.resets.push((id, number(payload))),
                GO_AWAY => self.goodbyes.push(number(&payload[4..8])),
                _ => {}
            }
        }
        self.unread = rest.to_vec();
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}
