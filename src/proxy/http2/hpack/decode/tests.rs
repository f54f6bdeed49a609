//! Blocks as other encoders write them, and illegal blocks.

use bytes::{BufMut, BytesMut};
use h2::frame::{HEADER_LEN, Headers, Pseudo};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;

type Fields = Vec<(String, String)>;
/// A block, and the fields that it has.
type Example = (&'static [u8], &'static [(&'static str, &'static str)]);

fn decoded(decoder: &mut Decoder, block: &[u8]) -> Option<Fields> {
    let mut fields = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ended = decoder.decode(block, |k, v| fields.push((text(k), text(v))));
    ended.ok().map(|()| fields)
}

fn pairs(fields: &[(&str, &str)]) -> Fields {
    let owned = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
    fields.iter().map(owned).collect()
}

/// RFC 7541 §C.4. Aim: its three requests on one connection are decoded, with Huffman code and a table.
#[test]
fn the_requests_of_the_rfc() {
    #[rustfmt::skip]
    let blocks: [Example; 3] = [
        (&[0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff],
         &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")]),
        (&[0x82, 0x86, 0x84, 0xbe, 0x58, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf],
         &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com"), ("cache-control", "no-cache")]),
        (&[0x82, 0x87, 0x85, 0xbf, 0x40, 0x88, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f, 0x89, 0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf],
         &[(":method", "GET"), (":scheme", "https"), (":path", "/index.html"), (":authority", "www.example.com"), ("custom-key", "custom-value")]),
    ];
    let mut decoder = Decoder::new(4096);
    for (block, expected) in blocks {
        assert_eq!(decoded(&mut decoder, block), Some(pairs(expected)));
    }
    assert_eq!((decoder.entries.len(), decoder.size), (3, 164));
}

/// Aim: a thousand heads of another library's encoder, on one connection whose table overflows, are decoded.
/// Fails if the tables drift apart.
#[test]
fn a_thousand_heads_of_another_encoder() {
    let mut table = Default::default();
    let mut decoder = Decoder::new(4096);
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..1_000 {
        let mut map = HeaderMap::new();
        let mut expected = pairs(&[(":method", "GET")]);
        for i in 0..random.usize(0..12) {
            let name = match random.bool() {
                true => STATIC[random.usize(14..61)].0.to_owned(),
                false => format!("x-{}-{i}", random.usize(0..30)),
            };
            let most = [4, 40, 400][random.usize(0..3)];
            let length = random.usize(0..most);
            let value: String = (0..length).map(|_| random.char(' '..='~')).collect();
            let value = value.trim().to_owned();
            // The library refuses hop-by-hop fields.
            if name == "transfer-encoding" || map.contains_key(&name) {
                continue;
            }
            let header = HeaderName::try_from(&name).expect("a name");
            map.insert(header, HeaderValue::try_from(&value).expect("a value"));
            expected.push((name, value));
        }
        let pseudo = Pseudo {
            method: Some(Method::GET),
            ..Pseudo::default()
        };
        let mut out = BytesMut::new();
        let head = Headers::new(1.into(), pseudo, map);
        let rest = head.encode(&mut table, &mut (&mut out).limit(1 << 16));
        assert!(rest.is_none());
        let read = decoded(&mut decoder, &out[HEADER_LEN..]);
        let mut read = read.unwrap_or_else(|| panic!("head {round} is not read"));
        read.sort();
        expected.sort();
        assert_eq!(read, expected, "head {round}");
        assert!(decoder.size <= 4096);
    }
    assert!(decoder.entries.len() > 5, "no table was used");
}

/// Aim: an illegal block ends in an error, never in a panic or a wrong field.
#[test]
fn illegal_blocks_are_errors() {
    #[rustfmt::skip]
    let none: [(&str, &[u8]); 12] = [
        ("entry 0", &[0x80]),
        ("an entry that is not there", &[0xbe]),
        ("a name that is not there", &[0x7f, 0x00, 0x00]),
        ("a literal without a value", &[0x00, 0x01, b'a']),
        ("a name that is cut", &[0x00, 0x05, b'a']),
        ("an integer that is cut", &[0xff, 0x80]),
        ("an integer without an end", &[0xff, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]),
        ("an integer that is too large", &[0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ("a larger table than is allowed", &[0x3f, 0xe2, 0x1f]),
        ("another table within a block", &[0x82, 0x20]),
        ("EOS", &[0x00, 0x84, 0xff, 0xff, 0xff, 0xfc, 0x00]),
        ("padding of zeros", &[0x00, 0x81, 0xf0, 0x00]),
    ];
    for (name, block) in none {
        assert_eq!(decoded(&mut Decoder::new(4096), block), None, "{name}");
    }
}

/// Aim: the table stays within the limits of its client and of ours, and a field larger than the table
/// empties it. Fails if a client can make it grow.
#[test]
fn the_table_is_bounded() {
    let kept = |name: &str, length: usize| {
        let mut block = vec![0x40, name.len() as u8];
        block.extend(name.bytes());
        block.push(0x7f);
        let mut rest = length - 127;
        while rest >= 128 {
            block.push((rest % 128) as u8 | 128);
            rest /= 128;
        }
        block.push(rest as u8);
        block.extend(vec![b'v'; length]);
        block
    };
    let mut decoder = Decoder::new(4096);
    for _ in 0..10 {
        assert!(decoded(&mut decoder, &kept("a", 1_000)).is_some());
        assert!(decoder.size <= 4096, "{}", decoder.size);
    }
    assert_eq!(decoder.entries.len(), 3);
    assert!(decoded(&mut decoder, &kept("a", 5_000)).is_some());
    assert_eq!((decoder.entries.len(), decoder.size), (0, 0));
    // A table of 0 bytes, and one of 64.
    assert!(decoded(&mut decoder, &[&[0x20][..], &kept("a", 200)].concat()).is_some());
    assert_eq!(decoder.size, 0);
    assert!(decoded(&mut decoder, &[0x20, 0x3f, 0x21, 0x40, 1, b'a', 1, b'b']).is_some());
    assert_eq!((decoder.size, decoder.most), (34, 64));
}
