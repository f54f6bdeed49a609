//! Finds the end of an HTTP/1 message: by Content-Length, by chunks, or at the end of the connection.
//!
//! In: body bytes, split anywhere. Out: how many of them belong to this message, or an error.
//! The parser is strict: a message that can be read in two ways can smuggle a request.
//! Source: RFC 9112 §6, §7.1.

/// How a body is framed, and how much of it has passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    /// The body is complete, or there was none.
    Done,
    /// Bytes still to come.
    Length(u64),
    /// The chunked coding.
    Chunked(Chunked),
    /// Every byte until the connection closes.
    UntilClose,
}

/// How the bytes of a body reach the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrap {
    /// Unchanged: both heads announce the same framing.
    AsIs,
    /// In chunks of our own, because the source ends its body only by closing.
    Chunks,
    /// Only the data of the chunks: HTTP/1.0 has no chunked coding (RFC 9112 §6.1).
    Bare,
}

/// Why a body is illegal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FramingError {
    /// A chunk's size line is not `1*HEXDIG [ext] CRLF`, or exceeds its bounds.
    ChunkSize,
    /// A chunk's data is not followed by CRLF.
    ChunkEnd,
    /// A trailer line is malformed, too long, or names a field that must not be a trailer.
    Trailer,
}

impl Framing {
    /// Returns the framing of a body of `n` bytes.
    pub fn length(n: u64) -> Self {
        if n == 0 {
            Framing::Done
        } else {
            Framing::Length(n)
        }
    }

    /// Returns the chunked framing at its start.
    pub fn chunked() -> Self {
        Framing::Chunked(Chunked::default())
    }

    /// Returns how many bytes are still to come; `u64::MAX` where the framing does not say.
    pub fn left(&self) -> u64 {
        match self {
            Framing::Done => 0,
            Framing::Length(left) => *left,
            Framing::Chunked(_) | Framing::UntilClose => u64::MAX,
        }
    }

    /// Counts the next `n` bytes, at most [`Framing::left`], without reading them. No use for chunks, whose
    /// size lines must be read.
    pub fn skip(&mut self, n: u64) {
        if let Framing::Length(left) = self {
            *self = Framing::length(left.saturating_sub(n));
        }
    }

    /// Whether the message is complete.
    pub fn is_done(&self) -> bool {
        match self {
            Framing::Done => true,
            Framing::Chunked(c) => c.state == State::Over,
            Framing::Length(_) | Framing::UntilClose => false,
        }
    }

    /// Reads the next bytes; returns how many of them belong to this message.
    ///
    /// Fewer than `data.len()` means that the message is complete. Errors: illegal chunked coding. After an
    /// error no later byte may be read as part of any message.
    pub fn advance(&mut self, data: &[u8]) -> Result<usize, FramingError> {
        match self {
            Framing::Done => Ok(0),
            Framing::UntilClose => Ok(data.len()),
            Framing::Length(left) => {
                let n = usize::try_from(*left).map_or(data.len(), |left| left.min(data.len()));
                *left -= n as u64;
                if *left == 0 {
                    *self = Framing::Done;
                }
                Ok(n)
            }
            Framing::Chunked(c) => {
                let n = c.advance(data)?;
                if c.state == State::Over {
                    *self = Framing::Done;
                }
                Ok(n)
            }
        }
    }

    /// Takes the trailers of a complete message as the source sent them, without the empty line that ends
    /// them.
    pub fn take_trailers(&mut self) -> Option<Vec<u8>> {
        match self {
            Framing::Chunked(c) if c.state == State::Over => c.trailer.take().map(|t| t.all),
            _ => None,
        }
    }

    /// Whether the message is complete and its trailers are still here.
    pub fn has_trailers(&self) -> bool {
        matches!(self, Framing::Chunked(c) if c.state == State::Over && c.trailer.is_some())
    }

    /// Reads the next bytes and moves their data to the front, without the framing of the chunks. Returns how
    /// many bytes belong to this message, and how many of them are data.
    ///
    /// [`Framing::take_trailers`] returns the trailers. Errors: as [`Framing::advance`]; `data` is then in no
    /// defined order.
    pub fn advance_bare(&mut self, data: &mut [u8]) -> Result<(usize, usize), FramingError> {
        let Framing::Chunked(c) = self else {
            return self.advance(data).map(|n| (n, n));
        };
        let taken = c.advance_bare(data)?;
        if c.state == State::Over && c.trailer.is_none() {
            *self = Framing::Done;
        }
        Ok(taken)
    }
}

