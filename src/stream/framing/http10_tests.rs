//! The data of chunks without their framing, for clients of HTTP/1.0.
//!
//! Source: RFC 9112 §6.1, §7.1.

use super::*;

/// Feeds `bytes` in pieces of `size`; returns the data, how many bytes belong to the message, and whether it
/// is complete.
fn bare(
    mut framing: Framing,
    bytes: &[u8],
    size: usize,
) -> Result<(Vec<u8>, usize, bool), FramingError> {
    let (mut data, mut used) = (Vec::new(), 0);
    for piece in bytes.chunks(size) {
        let mut piece = piece.to_vec();
        let (n, kept) = framing.advance_bare(&mut piece)?;
        data.extend_from_slice(&piece[..kept]);
        used += n;
        if framing.is_done() {
            break;
        }
    }
    Ok((data, used, framing.is_done()))
}

/// Fails if the client gets framing bytes, if data is lost or moved, or if the end of the message moves.
#[test]
fn only_the_data_stays_in_every_split() {
    let chunks = "5;a=\"b\"\r\nhello\r\nA\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\nGET";
    let cases: &[(Framing, &str, &str, usize, bool)] = &[
        (Framing::chunked(), chunks, "hello0123456789", 44, true),
        (Framing::chunked(), "0\r\n\r\nGET", "", 5, true),
        (Framing::chunked(), "a\r\nhello", "hello", 8, false),
        (Framing::length(5), "helloGET", "hello", 5, true),
        (Framing::UntilClose, "hello", "hello", 5, false),
        (Framing::Done, "GET", "", 0, true),
    ];
    for (framing, input, data, end, over) in cases {
        for size in 1..=input.len() {
            let got = bare(framing.clone(), input.as_bytes(), size);
            let want = Ok((data.as_bytes().to_vec(), *end, *over));
            assert_eq!(got, want, "{input:?} in pieces of {size}");
        }
    }
}

#[test]
fn faults_are_those_of_the_framed_body() {
    for (input, fault) in [
        ("0x5\r\nhello\r\n", FramingError::ChunkSize),
        ("5\r\nhelloX", FramingError::ChunkEnd),
        ("5\r\nhello\r\n0\r\nHost: a\r\n\r\n", FramingError::Trailer),
    ] {
        for size in 1..=input.len() {
            let got = bare(Framing::chunked(), input.as_bytes(), size);
            assert_eq!(got, Err(fault), "{input:?} in pieces of {size}");
        }
    }
}
