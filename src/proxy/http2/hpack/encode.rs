//! Encodes the heads and trailers of answers (HPACK).
//!
//! In: a status, fields. Out: HEADERS and CONTINUATION frames. Names of the static table are sent as their
//! number, all other text as it is. So a connection needs no memory for a table, and a head costs no hashing.
//! HAProxy and nginx do the same.
//! Source: RFC 7541 §4.2, §5.1, §6, Appendix A; RFC 9113 §6.2, §6.10, §8.2.1.

use bytes::BytesMut;
use h2::frame::{Head, Kind, StreamId};

use super::names::{FIRST_FIELD, STATIC};

/// Most bytes of a frame that every client accepts (RFC 9113 §4.2).
const MAX_FRAME: usize = 16 * 1024;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The first byte of an indexed field.
const INDEXED: u8 = 0x80;
/// The first byte of a literal field that the client's table does not keep, and of one that no intermediary
/// may put into a table either.
const LITERAL: u8 = 0;
const NEVER_INDEXED: u8 = 0x10;
/// The number of the name `:status` in the static table.
const STATUS: usize = 8;
/// The message "the table has 0 bytes". It precedes the first head, so a client that allows less than 4,096
/// bytes needs no other message (RFC 7541 §4.2).
const NO_TABLE: u8 = 0x20;

/// The encoded fields of one head.
pub struct Encoded(Vec<u8>);

impl Encoded {
    /// Begins an answer with its `status`.
    pub fn answer(status: u16) -> Self {
        let mut block = Vec::with_capacity(256);
        let text = status.to_string();
        match STATIC.iter().position(|known| *known == (":status", &text)) {
            Some(at) => block.push(INDEXED | (at + 1) as u8),
            None => {
                integer(&mut block, LITERAL, 4, STATUS);
                string(&mut block, text.bytes());
            }
        }
        Encoded(block)
    }

    /// Begins trailers, without fields.
    pub fn trailers() -> Self {
        Encoded(Vec::new())
    }

    /// Appends a field. A field that HTTP/2 cannot carry is left out.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        if name.is_empty() || !name.iter().all(is_token) || !value.iter().all(is_text) {
            return;
        }
        let fields = &STATIC[FIRST_FIELD - 1..];
        let named = |(known, _): &(&str, _)| known.as_bytes().eq_ignore_ascii_case(name);
        match fields.iter().position(named) {
            Some(at) => {
                // In a shared table, others could guess a short secret byte by byte.
                let kind = match fields[at].0 {
                    "set-cookie" => NEVER_INDEXED,
                    _ => LITERAL,
                };
                integer(&mut self.0, kind, 4, at + FIRST_FIELD);
            }
            None => {
                self.0.push(LITERAL);
                string(&mut self.0, name.iter().map(u8::to_ascii_lowercase));
            }
        }
        string(&mut self.0, value.iter().copied());
    }

    /// Appends the frames of this head on the stream `id` to `out`. `first`: it is the first head of the
    /// connection. `last`: the stream ends with it.
    pub fn write(mut self, id: u32, first: bool, last: bool, out: &mut BytesMut) {
        if first {
            self.0.insert(0, NO_TABLE);
        }
        let mut kind = Kind::Headers;
        let mut rest = &self.0[..];
        loop {
            let (part, behind) = rest.split_at(rest.len().min(MAX_FRAME));
            let mut flags = if behind.is_empty() { END_HEADERS } else { 0 };
            if last && kind == Kind::Headers {
                flags |= END_STREAM;
            }
            Head::new(kind, flags, StreamId::from(id)).encode(part.len(), out);
            out.extend_from_slice(part);
            if behind.is_empty() {
                return;
            }
            (rest, kind) = (behind, Kind::Continuation);
        }
    }
}

