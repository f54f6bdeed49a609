//! Reads the files of a certificate: PEM chains, private keys, PKCS#12 keystores, passwords.
//!
//! In: paths. Out: parsed chains and keys, or a [`TlsError`] that says how to correct the fault.
//! Source: Lightstreamer clustering §3 (`push.keystore` as Java's keytool writes it); RFC 7292.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use openssl::error::ErrorStack;
use openssl::pkcs12::Pkcs12;
use openssl::pkey::{PKey, Private};
use openssl::x509::{X509, X509Ref, X509VerifyResult};

use super::{Certificate, TlsError};

/// Largest file of a chain or a key, in bytes; the longest real chains are below 20 KiB.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// First bytes of Java's own keystore format.
const JKS: [u8; 4] = [0xFE, 0xED, 0xFE, 0xED];
/// First bytes of JCEKS, Java's variant of that format with stronger encryption.
const JCEKS: [u8; 4] = [0xCE, 0xCE, 0xCE, 0xCE];

/// A chain, leaf first, and the private key of the leaf.
pub(super) struct Material {
    pub chain: Vec<X509>,
    pub key: PKey<Private>,
}

/// Reads chain and key of `certificate`; relative paths are below `dir`.
///
/// Errors: the first [`TlsError`] found.
pub(super) fn material(certificate: &Certificate, dir: &Path) -> Result<Material, TlsError> {
    let password = password_of(certificate, dir)?;
    if let Some(keystore) = &certificate.keystore {
        return keystore_of(&dir.join(keystore), password.as_deref().unwrap_or_default());
    }
    let (Some(chain), Some(key)) = (&certificate.chain, &certificate.key) else {
        return Err(TlsError::Incomplete);
    };
    Ok(Material {
        chain: chain_of(&dir.join(chain))?,
        key: key_of(&dir.join(key), password.as_deref())?,
    })
}

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
    let path = dir.join(file);
    let bytes = read(&path)?;
    let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match std::str::from_utf8(line) {
        Ok(password) if !password.is_empty() && !password.contains('\0') => {
            Ok(Some(password.to_owned()))
        }
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

/// Reads the PKCS#12 keystore at `path`: its first key and the chain of that key's certificate.
///
/// Errors: [`TlsError::JavaKeystore`] for Java's old formats, [`TlsError::WrongPassword`],
/// [`TlsError::Malformed`].
pub(super) fn keystore_of(path: &Path, password: &str) -> Result<Material, TlsError> {
    opened(&read(path)?, path, password)
}

/// Opens the keystore `der`, called `path` in errors. Errors as [`keystore_of`].
pub(super) fn opened(der: &[u8], path: &Path, password: &str) -> Result<Material, TlsError> {
    if der.starts_with(&JKS) || der.starts_with(&JCEKS) {
        return Err(TlsError::JavaKeystore {
            path: path.to_owned(),
        });
    }
    let store =
        Pkcs12::from_der(der).map_err(|e| malformed(path, "expected a PKCS#12 keystore", &e))?;
    let parsed = store.parse2(password).map_err(|e| unopened(path, &e))?;
    let (Some(key), Some(leaf)) = (parsed.pkey, parsed.cert) else {
        return Err(TlsError::Malformed {
            path: path.to_owned(),
            why: "expected a keystore with a private key and its certificate".into(),
        });
    };
    let others: Vec<X509> = parsed.ca.into_iter().flatten().collect();
    Ok(Material {
        chain: in_order(leaf, others),
        key,
    })
}

/// Sorts the certificates of a keystore, which have no order, into a chain from `leaf` up to a root.
/// Leaves out duplicates: keytool stores an authority twice if it was also imported as trusted.
fn in_order(leaf: X509, mut others: Vec<X509>) -> Vec<X509> {
    let mut chain = vec![leaf];
    let next = |last: &X509, others: &[X509]| {
        let root = signed(last, last);
        let issuer = || others.iter().position(|other| signed(last, other));
        (!root).then(issuer).flatten()
    };
    while let Some(at) = chain.last().and_then(|last| next(last, &others)) {
        chain.push(others.swap_remove(at));
    }
    chain
}

/// Whether `issuer` signed `subject`. Checks the signature as well as the names, because a renewed CA
/// keeps its name and changes its key.
pub(super) fn signed(subject: &X509Ref, issuer: &X509Ref) -> bool {
    let by_key = || issuer.public_key().and_then(|key| subject.verify(&key));
    issuer.issued(subject) == X509VerifyResult::OK && by_key().unwrap_or(false)
}

fn unopened(path: &Path, e: &ErrorStack) -> TlsError {
    let says = |word: &str| {
        let mut errors = e.errors().iter();
        errors.any(|e| e.reason().is_some_and(|r| r.contains(word)))
    };
    if says("mac verify failure") {
        return TlsError::WrongPassword {
            path: path.to_owned(),
        };
    }
    if says("unsupported") || says("unknown pbe algorithm") {
        // Java 8 encrypts with 40-bit RC2, which OpenSSL 3 has only in its legacy provider.
        return TlsError::OldCipher {
            path: path.to_owned(),
        };
    }
    malformed(path, "the keystore cannot be opened", e)
}

/// Reads a file of at most 1 MiB.
///
/// Errors: [`TlsError::Unreadable`], also for a larger file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let fault = |why: String| TlsError::Unreadable {
        path: PathBuf::from(path),
        why,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| fault(e.to_string()))?;
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| fault(e.to_string()))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(fault(format!("larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(bytes)
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
