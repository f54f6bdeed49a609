//! Fuzz target `client_hello`: the first bytes of a TLS connection that is passed through.
//!
//! Fails where more bytes change an answer that was given, where the cut into records changes the name, or where
//! a name is not in lower case. Source: RFC 8446 §5.1; RFC 6066 §3.

use super::*;
use crate::fuzzing::pieces;

/// Reads `data` as the first bytes of a client.
pub fn run(data: &[u8]) {
    let whole = parse(data);
    for bytewise in [true, false] {
        let (mut got, mut parser) = (0, HelloParser::default());
        for piece in pieces(data, bytewise) {
            got += piece.len();
            if let Some(early) = parser.parse(&data[..got]) {
                assert_eq!(Some(early), whole, "after {got} bytes");
                break;
            }
        }
    }
    let Some(Hello::Tls(name)) = whole else {
        return;
    };
    let name = name.unwrap_or_default();
    assert!(name.is_ascii() && !name.bytes().any(|b| b.is_ascii_uppercase()));
    let message = message(data);
    let mut records = Vec::new();
    for part in pieces(&message, false) {
        records.extend([22, 3, 1]);
        records.extend((part.len() as u16).to_be_bytes());
        records.extend(part);
    }
    assert_eq!(parse(&records), parse(data), "cut into other records");
}

fn parse(bytes: &[u8]) -> Option<Hello> {
    HelloParser::default().parse(bytes)
}

/// The fragments of all records of `data`, put together.
fn message(mut data: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    while let [22, 3, _, high, low, rest @ ..] = data {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (fragment, behind) = rest.split_at(length.min(rest.len()));
        message.extend_from_slice(fragment);
        data = behind;
    }
    message
}
