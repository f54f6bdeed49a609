//! Loads a certificate and checks it, so that a fault shows at load and not at a client.
//!
//! In: the block of a certificate. Out: a [`Loaded`] certificate. Its key fits its leaf, and its chain is in
//! order and valid now. Source: RFC 6125 §6.4 (only dNSName counts).

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::UNIX_EPOCH;

use openssl::asn1::{Asn1Time, Asn1TimeRef};
use openssl::pkey::{Id, PKey, Private};
use openssl::x509::{X509, X509Ref};

use super::files::{self, Material, malformed, signed};
use super::ocsp::Staple;
use super::{Certificate, TlsError};
use crate::clock;

/// A checked chain with its key.
pub struct Loaded {
    /// The server's own certificate.
    pub leaf: X509,
    /// The issuers, each after the certificate it signed; the root may be absent.
    pub issuers: Vec<X509>,
    /// The leaf's private key.
    pub key: PKey<Private>,
    /// Names the leaf covers, lower case; a wildcard begins with `*.`. May be empty: such a
    /// certificate serves only as a default.
    pub names: Vec<String>,
    /// Whether the chain leads to a root: its last certificate is a root, or an authority of this
    /// system signed it. Otherwise clients need the missing issuer from elsewhere.
    pub complete: bool,
    /// The OCSP response stapled to handshakes.
    pub staple: Arc<Staple>,
}

impl Loaded {
    /// Loads `certificate` and checks that it is valid now; relative paths are below `dir`.
    ///
    /// Errors: the first [`TlsError`] found.
    pub fn open(certificate: &Certificate, dir: &Path) -> Result<Loaded, TlsError> {
        let shown = certificate.keystore.as_ref().or(certificate.chain.as_ref());
        let path = dir.join(shown.ok_or(TlsError::Incomplete)?);
        let Material { chain, key } = files::material(certificate, dir)?;
        let mut chain = chain.into_iter();
        let leaf = chain.next().ok_or(TlsError::Incomplete)?;
        let issuers: Vec<X509> = chain.collect();
        check_order(&path, &leaf, &issuers)?;
        check_time(&path, &leaf, &issuers)?;
        if !leaf.public_key().is_ok_and(|public| public.public_eq(&key)) {
            let key = certificate.key.as_ref().or(certificate.keystore.as_ref());
            return Err(TlsError::KeyMismatch {
                chain: path,
                key: dir.join(key.unwrap_or(&PathBuf::new())),
            });
        }
        let staple = Staple::open(certificate, dir, (&leaf, &issuers), unix_now())?;
        Ok(Loaded {
            complete: is_complete(issuers.last().unwrap_or(&leaf)),
            names: names(&leaf),
            leaf,
            issuers,
            key,
            staple: Arc::new(staple),
        })
    }

    /// Returns when the leaf expires, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        unix(self.leaf.not_after())
    }

    /// Returns the whole days from `now` (seconds since 1970) until the leaf expires; negative after
    /// that.
    pub fn days_left(&self, now: i64) -> i64 {
        (self.not_after() - now).div_euclid(86_400)
    }

    /// Returns the kind of its key. One name may have a certificate for each kind.
    pub fn kind(&self) -> &'static str {
        match self.key.id() {
            Id::RSA | Id::RSA_PSS => "rsa",
            Id::EC => "ecdsa",
            Id::ED25519 | Id::ED448 => "eddsa",
            _ => "other",
        }
    }
}

/// Returns the current time, in seconds since 1970.
pub fn unix_now() -> i64 {
    let now = clock::wall().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| d.as_secs() as i64)
}

/// Converts an ASN.1 time to seconds since 1970.
fn unix(time: &Asn1TimeRef) -> i64 {
    let since = Asn1Time::from_unix(0).and_then(|epoch| epoch.diff(time));
    since.map_or(0, |d| i64::from(d.days) * 86_400 + i64::from(d.secs))
}

/// Returns the dNSName entries of the leaf's subjectAltName, lower case. The common name does not
/// count, because clients have ignored it for years.
fn names(leaf: &X509Ref) -> Vec<String> {
    let entries = leaf.subject_alt_names();
    entries
        .iter()
        .flatten()
        .filter_map(|entry| entry.dnsname())
        .map(str::to_ascii_lowercase)
        .collect()
}

/// Returns the names that the first certificate in the PEM file at `path` covers.
///
/// Errors: [`TlsError::Unreadable`], [`TlsError::Malformed`].
pub fn names_of(path: &Path) -> Result<Vec<String>, TlsError> {
    let chain = files::chain_of(path)?;
    Ok(chain.first().map_or_else(Vec::new, |leaf| names(leaf)))
}

/// Returns the names that the certificate in the PKCS#12 keystore at `path` covers.
///
/// Errors: [`TlsError`], as for a keystore in the configuration.
pub fn names_in(path: &Path, password: &str) -> Result<Vec<String>, TlsError> {
    let Material { chain, .. } = files::keystore_of(path, password)?;
    Ok(chain.first().map_or_else(Vec::new, |leaf| names(leaf)))
}

fn check_order(path: &Path, leaf: &X509Ref, issuers: &[X509]) -> Result<(), TlsError> {
    let mut subject = leaf;
    for (i, issuer) in issuers.iter().enumerate() {
        if !signed(subject, issuer) {
            return Err(TlsError::Order {
                path: path.to_owned(),
                position: i + 1,
            });
        }
        subject = issuer;
    }
    Ok(())
}

fn is_complete(last: &X509) -> bool {
    static ROOTS: OnceLock<Vec<X509>> = OnceLock::new();
    let read = || {
        let file = openssl_probe::probe().cert_file;
        let roots = file.and_then(|file| files::chain_of(&file).ok());
        roots.unwrap_or_default()
    };
    signed(last, last)
        || ROOTS
            .get_or_init(read)
            .iter()
            .any(|root| signed(last, root))
}

fn check_time(path: &Path, leaf: &X509Ref, issuers: &[X509]) -> Result<(), TlsError> {
    let now =
        Asn1Time::days_from_now(0).map_err(|e| malformed(path, "cannot read the clock", &e))?;
    let chain = std::iter::once(leaf).chain(issuers.iter().map(AsRef::as_ref));
    for (i, certificate) in chain.enumerate() {
        let why = if certificate.not_after() < now {
            format!("expired on {}", certificate.not_after())
        } else if certificate.not_before() > now {
            format!("is not valid before {}", certificate.not_before())
        } else {
            continue;
        };
        return Err(TlsError::Time {
            path: path.to_owned(),
            position: i + 1,
            why,
        });
    }
    Ok(())
}
