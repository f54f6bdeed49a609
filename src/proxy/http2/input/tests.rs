//! Frames in every split, and illegal frames. Source: RFC 9113 §4.2, §6.

use super::*;

/// The parts of a frame that a test compares.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Data(u32, Vec<u8>, u32, bool),
    Head(String),
    Other,
}

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(id.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Returns a request as one block.
fn block() -> Vec<u8> {
    // `:method: GET` of the static table.
    vec![0x82]
}

/// Returns the frames of `bytes`, read in pieces of `size`. Joins the pieces of one DATA frame.
fn read(bytes: &[u8], size: usize) -> Result<Vec<Seen>, FrameError> {
    let mut input = Input::new(Decoder::new(4096), 1024);
    let mut seen = Vec::new();
    for mut piece in bytes.chunks(size) {
        while let Some(frame) = input.next(&mut piece)? {
            let (id, payload, length, last) = match frame {
                Frame::Data {
                    id,
                    payload,
                    length,
                    last,
                    ..
                } => (id, payload.to_vec(), length, last),
                Frame::Headers(head) => {
                    let method = head.method().unwrap_or_default();
                    seen.push(Seen::Head(String::from_utf8_lossy(method).into()));
                    continue;
                }
                _ => {
                    seen.push(Seen::Other);
                    continue;
                }
            };
            match seen.last_mut() {
                Some(Seen::Data(before, body, sum, ended)) if *before == id && !*ended => {
                    body.extend(payload);
                    (*sum, *ended) = (*sum + length, last);
                }
                _ => seen.push(Seen::Data(id, payload, length, last)),
            }
        }
    }
    Ok(seen)
}

/// Aim: frames are the same in every split. Fails if a frame depends on how the bytes arrive, or if padding
/// is not counted in the window.
#[test]
fn frames_are_the_same_in_every_split() {
    let head = block();
    let (front, back) = head.split_at(1);
    let mut bytes = frame(4, 0, 0, &[]);
    bytes.extend(frame(1, END_HEADERS, 1, &head));
    bytes.extend(frame(0, 0, 1, b"hello"));
    bytes.extend(frame(0, PADDED | END_STREAM, 1, b"\x03abc\0\0\0"));
    bytes.extend(frame(200, 0xff, 9, b"unknown"));
    bytes.extend(frame(1, END_STREAM, 3, front));
    bytes.extend(frame(9, 0, 3, b""));
    bytes.extend(frame(9, END_HEADERS, 3, back));
    bytes.extend(frame(0, PADDED, 5, b"\x00"));
    bytes.extend(frame(6, 0, 0, &[7; 8]));
    let want = [
        Seen::Other,
        Seen::Head("GET".to_owned()),
        Seen::Data(1, b"helloabc".to_vec(), 12, true),
        Seen::Head("GET".to_owned()),
        Seen::Data(5, Vec::new(), 1, false),
        Seen::Other,
    ];
    for size in 1..=bytes.len() {
        assert_eq!(read(&bytes, size), Ok(want.to_vec()), "pieces of {size}");
    }
}

const PROTOCOL: FrameError = Connection(Reason::PROTOCOL_ERROR);
const SIZE: FrameError = Connection(Reason::FRAME_SIZE_ERROR);
const CALM: FrameError = Connection(Reason::ENHANCE_YOUR_CALM);

/// Aim: a fault ends its stream, or the connection if it must. Fails if it ends more or less.
#[test]
fn faults_end_the_stream_or_the_connection() {
    let cases = [
        ("too long", frame(0, 0, 1, &[0; MAX_FRAME + 1]), SIZE),
        ("DATA of no stream", frame(0, 0, 0, b"a"), PROTOCOL),
        ("padding alone", frame(0, PADDED, 1, b""), PROTOCOL),
        (
            "too much padding",
            frame(0, PADDED, 1, b"\x05abc"),
            PROTOCOL,
        ),
        ("short PING", frame(6, 0, 0, &[0; 7]), SIZE),
        ("PING of a stream", frame(6, 0, 1, &[0; 8]), PROTOCOL),
        ("short RST_STREAM", frame(3, 0, 1, &[0; 3]), SIZE),
        ("RST_STREAM of none", frame(3, 0, 0, &[0; 4]), PROTOCOL),
        (
            "no increment",
            frame(8, 0, 1, &[0; 4]),
            Stream(1, Reason::PROTOCOL_ERROR),
        ),
        ("no increment of all", frame(8, 0, 0, &[0; 4]), PROTOCOL),
        (
            "short PRIORITY",
            frame(2, 0, 1, &[0; 4]),
            Stream(1, Reason::FRAME_SIZE_ERROR),
        ),
        ("PUSH_PROMISE", frame(5, 0, 1, &[0; 8]), PROTOCOL),
    ];
    for (name, bytes, want) in cases {
        are(name, &bytes, want);
    }
}

/// Aim: an illegal head ends the connection. Fails if the edge accepts it, or resets only the stream.
#[test]
fn illegal_heads_end_the_connection() {
    let head = block();
    let behind = |more: Vec<u8>| [frame(1, 0, 1, &head), more].concat();
    let table = Connection(Reason::COMPRESSION_ERROR);
    let cases = [
        ("CONTINUATION of none", frame(9, 0, 1, b""), PROTOCOL),
        ("PING in a head", behind(frame(6, 0, 0, &[0; 8])), PROTOCOL),
        (
            "another's CONTINUATION",
            behind(frame(9, 4, 3, b"")),
            PROTOCOL,
        ),
        ("no end", behind(frame(9, 0, 1, &[0; 5 * 1024])), CALM),
        (
            "empty CONTINUATIONs",
            behind(frame(9, 0, 1, b"").repeat(65)),
            CALM,
        ),
        (
            "an index of no table",
            frame(1, 4, 1, &[0xff, 0x80, 0x01]),
            table,
        ),
    ];
    for (name, bytes, want) in cases {
        are(name, &bytes, want);
    }
}

fn are(name: &str, bytes: &[u8], want: FrameError) {
    for size in [1, 7, bytes.len()] {
        assert_eq!(read(bytes, size), Err(want), "{name}, pieces of {size}");
    }
}