/// Appends an integer whose prefix of `bits` bits follows `first` (RFC 7541 §5.1).
fn integer(block: &mut Vec<u8>, first: u8, bits: u32, n: usize) {
    let most = (1 << bits) - 1;
    if n < most {
        block.push(first | n as u8);
        return;
    }
    block.push(first | most as u8);
    let mut rest = n - most;
    while rest >= 128 {
        block.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    block.push(rest as u8);
}

/// Appends a string without Huffman code (RFC 7541 §5.2).
fn string(block: &mut Vec<u8>, bytes: impl ExactSizeIterator<Item = u8>) {
    integer(block, 0, 7, bytes.len());
    block.extend(bytes);
}

/// Whether the byte may stand in a token (RFC 9110 §5.6.2).
fn is_token(b: &u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b)
}

/// Whether the byte may stand in a value (RFC 9110 §5.5).
fn is_text(b: &u8) -> bool {
    (*b >= b' ' && *b != 0x7f) || *b == b'\t'
}

#[cfg(test)]
mod tests {
    use h2::frame::Headers;
    use http::HeaderMap;

    use super::*;

    /// Decodes `fields` by the `h2` crate, behind another head of the same connection.
    fn read(fields: Encoded) -> (u16, Vec<(String, String)>) {
        let mut bytes = BytesMut::new();
        Encoded::answer(200).write(1, true, true, &mut bytes);
        fields.write(3, false, true, &mut bytes);
        let (mut rest, mut blocks) = (&bytes[..], Vec::<BytesMut>::new());
        while let [a, b, c, kind, _, _, _, _, _, behind @ ..] = rest {
            let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            assert!(length <= MAX_FRAME);
            match (kind, blocks.last_mut()) {
                (9, Some(begun)) => begun.extend_from_slice(&behind[..length]),
                _ => blocks.push(behind[..length].into()),
            }
            rest = &behind[length..];
        }
        assert_eq!(blocks.len(), 2);
        let mut table = Default::default();
        let mut head = Headers::new(1.into(), Default::default(), HeaderMap::new());
        for mut block in blocks {
            head = Headers::new(1.into(), Default::default(), HeaderMap::new());
            let read = head.load_hpack(&mut block, 1 << 20, &mut table);
            read.expect("a legal block");
        }
        let (pseudo, fields) = head.into_parts();
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into();
        let fields = fields.iter().map(|(k, v)| (k.to_string(), text(v)));
        (pseudo.status.map_or(0, |s| s.as_u16()), fields.collect())
    }

    /// Aim: another library decodes what was encoded. Fails if a number of the static table is wrong, or the
    /// encoding of a length that exceeds its prefix.
    #[test]
    fn a_client_reads_what_was_meant() {
        // The other library refuses fields that HTTP/2 may not carry.
        let names = STATIC[FIRST_FIELD - 1..].iter().map(|(name, _)| *name);
        let names: Vec<&str> = names.filter(|name| *name != "transfer-encoding").collect();
        for status in [100, 200, 204, 206, 304, 400, 404, 500, 101, 503, 999] {
            let mut fields = Encoded::answer(status);
            let mut expected = Vec::new();
            let long = "v".repeat(40_000);
            let values = ["", "a", "text/html; charset=utf-8", &long];
            for (i, name) in names.iter().chain(&["x-own", "x"]).enumerate() {
                let value = values[i % values.len()];
                fields.push(name.to_ascii_uppercase().as_bytes(), value.as_bytes());
                expected.push(((*name).to_owned(), value.to_owned()));
            }
            let (read_status, mut read) = read(fields);
            read.sort();
            expected.sort();
            assert!(read_status == status && read == expected, "{status}");
        }
    }

    /// Aim: a field that HTTP/2 cannot carry is left out, and the others stay. Fails if a line break reaches
    /// a client.
    #[test]
    fn illegal_fields_are_left_out() {
        let illegal: [(&[u8], &[u8]); 6] = [
            (b"", b"v"),
            (b"a b", b"v"),
            (b":status", b"200"),
            (b"a\r", b"v"),
            (b"a", b"v\r\nb: c"),
            (b"a", b"v\0"),
        ];
        let mut fields = Encoded::answer(200);
        for (name, value) in illegal {
            fields.push(name, value);
        }
        fields.push(b"good", "v\t\u{e9}".as_bytes());
        let good = ("good".to_owned(), "v\t\u{e9}".to_owned());
        assert_eq!(read(fields).1, [good]);
    }
}
