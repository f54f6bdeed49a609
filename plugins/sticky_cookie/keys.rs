//! Reads the key file: one secret a line, hexadecimal or base64; the first signs, all verify.
//!
//! In: the file's text. Out: secrets, or what is wrong with a line. An error never contains the line itself:
//! it would put a secret into a log.

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::context::Kept;

/// Fewest bytes of a secret: 128 bits, as the token's MAC has.
pub const MIN_KEY_BYTES: usize = 16;

/// Most secrets of a ring: verifying a forged token costs one HMAC for each secret.
pub const MAX_KEYS: usize = 8;

/// The random secret of a process and its successors, where no key file is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random(pub Vec<u8>);

impl Random {
    /// Makes a new secret from the operating system's random numbers.
    pub fn new() -> Self {
        let mut key = vec![0; 32];
        getrandom::fill(&mut key).expect("the kernel has random numbers after boot");
        Random(key)
    }
}

impl Kept for Random {
    fn save(&self) -> Option<Vec<u8>> {
        Some(self.0.clone())
    }

    fn restore(&mut self, saved: &[u8]) {
        if saved.len() >= MIN_KEY_BYTES {
            self.0 = saved.to_vec();
        }
    }
}

/// Reads a key file's text. Skips empty lines and those that begin with `#`.
///
/// Errors: a line that is no key, a key that is too short or repeated, no key, too many.
pub fn parse(text: &str) -> Result<Vec<Vec<u8>>, String> {
    let mut keys = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |why: &str| format!("line {} of the key file {why}", n + 1);
        let key = key_of(line).ok_or_else(|| wrong("is neither hexadecimal nor base64"))?;
        if key.len() < MIN_KEY_BYTES {
            return Err(wrong(&format!("is shorter than {MIN_KEY_BYTES} bytes")));
        }
        if keys.contains(&key) {
            return Err(wrong("repeats a key"));
        }
        keys.push(key);
    }
    match keys.len() {
        0 => Err("the key file has no key".to_owned()),
        n if n > MAX_KEYS => Err(format!(
            "the key file has {n} keys, at most {MAX_KEYS} are allowed"
        )),
        _ => Ok(keys),
    }
}

/// Decodes one line. An even number of hexadecimal digits is hexadecimal; any other line is base64 of either
/// alphabet.
pub fn key_of(line: &str) -> Option<Vec<u8>> {
    hex(line).or_else(|| base64(line))
}

fn hex(line: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = line
        .chars()
        .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect();
    let digits = digits.filter(|d| d.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|p| p[0] << 4 | p[1]).collect())
}

fn base64(line: &str) -> Option<Vec<u8>> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    [&STANDARD, &URL_SAFE]
        .into_iter()
        .find_map(|a| GeneralPurpose::new(a, config).decode(line).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_hex_or_base64_one_a_line() {
        for (text, why) in [
            ("", "no key"),
            ("# only a comment\n\n", "no key"),
            ("deadbeef", "line 1 of the key file is shorter"),
            (
                "\n00112233445566778899aabbccddee",
                "line 2 of the key file is shorter",
            ),
            ("not a key!", "is neither"),
            (
                "00112233445566778899aabbccddeeff\n00112233445566778899AABBCCDDEEFF",
                "repeats",
            ),
        ] {
            let e = parse(text).expect_err(why);
            assert!(e.contains(why), "{e}");
        }
        let many: String = (0..=MAX_KEYS).map(|i| format!("{i:064x}\n")).collect();
        assert!(parse(&many).expect_err("too many").contains("at most 8"));
        let text = "# new\n00112233445566778899aabbccddeeff\n\n  AAECAwQFBgcICQoLDA0ODw== \n\
                    -_-_-_-_-_-_-_-_-_-_-A\n";
        let keys = parse(text).expect("three keys");
        assert_eq!(keys[0][..3], [0x00, 0x11, 0x22]);
        assert_eq!(keys[1], (0..16).collect::<Vec<u8>>());
        assert_eq!(keys[2].len(), 16);
        assert_ne!(Random::new(), Random::new());
    }
}
