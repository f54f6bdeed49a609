//! Messages of 100 bytes in three framings; each carries its number and the time of its writing.
//!
//! In: received bytes in any split. Out: number and age of each message. Source: RFC 9112 §7.1,
//! RFC 6455 §5.2.

use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Instant;

/// Length of a message, without its framing.
pub const MESSAGE: usize = 100;
/// Frame header of a node's WebSocket message.
const FRAME: [u8; 2] = [0x82, MESSAGE as u8];
/// Frame header of a client's WebSocket message, with a mask of zeros.
const MASKED: [u8; 6] = [0x82, 0x80 | MESSAGE as u8, 0, 0, 0, 0];
/// Length of a client's WebSocket message with its frame header.
pub const MASKED_MESSAGE: usize = MASKED.len() + MESSAGE;

/// How a stream of messages is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Chunked HTTP/1.1 answer with a chunk for each message.
    Chunked,
    /// Answer with a long Content-Length.
    Length,
    /// WebSocket with a frame for each message.
    WebSocket,
}

impl Wire {
    /// Returns the word for it in options and in the node's paths.
    pub fn as_str(self) -> &'static str {
        match self {
            Wire::Chunked => "chunked",
            Wire::Length => "length",
            Wire::WebSocket => "ws",
        }
    }

    /// Returns `body` with its framing, as the node sends it.
    pub fn frame(self, body: &[u8]) -> Vec<u8> {
        match self {
            Wire::Length => body.to_vec(),
            Wire::Chunked => {
                let mut out = format!("{:x}\r\n", body.len()).into_bytes();
                out.extend_from_slice(body);
                out.extend_from_slice(b"\r\n");
                out
            }
            Wire::WebSocket if body.len() < 126 => [&[0x82, body.len() as u8], body].concat(),
            Wire::WebSocket => {
                let length = (body.len() as u16).to_be_bytes();
                [&[0x82, 126, length[0], length[1]], body].concat()
            }
        }
    }
}

impl FromStr for Wire {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let all = [Wire::Chunked, Wire::Length, Wire::WebSocket];
        let found = all.into_iter().find(|w| w.as_str() == word);
        found.ok_or_else(|| format!("unknown wire `{word}`"))
    }
}

/// Returns the nanoseconds since the first call in this process.
pub fn now_ns() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// Makes message number `seq`, dated now.
pub fn message(seq: u32) -> [u8; MESSAGE] {
    let mut m = [b'.'; MESSAGE];
    m[..8].copy_from_slice(&now_ns().to_be_bytes());
    m[8..12].copy_from_slice(&seq.to_be_bytes());
    m
}

/// Makes message number `seq`, framed as a WebSocket client sends it.
pub fn masked(seq: u32) -> Vec<u8> {
    [&MASKED[..], &message(seq)].concat()
}

/// One received message.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// Number of the message.
    pub seq: u32,
    /// Time since the message was written, in nanoseconds.
    pub age_ns: u64,
}

/// Splits a stream of bytes into messages.
pub struct Reader {
    wire: Wire,
    /// Bytes missing of the current chunk; 0 within a size line.
    chunk: usize,
    size: usize,
    body: Vec<u8>,
}

impl Reader {
    /// Makes a reader at the beginning of a body.
    pub fn new(wire: Wire) -> Self {
        Reader {
            wire,
            chunk: 0,
            size: 0,
            body: Vec::new(),
        }
    }

    /// Takes received bytes and calls `each` for every message that is complete now.
    pub fn feed(&mut self, data: &[u8], mut each: impl FnMut(Received)) {
        match self.wire {
            Wire::Chunked => self.unchunk(data),
            Wire::Length | Wire::WebSocket => self.body.extend_from_slice(data),
        }
        let head = if self.wire == Wire::WebSocket {
            FRAME.len()
        } else {
            0
        };
        let whole = self.body.len() / (head + MESSAGE) * (head + MESSAGE);
        let now = now_ns();
        for m in self.body[..whole].chunks_exact(head + MESSAGE) {
            let (mut at, mut seq) = ([0; 8], [0; 4]);
            at.copy_from_slice(&m[head..head + 8]);
            seq.copy_from_slice(&m[head + 8..head + 12]);
            let age_ns = now.saturating_sub(u64::from_be_bytes(at));
            each(Received {
                seq: u32::from_be_bytes(seq),
                age_ns,
            });
        }
        self.body.drain(..whole);
    }

    fn unchunk(&mut self, mut data: &[u8]) {
        while let Some(&byte) = data.first() {
            if self.chunk > 0 {
                let (now, later) = data.split_at(self.chunk.min(data.len()));
                self.body.extend_from_slice(now);
                self.chunk -= now.len();
                data = later;
                continue;
            }
            // The line end after a chunk reads as a size line without digits and opens no chunk.
            match (byte as char).to_digit(16) {
                Some(digit) => self.size = self.size * 16 + digit as usize,
                None if byte == b'\n' => self.chunk = std::mem::take(&mut self.size),
                None => {}
            }
            data = &data[1..];
        }
    }
}
