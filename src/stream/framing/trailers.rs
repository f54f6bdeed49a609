//! Trailers: complete in every split, and refused where forbidden.
//!
//! Source: RFC 9110 §6.5.1; RFC 9112 §7.1.2; FAULTS D13.

use super::*;

/// Reads a message in pieces of `size`, with its framing or without (`bare`); returns its length and its
/// trailers.
fn read(bytes: &[u8], size: usize, bare: bool) -> Result<(usize, Option<Vec<u8>>), FramingError> {
    let (mut framing, mut used) = (Framing::chunked(), 0);
    for piece in bytes.chunks(size) {
        let mut piece = piece.to_vec();
        used += match bare {
            true => framing.advance_bare(&mut piece)?.0,
            false => framing.advance(&piece)?,
        };
        if framing.is_done() {
            break;
        }
    }
    assert!(framing.is_done(), "{:?}", String::from_utf8_lossy(bytes));
    Ok((used, framing.take_trailers()))
}

/// Fails if trailers are lost, changed or kept twice, or if bytes after the message count as trailers.
#[test]
fn trailers_are_taken_whole_in_every_split() {
    let long = format!("X-Long: {}\r\n", "x".repeat(4_000));
    for trailers in [
        "X-Sum: 7\r\n",
        "grpc-status: 0\r\ngrpc-message: \r\n",
        "X: 1\r\nX: 2\r\nX:\r\n",
        "X: a:b: c\r\n",
        &long,
    ] {
        let message = format!("3\r\nabc\r\n0\r\n{trailers}\r\n");
        let bytes = format!("{message}GET / HTTP/1.1\r\n");
        let sizes = (1..64).chain([bytes.len() - 1, bytes.len()]);
        for size in sizes.filter(|size| *size <= bytes.len()) {
            let got = read(bytes.as_bytes(), size, true);
            let want = Ok((message.len(), Some(trailers.as_bytes().to_vec())));
            assert_eq!(got, want, "in pieces of {size}");
            // With the framing, trailers pass unchanged.
            let got = read(bytes.as_bytes(), size, false);
            assert_eq!(got, Ok((message.len(), None)), "in pieces of {size}");
        }
    }
    assert_eq!(read(b"0\r\n\r\n", 5, true), Ok((5, None)));
}

/// Fails if a field that frames, routes or authenticates is accepted, in any case or split, or if more bytes
/// than the limit are kept.
#[test]
fn trailers_that_may_not_be_are_faults_in_every_split() {
    let long = format!("x: {}\r\n", "x".repeat(MAX_TRAILERS));
    let many = "x: y\r\n".repeat(MAX_TRAILERS);
    let forbidden = FORBIDDEN_TRAILERS
        .iter()
        .map(|name| format!("{name}: 1\r\n"));
    let faults = [
        "Host: a\r\n",
        "x\r\n",
        ": y\r\n",
        "a b: c\r\n",
        "x: \0\r\n",
        "x: y\n",
        &long,
        &many,
    ];
    for fault in faults.map(str::to_owned).into_iter().chain(forbidden) {
        let bytes = format!("0\r\nx-before: 1\r\n{fault}\r\n");
        for size in (1..64)
            .chain([bytes.len()])
            .filter(|size| *size <= bytes.len())
        {
            for bare in [false, true] {
                let got = read(bytes.as_bytes(), size, bare);
                assert_eq!(
                    got,
                    Err(FramingError::Trailer),
                    "{fault:.30} in pieces of {size}"
                );
            }
        }
    }
    assert!(is_trailer(b"X-Sum") && is_trailer(b"grpc-status"));
    assert!(!is_trailer(b"CONTENT-LENGTH") && !is_trailer(b""));
}
