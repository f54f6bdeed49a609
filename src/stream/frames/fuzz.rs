//! Fuzz target `websocket_frames`: what a node sends on a WebSocket.
//!
//! Fails where the split of the bytes changes where frames end, or where a reader of the whole finds other ends.
//! Source: RFC 6455 §5.2.

use super::*;
use crate::fuzzing::pieces;

/// Reads `data` as frames.
pub fn run(data: &[u8]) {
    let ends = ends(data);
    for bytewise in [true, false] {
        let (mut frames, mut at) = (Frames::default(), 0);
        for piece in pieces(data, bytewise) {
            frames.pass(piece);
            at += piece.len();
            assert_eq!(frames.between(), ends.contains(&at), "after {at} bytes");
        }
    }
    let mut whole = Frames::default();
    whole.pass(data);
    assert_eq!(whole.between(), ends.contains(&data.len()));
}

/// Where `data` stands between two frames: at its start and behind each whole one.
fn ends(data: &[u8]) -> Vec<usize> {
    let (mut ends, mut at) = (vec![0], 0_usize);
    while let Some([_, second, ..]) = data.get(at..) {
        let bytes_of_length = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(length) = data.get(at + 2..at + 2 + bytes_of_length) else {
            break;
        };
        let payload = match length {
            [] => u64::from(second & 0x7f),
            length => length.iter().fold(0, |n, b| n << 8 | u64::from(*b)),
        };
        let mask = if second & 0x80 == 0 { 0 } else { 4 };
        let end = usize::try_from(payload)
            .ok()
            .and_then(|n| n.checked_add(at + 2 + bytes_of_length + mask));
        let Some(end) = end.filter(|end| *end <= data.len()) else {
            break;
        };
        ends.push(end);
        at = end;
    }
    ends
}
