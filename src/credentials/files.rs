//! Reads the files of a certificate: PEM chains, private keys, passwords.
//!
//! In: paths. Out: parsed chains and keys, or a [`TlsError`] that says how to correct the fault.
//! Source: Lightstreamer clustering §3 (`push.keystore` as Java's keytool writes it); RFC 7292.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::x509::X509;

use super::reading::note;
use super::{Certificate, TlsError};

/// Largest file of a chain or a key, in bytes; the longest real chains are below 20 KiB.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Bytes after which a read has got on: a slow share reads a revocation list of 64 MiB for longer than it may hang.
const PIECE: u64 = 256 * 1024;

/// Returns the password of a certificate's key or keystore; `None` if no password is configured.
///
/// Errors: the file cannot be read or its first line is empty; the variable is not set.
pub fn password_of(certificate: &Certificate, dir: &Path) -> Result<Option<String>, TlsError> {
    if let Some(variable) = &certificate.password_env {
        return match std::env::var(variable) {
            Ok(password) => Ok(Some(password)),
            Err(_) => Err(TlsError::NoPassword {
                from: format!("environment variable `{variable}` is not set"),
            }),
        };
    }
    let Some(file) = &certificate.password_file else {
        return Ok(None);
    };
    password_in(&dir.join(file)).map(Some)
}

/// Returns the password in the file at `path`: its first line.
///
/// Errors: the file cannot be read or is larger than 1 MiB; its first line is empty or not UTF-8.
pub fn password_in(path: &Path) -> Result<String, TlsError> {
    let bytes = read(path)?;
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok(password) if !password.is_empty() && !password.contains('\0') => Ok(password.to_owned()),
        _ => Err(TlsError::NoPassword {
            from: format!("{}: the first line must be the password", path.display()),
        }),
    }
}

/// Reads the certificates in the PEM file at `path`, at least one.
///
/// Errors: [`TlsError::Unreadable`], [`TlsError::Malformed`].
pub fn chain_of(path: &Path) -> Result<Vec<X509>, TlsError> {
    let pem = read(path)?;
    let chain =
        X509::stack_from_pem(&pem).map_err(|e| malformed(path, "expected PEM certificates", &e))?;
    if chain.is_empty() {
        return Err(TlsError::Malformed {
            path: path.to_owned(),
            why: "expected PEM certificates, found none".into(),
        });
    }
    Ok(chain)
}

/// Reads the PEM private key at `path` and decrypts it with `password` if it is encrypted.
///
/// Errors: [`TlsError::Unreadable`], [`TlsError::Malformed`], [`TlsError::Encrypted`],
/// [`TlsError::WrongPassword`].
pub fn key_of(path: &Path, password: Option<&str>) -> Result<PKey<Private>, TlsError> {
    let pem = read(path)?;
    let mut asked = false;
    // Without a callback OpenSSL would prompt for the passphrase on the terminal and block.
    let key = PKey::private_key_from_pem_callback(&pem, |buffer| {
        asked = true;
        let password = password.unwrap_or_default().as_bytes();
        let room = buffer.get_mut(..password.len());
        match room.filter(|_| !password.is_empty()) {
            Some(room) => {
                room.copy_from_slice(password);
                Ok(password.len())
            }
            None => Err(ErrorStack::get()),
        }
    });
    let path = path.to_owned();
    match key {
        Ok(key) => Ok(key),
        Err(_) if asked && password.is_some() => Err(TlsError::WrongPassword { path }),
        Err(_) if asked => Err(TlsError::Encrypted { path }),
        Err(e) => Err(malformed(&path, "expected a PEM private key", &e)),
    }
}

/// Reads a file of at most 1 MiB.
///
/// Errors: [`TlsError::Unreadable`], also for a larger file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    read_at_most(path, MAX_FILE_BYTES)
}

/// Reads a file of at most `most` bytes.
///
/// Errors: [`TlsError::Unreadable`], also for a larger file.
pub(super) fn read_at_most(path: &Path, most: u64) -> Result<Vec<u8>, TlsError> {
    let fault = |why: String| TlsError::Unreadable {
        path: PathBuf::from(path),
        why,
    };
    let noted = note(path);
    let mut bytes = Vec::new();
    let mut file = File::open(path).map_err(|e| fault(e.to_string()))?;
    loop {
        let piece = file.by_ref().take(PIECE);
        match { piece }.read_to_end(&mut bytes) {
            Ok(0) => return Ok(bytes),
            Ok(_) if bytes.len() as u64 > most => {
                return Err(fault(format!("larger than {most} bytes")));
            }
            Ok(_) => noted.step(),
            Err(e) => return Err(fault(e.to_string())),
        }
    }
}

pub(super) fn malformed(path: &Path, expected: &str, e: &ErrorStack) -> TlsError {
    let first = e.errors().first().and_then(|e| e.reason());
    TlsError::Malformed {
        path: path.to_owned(),
        why: match first {
            Some(reason) => format!("{expected}: {reason}"),
            None => expected.to_owned(),
        },
    }
}
