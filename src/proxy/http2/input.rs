//! Splits the bytes of a client into frames.
//!
//! In: bytes in any split. Out: frames. DATA passes as it arrives: no byte waits for the rest of its frame.
//! An idle connection keeps no buffer.
//! Source: RFC 9113 §4, §6.1 (padding counts in the window), §6.10.

use bytes::{Buf, BytesMut};
use h2::Reason;
use h2::frame::{
    Error, GoAway, HEADER_LEN, Head as FrameHead, Kind, Ping, Priority, Reset, Settings,
    WindowUpdate,
};

use super::head::Head;
use super::hpack::Decoder;

/// Most bytes of a frame, which every server accepts.
const MAX_FRAME: usize = 16 * 1024;
/// A head that is this many times too large ends its connection. The edge needs none of its fields, and would
/// decode them only for the table.
const ABUSE: usize = 4;
/// Most CONTINUATION frames of one head.
const MAX_CONTINUATIONS: u32 = 64;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;
/// Bytes of a priority in front of a block.
const PRIORITY_LEN: usize = 5;

/// One frame, or a piece of DATA.
pub enum Frame<'a> {
    /// Bytes of a body.
    Data {
        id: u32,
        payload: &'a [u8],
        /// Bytes that count in the windows, padding included.
        length: u32,
        /// The client ended its side with these bytes.
        last: bool,
        /// The whole frame has no byte of a body.
        is_empty: bool,
    },
    Headers(Box<Head>),
    Settings(Settings),
    Ping(Ping),
    Reset(Reset),
    /// The client begins no more streams.
    GoAway,
    WindowUpdate(WindowUpdate),
    /// A frame without effect here.
    Ignored,
}

/// Why bytes are not a legal frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The connection cannot go on.
    Connection(Reason),
    /// This stream cannot go on.
    Stream(u32, Reason),
}

use FrameError::{Connection, Stream};

/// Splits the bytes of one connection into frames.
pub struct Input {
    /// The beginning of the next frame's header, and how many of its bytes have arrived.
    header: [u8; HEADER_LEN],
    known: usize,
    /// The frame whose payload is being read.
    frame: Option<Begun>,
    /// Its payload so far, unless it is a DATA frame.
    payload: BytesMut,
    /// A head whose last CONTINUATION has not arrived.
    block: Option<Box<Block>>,
    decoder: Decoder,
    /// Most bytes of a head's fields.
    max_list: usize,
}

/// A frame whose header has been read.
struct Begun {
    head: FrameHead,
    length: usize,
    left: usize,
    /// Bytes of padding at its end; `None`: not known yet.
    padding: Option<usize>,
}

/// The part of a head that has arrived.
struct Block {
    id: u32,
    ended: bool,
    /// The stream depends on itself, which is illegal. The head is still decoded, for the table.
    depends_on_itself: bool,
    bytes: BytesMut,
    frames: u32,
}

impl Input {
    /// Makes the splitter for a client whose preface has been read. `max_list`: most bytes of a head's
    /// fields.
    pub fn new(decoder: Decoder, max_list: usize) -> Self {
        Input {
            header: [0; HEADER_LEN],
            known: 0,
            frame: None,
            payload: BytesMut::new(),
            block: None,
            decoder,
            max_list,
        }
    }

