//! Fuzz target `hpack`: the blocks of one connection, read by our decoder and by that of the `h2` crate.
//!
//! An input is a sequence of blocks, each behind its length in two bytes. Fails where the two decoders read other
//! fields, or where one refuses a block that the other has no reason to refuse. Source: RFC 7541.

use bytes::BytesMut;
use h2::frame::{Head as FrameHead, Headers, Kind};

use super::Decoder;
use crate::proxy::http2::head::Head;

/// Most bytes of the fields of a head.
const MOST: usize = 16 * 1024;
const END_STREAM_AND_HEADERS: u8 = 5;

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// Reads the blocks of `data`.
pub fn run(data: &[u8]) {
    let mut ours = Decoder::new(4096);
    let mut judged = Decoder::new(4096);
    let mut theirs = Default::default();
    let mut rest = data;
    while let [high, low, behind @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (block, behind) = behind.split_at(length.min(behind.len()));
        rest = behind;
        let mut fields = Fields::new();
        let read = ours.decode(block, |name, value| {
            fields.push((name.to_vec(), value.to_vec()));
        });
        let head = Head::decode(1, true, block, &mut judged, MOST);
        assert_eq!(read.is_err(), head.is_err());

        let frame = FrameHead::new(Kind::Headers, END_STREAM_AND_HEADERS, 1.into());
        let Ok((mut headers, mut payload)) = Headers::load(frame, BytesMut::from(block)) else {
            panic!("a frame without padding and priority");
        };
        let loaded = headers.load_hpack(&mut payload, MOST, &mut theirs);
        match (loaded, head) {
            (Ok(()), Err(_)) => panic!("only we refuse {block:?}"),
            (Ok(()), Ok(head)) if headers.is_over_size() || head.is_too_large => {}
            (Ok(()), Ok(_)) => {
                fields.sort();
                assert_eq!(of_headers(headers), fields);
            }
            (Err(_), Err(_)) => return,
            (Err(e), Ok(head)) => {
                // It ends the connection of a client whose field has no legal text.
                let is_wrong = head.is_malformed || head.is_too_large || has_no_text(&fields);
                assert!(is_wrong, "only the library refuses {fields:?}: {e:?}");
                return;
            }
        }
    }
}

/// Whether a value is none of the library's types, which are narrower than what we pass on to be judged.
fn has_no_text(fields: &Fields) -> bool {
    let control = |b: &u8| (*b < b' ' && *b != b'\t') || *b == 0x7f;
    let is_pseudo = |name: &[u8]| name.starts_with(b":");
    fields.iter().any(|(name, value)| {
        value.iter().any(control)
            || (is_pseudo(name) && (std::str::from_utf8(value).is_err() || name != b":path"))
    })
}

fn of_headers(headers: Headers) -> Fields {
    let (pseudo, map) = headers.into_parts();
    let own = |name: &str, value: Option<&[u8]>| {
        value.map(|value| (name.as_bytes().to_vec(), value.to_vec()))
    };
    let method = pseudo.method.as_ref().map(|m| m.as_str().as_bytes());
    let status = pseudo.status.as_ref().map(|s| s.as_str().as_bytes());
    let mut fields: Fields = [
        own(":method", method),
        own(":status", status),
        own(":scheme", pseudo.scheme.as_ref().map(|s| s.as_bytes())),
        own(
            ":authority",
            pseudo.authority.as_ref().map(|s| s.as_bytes()),
        ),
        own(":path", pseudo.path.as_ref().map(|s| s.as_bytes())),
        own(
            ":protocol",
            pseudo.protocol.as_ref().map(|p| p.as_str().as_bytes()),
        ),
    ]
    .into_iter()
    .flatten()
    .collect();
    let map = map.iter();
    fields.extend(map.map(|(name, value)| (name.as_str().into(), value.as_bytes().into())));
    fields.sort();
    fields
}
