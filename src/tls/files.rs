//! Reads what a certificate is made of: PEM chains, private keys, PKCS#12 keystores, passwords.
//!
//! In: paths. Out: parsed material, or a [`TlsError`] that says what to do about it.
//! Source: Lightstreamer clustering §3 (`push.keystore` as Java's keytool writes it); RFC 7292.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use openssl::error::ErrorStack;
use openssl::pkcs12::Pkcs12;
use openssl::pkey::{PKey, Private};
use openssl::x509::{X509, X509Ref, X509VerifyResult};

use super::TlsError;
use crate::config::Certificate;

/// Most bytes of a chain's or a key's file; the longest real chains are below 20 KiB.
const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// First bytes of Java's own keystore format.
const JKS: [u8; 4] = [0xFE, 0xED, 0xFE, 0xED];
/// First bytes of its variant with stronger encryption.
const JCEKS: [u8; 4] = [0xCE, 0xCE, 0xCE, 0xCE];

/// A chain, leaf first, and the leaf's key.
pub(super) struct Material {
    pub chain: Vec<X509>,
    pub key: PKey<Private>,
}

/// Reads chain and key of `certificate`, its paths relative to `dir`.
///
/// Errors: [`TlsError`], the first that is found.
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

/// The password of a certificate's key or keystore; `None` where none is configured.
///
/// Errors: a file that cannot be read or whose first line is empty, a variable that is not set.
pub fn password_of(certificate: &Certificate, dir: &Path) -> Result<Option<String>, TlsError> {
    if let Some(variable) = &certificate.password_env {
        return match std::env::var(variable) {
            Ok(password) => Ok(Some(password)),
            Err(_) => Err(TlsError::NoPassword {
                from: format!("variable `{variable}` of the environment is not set"),
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

/// The certificates of the PEM file at `path`, at least one.
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

/// Reads the PEM private key at `path`, opened with `password` where it is encrypted.
///
/// Errors: [`TlsError::Unreadable`], [`TlsError::Malformed`], [`TlsError::Encrypted`],
/// [`TlsError::WrongPassword`].
pub fn key_of(path: &Path, password: Option<&str>) -> Result<PKey<Private>, TlsError> {
    let pem = read(path)?;
    let mut asked = false;
    // Without a callback OpenSSL would ask for the passphrase on the terminal and wait.
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

/// Reads the PKCS#12 keystore at `path`: its first key and the chain of its certificate.
///
/// Errors: [`TlsError::JavaKeystore`] for Java's old formats, [`TlsError::WrongPassword`],
/// [`TlsError::Malformed`].
pub(super) fn keystore_of(path: &Path, password: &str) -> Result<Material, TlsError> {
    let der = read(path)?;
    if der.starts_with(&JKS) || der.starts_with(&JCEKS) {
        return Err(TlsError::JavaKeystore {
            path: path.to_owned(),
        });
    }
    let store =
        Pkcs12::from_der(&der).map_err(|e| malformed(path, "expected a PKCS#12 keystore", &e))?;
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

/// A keystore has no order: each certificate's issuer is looked for among the rest, up to a root.
/// keytool keeps an authority twice if it was also imported as trusted.
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

/// Whether `issuer` signed `subject`. The names alone do not tell: a renewed CA keeps its name and
/// changes its key.
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
        // Java 8 wrote RC2 with 40 bits, which OpenSSL 3 has only in its legacy provider.
        return TlsError::OldCipher {
            path: path.to_owned(),
        };
    }
    malformed(path, "the keystore cannot be opened", e)
}

/// Reads a file that is no larger than any certificate.
///
/// Errors: [`TlsError::Unreadable`].
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
