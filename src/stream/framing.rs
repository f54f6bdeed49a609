//! Where an HTTP/1 message ends: Content-Length, chunked, or with the connection.
//!
//! In: body bytes as they come, in any split. Out: how many belong to this message, or a fault.
//! Strict, because two readings of one message are a smuggled request.
//! Source: RFC 9112 §6, §7.1.

/// How a body is framed, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Over: no (more) body.
    Done,
    /// So many bytes are still to come.
    Length(u64),
    /// Chunked coding.
    Chunked(Chunked),
    /// All until the connection closes.
    UntilClose,
}

/// How the bytes of a body reach the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrap {
    /// As they came: both sides were told the same framing.
    AsIs,
    /// Chunk by chunk, where only the close of one connection ends the body.
    Chunks,
    /// The data of chunks without their framing: HTTP/1.0 knows no chunks (RFC 9112 §6.1).
    Bare,
}

/// Why a body is not a legal message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A chunk's size line is not `1*HEXDIG [ext] CRLF`, or exceeds its bounds.
    ChunkSize,
    /// A chunk's data is not followed by CRLF.
    ChunkEnd,
    /// A trailer line is malformed, too long, or names a field that must not be a trailer.
    Trailer,
}

impl Framing {
    /// Framing of a body of `n` bytes.
    pub fn length(n: u64) -> Self {
        if n == 0 {
            Framing::Done
        } else {
            Framing::Length(n)
        }
    }

    /// Chunked framing, from its start.
    pub fn chunked() -> Self {
        Framing::Chunked(Chunked::default())
    }

    /// Bytes that are still to come, as far as that is known.
    pub fn left(&self) -> u64 {
        match self {
            Framing::Done => 0,
            Framing::Length(left) => *left,
            Framing::Chunked(_) | Framing::UntilClose => u64::MAX,
        }
    }

    /// Takes the next `n` bytes unseen, at most [`Framing::left`]; chunks cannot be followed so.
    pub fn skip(&mut self, n: u64) {
        if let Framing::Length(left) = self {
            *self = Framing::length(left.saturating_sub(n));
        }
    }

    /// Whether the message is over.
    pub fn is_done(&self) -> bool {
        *self == Framing::Done
    }

