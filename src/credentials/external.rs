//! Reads the key of an external account: the secret that an authority's site shows once.
//!
//! In: a file. Out: the key. Source: RFC 8555 §7.3.4; RFC 4648 §5 (base64url).

use std::path::Path;

use openssl::base64::decode_block;

use super::TlsError;
use super::files::password_in;

/// Fewest bytes of a key that is taken for one; those of authorities have 32 or more.
const MIN_BYTES: usize = 16;

/// Returns the key in the first line of the file at `path`.
///
/// Errors: the file cannot be read; the line is not base64url of 16 bytes or more.
pub fn external_key(path: &Path) -> Result<Vec<u8>, TlsError> {
    decoded(&password_in(path)?).ok_or_else(|| TlsError::Malformed {
        path: path.to_owned(),
        why: "expected a key in base64url on the first line".into(),
    })
}

fn decoded(line: &str) -> Option<Vec<u8>> {
    let bare = line.trim().trim_end_matches('=');
    let mut text = bare.replace('-', "+").replace('_', "/");
    // Four characters have three bytes; one alone has none.
    if text.len() % 4 == 1 || text.contains('=') {
        return None;
    }
    text.push_str("=".repeat((4 - text.len() % 4) % 4).as_str());
    let key = decode_block(&text).ok()?;
    (key.len() >= MIN_BYTES).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::decoded;

    /// Aim: a key is read as sites show it, with or without padding, in either alphabet. Fails if what is no key goes to
    /// the authority, which would only say that the signature is wrong.
    #[test]
    fn keys_are_base64url() {
        let bytes = [0xfb, 0xff, 0xbf].repeat(6);
        for line in [
            "-_-_".repeat(6),
            "+/+/".repeat(6),
            format!(" {} ", "-_-_".repeat(6)),
        ] {
            assert_eq!(decoded(&line).as_deref(), Some(&bytes[..]), "{line}");
        }
        let padded = "AAAAAAAAAAAAAAAAAAAAAA";
        assert_eq!(decoded(padded), decoded(&format!("{padded}==")));
        assert_eq!(decoded(padded).map(|key| key.len()), Some(16));
        for line in [
            "",
            "s3cret",
            "=",
            "AAAAAAAAAAAAAAAAAAAAAAAAA",
            "é",
            "AAAA AAAA AAAA AAAA AAAA AAAA",
        ] {
            assert_eq!(decoded(line), None, "{line}");
        }
    }
}
