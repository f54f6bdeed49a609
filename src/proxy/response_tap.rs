//! Shows plugins a node's answer as it passes: its head, and the beginning of its body without framing.
//!
//! In: the node's bytes in any split. Out: calls of [`Watch`]. The tap delays nothing and judges nothing: the
//! exchange judges. The tap skips what it cannot read. Source: RFC 9112 §6, §7.1; RFC 6455 §5.2.

use std::sync::Arc;
use std::time::Instant;

use pushgate_plugins::api::{BODY_PREFIX, Watch};

use super::http1::response_head::{self, MAX_HEAD, RequestKind};
use crate::observe::end_reason::EndReason;
use crate::stream::framing::Framing;
use crate::stream::side::Tap;
use crate::upstream::{LiveFlow, Node};

/// Shows one answer to the plugins that watch it.
pub struct ResponseTap {
    watches: Vec<Box<dyn Watch>>,
    flow: Arc<LiveFlow>,
    node: Arc<Node>,
    /// The flow has the mark of the session that a plugin learned.
    marked: bool,
    /// The request is a HEAD, so its answer has no body.
    to_head: bool,
    stage: Stage,
    /// Bytes of the body that may still be shown.
    left: usize,
}

enum Stage {
    /// The tap collects a head.
    Head(Vec<u8>),
    /// A body without framing inside it.
    Plain,
    Chunks(Chunks),
    Frames(Frames),
    /// Nothing more is shown.
    Over,
}

impl ResponseTap {
    /// Makes a tap that shows an answer of `node` to `watches`; `None`: there are no watches.
    pub fn tap(
        watches: Vec<Box<dyn Watch>>,
        to_head: bool,
        flow: &Arc<LiveFlow>,
        node: &Arc<Node>,
    ) -> Option<Box<dyn Tap>> {
        (!watches.is_empty()).then(|| -> Box<dyn Tap> {
            Box::new(ResponseTap {
                watches,
                flow: flow.clone(),
                node: node.clone(),
                marked: false,
                to_head,
                stage: Stage::Head(Vec::new()),
                left: BODY_PREFIX,
            })
        })
    }

    /// Removes complete heads from the front of `collected`. Returns the bytes behind the last head: they
    /// belong to the body.
    fn heads(&mut self, mut collected: Vec<u8>) -> Vec<u8> {
        while let Some(end) = memchr::memmem::find(&collected, b"\r\n\r\n") {
            let body = collected.split_off(end + 4);
            let head = std::mem::replace(&mut collected, body);
            let request = RequestKind {
                head: self.to_head,
                websocket: true,
            };
            let Ok(parsed) = response_head::judge(&head, request) else {
                self.stage = Stage::Over;
                return Vec::new();
            };
            if (100..200).contains(&parsed.status) && parsed.status != 101 {
                continue;
            }
            let now = Instant::now();
            self.watches.iter_mut().for_each(|w| w.head(&head, now));
            self.stage = match (parsed.status, parsed.framing) {
                (101, _) => Stage::Frames(Frames::default()),
                (_, Framing::Done) => Stage::Over,
                (_, Framing::Chunked(_)) => Stage::Chunks(Chunks::default()),
                _ => Stage::Plain,
            };
            return collected;
        }
        self.stage = match collected.len() > MAX_HEAD {
            true => Stage::Over,
            false => Stage::Head(collected),
        };
        Vec::new()
    }

    /// Shows bytes of the body. Stops when no watch wants more, or at the limit.
    fn show(&mut self, bytes: &[u8]) {
        let taken = bytes.len().min(self.left);
        self.left -= taken;
        let now = Instant::now();
        let shown = &bytes[..taken];
        // Every watch gets the bytes. A watch that has seen enough ignores them.
        let wanted = self.watches.iter_mut().map(|w| w.body(shown, now));
        let wanted = wanted.fold(false, |any, one| any | one);
        if !wanted || self.left == 0 {
            self.stage = Stage::Over;
        }
    }

    fn body(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (piece, behind) = match &mut self.stage {
                Stage::Plain => (rest, &[] as &[u8]),
                Stage::Chunks(chunks) => chunks.next(rest),
                Stage::Frames(frames) => frames.next(rest),
                Stage::Head(_) | Stage::Over => return,
            };
            rest = behind;
            if !piece.is_empty() {
                self.show(piece);
            }
        }
    }
}