    /// Takes the next bytes; returns how many of them belong to this message.
    ///
    /// Fewer than given means the message is over. Errors: a fault of the chunked coding, after
    /// which nothing more may be read as part of any message.
    pub fn advance(&mut self, data: &[u8]) -> Result<usize, Fault> {
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

    /// Takes the next bytes and moves the data among them to the front, without the chunks' framing.
    /// Returns how many bytes belong to this message, and how many of them are data.
    ///
    /// Trailers are dropped. Errors as for [`Framing::advance`]; `data` is then in no defined order.
    pub fn advance_bare(&mut self, data: &mut [u8]) -> Result<(usize, usize), Fault> {
        let Framing::Chunked(c) = self else {
            return self.advance(data).map(|n| (n, n));
        };
        let taken = c.advance_bare(data)?;
        if c.state == State::Over {
            *self = Framing::Done;
        }
        Ok(taken)
    }
}

/// The chunked coding's automaton.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Chunked {
    state: State,
    /// Bytes left in the chunk.
    left: u64,
    /// Digits or bytes seen of the line.
    line: u16,
    /// The trailer line so far. Boxed: most streams are silent, and have none.
    trailer: Option<Box<Trailer>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct Trailer(Vec<u8>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum State {
    /// At the first digit of a size.
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

/// Longest chunk size line with extensions; real ones have a dozen bytes.
const MAX_LINE: u16 = 256;
/// Most hexadecimal digits of a size: 2^60 bytes fit.
const MAX_DIGITS: u16 = 15;
/// Most bytes of one trailer line, and of them together.
const MAX_TRAILER: u16 = 4096;

/// Fields that change framing, routing or authentication and so must not come after the body.
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
    fn advance(&mut self, data: &[u8]) -> Result<usize, Fault> {
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

    fn advance_bare(&mut self, data: &mut [u8]) -> Result<(usize, usize), Fault> {
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

    /// Takes as many of the next `n` bytes as are data of this chunk; returns how many.
    fn take_data(&mut self, n: usize) -> usize {
        let n = usize::try_from(self.left).map_or(n, |left| left.min(n));
        self.left -= n as u64;
        if self.left == 0 {
            self.state = State::DataCr;
        }
        n
    }

    fn step(&mut self, b: u8) -> Result<(), Fault> {
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
                return Err(Fault::ChunkSize);
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::DataCr | State::DataLf, _) => return Err(Fault::ChunkEnd),
            (State::TrailerLine, b'\r') => State::TrailerLf,
            (State::TrailerLine, b) => self.trailer_byte(b)?,
            (State::TrailerLf, b'\n') => self.trailer_line()?,
            (State::TrailerLf, _) => return Err(Fault::Trailer),
            (State::Data | State::Over, _) => unreachable!("handled by advance"),
        };
        Ok(())
    }

    fn trailer_byte(&mut self, b: u8) -> Result<State, Fault> {
        // `line` counts all trailer bytes from here on.
        self.line += 1;
        if self.line > MAX_TRAILER || (b < b' ' && b != b'\t') || b == 0x7f {
            return Err(Fault::Trailer);
        }
        self.trailer.get_or_insert_default().0.push(b);
        Ok(State::TrailerLine)
    }

    fn trailer_line(&mut self) -> Result<State, Fault> {
        let Some(line) = self.trailer.take() else {
            return Ok(State::Over);
        };
        let line = line.0;
        let colon = memchr::memchr(b':', &line).ok_or(Fault::Trailer)?;
        let name = std::str::from_utf8(&line[..colon]).map_err(|_| Fault::Trailer)?;
        let legal = http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| Fault::Trailer)?;
        if FORBIDDEN_TRAILERS.contains(&legal.as_str()) {
            return Err(Fault::Trailer);
        }
        Ok(State::TrailerLine)
    }
}

fn hex(b: u8) -> u64 {
    (b as char).to_digit(16).map_or(0, u64::from)
}

#[cfg(test)]
mod bare;
#[cfg(test)]
mod splits;

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9112 §7.1; FAULTS D6, D13: what is not exactly chunked coding is a fault.
    #[test]
    fn faults_of_chunked_coding() {
        let long_extension = format!("5;{}\r\n", "x".repeat(300));
        let cases: &[(&str, Fault)] = &[
            ("0x5\r\nhello\r\n", Fault::ChunkSize),
            ("5_\r\nhello\r\n", Fault::ChunkSize),
            ("-5\r\nhello\r\n", Fault::ChunkSize),
            ("+5\r\nhello\r\n", Fault::ChunkSize),
            (" 5\r\nhello\r\n", Fault::ChunkSize),
            ("\r\n", Fault::ChunkSize),
            ("ffffffffffffffff\r\n", Fault::ChunkSize),
            ("5\nhello\r\n", Fault::ChunkSize),
            ("5\rhello\r\n", Fault::ChunkSize),
            ("5;a\nb\r\nhello", Fault::ChunkSize),
            (&long_extension, Fault::ChunkSize),
            ("5\r\nhelloX", Fault::ChunkEnd),
            ("5\r\nhello\n", Fault::ChunkEnd),
            ("5\r\nhello\r5", Fault::ChunkEnd),
            ("0\r\nContent-Length: 5\r\n\r\n", Fault::Trailer),
            ("0\r\nhost: x\r\n\r\n", Fault::Trailer),
            ("0\r\nCookie: x\r\n\r\n", Fault::Trailer),
            ("0\r\nno colon\r\n\r\n", Fault::Trailer),
            ("0\r\na b: c\r\n\r\n", Fault::Trailer),
            ("0\r\na: b\rc\r\n\r\n", Fault::Trailer),
        ];
        for (input, fault) in cases {
            assert_eq!(
                Framing::chunked().advance(input.as_bytes()),
                Err(*fault),
                "{input:?}"
            );
            let bytewise = input
                .bytes()
                .try_fold(Framing::chunked(), |mut f, b| f.advance(&[b]).map(|_| f));
            assert_eq!(bytewise, Err(*fault), "{input:?} byte by byte");
        }
    }

    /// The end is found at the same byte, whatever the split.
    #[test]
    fn ends_at_every_split() {
        let cases: &[(&str, usize)] = &[
            ("0\r\n\r\nGET", 5),
            ("5\r\nhello\r\n0\r\n\r\nGET", 15),
            (
                "5;a=\"b\"\r\nhello\r\nA\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\nGET",
                44,
            ),
        ];
        for (input, end) in cases {
            for split in 0..input.len() {
                let mut f = Framing::chunked();
                let (a, b) = input.as_bytes().split_at(split);
                let first = f.advance(a).expect("legal");
                let total = if f.is_done() {
                    first
                } else {
                    first + f.advance(b).expect("legal")
                };
                assert_eq!(
                    (total, f.is_done()),
                    (*end, true),
                    "{input:?} split at {split}"
                );
            }
        }
    }

    #[test]
    fn lengths() {
        let mut f = Framing::length(5);
        assert_eq!(f.advance(b"abc"), Ok(3));
        assert!(!f.is_done());
        assert_eq!(f.advance(b"defgh"), Ok(2));
        assert!(f.is_done());
        assert!(Framing::length(0).is_done());
        assert_eq!(Framing::UntilClose.advance(b"abc"), Ok(3));
    }
}
