//! Decodes the head of a stream into pseudo-headers and fields, and checks that they are legal.
//!
//! In: names and values. Out: the parts of a message. Source: RFC 9113 §8.1.1, §8.2, §8.3; RFC 8441 §4.

use super::hpack::{CompressionError, Decoder};

/// Bytes that a field counts in addition to its own (RFC 9113 §6.5.2).
const FIELD: usize = 32;

/// The head of one stream, or its trailers.
#[derive(Debug, Default)]
pub struct Head {
    /// The number of the stream.
    pub id: u32,
    /// The client ended its side of the stream with this head.
    pub ended: bool,
    /// Size in bytes, as the limit of the header list counts it.
    pub size: usize,
    /// The head breaks a rule of HTTP/2, so its stream is reset.
    pub is_malformed: bool,
    /// The head exceeds the limit. Fields behind the limit are left out.
    pub is_too_large: bool,
    bytes: Vec<u8>,
    pseudo: [Option<(u32, u32)>; PSEUDO.len()],
    fields: Vec<Field>,
}

/// The place of a field's name and value in `bytes`.
#[derive(Clone, Copy, Debug)]
struct Field {
    at: u32,
    name_end: u32,
    end: u32,
}

const PSEUDO: [&[u8]; 5] = [
    b":method",
    b":scheme",
    b":authority",
    b":path",
    b":protocol",
];
const METHOD: usize = 0;
const SCHEME: usize = 1;
const AUTHORITY: usize = 2;
const PATH: usize = 3;
const PROTOCOL: usize = 4;

/// Hop-by-hop fields of HTTP/1, which make a message malformed (RFC 9113 §8.2.2).
const OF_CONNECTION: [&[u8]; 5] = [
    b"connection",
    b"transfer-encoding",
    b"upgrade",
    b"keep-alive",
    b"proxy-connection",
];

impl Head {
    /// Decodes the `block` of the stream `id`. Fields behind the first `most` bytes are left out.
    ///
    /// Errors: the connection cannot go on.
    pub fn decode(
        id: u32,
        ended: bool,
        block: &[u8],
        decoder: &mut Decoder,
        most: usize,
    ) -> Result<Head, CompressionError> {
        let mut head = Head {
            id,
            ended,
            bytes: Vec::with_capacity(512),
            fields: Vec::with_capacity(16),
            ..Head::default()
        };
        decoder.decode(block, |name, value| head.add(name, value, most))?;
        Ok(head)
    }

    /// Returns `:method`.
    pub fn method(&self) -> Option<&[u8]> {
        self.pseudo(METHOD)
    }

    /// Returns `:scheme`.
    pub fn scheme(&self) -> Option<&[u8]> {
        self.pseudo(SCHEME)
    }

    /// Returns `:authority`.
    pub fn authority(&self) -> Option<&[u8]> {
        self.pseudo(AUTHORITY)
    }

    /// Returns `:path`.
    pub fn path(&self) -> Option<&[u8]> {
        self.pseudo(PATH)
    }

    /// Returns `:protocol`.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.pseudo(PROTOCOL)
    }

    /// Whether the head has a pseudo-header.
    pub fn has_pseudo(&self) -> bool {
        self.pseudo.iter().any(Option::is_some)
    }

    /// Returns name and value of each field, in order.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let part = |from, to| &self.bytes[from as usize..to as usize];
        let fields = self.fields.iter();
        fields.map(move |f| (part(f.at, f.name_end), part(f.name_end, f.end)))
    }

    /// Returns the values of the fields called `name`, which is in lower case.
    pub fn values<'a>(&'a self, name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let named = self.fields().filter(move |(n, _)| *n == name);
        named.map(|(_, value)| value)
    }

    fn pseudo(&self, which: usize) -> Option<&[u8]> {
        let (from, to) = self.pseudo[which]?;
        Some(&self.bytes[from as usize..to as usize])
    }

    fn add(&mut self, name: &[u8], value: &[u8], most: usize) {
        self.size += name.len() + value.len() + FIELD;
        self.is_too_large |= self.size > most;
        if self.is_too_large {
            // A byte of the block may stand for 4 KiB of the table: nothing of it is looked at any more.
            return;
        }
        let pseudo = PSEUDO.iter().position(|known| *known == name);
        self.is_malformed |= match pseudo {
            Some(which) => !self.fields.is_empty() || self.pseudo[which].is_some(),
            None => !is_name(name) || !is_value(value) || !is_allowed(name, value),
        };
        if self.is_malformed {
            return;
        }
        let at = self.bytes.len() as u32;
        if pseudo.is_none() {
            self.bytes.extend_from_slice(name);
        }
        let name_end = self.bytes.len() as u32;
        self.bytes.extend_from_slice(value);
        let end = self.bytes.len() as u32;
        match pseudo {
            Some(which) => self.pseudo[which] = Some((name_end, end)),
            None => self.fields.push(Field { at, name_end, end }),
        }
    }
}

/// Whether `name` is a token in lower case.
fn is_name(name: &[u8]) -> bool {
    let legal =
        |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(b);
    !name.is_empty() && name.iter().all(legal)
}

/// Whether the value fits on one line of HTTP/1. `request_head::judge` refuses other control characters.
fn is_value(value: &[u8]) -> bool {
    !value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0))
}

/// Whether a message of HTTP/2 may have the field.
fn is_allowed(name: &[u8], value: &[u8]) -> bool {
    !OF_CONNECTION.contains(&name) && (name != b"te" || value.eq_ignore_ascii_case(b"trailers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Aim: a field beyond the limit costs no more than its place in the table. 16 KiB that name one entry of
    /// 4,000 bytes 12,000 times kept a core busy for 355 ms in an instrumented debug build.
    #[test]
    fn fields_beyond_the_limit_are_not_looked_at() {
        let block = [&[0x40, 1, b'a', 1, b'b'][..], &[0x00, 1, b'A', 1, b'b']].concat();
        let head = |most| Head::decode(1, true, &block, &mut Decoder::new(4096), most);
        let flags = |head: Head| (head.is_too_large, head.is_malformed);
        assert_eq!(head(2 * 34).map(flags), Ok((false, true)));
        assert_eq!(head(34).map(flags), Ok((true, false)));
    }
}