/// The state machine of the chunked coding.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Chunked {
    state: State,
    /// Bytes left in this chunk.
    left: u64,
    /// Digits of the size so far, then bytes of the line, then bytes of all trailers.
    line: u16,
    /// The trailers so far. Boxed, because most streams are silent and carry no trailers.
    trailer: Option<Box<Trailer>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Trailer {
    all: Vec<u8>,
    /// Where the current line begins.
    line: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum State {
    /// Before the first digit of a size.
    #[default]
    Size,
    Digits,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    TrailerLine,
    TrailerLf,
    Over,
}

/// Longest chunk size line with its extensions, in bytes; real ones have a dozen.
const MAX_LINE: u16 = 256;
/// Most hexadecimal digits of a size: enough for 2^60 bytes.
const MAX_DIGITS: u16 = 15;
/// Most bytes of all trailer lines together.
const MAX_TRAILER: u16 = 4096;
/// The same limit, for trailers that do not come in chunks.
pub const MAX_TRAILERS: usize = MAX_TRAILER as usize;

/// Fields that change framing, routing or authentication; they must not follow a body.
const FORBIDDEN_TRAILERS: &[&str] = &[
    "content-length",
    "transfer-encoding",
    "host",
    "te",
    "trailer",
    "connection",
    "cookie",
    "set-cookie",
    "authorization",
    "proxy-authorization",
    "content-encoding",
    "content-type",
    "content-range",
    "expect",
    "upgrade",
    "forwarded",
    "cache-control",
];

impl Chunked {
    fn advance(&mut self, data: &[u8]) -> Result<usize, FramingError> {
        let mut i = 0;
        while i < data.len() && self.state != State::Over {
            if self.state == State::Data {
                i += self.take_data(data.len() - i);
                continue;
            }
            self.step(data[i])?;
            i += 1;
        }
        Ok(i)
    }

    fn advance_bare(&mut self, data: &mut [u8]) -> Result<(usize, usize), FramingError> {
        let (mut i, mut kept) = (0, 0);
        while i < data.len() && self.state != State::Over {
            if self.state == State::Data {
                let n = self.take_data(data.len() - i);
                data.copy_within(i..i + n, kept);
                i += n;
                kept += n;
                continue;
            }
            self.step(data[i])?;
            i += 1;
        }
        Ok((i, kept))
    }

    /// Consumes the data of this chunk among the next `n` bytes; returns its length.
    fn take_data(&mut self, n: usize) -> usize {
        let n = usize::try_from(self.left).map_or(n, |left| left.min(n));
        self.left -= n as u64;
        if self.left == 0 {
            self.state = State::DataCr;
        }
        n
    }

    fn step(&mut self, b: u8) -> Result<(), FramingError> {
        self.state = match (self.state, b) {
            (State::Size, b) if b.is_ascii_hexdigit() => {
                (self.left, self.line) = (hex(b), 1);
                State::Digits
            }
            (State::Digits, b) if b.is_ascii_hexdigit() && self.line < MAX_DIGITS => {
                self.left = self.left * 16 + hex(b);
                self.line += 1;
                State::Digits
            }
            (State::Digits, b';') => State::Extension,
            (State::Digits | State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b)
                if self.line < MAX_LINE && (b == b'\t' || (b >= b' ' && b != 0x7f)) =>
            {
                self.line += 1;
                State::Extension
            }
            (State::SizeLf, b'\n') if self.left > 0 => State::Data,
            (State::SizeLf, b'\n') => State::TrailerLine,
            (State::Size | State::Digits | State::Extension | State::SizeLf, _) => {
                return Err(FramingError::ChunkSize);
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::DataCr | State::DataLf, _) => return Err(FramingError::ChunkEnd),
            (State::TrailerLine, b'\r') => State::TrailerLf,
            (State::TrailerLine, b) => self.trailer_byte(b)?,
            (State::TrailerLf, b'\n') => self.trailer_line()?,
            (State::TrailerLf, _) => return Err(FramingError::Trailer),
            (State::Data | State::Over, _) => unreachable!("handled by advance"),
        };
        Ok(())
    }

    fn trailer_byte(&mut self, b: u8) -> Result<State, FramingError> {
        // From here on `line` counts all trailer bytes.
        self.line += 1;
        if self.line > MAX_TRAILER || !is_trailer_byte(b) {
            return Err(FramingError::Trailer);
        }
        self.trailer.get_or_insert_default().all.push(b);
        Ok(State::TrailerLine)
    }

    fn trailer_line(&mut self) -> Result<State, FramingError> {
        let Some(trailer) = &mut self.trailer else {
            return Ok(State::Over);
        };
        let line = &trailer.all[trailer.line..];
        if line.is_empty() {
            return Ok(State::Over);
        }
        let colon = memchr::memchr(b':', line).ok_or(FramingError::Trailer)?;
        match is_trailer(&line[..colon]) {
            true => {
                trailer.all.extend_from_slice(b"\r\n");
                trailer.line = trailer.all.len();
                Ok(State::TrailerLine)
            }
            false => Err(FramingError::Trailer),
        }
    }
}

/// Whether a field of this name may follow a body.
pub fn is_trailer(name: &[u8]) -> bool {
    let name = http::HeaderName::from_bytes(name);
    name.is_ok_and(|name| !FORBIDDEN_TRAILERS.contains(&name.as_str()))
}

/// Whether a field that follows a body may hold this byte.
pub fn is_trailer_byte(b: u8) -> bool {
    (b >= b' ' && b != 0x7f) || b == b'\t'
}

fn hex(b: u8) -> u64 {
    (b as char).to_digit(16).map_or(0, u64::from)
}

#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(test)]
mod http10_tests;
#[cfg(any(test, fuzzing))]
mod plain;
#[cfg(test)]
mod random_split_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod trailers;
