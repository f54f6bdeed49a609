//! Bodies that end by their framing, and illegal chunks.

use super::*;

/// RFC 9112 §7.1; FAULTS D6, D13. Fails if anything but exact chunked coding is accepted.
#[test]
fn faults_of_chunked_coding() {
    let long_extension = format!("5;{}\r\n", "x".repeat(300));
    let cases: &[(&str, FramingError)] = &[
        ("0x5\r\nhello\r\n", FramingError::ChunkSize),
        ("5_\r\nhello\r\n", FramingError::ChunkSize),
        ("-5\r\nhello\r\n", FramingError::ChunkSize),
        ("+5\r\nhello\r\n", FramingError::ChunkSize),
        (" 5\r\nhello\r\n", FramingError::ChunkSize),
        ("\r\n", FramingError::ChunkSize),
        ("ffffffffffffffff\r\n", FramingError::ChunkSize),
        ("5\nhello\r\n", FramingError::ChunkSize),
        ("5\rhello\r\n", FramingError::ChunkSize),
        ("5;a\nb\r\nhello", FramingError::ChunkSize),
        (&long_extension, FramingError::ChunkSize),
        ("5\r\nhelloX", FramingError::ChunkEnd),
        ("5\r\nhello\n", FramingError::ChunkEnd),
        ("5\r\nhello\r5", FramingError::ChunkEnd),
        ("0\r\nContent-Length: 5\r\n\r\n", FramingError::Trailer),
        ("0\r\nhost: x\r\n\r\n", FramingError::Trailer),
        ("0\r\nCookie: x\r\n\r\n", FramingError::Trailer),
        ("0\r\nno colon\r\n\r\n", FramingError::Trailer),
        ("0\r\na b: c\r\n\r\n", FramingError::Trailer),
        ("0\r\na: b\rc\r\n\r\n", FramingError::Trailer),
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

/// Fails if a split moves the end of a message.
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
