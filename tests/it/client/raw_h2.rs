//! An HTTP/2 client that sends what no library would: raw field bytes, frames in any order.
//!
//! In: fields and frames as bytes. Out: each stream's answer as received, and how it ended. Source: RFC 9113
//! §4, §6; RFC 7541 §6.2.2 (literals without indexing).

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream as _;
use h2::frame::Frame;
use h2::{Codec, Reason};
use http::HeaderMap;
use tokio::io::AsyncWriteExt;

pub use super::frames::frame;

use super::frames::integer;
use super::{Dial, Io};
use crate::deadline;

const END_HEADERS: u8 = 4;
/// Most bytes of a frame (RFC 9113 §4.2).
const MAX_FRAME: usize = 16_384;

/// Types of frames.
pub const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Name and value.
pub type Field<'a> = (&'a [u8], &'a [u8]);

/// One connection.
pub struct RawH2 {
    codec: Codec<Box<dyn Io>, Bytes>,
    next: u32,
    /// Whether to send WINDOW_UPDATE for each DATA.
    pub gives_back: bool,
    answers: HashMap<u32, Answer>,
    /// Last stream and reason of each GOAWAY.
    pub goaways: Vec<(u32, Reason)>,
    /// Window updates by stream.
    pub updates: Vec<(u32, u32)>,
    /// DATA frames in the order of arrival: stream and bytes of each.
    pub order: Vec<(u32, usize)>,
}

/// What arrived on one stream.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Statuses of interim answers, in order.
    pub interim: Vec<u16>,
    /// Status of the answer; 0: no answer yet.
    pub status: u16,
    /// The answer's fields.
    pub fields: HeaderMap,
    /// The answer's body.
    pub body: Vec<u8>,
    /// The answer's trailers.
    pub trailers: Option<HeaderMap>,
    /// The answer is whole.
    pub whole: bool,
    /// The stream was reset.
    pub reset: Option<Reason>,
}

impl Answer {
    /// A field's value.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(|v| v.to_str().ok())
    }
}

impl RawH2 {
    /// Connects, with TLS and ALPN `h2`.
    pub async fn connect(dial: &Dial) -> RawH2 {
        Self::with(dial, &[]).await
    }

    /// As [`RawH2::connect`], announcing `settings`.
    pub async fn with(dial: &Dial, settings: &[(u16, u32)]) -> RawH2 {
        let mut dial = dial.clone();
        if let Some(tls) = &mut dial.tls {
            tls.alpn = b"\x02h2";
        }
        let mut this = RawH2 {
            codec: Codec::new(dial.io().await),
            next: 1,
            gives_back: true,
            answers: HashMap::new(),
            goaways: Vec::new(),
            updates: Vec::new(),
            order: Vec::new(),
        };
        let mut first = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let settings = settings.iter().flat_map(|(id, value)| {
            let (id, value) = (id.to_be_bytes(), value.to_be_bytes());
            [id[0], id[1], value[0], value[1], value[2], value[3]]
        });
        first.extend(frame(SETTINGS, 0, 0, &settings.collect::<Vec<_>>()));
        this.raw(&first).await;
        this
    }

    /// Sends bytes as they are. An error of a connection that has ended is ignored.
    pub async fn raw(&mut self, bytes: &[u8]) {
        let io = self.codec.get_mut();
        if deadline("room", io.write_all(bytes)).await.is_ok() {
            let _ = io.flush().await;
        }
    }

