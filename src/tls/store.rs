//! Reads a certificate chain and its key, and refuses what a client would refuse later.
//!
//! In: the two paths of a [`Certificate`]. Out: a [`Loaded`] whose key fits, whose chain is in
//! order and in time, with the names it covers. Source: RFC 6125 §6.4 (only dNSName counts).

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::x509::{X509, X509Ref, X509VerifyResult};

use super::Fault;
use crate::config::Certificate;

/// Most bytes of a chain's or a key's file; the longest real chains are below 20 KiB.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// A chain with its key, checked.
pub struct Loaded {
    /// The server's own certificate.
    pub leaf: X509,
    /// Its issuers, each after the one it signed; the root may be absent.
    pub issuers: Vec<X509>,
    /// The leaf's private key.
    pub key: PKey<Private>,
    /// Names the leaf covers, lower case, `*.` in front of a wildcard. May be empty: such a
    /// certificate is only ever a default.
    pub names: Vec<String>,
}

impl Loaded {
    /// Loads `certificate`, its paths relative to `dir`, and checks it against the present time.
    ///
    /// Errors: [`Fault`], one per call, the first that is found.
    pub fn open(certificate: &Certificate, dir: &Path) -> Result<Loaded, Fault> {
        let path = dir.join(&certificate.chain);
        let mut chain = chain_of(&path)?.into_iter();
        let leaf = chain.next().ok_or_else(|| no_certificate(&path))?;
        let issuers: Vec<X509> = chain.collect();
        check_order(&path, &leaf, &issuers)?;
        check_time(&path, &leaf, &issuers)?;
        let key_path = dir.join(&certificate.key);
        let key = key_of(&key_path)?;
        let fits = leaf.public_key().is_ok_and(|public| public.public_eq(&key));
        if !fits {
            return Err(Fault::KeyMismatch {
                chain: path,
                key: key_path,
            });
        }
        let names = names(&leaf);
        Ok(Loaded {
            leaf,
            issuers,
            key,
            names,
        })
    }
}

/// Names the first certificate of the PEM file at `path` covers: the dNSName entries of its
/// subjectAltName, lower case. The common name does not count: no client has looked at it for years.
///
/// Errors: [`Fault::Unreadable`], [`Fault::Malformed`].
pub fn names_of(path: &Path) -> Result<Vec<String>, Fault> {
    let chain = chain_of(path)?;
    let leaf = chain.first().ok_or_else(|| no_certificate(path))?;
    Ok(names(leaf))
}

fn names(leaf: &X509Ref) -> Vec<String> {
    let entries = leaf.subject_alt_names();
    entries
        .iter()
        .flatten()
        .filter_map(|entry| entry.dnsname())
        .map(str::to_ascii_lowercase)
        .collect()
}

fn chain_of(path: &Path) -> Result<Vec<X509>, Fault> {
    let pem = read(path)?;
    X509::stack_from_pem(&pem).map_err(|e| malformed(path, "expected PEM certificates", &e))
}

/// Reads the PEM private key at `path`.
///
/// Errors: [`Fault::Unreadable`], [`Fault::Malformed`], [`Fault::Encrypted`].
pub fn key_of(path: &Path) -> Result<PKey<Private>, Fault> {
    let pem = read(path)?;
    let mut asked = false;
    // Without a callback OpenSSL would ask for the passphrase on the terminal and wait.
    let key = PKey::private_key_from_pem_callback(&pem, |_| {
        asked = true;
        Err(ErrorStack::get())
    });
    match key {
        Ok(key) => Ok(key),
        Err(_) if asked => Err(Fault::Encrypted {
            path: path.to_owned(),
        }),
        Err(e) => Err(malformed(path, "expected a PEM private key", &e)),
    }
}

fn check_order(path: &Path, leaf: &X509Ref, issuers: &[X509]) -> Result<(), Fault> {
    let mut subject = leaf;
    for (i, issuer) in issuers.iter().enumerate() {
        // The names alone do not tell: a renewed CA keeps its name and changes its key.
        let signed = issuer.public_key().and_then(|key| subject.verify(&key));
        if issuer.issued(subject) != X509VerifyResult::OK || !signed.unwrap_or(false) {
            return Err(Fault::Order {
                path: path.to_owned(),
                position: i + 1,
            });
        }
        subject = issuer;
    }
    Ok(())
}

fn check_time(path: &Path, leaf: &X509Ref, issuers: &[X509]) -> Result<(), Fault> {
    let now = Asn1Time::days_from_now(0).map_err(|e| malformed(path, "no clock", &e))?;
    let chain = std::iter::once(leaf).chain(issuers.iter().map(AsRef::as_ref));
    for (i, certificate) in chain.enumerate() {
        let why = if certificate.not_after() < now {
            format!("expired on {}", certificate.not_after())
        } else if certificate.not_before() > now {
            format!("is not valid before {}", certificate.not_before())
        } else {
            continue;
        };
        return Err(Fault::Time {
            path: path.to_owned(),
            position: i + 1,
            why,
        });
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>, Fault> {
    let fault = |why: String| Fault::Unreadable {
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

fn no_certificate(path: &Path) -> Fault {
    Fault::Malformed {
        path: path.to_owned(),
        why: "expected PEM certificates, found none".into(),
    }
}

fn malformed(path: &Path, expected: &str, e: &ErrorStack) -> Fault {
    let first = e.errors().first().and_then(|e| e.reason());
    Fault::Malformed {
        path: path.to_owned(),
        why: match first {
            Some(reason) => format!("{expected}: {reason}"),
            None => expected.to_owned(),
        },
    }
}