    /// Takes the next frame from the front of `bytes`; `None`: they are used up.
    ///
    /// Errors: the frame is illegal. If only its stream is at fault, the next call goes on behind the frame.
    pub fn next<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Option<Frame<'a>>, FrameError> {
        loop {
            if self.frame.is_none() && !self.read_header(bytes)? {
                return Ok(None);
            }
            let Some(frame) = &self.frame else {
                return Ok(None);
            };
            let is_data = frame.head.kind() == Kind::Data;
            if bytes.is_empty() && frame.left > 0 {
                return Ok(None);
            }
            if is_data {
                return self.data(bytes).map(Some);
            }
            if let Some(frame) = self.whole(bytes)? {
                return Ok(Some(frame));
            }
        }
    }

    /// Whether the client has begun a frame, or a head of several frames, and not ended it.
    pub fn is_within_frame(&self) -> bool {
        self.known > 0 || self.frame.is_some() || self.block.is_some()
    }

    /// Reads the header of the next frame. False: it is incomplete.
    fn read_header(&mut self, bytes: &mut &[u8]) -> Result<bool, FrameError> {
        let (front, rest) = bytes.split_at((HEADER_LEN - self.known).min(bytes.len()));
        self.header[self.known..self.known + front.len()].copy_from_slice(front);
        self.known += front.len();
        *bytes = rest;
        if self.known < HEADER_LEN {
            return Ok(false);
        }
        self.known = 0;
        let head = FrameHead::parse(&self.header);
        let [a, b, c, ..] = self.header;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if length > MAX_FRAME {
            return Err(Connection(Reason::FRAME_SIZE_ERROR));
        }
        if self.block.is_some() && head.kind() != Kind::Continuation {
            return Err(Connection(Reason::PROTOCOL_ERROR));
        }
        let is_padded = head.flag() & PADDED != 0;
        if head.kind() == Kind::Data && (head.stream_id().is_zero() || (is_padded && length == 0)) {
            return Err(Connection(Reason::PROTOCOL_ERROR));
        }
        self.frame = Some(Begun {
            head,
            length,
            left: length,
            padding: (!is_padded).then_some(0),
        });
        Ok(true)
    }

    /// Takes the part of a DATA frame that has arrived.
    fn data<'a>(&mut self, bytes: &mut &'a [u8]) -> Result<Frame<'a>, FrameError> {
        let Some(frame) = &mut self.frame else {
            return Ok(Frame::Ignored);
        };
        let mut length = 0;
        if frame.padding.is_none()
            && let Some((padding, rest)) = bytes.split_first()
        {
            (length, frame.left, *bytes) = (1, frame.left - 1, rest);
            frame.padding = Some(usize::from(*padding));
            if usize::from(*padding) > frame.left {
                return Err(Connection(Reason::PROTOCOL_ERROR));
            }
        }
        let padding = frame.padding.unwrap_or_default();
        let (payload, rest) =
            bytes.split_at((frame.left - padding.min(frame.left)).min(bytes.len()));
        frame.left -= payload.len();
        let behind = match frame.left <= padding {
            true => frame.left.min(rest.len()),
            false => 0,
        };
        frame.left -= behind;
        *bytes = &rest[behind..];
        length += payload.len() + behind;
        let (id, is_whole) = (u32::from(frame.head.stream_id()), frame.left == 0);
        let last = is_whole && frame.head.flag() & END_STREAM != 0;
        let is_padded = frame.head.flag() & PADDED != 0;
        let is_empty = frame.length == usize::from(is_padded) + padding;
        if is_whole {
            self.frame = None;
        }
        Ok(Frame::Data {
            id,
            payload,
            length: length as u32,
            last,
            is_empty,
        })
    }

    /// Takes any other frame once it is complete.
    fn whole(&mut self, bytes: &mut &[u8]) -> Result<Option<Frame<'static>>, FrameError> {
        let Some(frame) = &mut self.frame else {
            return Ok(None);
        };
        let (front, rest) = bytes.split_at(frame.left.min(bytes.len()));
        frame.left -= front.len();
        *bytes = rest;
        let is_known = frame.head.kind() != Kind::Unknown;
        if is_known {
            self.payload.extend_from_slice(front);
        }
        if frame.left > 0 {
            return Ok(None);
        }
        let head = frame.head;
        self.frame = None;
        // The next frame gets a new buffer, so an idle connection keeps none.
        let payload = std::mem::take(&mut self.payload);
        match is_known {
            true => self.load(head, payload),
            false => Ok(None),
        }
    }

    fn load(
        &mut self,
        head: FrameHead,
        payload: BytesMut,
    ) -> Result<Option<Frame<'static>>, FrameError> {
        let id = u32::from(head.stream_id());
        let of_connection = |e| match e {
            Error::BadFrameSize | Error::InvalidPayloadLength => {
                Connection(Reason::FRAME_SIZE_ERROR)
            }
            Error::InvalidDependencyId => Stream(id, Reason::PROTOCOL_ERROR),
            // An increment of 0 is a fault of the stream only (RFC 9113 §6.9).
            Error::InvalidWindowUpdateValue if id > 0 => Stream(id, Reason::PROTOCOL_ERROR),
            _ => Connection(Reason::PROTOCOL_ERROR),
        };
        let frame = match head.kind() {
            Kind::Headers => return self.begin_block(head, payload),
            Kind::Continuation => return self.continue_block(head, &payload),
            Kind::Settings => Settings::load(head, &payload).map(Frame::Settings),
            Kind::Ping => Ping::load(head, &payload).map(Frame::Ping),
            Kind::Reset if id == 0 => Err(Error::InvalidStreamId),
            Kind::Reset => Reset::load(head, &payload).map(Frame::Reset),
            Kind::GoAway if id > 0 => Err(Error::InvalidStreamId),
            Kind::GoAway => GoAway::load(head, &payload).map(|_| Frame::GoAway),
            Kind::WindowUpdate => WindowUpdate::load(head, &payload).map(Frame::WindowUpdate),
            Kind::Priority if id == 0 => Err(Error::InvalidStreamId),
            Kind::Priority if payload.len() != 5 => {
                return Err(Stream(id, Reason::FRAME_SIZE_ERROR));
            }
            Kind::Priority => Priority::load(head, &payload).map(|_| Frame::Ignored),
            // A client may not push.
            Kind::PushPromise => Err(Error::InvalidStreamId),
            Kind::Data | Kind::Unknown => Ok(Frame::Ignored),
        };
        frame.map(Some).map_err(of_connection)
    }

    fn begin_block(
        &mut self,
        head: FrameHead,
        mut payload: BytesMut,
    ) -> Result<Option<Frame<'static>>, FrameError> {
        const CUT: FrameError = Connection(Reason::PROTOCOL_ERROR);
        let (id, flags) = (u32::from(head.stream_id()), head.flag());
        if id == 0 {
            return Err(CUT);
        }
        if flags & PADDED != 0 {
            let padding = usize::from(*payload.first().ok_or(CUT)?);
            let kept = (payload.len() - 1).checked_sub(padding).ok_or(CUT)?;
            payload.advance(1);
            payload.truncate(kept);
        }
        let mut depends_on_itself = false;
        if flags & PRIORITY != 0 {
            let (on, _) = payload.split_first_chunk().ok_or(CUT)?;
            // The first bit is the "exclusive" flag.
            depends_on_itself = u32::from_be_bytes(*on) & 0x7fff_ffff == id;
            if payload.len() < PRIORITY_LEN {
                return Err(CUT);
            }
            payload.advance(PRIORITY_LEN);
        }
        let block = Block {
            id,
            ended: flags & END_STREAM != 0,
            depends_on_itself,
            bytes: payload,
            frames: 0,
        };
        match flags & END_HEADERS != 0 {
            true => self.end_block(&block).map(Some),
            false => {
                self.block = Some(Box::new(block));
                Ok(None)
            }
        }
    }

    fn continue_block(
        &mut self,
        head: FrameHead,
        payload: &[u8],
    ) -> Result<Option<Frame<'static>>, FrameError> {
        let block = self.block.take();
        let Some(mut block) = block.filter(|b| b.id == u32::from(head.stream_id())) else {
            return Err(Connection(Reason::PROTOCOL_ERROR));
        };
        block.frames += 1;
        let too_long = block.bytes.len() + payload.len() > ABUSE * self.max_list;
        if too_long || block.frames > MAX_CONTINUATIONS {
            return Err(Connection(Reason::ENHANCE_YOUR_CALM));
        }
        block.bytes.extend_from_slice(payload);
        match head.flag() & END_HEADERS != 0 {
            true => self.end_block(&block).map(Some),
            false => {
                self.block = Some(block);
                Ok(None)
            }
        }
    }

    fn end_block(&mut self, block: &Block) -> Result<Frame<'static>, FrameError> {
        let (id, most) = (block.id, self.max_list);
        let head = Head::decode(id, block.ended, &block.bytes, &mut self.decoder, most);
        let head = head.map_err(|_| Connection(Reason::COMPRESSION_ERROR))?;
        if head.size > ABUSE * most {
            return Err(Connection(Reason::ENHANCE_YOUR_CALM));
        }
        match head.is_malformed || block.depends_on_itself {
            true => Err(Stream(id, Reason::PROTOCOL_ERROR)),
            false => Ok(Frame::Headers(Box::new(head))),
        }
    }
}

#[cfg(test)]
mod tests;
