//! Encodes heads as a client would, and decodes them as the edge does.

use crate::proxy::http2::head::Head;

use super::Fields;
use crate::proxy::http2::hpack::Decoder;
use crate::proxy::http2::input::{Frame, Input};

/// Returns the decoded head of these fields, sent as literals; `None`: it is refused before it is judged.
pub(super) fn frame(fields: Fields<'_>, ended: bool) -> Option<Head> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        text(name, &mut block);
        text(value, &mut block);
    }
    let (mut bytes, mut kind) = (Vec::new(), 1);
    let parts: Vec<&[u8]> = match block.is_empty() {
        true => vec![b""],
        false => block.chunks(16_384).collect(),
    };
    let mut parts = parts.into_iter().peekable();
    while let Some(part) = parts.next() {
        let [_, a, b, c] = (part.len() as u32).to_be_bytes();
        let first = if kind == 1 { u8::from(ended) } else { 0 };
        let last = if parts.peek().is_none() { 4 } else { 0 };
        bytes.extend_from_slice(&[a, b, c, kind, first | last, 0, 0, 0, 1]);
        bytes.extend_from_slice(part);
        kind = 9;
    }
    let mut input = Input::new(Decoder::new(4096), 36 * 1024);
    match input.next(&mut &bytes[..]) {
        Ok(Some(Frame::Headers(headers))) => Some(*headers),
        _ => None,
    }
}

/// Appends a string without Huffman code (RFC 7541 §5.2).
fn text(text: &str, out: &mut Vec<u8>) {
    match text.len() {
        short @ ..127 => out.push(short as u8),
        long => {
            out.push(127);
            let mut rest = long - 127;
            while rest >= 128 {
                out.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            out.push(rest as u8);
        }
    }
    out.extend_from_slice(text.as_bytes());
}