    /// Begins a stream with `fields`; `last`: they end the stream.
    pub async fn open(&mut self, fields: &[Field<'_>], last: bool) -> u32 {
        let id = self.next;
        self.next += 2;
        self.fields(id, fields, last).await;
        id
    }

    /// GETs `path` at `host`.
    pub async fn get(&mut self, host: &str, path: &str) -> Answer {
        let id = self.open(&head("GET", host, path, &[]), true).await;
        self.answer(id).await
    }

    /// Sends fields on a stream: a head, or trailers.
    pub async fn fields(&mut self, id: u32, fields: &[Field<'_>], last: bool) {
        let mut block = Vec::new();
        for (name, value) in fields {
            literal(name, value, &mut block);
        }
        let mut parts = block.chunks(MAX_FRAME).peekable();
        let (mut kind, mut all) = (HEADERS, Vec::new());
        while let Some(part) = parts.next() {
            let mut flags = if kind == HEADERS { u8::from(last) } else { 0 };
            if parts.peek().is_none() {
                flags |= END_HEADERS;
            }
            all.extend(frame(kind, flags, id, part));
            kind = CONTINUATION;
        }
        self.raw(&all).await;
    }

    /// Sends DATA.
    pub async fn data(&mut self, id: u32, data: &[u8], last: bool) {
        self.raw(&frame(DATA, u8::from(last), id, data)).await;
    }

    /// Resets a stream.
    pub async fn reset(&mut self, id: u32, reason: Reason) {
        self.raw(&frame(3, 0, id, &u32::from(reason).to_be_bytes()))
            .await;
    }

    /// Sends WINDOW_UPDATE.
    pub async fn update(&mut self, id: u32, more: u32) {
        self.raw(&frame(WINDOW_UPDATE, 0, id, &more.to_be_bytes()))
            .await;
    }

    /// Waits until a stream ends, and returns everything that arrived on it.
    pub async fn answer(&mut self, id: u32) -> Answer {
        self.until(id, |a| a.whole || a.reset.is_some()).await
    }

    /// Waits until a stream's answer is `good`, or the connection has ended.
    pub async fn until(&mut self, id: u32, good: impl Fn(&Answer) -> bool) -> Answer {
        loop {
            if let Some(answer) = self.answers.get(&id)
                && good(answer)
            {
                return answer.clone();
            }
            if !self.pump().await {
                return self.answers.get(&id).cloned().unwrap_or_default();
            }
        }
    }

    /// What has arrived on a stream so far.
    pub fn so_far(&self, id: u32) -> Answer {
        self.answers.get(&id).cloned().unwrap_or_default()
    }

    /// Bytes of a stream's body so far.
    pub fn so_far_len(&self, id: u32) -> usize {
        self.answers.get(&id).map_or(0, |a| a.body.len())
    }

    /// Reads one frame; false: the connection has ended.
    pub async fn pump(&mut self) -> bool {
        let codec = &mut self.codec;
        let next = poll_fn(|cx| Pin::new(&mut *codec).poll_next(cx));
        let Some(Ok(frame)) = deadline("a frame", next).await else {
            return false;
        };
        self.take(frame).await;
        true
    }

    /// Reads until the connection ends.
    pub async fn ended(&mut self) {
        while self.pump().await {}
    }

    async fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Headers(head) => {
                let answer = self.answers.entry(head.stream_id().into()).or_default();
                answer.whole = head.is_end_stream();
                let (pseudo, fields) = head.into_parts();
                match pseudo.status.map(|s| s.as_u16()) {
                    Some(status @ 100..200) => answer.interim.push(status),
                    Some(status) => (answer.status, answer.fields) = (status, fields),
                    None => answer.trailers = Some(fields),
                }
            }
            Frame::Data(data) => {
                let (id, last) = (u32::from(data.stream_id()), data.is_end_stream());
                let answer = self.answers.entry(id).or_default();
                answer.body.extend_from_slice(data.payload());
                answer.whole = last;
                let n = data.payload().len() as u32;
                self.order.push((id, n as usize));
                if self.gives_back && n > 0 {
                    self.update(0, n).await;
                    if !last {
                        self.update(id, n).await;
                    }
                }
            }
            Frame::Reset(reset) => {
                let answer = self.answers.entry(reset.stream_id().into()).or_default();
                answer.reset = Some(reset.reason());
            }
            Frame::GoAway(goaway) => {
                let last = goaway.last_stream_id().into();
                self.goaways.push((last, goaway.reason()));
            }
            Frame::WindowUpdate(update) => {
                let id = update.stream_id().into();
                self.updates.push((id, update.size_increment()));
            }
            Frame::Settings(settings) if !settings.is_ack() => {
                self.raw(&frame_of_ack()).await;
            }
            _ => {}
        }
    }
}

fn frame_of_ack() -> Vec<u8> {
    frame(SETTINGS, 1, 0, &[])
}

/// The fields of a request, followed by `more`.
pub fn head<'a>(
    method: &'a str,
    host: &'a str,
    path: &'a str,
    more: &[Field<'a>],
) -> Vec<Field<'a>> {
    let pseudo: [Field<'a>; 4] = [
        (b":method", method.as_bytes()),
        (b":scheme", b"https"),
        (b":authority", host.as_bytes()),
        (b":path", path.as_bytes()),
    ];
    [&pseudo[..], more].concat()
}

/// One field as a literal with a new name, not indexed.
fn literal(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.push(0);
    for text in [name, value] {
        integer(out, 0x7f, 0, text.len());
        out.extend_from_slice(text);
    }
}
