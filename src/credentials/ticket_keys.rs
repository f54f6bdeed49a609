//! Reads the keys of session tickets from a file that several edges share.
//!
//! In: a file with a key on each line. Out: the keys, or a [`TlsError`] with the line.
//! Source: RFC 5077 §4 (a key's name, and its two parts).

use std::path::Path;

use openssl::error::ErrorStack;
use openssl::rand::rand_bytes;

use super::TlsError;
use super::files;

/// Bytes of a key's name.
pub const NAME: usize = 16;
/// Bytes of the HMAC-SHA-256 part of a key, and of its AES-256 part.
pub const HALF: usize = 32;
/// Bytes of a whole key, as `openssl rand 80` makes them.
pub const KEY_BYTES: usize = NAME + 2 * HALF;
/// Most keys in a file, because the key name of each ticket is compared with all of them.
pub const MAX_KEYS: usize = 16;

/// One key of the ring; its name is sent in each ticket.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// Name.
    pub name: [u8; NAME],
    /// Key of the signature.
    pub hmac: [u8; HALF],
    /// Key of the encryption.
    pub aes: [u8; HALF],
}

impl Key {
    /// Takes a key apart.
    pub fn of(bytes: &[u8; KEY_BYTES]) -> Key {
        let part = |from: usize| {
            let mut half = [0; HALF];
            half.copy_from_slice(&bytes[from..from + HALF]);
            half
        };
        let mut name = [0; NAME];
        name.copy_from_slice(&bytes[..NAME]);
        Key {
            name,
            hmac: part(NAME),
            aes: part(NAME + HALF),
        }
    }

    /// Makes a random key. Errors: OpenSSL has no random bytes.
    pub fn random() -> Result<Key, ErrorStack> {
        let mut bytes = [0; KEY_BYTES];
        rand_bytes(&mut bytes)?;
        Ok(Key::of(&bytes))
    }
}

/// Checks a file of keys, one on each line: 80 bytes in hexadecimal (`openssl rand -hex 80`) or base64
/// (`openssl rand -base64 -A 80`). Empty lines and lines that begin with `#` are ignored.
///
/// Errors: [`TlsError::Unreadable`], [`TlsError::Malformed`] with the line.
pub fn check_file(path: &Path) -> Result<(), TlsError> {
    keys_of(path).map(|_| ())
}

/// Reads a file of keys, as [`check_file`].
pub fn keys_of(path: &Path) -> Result<Vec<Key>, TlsError> {
    let malformed = |why: String| TlsError::Malformed {
        path: path.to_owned(),
        why,
    };
    let bytes = files::read(path)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut keys: Vec<Key> = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let key = decoded(line).ok_or_else(|| {
            // The error must not show the line, which is a secret.
            let what = "expected a ticket key of 80 bytes, as `openssl rand -hex 80` prints it";
            malformed(format!("line {}: {what}", i + 1))
        })?;
        if keys.iter().any(|k| k.name == key.name) {
            return Err(malformed(format!(
                "line {}: an earlier line has a key with the same first 16 bytes",
                i + 1
            )));
        }
        keys.push(key);
    }
    match keys.len() {
        1..=MAX_KEYS => Ok(keys),
        0 => Err(malformed("expected at least one ticket key".into())),
        n => Err(malformed(format!(
            "found {n} keys; expected at most {MAX_KEYS}"
        ))),
    }
}

fn decoded(line: &str) -> Option<Key> {
    let bytes = if line.len() == 2 * KEY_BYTES {
        let digit = |i: usize| u8::from_str_radix(line.get(i..i + 2)?, 16).ok();
        (0..KEY_BYTES)
            .map(|i| digit(2 * i))
            .collect::<Option<Vec<u8>>>()?
    } else {
        openssl::base64::decode_block(line).ok()?
    };
    Some(Key::of(bytes.as_slice().try_into().ok()?))
}
