//! Follows a node's WebSocket frames by the lengths in their headers, to find the boundaries between frames.
//! Only there can a client understand a close frame of ours.
//!
//! In: the bytes that pass to the client, split anywhere. Out: whether they end with a complete frame. Reads
//! 2 to 14 bytes of each frame and no payload.
//! Source: RFC 6455 §5.2, §5.5.1, §7.4.

/// The position within a stream of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// Payload bytes still to come; within a header, the length read so far.
    left: u64,
    /// Header bytes still to come after the first two: length, then mask.
    header: u8,
    /// How many of `header` belong to the mask, which does not count for the length.
    mask: u8,
    /// The first byte of a header has passed, the second has not.
    begun: bool,
}

/// The frame that tells an evicted client to reconnect: an unmasked close frame, 1012 "Service Restart" (IANA
/// registry of RFC 6455 §11.7). Clients that know the code wait a moment and connect again.
pub const RESTART: [u8; 4] = [0x88, 2, 0x03, 0xf4];

impl Frames {
    /// Whether the next byte begins a frame.
    pub fn between(&self) -> bool {
        *self == Frames::default()
    }

    /// Follows the next bytes.
    pub fn pass(&mut self, mut data: &[u8]) {
        while let Some((first, rest)) = data.split_first() {
            if self.header == 0 && self.left > 0 {
                let n = usize::try_from(self.left).map_or(data.len(), |l| l.min(data.len()));
                self.left -= n as u64;
                data = &data[n..];
                continue;
            }
            self.header_byte(*first);
            data = rest;
        }
    }

    fn header_byte(&mut self, byte: u8) {
        if self.header > self.mask {
            // 2^63 and more is illegal; such a frame is still followed, and never ends.
            self.left = self.left << 8 | u64::from(byte);
            self.header -= 1;
        } else if self.header > 0 {
            self.header -= 1;
            self.mask -= 1;
        } else if !self.begun {
            self.begun = true;
            return;
        } else {
            // A node must not mask (§5.1); a node that does is still followed.
            self.mask = if byte & 0x80 == 0 { 0 } else { 4 };
            (self.left, self.header) = match byte & 0x7f {
                126 => (0, 2 + self.mask),
                127 => (0, 8 + self.mask),
                n => (n.into(), self.mask),
            };
            self.begun = false;
        }
        if self.header == 0 {
            self.mask = 0;
        }
    }
}

#[cfg(fuzzing)]
pub mod fuzz;
#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of `length` payload bytes that look like headers.
    fn frame(length: usize, masked: bool) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut out = vec![0x82];
        match length {
            0..126 => out.push(length as u8 | mask),
            126..65_536 => {
                out.push(126 | mask);
                out.extend((length as u16).to_be_bytes());
            }
            _ => {
                out.push(127 | mask);
                out.extend((length as u64).to_be_bytes());
            }
        }
        if masked {
            out.extend([0xff; 4]);
        }
        out.extend(std::iter::repeat_n(0x88, length));
        out
    }

    /// Fails if a frame's end is missed, or another byte is taken for one, in any split.
    #[test]
    fn only_the_ends_of_frames_are_between_frames() {
        let lengths = [0, 1, 125, 126, 127, 300, 65_535, 65_536, 70_000];
        for masked in [false, true] {
            let frames: Vec<_> = lengths.iter().map(|n| frame(*n, masked)).collect();
            let ends: Vec<usize> = frames
                .iter()
                .scan(0, |at, f| {
                    *at += f.len();
                    Some(*at)
                })
                .collect();
            let stream = frames.concat();
            let mut bytewise = Frames::default();
            for (i, byte) in stream.iter().enumerate() {
                bytewise.pass(&[*byte]);
                assert_eq!(bytewise.between(), ends.contains(&(i + 1)), "byte {i}");
            }
            for split in (0..stream.len()).step_by(61) {
                let mut halves = Frames::default();
                halves.pass(&stream[..split]);
                assert_eq!(halves.between(), split == 0 || ends.contains(&split));
                halves.pass(&stream[split..]);
                assert!(halves.between(), "split at {split}");
            }
        }
    }

    #[test]
    fn our_close_is_a_frame() {
        let mut frames = Frames::default();
        frames.pass(&RESTART);
        assert!(frames.between());
        assert_eq!(u16::from_be_bytes([RESTART[2], RESTART[3]]), 1012);
    }
}
