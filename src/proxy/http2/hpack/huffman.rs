//! Decodes strings in HPACK's Huffman code.
//!
//! In: the bytes of a string. Out: the text. The code is canonical, so the lengths alone define all codes.
//! Source: RFC 7541 §5.2, Appendix B.

use super::CompressionError;

/// Length in bits of each byte's code. The last one is that of EOS, which no string contains.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28,
    28, 28, 28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7,
    7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21,
    23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24,
    21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];

const EOS: usize = 256;
/// Bits of the longest code.
const MOST: usize = 30;
/// Codes of up to this many bits are decoded by one look-up: those of all letters and digits, and of most
/// other bytes of URLs.
const SHORT: usize = 8;

static CODES: Codes = Codes::new();

/// The tables for decoding.
struct Codes {
    /// Byte and length of the code that begins the next eight bits. Length 0: the code is longer.
    short: [(u8, u8); 1 << SHORT],
    /// For each length: the end of its codes, left-aligned in 32 bits; and the first of its codes.
    ends: [u32; MOST + 1],
    firsts: [u32; MOST + 1],
    /// For each length: the index in `bytes` of its first byte. `bytes` is in the order of the codes.
    offsets: [usize; MOST + 1],
    bytes: [u16; 257],
}

impl Codes {
    const fn new() -> Self {
        let mut codes = Codes {
            short: [(0, 0); 1 << SHORT],
            ends: [0; MOST + 1],
            firsts: [0; MOST + 1],
            offsets: [0; MOST + 1],
            bytes: [0; 257],
        };
        let (mut bits, mut code, mut known) = (1, 0u32, 0);
        while bits <= MOST {
            codes.firsts[bits] = code;
            codes.offsets[bits] = known;
            let mut byte = 0;
            while byte < LENGTHS.len() {
                if LENGTHS[byte] as usize == bits {
                    if bits <= SHORT {
                        let from = (code as usize) << (SHORT - bits);
                        let mut i = from;
                        while i < from + (1 << (SHORT - bits)) {
                            codes.short[i] = (byte as u8, bits as u8);
                            i += 1;
                        }
                    }
                    codes.bytes[known] = byte as u16;
                    known += 1;
                    code += 1;
                }
                byte += 1;
            }
            // The longest codes end with all ones, so their end does not fit into 32 bits.
            codes.ends[bits] = match bits {
                MOST => u32::MAX,
                _ => code << (32 - bits),
            };
            code <<= 1;
            bits += 1;
        }
        codes
    }

    /// Returns the byte whose code begins `next`, and the length of that code in bits.
    fn find(&self, next: u32) -> (usize, usize) {
        let (byte, bits) = self.short[(next >> (32 - SHORT)) as usize];
        if bits > 0 {
            return (byte.into(), bits.into());
        }
        let longer = SHORT + 1..MOST;
        let bits = longer.into_iter().find(|n| next < self.ends[*n]);
        let bits = bits.unwrap_or(MOST);
        let at = (next >> (32 - bits)) - self.firsts[bits];
        (self.bytes[self.offsets[bits] + at as usize].into(), bits)
    }
}

/// Appends the text of `coded` to `out`.
///
/// Errors: `coded` contains EOS, or its padding is not less than a byte of ones.
pub fn decode(coded: &[u8], out: &mut Vec<u8>) -> Result<(), CompressionError> {
    // The bits that are not decoded yet, the next one first.
    let (mut waiting, mut known) = (0u64, 0);
    for byte in coded {
        waiting |= u64::from(*byte) << (56 - known);
        known += 8;
        loop {
            let (byte, bits) = CODES.find((waiting >> 32) as u32);
            if bits > known {
                break;
            }
            if byte == EOS {
                return Err(CompressionError);
            }
            out.push(byte as u8);
            waiting <<= bits;
            known -= bits;
        }
    }
    let padding = u64::MAX.checked_shl(64 - known as u32).unwrap_or(0);
    match known < 8 && waiting == padding {
        true => Ok(()),
        false => Err(CompressionError),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodes `text`, and pads it with ones.
    fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = String::new();
        for byte in text {
            let at = CODES.bytes.iter().position(|b| *b == u16::from(*byte));
            let length = usize::from(LENGTHS[usize::from(*byte)]);
            let code = CODES.firsts[length] as usize + at.expect("a code") - CODES.offsets[length];
            bits += &format!("{code:0length$b}");
        }
        while !bits.len().is_multiple_of(8) {
            bits.push('1');
        }
        let byte = |at: usize| u8::from_str_radix(&bits[at..at + 8], 2).expect("eight bits");
        (0..bits.len()).step_by(8).map(byte).collect()
    }

    fn decoded(coded: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(coded, &mut out).ok().map(|()| out)
    }

    /// RFC 7541 §C.4 and §C.6. Aim: the examples are decoded. Fails if the table of lengths is wrong where it
    /// matters most.
    #[test]
    fn the_examples_of_the_rfc() {
        let examples: [(&str, &[u8]); 5] = [
            (
                "www.example.com",
                &[
                    0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
                ],
            ),
            ("no-cache", &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]),
            (
                "custom-key",
                &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f],
            ),
            ("302", &[0x64, 0x02]),
            ("private", &[0xae, 0xc3, 0x77, 0x1a, 0x4b]),
        ];
        for (text, coded) in examples {
            assert_eq!(decoded(coded).as_deref(), Some(text.as_bytes()), "{text}");
            assert_eq!(encode(text.as_bytes()), coded, "{text}");
        }
    }

    /// Aim: every byte is decoded, alone and beside every other. Fails if a long code is looked up wrongly.
    #[test]
    fn every_pair_of_bytes() {
        for a in 0..=255 {
            for b in 0..=255 {
                let text = [a, b, a];
                assert_eq!(decoded(&encode(&text)).as_deref(), Some(&text[..]));
            }
        }
    }

    /// Aim: an illegal string is an error. Fails if a string may be cut, have other padding, or contain EOS.
    #[test]
    fn illegal_strings_are_errors() {
        let none: [(&str, &[u8]); 5] = [
            ("a byte of padding", &[0xff]),
            ("more padding than needed", &[0x64, 0x02, 0xff]),
            ("padding of zeros", &[0xf0]),
            ("EOS", &[0xff, 0xff, 0xff, 0xfc]),
            ("a code that is cut", &[0xff, 0xff]),
        ];
        for (name, coded) in none {
            assert_eq!(decoded(coded), None, "{name}");
        }
        assert_eq!(decoded(b""), Some(Vec::new()));
    }
}