impl Tap for ResponseTap {
    fn saw(&mut self, bytes: &[u8]) -> bool {
        match &mut self.stage {
            Stage::Head(collected) => {
                let mut collected = std::mem::take(collected);
                collected.extend_from_slice(bytes);
                let body = self.heads(collected);
                self.body(&body);
            }
            Stage::Over => {}
            _ => self.body(bytes),
        }
        self.marked = self.marked || self.node.flows.learned(self.flow.id, &self.watches);
        !matches!(self.stage, Stage::Over)
    }
}

impl Drop for ResponseTap {
    fn drop(&mut self) {
        let now = Instant::now();
        let moves = self.flow.closed() == Some(EndReason::Rebalanced);
        for watch in &mut self.watches {
            if moves {
                watch.forget();
            }
            watch.ended(now);
        }
    }
}

/// The position in a chunked body. It is lenient, because the exchange refuses illegal chunks.
#[derive(Default)]
enum Chunks {
    /// Before the first digit of a size.
    #[default]
    Start,
    Size(usize),
    /// Behind the size's digits, in its line. The number is the size.
    Extension(usize),
    Data(usize),
    /// In the line end behind the data of a chunk.
    End,
}

impl Chunks {
    /// Returns the next piece of data in `bytes`, and the bytes behind it.
    fn next<'b>(&mut self, bytes: &'b [u8]) -> (&'b [u8], &'b [u8]) {
        if let Chunks::Data(left) = self {
            let (piece, rest) = bytes.split_at((*left).min(bytes.len()));
            *left -= piece.len();
            if *left == 0 {
                *self = Chunks::End;
            }
            return (piece, rest);
        }
        let Some((byte, rest)) = bytes.split_first() else {
            return (&[], &[]);
        };
        let digit = char::from(*byte).to_digit(16).map(|d| d as usize);
        *self = match (&*self, byte, digit) {
            (Chunks::Start, _, Some(d)) => Chunks::Size(d),
            (Chunks::Size(n), _, Some(d)) => Chunks::Size(n.saturating_mul(16).saturating_add(d)),
            (Chunks::Size(n) | Chunks::Extension(n), b'\n', _) => Chunks::Data(*n),
            (Chunks::Size(n) | Chunks::Extension(n), _, _) => Chunks::Extension(*n),
            (Chunks::End, b'\n', _) => Chunks::Start,
            _ => return (&[], rest),
        };
        (&[], rest)
    }
}

/// The position in a node's WebSocket frames.
#[derive(Default)]
struct Frames {
    head: Vec<u8>,
    /// Bytes of the current frame's payload that have not arrived.
    left: u64,
    /// Whether the payload is text that plugins can read.
    shown: bool,
    /// Whether the current message is text. Control frames may come between its parts.
    text: bool,
}

impl Frames {
    /// Returns the next piece of text in `bytes`, and the bytes behind it.
    fn next<'b>(&mut self, bytes: &'b [u8]) -> (&'b [u8], &'b [u8]) {
        if self.left > 0 {
            let most = usize::try_from(self.left).unwrap_or(usize::MAX);
            let (piece, rest) = bytes.split_at(most.min(bytes.len()));
            self.left -= piece.len() as u64;
            return (if self.shown { piece } else { &[] }, rest);
        }
        let Some((byte, rest)) = bytes.split_first() else {
            return (&[], &[]);
        };
        self.head.push(*byte);
        match self.begin() {
            // Each message begins on a new line, even if the previous one had no line end.
            true => (b"\n", rest),
            false => (&[], rest),
        }
    }

    /// Reads the frame's head once it is complete. True: a text message begins.
    fn begin(&mut self) -> bool {
        let [first, second, more @ ..] = self.head.as_slice() else {
            return false;
        };
        let length = match (second & 0x7f, more) {
            (126, [a, b]) => u64::from(u16::from_be_bytes([*a, *b])),
            (127, [a, b, c, d, e, f, g, h]) => u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]),
            (126 | 127, _) => return false,
            (n, _) => u64::from(n),
        };
        let (compressed, opcode) = (first & 0x40 != 0, first & 0x0f);
        let begins = opcode == 1 && !compressed && second & 0x80 == 0;
        if matches!(opcode, 1 | 2) {
            self.text = begins;
        }
        self.shown = opcode <= 2 && self.text;
        self.left = length;
        self.head.clear();
        begins
    }
}

#[cfg(test)]
mod tests;
